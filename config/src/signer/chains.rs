//! Chains that may be signed for.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::rpc::RpcUrl;
use super::{OneOrMany, Signer};
use crate::Diagnostic;
use crate::place::At;
use crate::units::Period;

/// A chain that may be signed for.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Chain {
    /// EIP-155 chain id.
    pub id: u64,
    /// A node's URL for JSON-RPC, or a list of them, tried in order. What is asked there: nonces, fees, and what callers
    /// read. It may hold an API key, and is not printed.
    pub rpc: Option<OneOrMany<At<RpcUrl>>>,
    /// A file with such URLs, one a line, instead of `rpc`.
    pub rpc_file: Option<PathBuf>,
    /// So many blocks, its own among them, make a transaction final.
    #[serde(default = "default_confirmations")]
    #[schemars(range(min = 1, max = 10_000))]
    pub confirmations: u16,
    /// A transaction that no block has is sent again after this time.
    #[serde(default = "default_rebroadcast")]
    pub rebroadcast: Period,
    /// A transaction that no block has after this time is stuck, and is reported.
    #[serde(default = "default_stuck_after")]
    pub stuck_after: Period,
}

/// As exchanges wait on Ethereum: about two and a half minutes there.
fn default_confirmations() -> u16 {
    12
}

fn default_rebroadcast() -> Period {
    Period(Duration::from_secs(30))
}

fn default_stuck_after() -> Period {
    Period(Duration::from_secs(300))
}

pub(super) fn validate(signer: &Signer, found: &mut Vec<Diagnostic>) {
    let mut ids = BTreeMap::new();
    for (name, chain) in &signer.chains {
        if chain.id == 0 {
            found.push(Diagnostic::error(format!("chain {name:?} has id 0")).at(&chain.span));
        }
        if let Some(other) = ids.insert(chain.id, name) {
            found.push(Diagnostic::error(format!("chains {other:?} and {name:?} have the same id")).at(&chain.span));
        }
        if !(1..=10_000).contains(&chain.confirmations) {
            let what = format!("chain {name:?} has {} confirmations: from 1 to 10000", chain.confirmations);
            found.push(Diagnostic::error(what).at(&chain.span));
        }
        let urls = chain.rpc.as_ref().map_or(&[][..], OneOrMany::as_slice);
        if chain.rpc.is_some() && chain.rpc_file.is_some() {
            found.push(
                Diagnostic::error(format!("chain {name:?} has both rpc and rpc_file"))
                    .at(&chain.span)
                    .help("put all nodes in one of them"),
            );
        }
        if chain.rpc.is_some() && urls.is_empty() {
            found.push(Diagnostic::error(format!("chain {name:?} has a list of no nodes as rpc")).at(&chain.span));
        }
        for url in urls.iter().filter(|url| url.is_exposed()) {
            found.push(
                Diagnostic::warning(format!("chain {name:?} asks a node over plain http"))
                    .at(&url.span)
                    .label("others on the way can read the key in its URL, and change nonces and fees that it answers")
                    .help("use https, but for a node on this machine"),
            );
        }
    }
}
