//! Chains that may be signed for.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::Signer;
use crate::Diagnostic;

/// A chain that may be signed for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Chain {
    /// EIP-155 chain id.
    pub id: u64,
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
    }
}
