use std::sync::Arc;

use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig, ServerConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::super::pool::Pool;
use super::*;

const LONG: Duration = Duration::from_secs(20);

type Accepted = tokio_rustls::server::TlsStream<TcpStream>;

/// A server's TLS and ours, which trusts it as `localhost`.
fn tls(id: u64) -> (TlsAcceptor, ServerTls) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()).into();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let server = server.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let client = client.with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    (Arc::new(server).into(), ServerTls { id, connector: Arc::new(client).into(), name })
}

/// Both ends of a connection.
async fn connected() -> (ServerStream, Accepted, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (acceptor, ours) = tls(1);
    let accept = async { acceptor.accept(listener.accept().await.unwrap().0).await.unwrap() };
    let (stream, accepted) = tokio::join!(connect(address, Some(&ours), LONG), accept);
    (stream.unwrap(), accepted, address)
}

fn session(accepted: &mut Accepted) -> &mut ServerConnection {
    accepted.get_mut().1
}

/// Waits until there is something to be read.
async fn arrived(stream: &ServerStream) {
    let ServerStream::Tls(tls) = stream else { panic!("plain") };
    tokio::time::timeout(LONG, async {
        while recv(tls.stream.get_ref().0, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT) == Err(Errno::AGAIN) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn tickets_and_new_keys_are_read_off() {
    let (mut stream, mut accepted, _) = connected().await;
    // A server in 1.3 sends its tickets once it has all of the handshake.
    arrived(&stream).await;
    assert!(stream.is_silent(), "tickets are no reason to leave it");
    assert!(stream.is_silent());
    session(&mut accepted).refresh_traffic_keys().unwrap();
    accepted.flush().await.unwrap();
    arrived(&stream).await;
    assert!(stream.is_silent(), "new keys are none, either");
    // And both ends understand each other still.
    stream.write_all(b"asked").await.unwrap();
    stream.flush().await.unwrap();
    let mut asked = [0; 5];
    accepted.read_exact(&mut asked).await.unwrap();
    accepted.write_all(b"answered").await.unwrap();
    accepted.flush().await.unwrap();
    let mut answered = [0; 8];
    stream.read_exact(&mut answered).await.unwrap();
    assert_eq!((&asked, &answered), (b"asked", b"answered"));
    assert!(stream.is_silent());
}

/// Waits until it is no longer taken for silent.
async fn left(mut stream: ServerStream, why: &str) {
    let deadline = Instant::now() + LONG;
    while stream.is_silent() {
        assert!(Instant::now() < deadline, "taken for silent: {why}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_a_server_says_unasked_is_a_reason_to_leave_it() {
    let (stream, mut accepted, _) = connected().await;
    accepted.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").await.unwrap();
    accepted.flush().await.unwrap();
    left(stream, "an answer to nothing").await;

    let (stream, mut accepted, _) = connected().await;
    session(&mut accepted).send_close_notify();
    accepted.flush().await.unwrap();
    left(stream, "its end").await;

    let (stream, accepted, _) = connected().await;
    drop(accepted);
    left(stream, "an end that says nothing").await;

    // It may be anything.
    let (stream, accepted, _) = connected().await;
    let (mut tcp, _session) = accepted.into_inner();
    tcp.write_all(&[23, 3, 3, 1, 0, 7]).await.unwrap();
    left(stream, "half a record").await;

    let (mut stream, mut accepted, _) = connected().await;
    accepted.write_all(b"answer and more").await.unwrap();
    accepted.flush().await.unwrap();
    let mut answer = [0; 6];
    stream.read_exact(&mut answer).await.unwrap();
    assert!(!stream.is_silent(), "more came with the answer, and was not read");
}

#[tokio::test]
async fn the_pool_keeps_each_tls_apart() {
    let (stream, _accepted, address) = connected().await;
    let (pool, now) = (Pool::default(), Instant::now());
    pool.put(address, stream, now, LONG);
    for other in [0, 2] {
        assert!(pool.take(address, other).is_none(), "{other}");
    }
    assert!(pool.take(address, 1).is_some());
    assert!(pool.take(address, 1).is_none());
}

#[tokio::test]
async fn what_the_pool_gives_up_says_so() {
    let (mut first, mut one, address) = connected().await;
    arrived(&first).await;
    assert!(first.is_silent());
    let pool = Pool::default();
    pool.put(address, first, Instant::now(), Duration::ZERO);
    pool.sweep();
    assert_eq!(one.read(&mut [0; 1]).await.unwrap(), 0, "close_notify");
    // What breaks off does not.
    let (stream, mut two, _) = connected().await;
    drop(stream);
    assert_ne!(two.read(&mut [0; 1]).await.map_err(|error| error.kind()).ok(), Some(0));
}

#[tokio::test]
async fn a_handshake_has_the_time_of_the_connect() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (_, ours) = tls(1);
    let waited = connect(listener.local_addr().unwrap(), Some(&ours), Duration::from_millis(100)).await.unwrap_err();
    assert!(waited.is_late() && waited.is_theirs());
    assert_eq!((waited.counted(), waited.kind().as_str()), ("tls", "TLSHandshakeTimedout"));
}

#[tokio::test]
async fn a_write_that_was_taken_is_sent_by_who_reads() {
    let (mut stream, mut accepted, _) = connected().await;
    // More than the kernel takes: the rest waits in TLS, with nothing written after it.
    let large = vec![b'x'; 64 << 10];
    let mut sent = 0;
    let blocked = std::future::poll_fn(|cx| {
        while let Poll::Ready(written) = Pin::new(&mut stream).poll_write(cx, &large) {
            sent += written.unwrap();
        }
        Poll::Ready(())
    });
    blocked.await;
    let ServerStream::Tls(tls) = &stream else { panic!("plain") };
    assert!(tls.stream.get_ref().1.wants_write(), "nothing waits: the test shows nothing");
    let echo = async {
        let mut read = vec![0; sent];
        accepted.read_exact(&mut read).await.unwrap();
        accepted.write_all(b"all").await.unwrap();
        accepted.flush().await.unwrap();
    };
    let mut answer = [0; 3];
    let both = async { tokio::join!(echo, stream.read_exact(&mut answer)).1.unwrap() };
    tokio::time::timeout(LONG, both).await.unwrap();
    assert_eq!(&answer, b"all");
}
