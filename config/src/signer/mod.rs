//! The signer's part of the file, as operators write it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};

use crate::Diagnostic;
use crate::model::Address;
use crate::place::At;

mod address;
mod callers;
mod chains;
mod keys;
mod policies;

pub use address::EthAddress;
pub use callers::Caller;
pub use chains::Chain;
pub use keys::{Key, Kms, KmsRegion, Local};
pub use policies::{Policy, Signable};

/// The signing core.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Signer {
    /// `unix:PATH`: one, or a list.
    pub listen: OneOrMany<At<Address>>,
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

impl<'de> Deserialize<'de> for OneOrMany<At<Address>> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Serde's own untagged enums lose the place in the file.
        let found = At::<toml::Value>::deserialize(deserializer)?;
        let address = |text: &str| -> Result<At<Address>, D::Error> {
            let value = text.parse().map_err(|why| de::Error::custom(format!("{why}, found {text:?}")))?;
            Ok(At { span: found.span.clone(), value })
        };
        match &found.value {
            toml::Value::String(text) => Ok(Self::One(address(text)?)),
            toml::Value::Array(list) => list
                .iter()
                .map(|item| item.as_str().ok_or_else(|| de::Error::custom("expected strings")).and_then(address))
                .collect::<Result<_, _>>()
                .map(Self::Many),
            _ => Err(de::Error::custom("expected \"unix:PATH\" or a list of them")),
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
    pub(crate) fn resolve_paths(&mut self, base: &Path) {
        let resolve = |path: &mut PathBuf| *path = base.join(&*path);
        for address in self.listen.as_mut_slice() {
            if let Address::Unix(path) = &mut address.value {
                resolve(path);
            }
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
    for listen in signer.listen.as_slice() {
        if matches!(listen.value, Address::Tcp(_)) {
            found.push(
                Diagnostic::error("the signer listens on Unix sockets only")
                    .at(&listen.span)
                    .help("write it as \"unix:PATH\""),
            );
        }
    }
    if signer.listen.as_slice().is_empty() {
        found.push(Diagnostic::error("the signer listens nowhere"));
    }
    keys::validate(signer, found);
    chains::validate(signer, found);
    policies::validate(signer, found);
    callers::validate(signer, found);
}
