//! TLS at an `https://` listener: 1.2 and 1.3, and the certificates that callers show.
//!
//! No session is ever resumed: each connection's certificate is checked in its own handshake, and again with each
//! snapshot that the connection outlives.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use keygate_config::SignerTls;
use keygate_config::files::{load_authorities, load_certificate};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};
use x509_parser::extensions::GeneralName;

/// What TLS takes, of one snapshot.
pub(crate) struct Tls {
    pub(super) config: Arc<ServerConfig>,
    /// Who judges certificates; none, if none are asked for.
    clients: Option<Arc<dyn ClientCertVerifier>>,
}

/// A certificate that a caller showed, with its chain.
pub(crate) struct Certificate {
    chain: Vec<CertificateDer<'static>>,
    /// The leaf's names, each with its kind: `URI:...`, or `DNS:...` in lower case.
    pub(crate) names: Vec<String>,
    /// When the first of the chain is over.
    not_after: SystemTime,
    /// Who has found it good last.
    judge: Mutex<Arc<Tls>>,
}

impl Tls {
    /// Reads the files. Callers must show a certificate if it is `required`, and `client_ca` is given.
    ///
    /// # Errors
    /// One line that names the file.
    pub(crate) fn load(tls: &SignerTls, required: bool) -> Result<Self, String> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let certificate = load_certificate(&tls.certificate(), &provider)?;
        let clients = tls.client_ca.as_deref().map(|path| clients(path, required)).transpose()?;
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| error.to_string())?;
        let builder = match &clients {
            Some(clients) => builder.with_client_cert_verifier(Arc::clone(clients)),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certificate.key)));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self { config: Arc::new(config), clients })
    }

    fn accepts(&self, chain: &[CertificateDer<'static>], now: SystemTime) -> bool {
        let (Some(clients), Some((leaf, rest))) = (&self.clients, chain.split_first()) else { return false };
        let now = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default());
        clients.verify_client_cert(leaf, rest, now).is_ok()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("clients", &self.clients.is_some()).finish_non_exhaustive()
    }
}

fn clients(path: &Path, required: bool) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let at = |why: &dyn fmt::Display| format!("{}: {why}", path.display());
    let mut roots = RootCertStore::empty();
    for authority in load_authorities(path)? {
        roots.add(authority).map_err(|error| at(&error))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = if required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|error| at(&error))
}

impl Certificate {
    /// What `judge` has just found good in a handshake.
    ///
    /// # Errors
    /// When it cannot be read after all.
    pub(super) fn new(chain: &[CertificateDer<'static>], judge: Arc<Tls>) -> Result<Self, String> {
        let mut not_after = None;
        let mut names = Vec::new();
        for (depth, der) in chain.iter().enumerate() {
            let (_, certificate) = x509_parser::parse_x509_certificate(der).map_err(|error| error.to_string())?;
            let seconds = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or_default();
            let ends = UNIX_EPOCH + Duration::from_secs(seconds);
            not_after = Some(not_after.map_or(ends, |sooner| ends.min(sooner)));
            if depth == 0 {
                let extension = certificate.subject_alternative_name().map_err(|error| error.to_string())?;
                let entries = extension.iter().flat_map(|extension| &extension.value.general_names);
                names.extend(entries.filter_map(|entry| match entry {
                    GeneralName::URI(uri) => Some(format!("URI:{uri}")),
                    GeneralName::DNSName(name) => Some(format!("DNS:{}", name.to_ascii_lowercase())),
                    _ => None,
                }));
            }
        }
        let not_after = not_after.ok_or("no certificate")?;
        Ok(Self { chain: chain.to_vec(), names, not_after, judge: Mutex::new(judge) })
    }

    /// Whether it is good in the eyes of `judge`: of another than last, the whole chain is verified anew.
    pub(crate) fn is_good(&self, judge: &Arc<Tls>, now: SystemTime) -> bool {
        if now > self.not_after {
            return false;
        }
        let mut last = self.judge.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&last, judge) {
            return true;
        }
        let good = judge.accepts(&self.chain, now);
        if good {
            *last = Arc::clone(judge);
        }
        good
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("names", &self.names).finish_non_exhaustive()
    }
}
