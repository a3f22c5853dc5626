//! What may change while the signer runs: callers with their policies and chains, and TLS. It is one immutable
//! snapshot; keys, ledger and listeners stay. A request keeps the caller, and so the policy, that it began with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use keygate_config::SignerAddress;

use crate::api::callers::{CallerError, Callers};
use crate::api::listen::tls::Tls;
use crate::policy::{Policy, loosened};

/// The snapshot that is in force.
#[derive(Debug)]
pub(crate) struct Live(ArcSwap<Snapshot>);

/// One state of what may change.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) callers: Callers,
    /// All of the file's, by name.
    pub(crate) policies: BTreeMap<String, Policy>,
    /// For `https://` listeners.
    pub(crate) tls: Option<Arc<Tls>>,
}

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    #[error("caller {0:?}: {1}")]
    Caller(String, CallerError),
    #[error("tls: {0}")]
    Tls(String),
    #[error("listener {0}: an https:// listener needs tls under [signer]")]
    NoTls(String),
}

impl Live {
    pub(crate) fn new(snapshot: Snapshot) -> Self {
        Self(ArcSwap::from_pointee(snapshot))
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }

    /// Puts a snapshot in force, for every request whose caller is not known yet.
    pub(crate) fn replace(&self, snapshot: Snapshot) {
        let old = self.snapshot();
        announce(&old, &snapshot);
        self.0.store(Arc::new(snapshot));
    }
}

impl Snapshot {
    /// Compiles the file's callers and policies; reads tokens and certificates.
    pub(crate) fn load(config: &keygate_config::Signer) -> Result<Self, SnapshotError> {
        let policies: BTreeMap<_, _> = config
            .policies
            .iter()
            .map(|(name, policy)| (name.clone(), Policy::new(name, policy, &config.chains)))
            .collect();
        let callers = Callers::load(config, &policies).map_err(|(name, error)| SnapshotError::Caller(name, error))?;
        // Who has a token needs no certificate; if nobody has one, strangers do not get past the handshake.
        let required = !config.callers.values().any(|caller| caller.has_token());
        let tls = config.tls.as_ref().map(|tls| Tls::load(tls, required)).transpose().map_err(SnapshotError::Tls)?;
        let mut https =
            config.listen.as_slice().iter().filter(|listen| matches!(listen.value, SignerAddress::Https(_)));
        match https.next().filter(|_| tls.is_none()) {
            Some(listen) => Err(SnapshotError::NoTls(listen.value.to_string())),
            None => Ok(Self { callers, policies, tls: tls.map(Arc::new) }),
        }
    }
}

/// Says what becomes of callers and policies: the log is where a policy that allows more must be found.
fn announce(old: &Snapshot, new: &Snapshot) {
    let names: BTreeSet<&String> = old.policies.keys().chain(new.policies.keys()).collect();
    for name in names {
        match (old.policies.get(name), new.policies.get(name)) {
            (None, Some(_)) => tracing::warn!(policy = name, "policy added"),
            (Some(_), None) => tracing::warn!(policy = name, "policy removed"),
            (Some(old), Some(new)) if old != new => {
                let loosened = loosened(old, new);
                tracing::warn!(policy = name, ?loosened, ?old, ?new, "policy changed");
            }
            _ => {}
        }
    }
    let (before, after) = (old.callers.by_name(), new.callers.by_name());
    let names: BTreeSet<&str> = before.keys().chain(after.keys()).copied().collect();
    for name in names {
        match (before.get(name), after.get(name)) {
            (None, Some(new)) => {
                let (keys, policy) = (&new.keys, new.policy_name());
                tracing::warn!(caller = name, proof = new.proof.kind(), ?keys, policy, "caller added");
            }
            (Some(_), None) => tracing::warn!(caller = name, "caller removed"),
            (Some(old), Some(new)) => {
                if old.proof != new.proof {
                    tracing::warn!(caller = name, proof = new.proof.kind(), "caller proves itself anew");
                }
                if (&old.keys, old.policy_name()) != (&new.keys, new.policy_name()) {
                    let (keys, policy) = (&new.keys, new.policy_name());
                    let (old_keys, old_policy) = (&old.keys, old.policy_name());
                    tracing::warn!(caller = name, ?old_keys, ?keys, old_policy, policy, "caller changed");
                }
            }
            (None, None) => {}
        }
    }
}
