//! The signer's part of the file, as operators write it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};

use crate::Diagnostic;
use crate::place::At;

mod address;
mod callers;
mod chains;
mod keys;
mod listen;
mod policies;
mod tokens;

pub use address::EthAddress;
pub use callers::Caller;
pub(crate) use callers::check as check_callers;
pub use chains::Chain;
pub use keys::{Key, Kms, Local};
pub use listen::{SignerAddress, SignerTls, may_be_plain};
pub use policies::{Policy, Signable};
pub use tokens::{TokenHash, Tokens, load_tokens};

/// The signing core.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Signer {
    /// `unix:PATH`, `https://IP:PORT`, or `http://IP:PORT` on loopback: one, or a list.
    pub listen: OneOrMany<At<SignerAddress>>,
    /// For `https://` listeners.
    pub tls: Option<At<SignerTls>>,
    /// The user that the signer becomes once its sockets are bound, if root starts it.
    pub user: Option<At<String>>,
    /// `sqlite:PATH`: what was signed, and what for.
    pub ledger: At<Ledger>,
    /// Keys in files are refused unless this is true.
    #[serde(default)]
    pub allow_local_keys: bool,
    /// Keys, by name. A key has one.
    #[serde(default)]
    pub keys: BTreeMap<String, At<Key>>,
    /// Chains that may be signed for, by name.
    #[serde(default)]
    pub chains: BTreeMap<String, At<Chain>>,
    /// What a caller may have signed, by name.
    #[serde(default)]
    pub policies: BTreeMap<String, At<Policy>>,
    /// Who may ask, by name. Nobody else is allowed anything. Idempotency keys go by the name: a caller that is renamed
    /// has used none.
    #[serde(default)]
    pub callers: BTreeMap<String, At<Caller>>,
}

/// One value, or a list of them.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(untagged)]
pub enum OneOrMany<T> {
    /// One.
    One(T),
    /// A list.
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    /// All of them.
    pub fn as_slice(&self) -> &[T] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }

    fn as_mut_slice(&mut self) -> &mut [T] {
        match self {
            Self::One(one) => std::slice::from_mut(one),
            Self::Many(many) => many,
        }
    }
}

/// Where the ledger is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ledger {
    /// A SQLite database at this path.
    Sqlite(PathBuf),
}

impl<'de> Deserialize<'de> for Ledger {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.strip_prefix("sqlite:") {
            Some(path) if !path.is_empty() => Ok(Self::Sqlite(path.into())),
            _ => Err(de::Error::custom(format!("expected \"sqlite:PATH\", found {text:?}"))),
        }
    }
}

impl JsonSchema for Ledger {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Ledger".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^sqlite:.+" })
    }
}

impl Signer {
    /// Whether it listens for TLS.
    #[must_use]
    pub fn has_https(&self) -> bool {
        self.listen.as_slice().iter().any(|listen| matches!(listen.value, SignerAddress::Https(_)))
    }

    /// The files with certificates, keys of certificates and tokens: what may change while it runs.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let tokens = self.callers.values().filter_map(|caller| caller.token_file.as_deref());
        self.tls.iter().flat_map(|tls| tls.value.files()).chain(tokens)
    }

    pub(crate) fn resolve_paths(&mut self, base: &Path) {
        let resolve = |path: &mut PathBuf| *path = base.join(&*path);
        for address in self.listen.as_mut_slice() {
            if let SignerAddress::Unix(path) = &mut address.value {
                resolve(path);
            }
        }
        if let Some(tls) = &mut self.tls {
            tls.value.resolve_paths(base);
        }
        let Ledger::Sqlite(path) = &mut self.ledger.value;
        resolve(path);
        for key in self.keys.values_mut() {
            if let Some(local) = &mut key.value.local {
                resolve(&mut local.path);
            }
        }
        for caller in self.callers.values_mut() {
            if let Some(path) = &mut caller.value.token_file {
                resolve(path);
            }
        }
    }
}

pub(crate) fn validate(signer: &Signer, found: &mut Vec<Diagnostic>) {
    listen::validate(signer, found);
    keys::validate(signer, found);
    chains::validate(signer, found);
    policies::validate(signer, found);
    callers::validate(signer, found);
}
