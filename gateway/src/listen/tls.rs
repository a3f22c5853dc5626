//! TLS at a listener: certificates by SNI, versions, resumption.

use std::collections::HashMap;
use std::sync::Arc;

use keygate_config::files::{LoadedCertificate, load_certificate};
use keygate_config::{Certificate, Tls, TlsVersion};
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedProtocolVersion};

/// A listener's certificates, by the names in them.
#[derive(Debug)]
pub struct Certificates {
    exact: HashMap<String, Arc<CertifiedKey>>,
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    default: Arc<CertifiedKey>,
    /// All of them, with their files, in the order of the file.
    pub all: Vec<(Certificate, LoadedCertificate)>,
}

impl Certificates {
    /// Reads all certificates of a listener.
    ///
    /// # Errors
    /// The first that cannot be used, with its file.
    pub fn load(tls: &Tls, provider: &CryptoProvider) -> Result<Self, String> {
        let all = tls
            .certificates
            .iter()
            .map(|files| load_certificate(files, provider).map(|loaded| (files.value.clone(), loaded)))
            .collect::<Result<Vec<_>, _>>()?;
        let default = all.first().ok_or("a TLS listener has no certificate")?.1.key.clone();
        let (mut exact, mut wildcard) = (HashMap::new(), HashMap::new());
        for (_, certificate) in &all {
            for name in &certificate.names {
                // The first certificate in the file that has a name keeps it.
                match name.strip_prefix("*.") {
                    Some(parent) => wildcard.entry(parent.to_owned()).or_insert_with(|| certificate.key.clone()),
                    None => exact.entry(name.clone()).or_insert_with(|| certificate.key.clone()),
                };
            }
        }
        Ok(Self { exact, wildcard, default, all })
    }

    /// The certificate for a name: exact, else a wildcard one label up (RFC 9525, 6.3), else the default.
    #[must_use]
    pub fn find(&self, name: Option<&str>) -> Arc<CertifiedKey> {
        let Some(name) = name.map(str::to_ascii_lowercase) else {
            return self.default.clone();
        };
        let by_wildcard = || name.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent));
        self.exact.get(&name).or_else(by_wildcard).unwrap_or(&self.default).clone()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.find(hello.server_name()))
    }
}

/// A listener's TLS, made for one snapshot.
///
/// `tickets` outlives snapshots, so that sessions resume across reloads. rustls rotates its keys every six hours and
/// takes those of the period before; sessions resume by ticket in 1.2 (RFC 5077) and 1.3 (RFC 8446, 4.6.1).
///
/// # Errors
/// When the provider does not support the versions: never, with aws-lc-rs.
pub fn server_config(
    min_version: TlsVersion,
    certificates: Arc<Certificates>,
    tickets: Arc<dyn ProducesTickets>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions(min_version))?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = tickets;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// The versions from this one on.
pub(crate) fn versions(min: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static FROM_1_2: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
    match min {
        TlsVersion::V1_2 => FROM_1_2,
        TlsVersion::V1_3 => &FROM_1_2[..1],
    }
}
