//! Keys that sign.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{EthAddress, Signer};
use crate::Diagnostic;
use crate::place::At;
use crate::units::Period;

/// A signing key: exactly one of `kms` and `local`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// A key in AWS KMS.
    pub kms: Option<Kms>,
    /// A key in a file.
    pub local: Option<Local>,
    /// The address the key must have, pinned.
    pub address: Option<EthAddress>,
}

/// A key in AWS KMS, of spec `ECC_SECG_P256K1` and usage `SIGN_VERIFY`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kms {
    /// Key id or ARN. Not an alias: that can be pointed at another key.
    pub key_id: At<String>,
    /// The region; left out, the ARN's, else the environment's.
    pub region: Option<String>,
    /// An emulator's URL.
    pub endpoint: Option<At<String>>,
    /// How long one signature may take, with all its retries.
    #[serde(default = "default_kms_timeout")]
    pub timeout: Period,
}

fn default_kms_timeout() -> Period {
    Period(std::time::Duration::from_secs(10))
}

/// A key in a file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Local {
    /// 64 hex digits, in a file of mode 0600.
    pub path: PathBuf,
}

pub(super) fn validate(signer: &Signer, found: &mut Vec<Diagnostic>) {
    for (name, key) in &signer.keys {
        match (&key.kms, &key.local) {
            (Some(kms), None) => {
                if kms.key_id.starts_with("alias/") || kms.key_id.contains(":alias/") {
                    found.push(
                        Diagnostic::error("a KMS key is named by its id or ARN")
                            .at(&kms.key_id.span)
                            .label("an alias can be pointed at another key"),
                    );
                }
                if let Some(endpoint) = &kms.endpoint
                    && !endpoint.starts_with("http://")
                    && !endpoint.starts_with("https://")
                {
                    found.push(Diagnostic::error("a KMS endpoint is a URL").at(&endpoint.span));
                }
            }
            (None, Some(_)) if !signer.allow_local_keys => found.push(
                Diagnostic::error(format!("key {name:?} is kept in a file"))
                    .at(&key.span)
                    .help("for development, set allow_local_keys = true under [signer]; for money, use kms"),
            ),
            (None, Some(_)) => {}
            _ => found.push(Diagnostic::error(format!("key {name:?} needs one of kms and local")).at(&key.span)),
        }
    }
    same_keys(signer, found);
}

/// A key has one name: under a second it would have a second `daily_value`.
fn same_keys(signer: &Signer, found: &mut Vec<Diagnostic>) {
    // By its id alone: an ARN ends with it, and a multi-region key has it in every region.
    let id = |key_id: &str| key_id.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    let (mut kms, mut files) = (BTreeMap::new(), BTreeMap::new());
    for (name, key) in &signer.keys {
        let in_kms = key.kms.as_ref().map(|kms| (id(&kms.key_id), kms.endpoint.as_ref().map(|url| &url.value)));
        let other = in_kms.and_then(|key| kms.insert(key, name));
        let other = other.or_else(|| key.local.as_ref().and_then(|local| files.insert(&local.path, name)));
        if let Some(other) = other {
            found.push(
                Diagnostic::error(format!("keys {other:?} and {name:?} are the same key"))
                    .at(&key.span)
                    .help("a key has one name: each would have its own daily_value and idempotency keys"),
            );
        }
    }
}
