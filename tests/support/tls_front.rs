use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::{Ca, Pem};

/// TLS in front of a server of the tests, which speaks plain HTTP itself. It records every handshake.
///
/// It ends with the tests.
pub struct TlsFront {
    pub addr: SocketAddr,
    shared: Arc<Shared>,
}

/// What TLS a [`TlsFront`] speaks, and how.
pub struct FrontTls<'a> {
    pub leaf: &'a Pem,
    /// Clients must have a certificate of this authority.
    pub clients: Option<&'a Ca>,
    /// TLS 1.2, and no other.
    pub only_1_2: bool,
    /// When the server ends a connection, TLS says nothing of it.
    pub abrupt: bool,
    /// New keys follow whatever the server says.
    pub new_keys: bool,
    /// What it can speak, by ALPN.
    pub protocols: &'a [&'a str],
}

impl<'a> FrontTls<'a> {
    pub fn new(leaf: &'a Pem) -> Self {
        Self { leaf, clients: None, only_1_2: false, abrupt: false, new_keys: false, protocols: &["h2", "http/1.1"] }
    }
}

/// A handshake that succeeded.
#[derive(Debug, Clone)]
pub struct Shaken {
    /// The name that was asked for.
    pub name: Option<String>,
    pub resumed: bool,
    /// The certificate that the client showed.
    pub client: Option<CertificateDer<'static>>,
    /// The protocol that was agreed on.
    pub alpn: Option<String>,
}

#[derive(Default)]
struct Shared {
    shaken: Mutex<Vec<Shaken>>,
    refused: AtomicU64,
    ends: AtomicU64,
    new_keys: AtomicU64,
}

impl TlsFront {
    pub fn start(server: SocketAddr, tls: &FrontTls<'_>) -> Self {
        let listener = std::net::TcpListener::bind(("127.0.0.1", super::free_port())).expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let addr = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared::default());
        let front = Front {
            server,
            acceptor: config(tls).into(),
            abrupt: tls.abrupt,
            new_keys: tls.new_keys,
            shared: shared.clone(),
        };
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("a listener");
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(front.clone().serve(stream));
                }
            });
        });
        Self { addr, shared }
    }

    /// "127.0.0.1:PORT", as an upstream's server.
    pub fn server(&self) -> String {
        self.addr.to_string()
    }

    /// Handshakes that succeeded.
    pub fn shaken(&self) -> Vec<Shaken> {
        lock(&self.shared.shaken).clone()
    }

    /// Handshakes that did not.
    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::SeqCst)
    }

    /// Clients that said the end of what they send, as TLS wants it said.
    pub fn ends(&self) -> u64 {
        self.shared.ends.load(Ordering::SeqCst)
    }

    /// How often new keys have been sent.
    pub fn new_keys(&self) -> u64 {
        self.shared.new_keys.load(Ordering::SeqCst)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn config(tls: &FrontTls<'_>) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone());
    let versions = [&TLS12, &TLS13];
    let versions = if tls.only_1_2 { &versions[..1] } else { &versions };
    let builder = builder.with_protocol_versions(versions).expect("versions");
    let builder = match tls.clients {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            roots.add(certificate(&ca.cert)).expect("an authority");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.expect("a verifier"))
        }
    };
    let key = PrivateKeyDer::from_pem_slice(tls.leaf.key.as_bytes()).expect("a key");
    let mut config = builder.with_single_cert(vec![certificate(&tls.leaf.cert)], key).expect("a certificate");
    // The one that is not to be taken comes first.
    config.alpn_protocols = tls.protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

fn certificate(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate")
}

#[derive(Clone)]
struct Front {
    server: SocketAddr,
    acceptor: TlsAcceptor,
    abrupt: bool,
    new_keys: bool,
    shared: Arc<Shared>,
}

impl Front {
    async fn serve(self, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let stream = stream.into_std().expect("a socket");
        let socket = stream.try_clone().expect("a socket");
        let stream = TcpStream::from_std(stream).expect("a socket");
        let mut tls = match self.acceptor.accept(stream).into_fallible().await {
            Ok(tls) => tls,
            Err((_, mut stream)) => {
                self.shared.refused.fetch_add(1, Ordering::SeqCst);
                // A reset would take the alert away that says why.
                let _ = stream.shutdown().await;
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
                return;
            }
        };
        let session = tls.get_ref().1;
        lock(&self.shared.shaken).push(Shaken {
            name: session.server_name().map(str::to_owned),
            resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
            client: session.peer_certificates().and_then(|chain| chain.first().cloned()),
            alpn: session.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
        });
        let Ok(mut plain) = TcpStream::connect(self.server).await else { return };
        let (mut up, mut down) = ([0; 16 << 10], [0; 16 << 10]);
        let (mut up_ended, mut down_ended) = (false, false);
        while !(up_ended && down_ended) {
            tokio::select! {
                read = tls.read(&mut up), if !up_ended => match read {
                    Ok(n @ 1..) => if plain.write_all(&up[..n]).await.is_err() { return },
                    read => {
                        up_ended = true;
                        self.shared.ends.fetch_add(read.is_ok().into(), Ordering::SeqCst);
                        let _ = plain.shutdown().await;
                    }
                },
                read = plain.read(&mut down), if !down_ended => match read {
                    Ok(n @ 1..) => {
                        if tls.write_all(&down[..n]).await.is_err() || tls.flush().await.is_err() {
                            return;
                        }
                        if self.new_keys {
                            tls.get_mut().1.refresh_traffic_keys().expect("TLS 1.3");
                            if tls.flush().await.is_err() {
                                return;
                            }
                            self.shared.new_keys.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                    _ => {
                        down_ended = true;
                        let _ = if self.abrupt { socket.shutdown(Shutdown::Write) } else { tls.shutdown().await };
                    }
                },
            }
        }
    }
}
