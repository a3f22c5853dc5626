//! Chains, and the nodes that are asked about them: nonces, fees, gas, receipts; and what becomes of what was sent.
//!
//! Nodes are asked over JSON-RPC ([`rpc`], [`node`]). What their answers mean is decided by functions that are pure:
//! [`fees`] says what to offer, [`rejected`] what a refusal of a transaction means, [`track`] what to do about one that
//! was sent, [`search`] what to ask to see what took its place.

pub mod fees;
pub mod node;
pub mod rejected;
pub mod rpc;
pub mod search;
mod shown;
pub mod track;
pub(crate) mod turns;

use std::collections::BTreeMap;
use std::sync::Arc;

use keygate_config::RpcUrl;
use rpc::{Client, Rpc};
use track::Settings;

/// A chain of the file.
#[derive(Debug)]
pub struct Chain {
    /// Its name in the file.
    pub name: String,
    /// EIP-155 chain id.
    pub id: u64,
    /// Its nodes, if the file names any.
    pub rpc: Option<Arc<Rpc>>,
    /// When a transaction is sent again, is stuck, is final.
    pub settings: Settings,
}

/// The chains of the file.
#[derive(Debug, Default)]
pub struct Chains(BTreeMap<u64, Chain>);

impl Chains {
    /// Compiles the chains of the file; reads the files of their nodes' URLs. No node is asked. Nodes that are there
    /// `before`, and are the same, go on with their connections, and with what is known of them.
    ///
    /// # Errors
    /// The chain's name, and what is wrong, without any URL.
    pub fn load(config: &keygate_config::Signer, before: &Self) -> Result<Self, (String, String)> {
        let mut chains = BTreeMap::new();
        for (name, chain) in &config.chains {
            let at = |why| (name.clone(), why);
            let urls: Vec<RpcUrl> = match (&chain.rpc, &chain.rpc_file) {
                (Some(rpc), _) => rpc.as_slice().iter().map(|url| url.value.clone()).collect(),
                (None, Some(path)) => keygate_config::load_rpc(path).map_err(at)?,
                (None, None) => Vec::new(),
            };
            let known = before.by_id(chain.id).and_then(|chain| chain.rpc.as_ref());
            let rpc = match known.filter(|rpc| rpc.is_at(&urls)) {
                Some(rpc) => Some(Arc::clone(rpc)),
                None if urls.is_empty() => None,
                None => {
                    if urls.iter().any(RpcUrl::is_exposed) {
                        tracing::warn!(
                            chain = name,
                            "a node is asked over plain http: others on the way can change its answers"
                        );
                    }
                    let tls = urls.iter().any(|url| url.uri().scheme_str() == Some("https"));
                    Some(Arc::new(Rpc::new(chain.id, urls, Client::new(tls).map_err(at)?)))
                }
            };
            let settings = Settings {
                confirmations: chain.confirmations.into(),
                rebroadcast: chain.rebroadcast.0,
                stuck_after: chain.stuck_after.0,
            };
            chains.insert(chain.id, Chain { name: name.clone(), id: chain.id, rpc, settings });
        }
        Ok(Self(chains))
    }

    /// All of them, by their ids.
    pub fn all(&self) -> impl Iterator<Item = &Chain> {
        self.0.values()
    }

    /// The chain with this id.
    #[must_use]
    pub fn by_id(&self, id: u64) -> Option<&Chain> {
        self.0.get(&id)
    }

    /// The chain of this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Chain> {
        self.0.values().find(|chain| chain.name == name)
    }
}
