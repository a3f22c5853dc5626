//! Who asks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use keygate_config::{ReadMethod, TokenHash, load_tokens};
use subtle::{Choice, ConstantTimeEq};

use crate::policy::Policy;

/// A caller of the file.
#[derive(Debug)]
pub(crate) struct Caller {
    /// Its name in the file.
    pub(crate) name: String,
    /// How it proves that it is that.
    pub(crate) proof: Known,
    /// Names of the keys it may use.
    pub(crate) keys: Vec<String>,
    /// What it may have signed; none is nothing.
    pub(crate) policy: Option<Policy>,
    /// What is passed on to the chain's nodes for it.
    pub(crate) rpc_methods: BTreeSet<ReadMethod>,
}

/// By what a caller is known. Of tokens, only SHA-256 is kept, and that is not printed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Bearer tokens: the current one, and perhaps the next.
    Tokens(Vec<TokenHash>),
    /// The user id of a process.
    Uid(u32),
    /// A name in a certificate, with its kind: `URI:...` or `DNS:...`.
    San(String),
}

/// All callers.
#[derive(Debug, Default)]
pub(crate) struct Callers(Vec<Arc<Caller>>);

/// What a caller proves who it is by. Nothing prints it.
#[derive(Clone, Copy)]
pub(crate) enum Proof<'a> {
    /// A bearer token.
    Token(&'a [u8]),
    /// The user id of the process at the socket's other end.
    Uid(u32),
    /// Names in a certificate that was verified, each with its kind.
    Names(&'a [String]),
}

/// Why a caller cannot be added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallerError {
    /// The token's file, in one line that names it.
    #[error("{0}")]
    Token(String),
    /// The file says nothing of how it is known, or several things.
    #[error("it needs one of token_file, token_sha256, uid and san")]
    NotOne,
    /// Another caller proves itself alike.
    #[error("it has the same token, uid or san as caller {0:?}")]
    Alike(String),
    /// No policy has this name.
    #[error("no policy is named {0:?}")]
    NoPolicy(String),
}

impl Callers {
    /// Compiles the callers of the file; reads their tokens.
    pub(crate) fn load(
        config: &keygate_config::Signer,
        policies: &BTreeMap<String, Policy>,
    ) -> Result<Self, (String, CallerError)> {
        let mut callers = Self::default();
        for (name, caller) in &config.callers {
            let caller = Caller::load(name, caller, config, policies).map_err(|error| (name.clone(), error))?;
            if let Some(other) = callers.0.iter().find(|other| other.proof.overlaps(&caller.proof)) {
                return Err((name.clone(), CallerError::Alike(other.name.clone())));
            }
            callers.0.push(Arc::new(caller));
        }
        Ok(callers)
    }

    /// The caller that the proof is of. A certificate with the names of two callers is nobody's.
    pub(crate) fn find(&self, proof: Proof<'_>) -> Option<&Arc<Caller>> {
        let digest = match proof {
            Proof::Token(token) => Some(TokenHash::of(token)),
            _ => None,
        };
        // Every caller is looked at, and each token to its end, so that time tells nothing of which one is near.
        let mut found = self.0.iter().filter(|caller| match (&caller.proof, &proof) {
            (Known::Tokens(tokens), Proof::Token(_)) => digest.is_some_and(|digest| {
                let none = Choice::from(0);
                tokens.iter().fold(none, |same, token| same | token.0.ct_eq(&digest.0)).into()
            }),
            (Known::Uid(known), Proof::Uid(uid)) => known == uid,
            (Known::San(known), Proof::Names(names)) => names.contains(known),
            _ => false,
        });
        let (first, others) = (found.next(), found.count());
        first.filter(|_| others == 0)
    }

    /// The caller of this name.
    pub(crate) fn named(&self, name: &str) -> Option<&Arc<Caller>> {
        self.0.iter().find(|caller| caller.name == name)
    }

    pub(crate) fn by_name(&self) -> BTreeMap<&str, &Caller> {
        self.0.iter().map(|caller| (caller.name.as_str(), &**caller)).collect()
    }
}

impl Known {
    /// How it is called in the file.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Tokens(_) => "token",
            Self::Uid(_) => "uid",
            Self::San(_) => "san",
        }
    }

    fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tokens(one), Self::Tokens(other)) => one.iter().any(|token| other.contains(token)),
            (one, other) => one == other,
        }
    }
}

impl Caller {
    fn load(
        name: &str,
        caller: &keygate_config::Caller,
        config: &keygate_config::Signer,
        policies: &BTreeMap<String, Policy>,
    ) -> Result<Self, CallerError> {
        let proof = match (&caller.token_file, caller.token_sha256, caller.uid, caller.san_entry()) {
            (Some(path), None, None, None) => {
                if let Some(why) = keygate_config::files::exposed(path) {
                    tracing::warn!(caller = name, "{why}: it authorises payments");
                }
                let tokens = load_tokens(path).map_err(CallerError::Token)?;
                if tokens.short {
                    tracing::warn!(caller = name, "a token of fewer than 32 characters may be guessed");
                }
                Known::Tokens(tokens.hashes)
            }
            (None, Some(hash), None, None) => Known::Tokens(vec![hash]),
            (None, None, Some(uid), None) => Known::Uid(uid),
            (None, None, None, Some(san)) => Known::San(san),
            _ => return Err(CallerError::NotOne),
        };
        let (policy, rpc_methods) = match &caller.policy {
            None => (None, BTreeSet::new()),
            Some(name) => match (policies.get(&name.value), config.policies.get(&name.value)) {
                (Some(policy), Some(written)) => {
                    let methods = written.rpc_methods.as_ref();
                    let methods = methods.map(|list| list.iter().copied().collect());
                    (Some(policy.clone()), methods.unwrap_or_else(|| ReadMethod::all().collect()))
                }
                _ => return Err(CallerError::NoPolicy(name.value.clone())),
            },
        };
        let keys = caller.keys.iter().map(|key| key.value.clone()).collect();
        Ok(Self { name: name.to_owned(), proof, keys, policy, rpc_methods })
    }

    /// Whether it may use the key of this name.
    pub(crate) fn may_use(&self, key: &str) -> bool {
        self.keys.iter().any(|name| name == key)
    }

    /// Whether its policy allows this chain.
    pub(crate) fn may_use_chain(&self, id: u64) -> bool {
        self.policy.as_ref().is_some_and(|policy| policy.chains.contains(&id))
    }

    pub(crate) fn policy_name(&self) -> Option<&str> {
        self.policy.as_ref().map(|policy| policy.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(name: &str, proof: Known) -> Arc<Caller> {
        Arc::new(Caller { name: name.to_owned(), proof, keys: Vec::new(), policy: None, rpc_methods: BTreeSet::new() })
    }

    fn san(name: &str) -> Known {
        Known::San(name.to_owned())
    }

    #[test]
    fn a_caller_is_found_by_its_own_proof_alone() {
        let tokens = Known::Tokens(vec![TokenHash::of(b"current"), TokenHash::of(b"next")]);
        let callers = Callers(vec![
            caller("token", tokens),
            caller("uid", Known::Uid(7)),
            caller("uri", san("URI:spiffe://a/b")),
            caller("dns", san("DNS:a.test")),
        ]);
        let find = |proof: Proof<'_>| callers.find(proof).map_or("", |caller| caller.name.as_str()).to_owned();
        assert_eq!(find(Proof::Token(b"current")), "token");
        assert_eq!(find(Proof::Token(b"next")), "token");
        assert_eq!(find(Proof::Token(b"nex")), "");
        assert_eq!(find(Proof::Uid(7)), "uid");
        assert_eq!(find(Proof::Uid(0)), "");
        let names = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            find(Proof::Names(&names))
        };
        assert_eq!(names(&["DNS:other.test", "URI:spiffe://a/b"]), "uri");
        // A DNS name that looks like the URI is none, nor is what only begins alike.
        for other in ["DNS:spiffe://a/b", "URI:spiffe://a/b/c", "URI:a.test", "DNS:*.test"] {
            assert_eq!(names(&[other]), "", "{other}");
        }
        assert_eq!(names(&["DNS:a.test", "URI:spiffe://a/b"]), "", "of two callers");
        assert_eq!(names(&[]), "");
    }

    #[test]
    fn proofs_that_overlap_are_alike() {
        let [one, two, three] = [b"1", b"2", b"3"].map(|token| TokenHash::of(token));
        assert!(Known::Tokens(vec![one, two]).overlaps(&Known::Tokens(vec![three, two])));
        assert!(!Known::Tokens(vec![one]).overlaps(&Known::Tokens(vec![three, two])));
        assert!(Known::Uid(1).overlaps(&Known::Uid(1)) && !Known::Uid(1).overlaps(&Known::Uid(2)));
        assert!(!Known::Uid(1).overlaps(&san("1")));
    }
}
