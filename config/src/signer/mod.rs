//! The signer's part of the file, as operators write it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::Diagnostic;
use crate::place::At;

/// The schema of a type is that of what it is made from: what the file has.
macro_rules! schema_as {
    ($name:ty, $written:ty) => {
        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                <$written>::schema_name()
            }
            fn schema_id() -> std::borrow::Cow<'static, str> {
                <$written>::schema_id()
            }
            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                <$written>::json_schema(generator)
            }
        }
    };
}
use schema_as;

mod address;
mod bearer;
mod callers;
mod calls;
mod chains;
mod hours;
mod keys;
mod ledger;
mod listen;
mod policies;
mod rpc;
mod tokens;

pub use address::EthAddress;
pub use bearer::{TokenHash, Tokens, load_tokens};
pub use callers::Caller;
pub(crate) use callers::check as check_callers;
pub use calls::{Argument, Call, TOKEN_FUNCTIONS};
pub use chains::Chain;
pub use hours::Hours;
pub use keys::{Key, Kms, KmsRegion, Local};
pub use ledger::{Ledger, Postgres};
pub use listen::{SignerAddress, SignerTls, may_be_plain};
pub use policies::{NativeWindow, Policy, Replacements, RequireApproval, Signable};
pub use rpc::{ReadMethod, RpcUrl, load_rpc};
pub use tokens::{Token, TokenWindow};

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
    /// `sqlite:PATH`, or `postgres://...`, which several signers may share: what was signed, and what for.
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
#[derive(Debug, Clone, PartialEq, JsonSchema)]
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

impl Signer {
    /// Whether it listens for TLS.
    #[must_use]
    pub fn has_https(&self) -> bool {
        self.listen.as_slice().iter().any(|listen| matches!(listen.value, SignerAddress::Https(_)))
    }

    /// The files with certificates, keys of certificates, tokens and nodes' URLs: what may change while it runs.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let tokens = self.callers.values().filter_map(|caller| caller.token_file.as_deref());
        let nodes = self.chains.values().filter_map(|chain| chain.rpc_file.as_deref());
        self.tls.iter().flat_map(|tls| tls.value.files()).chain(tokens).chain(nodes)
    }

    pub(crate) fn resolve_paths(&mut self, base: &Path) {
        let resolve = |path: &mut PathBuf| *path = base.join(&*path);
        for address in self.listen.as_mut_slice() {
            address.value = address.value.clone().resolved(base);
        }
        if let Some(tls) = &mut self.tls {
            tls.value.resolve_paths(base);
        }
        match &mut self.ledger.value {
            Ledger::Sqlite(path) => resolve(path),
            Ledger::Postgres(server) => {
                [&mut server.password_file, &mut server.ca].into_iter().flatten().for_each(resolve)
            }
        }
        for key in self.keys.values_mut() {
            if let Some(local) = &mut key.value.local {
                resolve(&mut local.path);
            }
        }
        for chain in self.chains.values_mut() {
            if let Some(path) = &mut chain.value.rpc_file {
                resolve(path);
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
    ledger::validate(&signer.ledger, found);
    keys::validate(signer, found);
    chains::validate(signer, found);
    policies::validate(signer, found);
    callers::validate(signer, found);
}
