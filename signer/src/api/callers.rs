//! Who asks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use keygate_config::ReadMethod;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::policy::Policy;

/// A caller of the file.
#[derive(Debug)]
pub(crate) struct Caller {
    /// Its name in the file.
    pub(crate) name: String,
    /// Names of the keys it may use.
    pub(crate) keys: Vec<String>,
    /// What it may have signed; none is nothing.
    pub(crate) policy: Option<Policy>,
    /// What is passed on to the chain's nodes for it.
    pub(crate) rpc_methods: BTreeSet<ReadMethod>,
}

/// All callers. Of tokens, only SHA-256 is kept.
#[derive(Default)]
pub(crate) struct Callers {
    tokens: Vec<([u8; 32], usize)>,
    uids: BTreeMap<u32, usize>,
    callers: Vec<Arc<Caller>>,
}

/// What a caller proves who it is by. Nothing prints it.
#[derive(Clone, Copy)]
pub(crate) enum Proof<'a> {
    /// A bearer token.
    Token(&'a [u8]),
    /// The user id of the process at the socket's other end.
    Uid(u32),
}

/// Why a caller cannot be added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallerError {
    /// The token's file, in one line that names it.
    #[error("{0}")]
    Token(String),
    /// The file says neither or both of token and uid.
    #[error("it needs one of token_file and uid")]
    NotOne,
    /// Another caller proves itself alike.
    #[error("it has the same token or uid as caller {0:?}")]
    Alike(String),
    /// No policy has this name.
    #[error("no policy is named {0:?}")]
    NoPolicy(String),
}

impl Callers {
    /// Compiles the callers of the file; reads their tokens.
    pub(crate) fn load(config: &keygate_config::Signer) -> Result<Self, (String, CallerError)> {
        let mut callers = Self::default();
        for (name, caller) in &config.callers {
            callers.add(name, caller, config).map_err(|error| (name.clone(), error))?;
        }
        Ok(callers)
    }

    fn add(
        &mut self,
        name: &str,
        caller: &keygate_config::Caller,
        config: &keygate_config::Signer,
    ) -> Result<(), CallerError> {
        let index = self.callers.len();
        let other = match (&caller.token_file, caller.uid) {
            (Some(path), None) => {
                if let Some(why) = keygate_config::files::exposed_token(path) {
                    tracing::warn!(caller = name, "{why}: it authorises payments");
                }
                let token = keygate_config::files::load_token(path).map_err(CallerError::Token)?;
                let digest = sha256(token.as_bytes());
                let other = self.tokens.iter().find(|(known, _)| *known == digest).map(|(_, other)| *other);
                self.tokens.push((digest, index));
                other
            }
            (None, Some(uid)) => self.uids.insert(uid, index),
            _ => return Err(CallerError::NotOne),
        };
        if let Some(other) = other {
            return Err(CallerError::Alike(self.callers[other].name.clone()));
        }
        let (policy, rpc_methods) = match &caller.policy {
            None => (None, BTreeSet::new()),
            Some(name) => match config.policies.get(&name.value) {
                Some(policy) => {
                    let methods = policy.rpc_methods.as_ref();
                    let methods =
                        methods.map_or_else(|| ReadMethod::all().collect(), |list| list.iter().copied().collect());
                    (Some(Policy::new(&name.value, policy, &config.chains)), methods)
                }
                None => return Err(CallerError::NoPolicy(name.value.clone())),
            },
        };
        let keys = caller.keys.iter().map(|key| key.value.clone()).collect();
        self.callers.push(Arc::new(Caller { name: name.to_owned(), keys, policy, rpc_methods }));
        Ok(())
    }

    /// The caller of this name.
    pub(crate) fn named(&self, name: &str) -> Option<&Arc<Caller>> {
        self.callers.iter().find(|caller| caller.name == name)
    }

    /// The caller that the proof is of.
    pub(crate) fn find(&self, proof: Proof<'_>) -> Option<&Arc<Caller>> {
        let index = match proof {
            Proof::Uid(uid) => self.uids.get(&uid).copied(),
            Proof::Token(token) => {
                // Every token is looked at, and each to its end, so that time tells nothing of which one is near.
                let digest = sha256(token);
                self.tokens.iter().fold(None, |found, (known, index)| {
                    let same: Choice = known.ct_eq(&digest);
                    if same.into() { Some(*index) } else { found }
                })
            }
        };
        self.callers.get(index?)
    }
}

impl fmt::Debug for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The hash of a token is enough to guess it by, where it is not random.
        f.debug_struct("Callers").field("callers", &self.callers).finish_non_exhaustive()
    }
}

impl Caller {
    /// Whether it may use the key of this name.
    pub(crate) fn may_use(&self, key: &str) -> bool {
        self.keys.iter().any(|name| name == key)
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}
