//! The Unix socket: bound for the owner and the group, served until told to stop.
//!
//! No client holds a connection for nothing: a head, a body and the reading of an answer each have their time, and
//! there are so many connections and no more. When all are taken and stay so, a few more are served, for health and
//! metrics alone.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::lock::{Lock, LockError};

/// A request's head must be there within this time, and the next one's after an answer.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A client that does not read must have read some of an answer within this time.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// So many connections are served at once, on all sockets; others wait to be accepted. Well below the 1024 file
/// descriptors that a process has by default: the ledger and KMS need some.
const CONNECTIONS: usize = 512;
/// Whoever waits for one of those is served as a spare once none has been free for this time.
const PATIENCE: Duration = Duration::from_millis(500);
/// So many spare connections: one request each, and soon.
const SPARE: usize = 16;
/// A spare connection's head must be there within this time.
const SPARE_HEAD_TIMEOUT: Duration = Duration::from_secs(1);
/// A request's head has this size at most, in bytes.
const HEAD_SIZE: usize = 16 * 1024;
/// After accepting fails (no file descriptors left), it is tried again after this time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The user id of the process at the other end of the socket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    pub(super) uid: u32,
}

/// One of the places for connections, which frees itself. What a request leaves running when its client goes away keeps
/// it: otherwise asking and going away would be without bound.
#[derive(Debug, Clone)]
pub(super) struct Place {
    _permit: Arc<OwnedSemaphorePermit>,
}

/// What clients may take.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    head_timeout: Duration,
    write_timeout: Duration,
    connections: Arc<Semaphore>,
    patience: Duration,
    spare: Arc<Semaphore>,
}

/// What is served.
#[derive(Debug, Clone)]
pub(crate) struct Routers {
    /// To a connection that has a place.
    pub(crate) all: Router,
    /// To a spare one.
    pub(crate) spare: Router,
}

impl Default for Limits {
    fn default() -> Self {
        Self::with_connections(CONNECTIONS)
    }
}

impl Limits {
    pub(crate) fn with_connections(connections: usize) -> Self {
        let (connections, spare) = (Arc::new(Semaphore::new(connections)), Arc::new(Semaphore::new(SPARE)));
        Self { head_timeout: HEAD_TIMEOUT, write_timeout: WRITE_TIMEOUT, connections, patience: PATIENCE, spare }
    }

    /// Waits for a place, and whether it is a spare one. `full_since` is when there last was none.
    async fn place(&self, full_since: &mut Option<Instant>) -> io::Result<(Place, bool)> {
        let spare_from = full_since.unwrap_or_else(Instant::now) + self.patience;
        let (permit, spare) = tokio::select! {
            biased;
            permit = Arc::clone(&self.connections).acquire_owned() => (permit, false),
            permit = async {
                full_since.get_or_insert_with(Instant::now);
                tokio::time::sleep_until(spare_from).await;
                Arc::clone(&self.spare).acquire_owned().await
            } => (permit, true),
        };
        if !spare {
            *full_since = None;
        }
        Ok((Place { _permit: Arc::new(permit.map_err(io::Error::other)?) }, spare))
    }
}

/// A bound socket. Its file goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: UnixListener,
    path: PathBuf,
    /// Let go after the socket's file is gone.
    _lock: Lock,
}

/// Why a socket cannot be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Something listens there: another signer, most likely.
    #[error("something listens there already")]
    Taken,
    /// What is there is no socket, and is left alone.
    #[error("there is a file that is no socket")]
    NoSocket,
    /// The operating system's word.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Listener {
    /// Binds a socket at `path`, mode 0660. One that a dead process left is replaced.
    pub(crate) fn bind(path: &Path) -> Result<Self, BindError> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        // Of two that start at once, one goes on: between seeing that nobody listens and putting a socket there, nobody
        // else does.
        let lock = Lock::of(path).map_err(|error| match error {
            LockError::Held(_) => BindError::Taken,
            LockError::Io(error) => error.into(),
        })?;
        vacant(path)?;
        // Under another name first: nobody can connect before the mode is right, and a stale socket is replaced in
        // one step.
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(".new");
        let fresh = PathBuf::from(fresh);
        match std::fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let socket = UnixListener::bind(&fresh)?;
        std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o660))?;
        std::fs::rename(&fresh, path)?;
        Ok(Self { socket, path: path.to_owned(), _lock: lock })
    }

    /// Serves until `stop`, and then until the last request in flight is answered.
    pub(crate) async fn serve(self, routers: Routers, limits: Limits, stop: CancellationToken) {
        let connections = TaskTracker::new();
        let mut full_since = None;
        loop {
            let accept = async {
                // First the connection: a spare place that waited for one would be had by who needs none.
                let (stream, _) = self.socket.accept().await?;
                let (place, spare) = limits.place(&mut full_since).await?;
                io::Result::Ok((stream, place, spare))
            };
            let (stream, place, spare) = tokio::select! {
                () = stop.cancelled() => break,
                accepted = accept => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                },
            };
            match stream.peer_cred() {
                Ok(credentials) => {
                    let peer = Peer { uid: credentials.uid() };
                    let router = if spare { &routers.spare } else { &routers.all };
                    let http = http(&limits, spare);
                    let stream = Impatient { stream, timeout: limits.write_timeout, stalled: None };
                    connections.spawn(connection(stream, http, peer, place, router.clone(), stop.clone()));
                }
                Err(error) => tracing::warn!(%error, "a connection without a peer's credentials was closed"),
            }
        }
        connections.close();
        connections.wait().await;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // If it is gone already, so much the better.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn http(limits: &Limits, spare: bool) -> http1::Builder {
    let head_timeout = if spare { limits.head_timeout.min(SPARE_HEAD_TIMEOUT) } else { limits.head_timeout };
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(head_timeout).max_buf_size(HEAD_SIZE).keep_alive(!spare);
    http
}

async fn connection(
    stream: Impatient,
    http: http1::Builder,
    peer: Peer,
    place: Place,
    router: Router,
    stop: CancellationToken,
) {
    let service = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(place.clone());
        service.call(request)
    });
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, uid = peer.uid, "a connection ended early");
    }
}

/// A stream whose writing fails when it gets nowhere for a while: hyper itself waits for ever.
struct Impatient {
    stream: tokio::net::UnixStream,
    timeout: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Impatient {
    fn write(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut tokio::net::UnixStream>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = write(Pin::new(&mut self.stream), cx) {
            self.stalled = None;
            return Poll::Ready(written);
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.timeout)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
    }
}

impl AsyncRead for Impatient {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Impatient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.write(cx, |stream, cx| stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, |stream, cx| stream.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Sees that nobody listens at `path`, and that a file there is a socket that somebody left.
fn vacant(path: &Path) -> Result<(), BindError> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(BindError::NoSocket),
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(BindError::Taken),
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;
    use tokio::task::JoinHandle;

    use super::*;

    const SHORT: Duration = Duration::from_millis(300);
    const LONG: Duration = Duration::from_secs(60);
    const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: signer\r\n\r\n";

    struct Served {
        path: PathBuf,
        stop: CancellationToken,
        serving: JoinHandle<()>,
        _dir: tempfile::TempDir,
    }

    impl Served {
        fn new(head_timeout: Duration, write_timeout: Duration, connections: usize) -> Self {
            let router = Router::new().fallback(async || "x".repeat(4000));
            let limits =
                Limits { head_timeout, write_timeout, patience: LONG, ..Limits::with_connections(connections) };
            Self::with(router, limits)
        }

        fn with(router: Router, limits: Limits) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let (path, stop) = (dir.path().join("s.sock"), CancellationToken::new());
            let routers = Routers { all: router, spare: Router::new().fallback(async || StatusCode::IM_A_TEAPOT) };
            let serving = tokio::spawn(Listener::bind(&path).unwrap().serve(routers, limits, stop.clone()));
            Self { path, stop, serving, _dir: dir }
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
}
