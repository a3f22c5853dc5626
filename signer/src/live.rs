//! What may change while the signer runs: callers with their policies, chains with their nodes, and TLS. It is one
//! immutable snapshot; keys, ledger and listeners stay. A request keeps the caller, and so the policy, that it began with;
//! what is asked of a node, that node answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use keygate_config::SignerAddress;
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use crate::api::callers::{CallerError, Callers};
use crate::api::listen::tls::Tls;
use crate::chain::{Chain, Chains};
use crate::ledger::audit::Event;
use crate::policy::{Policy, loosened};

/// The snapshot that is in force, and where it is told what changes.
#[derive(Debug)]
pub(crate) struct Live {
    snapshot: ArcSwap<Snapshot>,
    /// Who reloads does not have the ledger, which closes with the last that has it.
    changes: UnboundedSender<Event>,
}

/// One state of what may change.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) callers: Callers,
    /// All of the file's, by name.
    pub(crate) policies: BTreeMap<String, Policy>,
    pub(crate) chains: Arc<Chains>,
    /// For `https://` listeners.
    pub(crate) tls: Option<Arc<Tls>>,
}

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    #[error("caller {0:?}: {1}")]
    Caller(String, CallerError),
    #[error("chain {0:?}: {1}")]
    Chain(String, String),
    #[error("tls: {0}")]
    Tls(String),
    #[error("listener {0}: an https:// listener needs tls under [signer]")]
    NoTls(String),
}

impl Live {
    /// And what is to be written to the audit trail, as it comes.
    pub(crate) fn new(snapshot: Snapshot) -> (Self, UnboundedReceiver<Event>) {
        let (changes, told) = mpsc::unbounded_channel();
        (Self { snapshot: ArcSwap::from_pointee(snapshot), changes }, told)
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Puts a snapshot in force, for every request whose caller is not known yet; and then says what has changed.
    pub(crate) fn replace(&self, snapshot: Snapshot) {
        let new = Arc::new(snapshot);
        let old = self.snapshot.swap(Arc::clone(&new));
        let now = SystemTime::now();
        for (what, detail) in changes(&old, &new) {
            // Nobody listens when the signer is about to end.
            let _ = self.changes.send(Event::new(now, what, detail));
        }
    }
}

impl Snapshot {
    /// What tells these callers and policies from others, as far as they decide what is signed.
    pub(crate) fn digest(&self) -> String {
        let mut digest = Sha256::new().chain_update(format!("{:?}", self.policies));
        for (name, caller) in self.callers.by_name() {
            digest.update(format!("{name:?} {:?} {:?}", caller.keys, caller.policy_name()));
        }
        hex::encode(digest.finalize())
    }

    /// Compiles the file's callers, policies and chains; reads tokens, certificates and nodes' URLs. Nodes that are the
    /// same as `before` are kept.
    pub(crate) fn load(config: &keygate_config::Signer, before: &Chains) -> Result<Self, SnapshotError> {
        let chains = Chains::load(config, before).map_err(|(name, why)| SnapshotError::Chain(name, why))?;
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
            None => Ok(Self { callers, policies, chains: Arc::new(chains), tls: tls.map(Arc::new) }),
        }
    }
}

/// What becomes of callers, policies and chains' nodes, for the audit trail; and for the log, where a policy that allows more must be
/// found.
fn changes(old: &Snapshot, new: &Snapshot) -> Vec<(&'static str, Json)> {
    let mut changes = Vec::new();
    let nodes = |chain: &Chain| chain.rpc.as_ref().map(Arc::as_ptr);
    let ids: BTreeMap<u64, &str> =
        old.chains.all().chain(new.chains.all()).map(|chain| (chain.id, &*chain.name)).collect();
    for (id, name) in ids {
        let (before, after) = (old.chains.by_id(id), new.chains.by_id(id));
        if before.and_then(nodes) != after.and_then(nodes) {
            let nodes = after.and_then(|chain| chain.rpc.as_ref()).map(|rpc| rpc.nodes()).unwrap_or_default();
            tracing::warn!(chain = name, ?nodes, "chain has other nodes");
            changes.push(("chain-changed", json!({ "chain": name, "chainId": id, "nodes": nodes })));
        }
    }
    let names: BTreeSet<&String> = old.policies.keys().chain(new.policies.keys()).collect();
    for name in names {
        let (change, loosened) = match (old.policies.get(name), new.policies.get(name)) {
            (None, Some(_)) => {
                tracing::warn!(policy = name, "policy added");
                ("added", Vec::new())
            }
            (Some(_), None) => {
                tracing::warn!(policy = name, "policy removed");
                ("removed", Vec::new())
            }
            (Some(old), Some(new)) if old != new => {
                let (more, less) = (loosened(old, new), loosened(new, old));
                tracing::warn!(policy = name, loosened = few(&more), tightened = few(&less), "policy changed");
                ("changed", more)
            }
            _ => continue,
        };
        let digest = new.policies.get(name).map(|policy| hex::encode(Sha256::digest(format!("{policy:?}"))));
        let detail = json!({ "policy": name, "change": change, "loosened": loosened, "digest": digest });
        changes.push(("policy-changed", detail));
    }
    let (before, after) = (old.callers.by_name(), new.callers.by_name());
    let names: BTreeSet<&str> = before.keys().chain(after.keys()).copied().collect();
    for name in names {
        let change = match (before.get(name), after.get(name)) {
            (None, Some(new)) => {
                let (keys, policy) = (&new.keys, new.policy_name());
                tracing::warn!(caller = name, proof = new.proof.kind(), ?keys, policy, "caller added");
                "added"
            }
            (Some(_), None) => {
                tracing::warn!(caller = name, "caller removed");
                "removed"
            }
            (Some(old), Some(new)) => {
                let proof = old.proof != new.proof;
                if proof {
                    tracing::warn!(caller = name, proof = new.proof.kind(), "caller proves itself anew");
                }
                let rights = (&old.keys, old.policy_name()) != (&new.keys, new.policy_name());
                if rights {
                    let (keys, policy) = (&new.keys, new.policy_name());
                    let (old_keys, old_policy) = (&old.keys, old.policy_name());
                    tracing::warn!(caller = name, ?old_keys, ?keys, old_policy, policy, "caller changed");
                }
                match (rights, proof) {
                    (true, _) => "changed",
                    (false, true) => "proves itself anew",
                    (false, false) => continue,
                }
            }
            (None, None) => continue,
        };
        let mut detail = json!({ "caller": name, "change": change });
        if let Some(new) = after.get(name) {
            detail["proof"] = new.proof.kind().into();
            detail["keys"] = json!(new.keys);
            detail["policy"] = json!(new.policy_name());
        }
        changes.push(("caller-changed", detail));
    }
    changes
}

/// The first of them, for one line.
fn few(fields: &[String]) -> String {
    const MOST: usize = 10;
    match fields {
        [] => "nothing".to_owned(),
        [..] if fields.len() <= MOST => fields.join(", "),
        _ => format!("{} and {} more", fields[..MOST].join(", "), fields.len() - MOST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_few_fields() {
        let fields: Vec<_> = (0..300).map(|n| format!("tokens.{n}")).collect();
        assert_eq!(few(&[]), "nothing");
        assert_eq!(few(&fields[..2]), "tokens.0, tokens.1");
        assert!(few(&fields[..10]).ends_with("tokens.9"));
        assert!(few(&fields).ends_with("tokens.9 and 290 more"));
    }
    #[test]
    fn other_nodes_are_told_without_their_keys() {
        let load = |chains: &str, before: &Chains| {
            let text = format!("[signer]\nlisten = \"unix:s\"\nledger = \"sqlite:l\"\n[signer.chains]\n{chains}");
            let source = keygate_config::Source { path: "keygate.toml".into(), text };
            let config = keygate_config::parse(source).unwrap().config.signer.unwrap();
            Snapshot::load(&config, before).unwrap()
        };
        let one = load(
            "base = { id = 8453, rpc = \"http://localhost:1/s3cret\" }\npolygon = { id = 137 }",
            &Chains::default(),
        );
        let same = load("base = { id = 8453, rpc = \"http://localhost:1/s3cret\" }", &one.chains);
        assert!(changes(&one, &same).is_empty());
        let other = load("base = { id = 8453, rpc = \"http://localhost:2/s3cret\" }", &one.chains);
        let detail = json!({ "chain": "base", "chainId": 8453, "nodes": ["localhost:2"] });
        assert_eq!(changes(&one, &other), [("chain-changed", detail)]);
        let none = json!({ "chain": "base", "chainId": 8453, "nodes": [] });
        assert_eq!(changes(&one, &load("", &one.chains)), [("chain-changed", none)]);
    }
}
