//! TLS to servers: whom they are verified by, what is shown to them, and what outlives snapshots.

use std::collections::HashMap;
use std::sync::Arc;

use keygate_config::files::{LoadedUpstreamTls, load_upstream_tls, system_authorities};
use keygate_config::{Server, TlsVersion, UpstreamProtocol, UpstreamTls};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use crate::listen::tls::versions;

/// As many as rustls keeps of one server.
const SESSIONS: usize = 8;

/// TLS to one server. It remembers that server's sessions, so that they resume, and no other's.
pub struct ServerTls {
    /// Tells connections of this one from all others: of a server under other authorities, another certificate or
    /// another name, too. No two are the same while a process runs; 0 is none of them.
    pub id: u64,
    /// Opens connections.
    pub connector: TlsConnector,
    /// What the server's certificate must be for.
    pub name: ServerName<'static>,
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerTls").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}

/// The TLS of all upstreams, kept across snapshots while what it was made of is the same.
#[derive(Default)]
pub(crate) struct Kept {
    upstreams: HashMap<String, (Material, HashMap<Server, Arc<ServerTls>>)>,
    last_id: u64,
}

/// What TLS is made of. Of the client's certificate, the chain stands for the key as well, which must match it.
struct Material {
    roots: Arc<RootCertStore>,
    chain: Option<Vec<CertificateDer<'static>>>,
    min_version: TlsVersion,
    protocol: UpstreamProtocol,
}

impl PartialEq for Material {
    fn eq(&self, other: &Self) -> bool {
        let of = |material: &Self| (material.min_version, material.protocol);
        (&self.roots.roots, &self.chain, of(self)) == (&other.roots.roots, &other.chain, of(other))
    }
}

impl Kept {
    /// TLS to each of an upstream's servers, in their order.
    ///
    /// # Errors
    /// What cannot be used of the files it names, in one line.
    pub(crate) fn build<'a>(
        &mut self,
        upstream: &str,
        tls: &UpstreamTls,
        protocol: UpstreamProtocol,
        servers: impl Iterator<Item = &'a Server>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Vec<Arc<ServerTls>>, String> {
        let at = |why: String| format!("upstream {upstream:?}: {why}");
        let LoadedUpstreamTls { roots, client } =
            load_upstream_tls(tls, provider, system_authorities).map_err(|(why, _)| at(why))?;
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(roots);
        let key = client.map(|client| client.key);
        let chain = key.as_ref().map(|key| key.cert.clone());
        let material = Material { roots: Arc::new(store), chain, min_version: tls.min_version, protocol };
        let config = client_config(&material, key, provider.clone()).map_err(|error| at(error.to_string()))?;
        let before = self.upstreams.get(upstream).filter(|(before, _)| *before == material);
        let before = before.map(|(_, servers)| servers.clone()).unwrap_or_default();
        let (mut now, mut all) = (HashMap::new(), Vec::new());
        for server in servers {
            let name = tls.name(server).ok_or_else(|| at(format!("no certificate can be for {:?}", server.host())))?;
            let same = now.get(server).or(before.get(server)).filter(|same: &&Arc<ServerTls>| same.name == *name.get());
            let made = same.cloned().unwrap_or_else(|| {
                self.last_id += 1;
                Arc::new(ServerTls::new(self.last_id, &config, name.get().clone()))
            });
            now.insert(server.clone(), made.clone());
            all.push(made);
        }
        self.upstreams.insert(upstream.to_owned(), (material, now));
        Ok(all)
    }

    /// Forgets upstreams that are not these.
    pub(crate) fn retain(&mut self, is: impl Fn(&str) -> bool) {
        self.upstreams.retain(|name, _| is(name));
    }
}

impl ServerTls {
    fn new(id: u64, config: &ClientConfig, name: ServerName<'static>) -> Self {
        // Servers may have one name, and tickets that only one of them can read.
        let mut config = config.clone();
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        Self { id, connector: Arc::new(config).into(), name }
    }
}

fn client_config(
    material: &Material,
    key: Option<Arc<CertifiedKey>>,
    provider: Arc<CryptoProvider>,
) -> Result<ClientConfig, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions(material.min_version))?
        .with_root_certificates(material.roots.clone());
    let mut config = match key {
        Some(key) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![match material.protocol {
        UpstreamProtocol::Http1 => b"http/1.1".to_vec(),
        UpstreamProtocol::Http2 => b"h2".to_vec(),
    }];
    Ok(config)
}

/// Why a server or this end refused the other in TLS, in few words and without what certificates say; `None` when it
/// was not TLS that failed.
pub(crate) fn refusal(error: &std::io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(match error {
        rustls::Error::InvalidCertificate(why) => format!("InvalidCert {}", reason(why)),
        rustls::Error::AlertReceived(alert) => format!("TLSHandshakeFailure alert {alert:?}"),
        _ => "TLSHandshakeFailure".to_owned(),
    })
}

/// Whether a server refuses what it was shown, or not shown, of us. In TLS 1.3 it says so only after the handshake has
/// ended at this end (RFC 8446, 4.4.2.4), and has read nothing of a request then.
pub(crate) fn refuses_us(error: &std::io::Error) -> bool {
    use rustls::AlertDescription as A;
    let refused = |alert: &A| {
        matches!(
            alert,
            A::CertificateRequired
                | A::BadCertificate
                | A::UnsupportedCertificate
                | A::CertificateRevoked
                | A::CertificateExpired
                | A::CertificateUnknown
                | A::UnknownCA
                | A::AccessDenied
                | A::DecryptError
                | A::HandshakeFailure
        )
    };
    let error = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    matches!(error, Some(rustls::Error::AlertReceived(alert)) if refused(alert))
}

fn reason(error: &CertificateError) -> &'static str {
    use CertificateError as E;
    match error {
        E::Expired | E::ExpiredContext { .. } => "expired",
        E::NotValidYet | E::NotValidYetContext { .. } => "not valid yet",
        E::UnknownIssuer => "unknown issuer",
        E::NotValidForName | E::NotValidForNameContext { .. } => "for another name",
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => "for another purpose",
        E::BadSignature => "bad signature",
        E::BadEncoding => "malformed",
        _ => "not acceptable",
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            let folder = Self(tempfile::tempdir().unwrap());
            folder.certificate("ca");
            folder.certificate("client");
            folder
        }

        fn path(&self) -> &Path {
            self.0.path()
        }

        fn certificate(&self, name: &str) {
            let made = rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).unwrap();
            std::fs::write(self.path().join(name).with_extension("crt"), made.cert.pem()).unwrap();
            std::fs::write(self.path().join(name).with_extension("key"), made.signing_key.serialize_pem()).unwrap();
        }

        /// The ids of two servers' TLS under this file.
        fn ids(&self, kept: &mut Kept, tls: &str) -> Result<Vec<u64>, String> {
            let text =
                format!("[upstreams.a]\nservers = [\"one.test:1\", \"127.0.0.1:1\"]\n[upstreams.a.tls]\n{tls}\n");
            let path = self.path().join("keygate.toml");
            let loaded = keygate_config::parse(keygate_config::Source { path, text }).map_err(|e| e.to_string())?;
            let upstream = &loaded.config.upstreams["a"];
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let servers = upstream.servers.iter().map(|server| &server.value);
            let made = kept.build("a", upstream.tls.as_ref().unwrap(), upstream.protocol, servers, &provider)?;
            Ok(made.iter().map(|tls| tls.id).collect())
        }
    }

    #[test]
    fn it_is_kept_while_nothing_of_it_changes() {
        let (folder, mut kept) = (Folder::new(), Kept::default());
        const FILE: &str = "ca = \"ca.crt\"\ncert = \"client.crt\"\nkey = \"client.key\"";
        let first = folder.ids(&mut kept, FILE).unwrap();
        assert_eq!(first, [1, 2]);
        assert_eq!(folder.ids(&mut kept, FILE).unwrap(), first);
        // A name is a server's own: the one it had already keeps its TLS.
        let named = folder.ids(&mut kept, &format!("server_name = \"one.test\"\n{FILE}")).unwrap();
        assert_eq!(named, [1, 3]);
        let mut last = 3;
        let mut changed = |tls: &str| {
            let ids = folder.ids(&mut kept, tls).unwrap();
            assert_eq!(ids, [last + 1, last + 2], "{tls}");
            last += 2;
        };
        changed(&format!("min_version = \"1.3\"\n{FILE}"));
        changed(FILE);
        changed("ca = \"ca.crt\"");
        changed(FILE);
        folder.certificate("client");
        changed(FILE);
        folder.certificate("ca");
        changed(FILE);
        kept.retain(|_| false);
        assert_eq!(folder.ids(&mut kept, FILE).unwrap(), [last + 1, last + 2], "no id comes back");
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let (folder, mut kept) = (Folder::new(), Kept::default());
        std::fs::copy(folder.path().join("ca.key"), folder.path().join("client.key")).unwrap();
        let why = folder.ids(&mut kept, "ca = \"ca.crt\"\ncert = \"client.crt\"\nkey = \"client.key\"").unwrap_err();
        assert!(why.starts_with("upstream \"a\": ") && why.contains("client.key: is not the key of"), "{why}");
        let why = folder.ids(&mut kept, "ca = \"none.pem\"").unwrap_err();
        assert!(why.contains("none.pem: No such file"), "{why}");
    }
}
