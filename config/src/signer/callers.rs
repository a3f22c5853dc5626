//! Who may ask.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::bearer::{TokenHash, load_tokens};
use super::{Signer, SignerAddress};
use crate::Diagnostic;
use crate::files::exposed;
use crate::place::At;
use crate::validate::reference;

/// Who may ask: exactly one of `token_file`, `token_sha256`, `uid` and `san`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Caller {
    /// A file with the caller's bearer token, and perhaps the next one: a line each, as it is or as `sha256:HEX`.
    pub token_file: Option<PathBuf>,
    /// SHA-256 of the caller's bearer token: 64 hex digits.
    pub token_sha256: Option<TokenHash>,
    /// The caller's Unix user id; on Unix sockets.
    pub uid: Option<u32>,
    /// A name in the caller's certificate, exactly as it stands there: a URI, or a DNS name. On `https://` listeners
    /// with `client_ca`.
    pub san: Option<At<String>>,
    /// Names of `keys` it may use.
    pub keys: Vec<At<String>>,
    /// A name of `policies`. A caller without one may have nothing signed.
    pub policy: Option<At<String>>,
}

impl Caller {
    /// Whether it proves itself by a token.
    #[must_use]
    pub fn has_token(&self) -> bool {
        self.token_file.is_some() || self.token_sha256.is_some()
    }

    /// `san` as an entry of a certificate, with its kind: `URI:spiffe://...`, or `DNS:name` in lower case. What has a
    /// colon is a URI.
    #[must_use]
    pub fn san_entry(&self) -> Option<String> {
        let san = &self.san.as_ref()?.value;
        Some(if san.contains(':') { format!("URI:{san}") } else { format!("DNS:{}", san.to_ascii_lowercase()) })
    }

    /// How many ways it has to prove itself.
    #[must_use]
    pub fn proofs(&self) -> usize {
        let proofs = [self.token_file.is_some(), self.token_sha256.is_some(), self.uid.is_some(), self.san.is_some()];
        proofs.into_iter().filter(|there| *there).count()
    }
}

pub(super) fn validate(signer: &Signer, found: &mut Vec<Diagnostic>) {
    let listens = |what: fn(&SignerAddress) -> bool| signer.listen.as_slice().iter().any(|listen| what(&listen.value));
    let unix = listens(|listen| matches!(listen, SignerAddress::Unix(_)));
    let certificates = signer.has_https() && signer.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    let (mut uids, mut hashes, mut sans) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for (name, caller) in &signer.callers {
        if caller.proofs() != 1 {
            let how =
                if caller.proofs() == 0 { "nothing to be known by" } else { "more than one thing to be known by" };
            let what = format!("caller {name:?} has {how}: it needs one of token_file, token_sha256, uid and san");
            found.push(Diagnostic::error(what).at(&caller.span));
        }
        let mut alike = |what: &str, other: Option<&String>| {
            let message = other.map(|other| format!("callers {other:?} and {name:?} have the same {what}"));
            found.extend(message.map(|message| Diagnostic::error(message).at(&caller.span)));
        };
        alike("uid", caller.uid.and_then(|uid| uids.insert(uid, name)));
        alike("token", caller.token_sha256.and_then(|hash| hashes.insert(hash, name)));
        let san = caller.san.as_ref();
        alike("san", caller.san_entry().and_then(|san| sans.insert(san, name)));
        if caller.uid.is_some() && !unix {
            let what = format!("caller {name:?} is known by its user id, and the signer listens on no Unix socket");
            found.push(Diagnostic::error(what).at(&caller.span).help("add \"unix:PATH\" to listen"));
        }
        if let Some(san) = san {
            if san.is_empty() || !san.bytes().all(|b| b.is_ascii_graphic()) {
                let what = "a name in a certificate is visible ASCII characters: a URI or a DNS name";
                found.push(Diagnostic::error(what).at(&san.span));
            }
            if !certificates {
                let what = format!("caller {name:?} is known by its certificate, and none is asked for");
                found.push(
                    Diagnostic::error(what)
                        .at(&san.span)
                        .help("it takes an https:// listener, and client_ca in [signer] tls"),
                );
            }
        }
        for key in &caller.keys {
            reference("signer.keys", key, &signer.keys, found);
        }
        match &caller.policy {
            Some(policy) => reference("signer.policies", policy, &signer.policies, found),
            // Who has no key may still approve what others ask for.
            None if caller.keys.is_empty() => {}
            None => found.push(
                Diagnostic::warning(format!("caller {name:?} has no policy: it may have nothing signed"))
                    .at(&caller.span),
            ),
        }
    }
}

/// Looks at the tokens' files.
pub(crate) fn check(signer: &Signer, found: &mut Vec<Diagnostic>) {
    let mut known = BTreeMap::new();
    for (name, caller) in &signer.callers {
        if let Some(why) = caller.token_file.as_deref().and_then(exposed) {
            let help = "it authorises payments: chmod 600, or 640 for a group of its own";
            found.push(Diagnostic::warning(why).at(&caller.span).help(help));
        }
        let of_file = match caller.token_file.as_deref().map(|path| (path, load_tokens(path))) {
            Some((_, Err(why))) => {
                let help = "the signer's user must be able to read it; where there is none: (umask 077 && openssl rand -hex 32 > FILE)";
                found.push(Diagnostic::error(why).at(&caller.span).help(help));
                Vec::new()
            }
            Some((path, Ok(tokens))) => {
                if tokens.short {
                    let what = format!("{}: a token of fewer than 32 characters may be guessed", path.display());
                    let help = "make one with `openssl rand -hex 32`";
                    found.push(Diagnostic::warning(what).at(&caller.span).help(help));
                }
                tokens.hashes
            }
            None => Vec::new(),
        };
        for hash in of_file.into_iter().chain(caller.token_sha256) {
            if let Some(other) = known.insert(hash, name) {
                let what = format!("callers {other:?} and {name:?} have the same token");
                found.push(Diagnostic::error(what).at(&caller.span));
            }
        }
    }
}
