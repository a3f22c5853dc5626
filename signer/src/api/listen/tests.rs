use std::path::PathBuf;

use axum::http::StatusCode;
use keygate_config::SignerTls;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use super::*;
use crate::live::Snapshot;

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(60);
const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: signer\r\n\r\n";

struct Served {
    path: PathBuf,
    /// Of the https:// listener, if there is one.
    address: SocketAddr,
    stop: CancellationToken,
    serving: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Served {
    fn new(head_timeout: Duration, write_timeout: Duration, connections: usize) -> Self {
        let router = Router::new().fallback(async || "x".repeat(4000));
        let limits = Limits { head_timeout, write_timeout, patience: LONG, ..Limits::with_connections(connections) };
        Self::with(router, limits)
    }

    fn with(router: Router, limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        Self::on(&SignerAddress::Unix(path.clone()), path, Snapshot::default(), router, limits, dir)
    }

    /// Over TLS. Answers who its certificate is from, too.
    fn https(limits: Limits) -> (Self, CertificateDer<'static>) {
        let dir = tempfile::tempdir().unwrap();
        let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let (cert, key) = (dir.path().join("cert"), dir.path().join("key"));
        std::fs::write(&cert, own.cert.pem()).unwrap();
        std::fs::write(&key, own.signing_key.serialize_pem()).unwrap();
        let tls = tls::Tls::load(&SignerTls { cert, key, client_ca: None }, false).unwrap();
        let snapshot = Snapshot { tls: Some(Arc::new(tls)), ..Snapshot::default() };
        let address = SignerAddress::Https(([127, 0, 0, 1], 0).into());
        let router = Router::new().fallback(async || "x".repeat(4000));
        (Self::on(&address, PathBuf::new(), snapshot, router, limits, dir), own.cert.der().clone())
    }

    fn on(
        address: &SignerAddress,
        path: PathBuf,
        snapshot: Snapshot,
        router: Router,
        limits: Limits,
        dir: tempfile::TempDir,
    ) -> Self {
        let routers = Routers { all: router, spare: Router::new().fallback(async || StatusCode::IM_A_TEAPOT) };
        let listener = Listener::bind(address, None).unwrap();
        listener.listen().unwrap();
        let address = listener.socket.local_addr().unwrap().as_socket().unwrap_or(([0; 4], 0).into());
        let (live, stop) = (Arc::new(Live::new(snapshot).0), CancellationToken::new());
        let serving = tokio::spawn(listener.serve(Serving { routers, limits, live, stop: stop.clone() }));
        Self { path, address, stop, serving, _dir: dir }
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.path).await.unwrap()
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(LONG, self.serving).await.unwrap().unwrap();
    }
}

async fn answer(stream: &mut UnixStream) {
    stream.write_all(GET).await.unwrap();
    let mut start = [0; 15];
    stream.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 200 OK");
}

#[tokio::test]
async fn a_head_that_drips_is_cut_off() {
    let served = Served::new(SHORT, LONG, 8);
    for idle in [true, false] {
        let mut stream = served.connect().await;
        let start = Instant::now();
        // A byte now and then does not win time.
        for byte in GET.iter().filter(|_| !idle) {
            if stream.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(SHORT / 10).await;
        }
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(SHORT * 10, stream.read_to_end(&mut rest)).await.unwrap();
        assert!(rest.is_empty() && start.elapsed() >= SHORT, "{rest:?}");
    }
    served.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    let served = Served::new(LONG, SHORT, 8);
    let mut stream = served.connect().await;
    // Asks until nothing more goes either way, and then waits for it to end.
    let asking = async { while stream.write_all(GET).await.is_ok() {} };
    tokio::time::timeout(LONG, asking).await.expect("the connection is closed");
    served.stop().await;
}

#[tokio::test]
async fn who_has_waited_long_enough_is_served_as_a_spare() {
    let limits = Limits { patience: SHORT, ..Limits::with_connections(1) };
    let served = Served::with(Router::new().fallback(async || ""), limits);
    let mut one = served.connect().await;
    answer(&mut one).await;
    // Idle ones do not keep others out for long.
    let mut idle = Vec::new();
    for _ in 0..SPARE {
        idle.push(served.connect().await);
    }
    for _ in 0..3 {
        let mut spare = served.connect().await;
        spare.write_all(GET).await.unwrap();
        let mut reply = String::new();
        tokio::time::timeout(SHORT * 10, spare.read_to_string(&mut reply)).await.expect("and closed").unwrap();
        assert!(reply.starts_with("HTTP/1.1 418 ") && reply.contains("connection: close"), "{reply}");
    }
    // A place that is free again is had at once by who comes next.
    drop(one);
    tokio::time::sleep(SHORT).await;
    answer(&mut served.connect().await).await;
    served.stop().await;
}

#[tokio::test]
async fn a_connection_too_many_waits() {
    let served = Served::new(LONG, LONG, 2);
    let (mut one, mut two, mut three) = (served.connect().await, served.connect().await, served.connect().await);
    answer(&mut one).await;
    answer(&mut two).await;
    assert!(tokio::time::timeout(SHORT, answer(&mut three)).await.is_err(), "there is no place");
    drop(one);
    let mut byte = [0];
    tokio::time::timeout(LONG, three.read_exact(&mut byte)).await.expect("there is one now").unwrap();
    // Whoever waits does not keep it from stopping.
    let _waits = served.connect().await;
    drop((two, three));
    served.stop().await;
}

#[tokio::test]
async fn a_handshake_has_its_time_and_a_place() {
    let (served, _) = Served::https(Limits { handshake_timeout: SHORT, ..Limits::with_connections(1) });
    let start = Instant::now();
    let mut one = TcpStream::connect(served.address).await.unwrap();
    let mut two = TcpStream::connect(served.address).await.unwrap();
    // A byte now and then does not win time: the first of a handshake's record.
    one.write_all(&[22]).await.unwrap();
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(LONG, one.read_to_end(&mut rest)).await.expect("it is cut off");
    assert!(start.elapsed() >= SHORT);
    // The other waited for its place, and has its own time after that.
    let _ = tokio::time::timeout(LONG, two.read_to_end(&mut rest)).await.expect("it is cut off");
    assert!(start.elapsed() >= SHORT * 2);
    // One that is under way does not keep it from stopping.
    let _hangs = TcpStream::connect(served.address).await.unwrap();
    served.stop().await;
}

#[tokio::test]
async fn over_tls_a_client_that_does_not_read_is_cut_off() {
    let (served, own) = Served::https(Limits { write_timeout: SHORT, ..Limits::with_connections(8) });
    let mut roots = rustls::RootCertStore::empty();
    roots.add(own).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(served.address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect("127.0.0.1".try_into().unwrap(), stream).await.unwrap();
    let asking = async { while stream.write_all(GET).await.is_ok() && stream.flush().await.is_ok() {} };
    tokio::time::timeout(LONG, asking).await.expect("the connection is closed");
    served.stop().await;
}
