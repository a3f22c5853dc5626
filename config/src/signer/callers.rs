//! Who may ask.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::Signer;
use crate::Diagnostic;
use crate::place::At;
use crate::validate::reference;

/// Who may ask: exactly one of `token_file` and `uid`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Caller {
    /// A file with the caller's bearer token.
    pub token_file: Option<PathBuf>,
    /// The caller's Unix user id.
    pub uid: Option<u32>,
    /// Names of `keys` it may use.
    pub keys: Vec<At<String>>,
    /// A name of `policies`. A caller without one may have nothing signed.
    pub policy: Option<At<String>>,
}

pub(super) fn validate(signer: &Signer, found: &mut Vec<Diagnostic>) {
    let mut uids = BTreeMap::new();
    for (name, caller) in &signer.callers {
        if caller.token_file.is_some() == caller.uid.is_some() {
            found.push(Diagnostic::error(format!("caller {name:?} needs one of token_file and uid")).at(&caller.span));
        }
        if let Some(other) = caller.uid.and_then(|uid| uids.insert(uid, name)) {
            found.push(Diagnostic::error(format!("callers {other:?} and {name:?} have the same uid")).at(&caller.span));
        }
        for key in &caller.keys {
            reference("signer.keys", key, &signer.keys, found);
        }
        match &caller.policy {
            Some(policy) => reference("signer.policies", policy, &signer.policies, found),
            None => found.push(
                Diagnostic::warning(format!("caller {name:?} has no policy: it may have nothing signed"))
                    .at(&caller.span),
            ),
        }
    }
}
