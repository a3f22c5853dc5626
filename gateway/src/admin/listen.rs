//! The admin API's connections. It shares its process, and the process' file descriptors, with every client of the
//! gateway: so no caller holds a connection for nothing, and there are so many and no more.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Sleep;

/// A request's head has this size at most, in bytes.
const HEAD_SIZE: usize = 16 * 1024;

/// What callers may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// A request's head must be there within this time, and the next one's after an answer.
    pub(super) head: Duration,
    /// A request's body must be there within this time.
    pub(super) body: Duration,
    /// A caller that does not read must have read some of an answer within this time.
    pub(super) write: Duration,
    /// So many connections are served at once; others wait to be accepted.
    pub(super) connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let patience = Duration::from_secs(10);
        Self { head: patience, body: patience, write: patience, connections: 32 }
    }
}

/// Serves until this is dropped, and its connections with it.
pub(super) async fn serve(mut listener: impl Listener, router: Router, limits: Limits) {
    let places = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    loop {
        // A place first: what waits in the kernel takes no descriptor.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        // Tries again after a while when there are no descriptors left.
        let (stream, _) = listener.accept().await;
        connections.spawn(connection(stream, place, router.clone(), limits));
        while connections.try_join_next().is_some() {}
    }
}

async fn connection<S>(stream: S, place: OwnedSemaphorePermit, router: Router, limits: Limits)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let io = TokioIo::new(Impatient { stream, timeout: limits.write, stalled: None });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.head).max_buf_size(HEAD_SIZE);
    if let Err(error) = http.serve_connection(io, TowerToHyperService::new(router)).await {
        tracing::debug!(%error, "a connection to the admin API ended early");
    }
    drop(place);
}

/// A stream whose writing fails when it gets nowhere for a while: hyper itself waits for ever.
struct Impatient<S> {
    stream: S,
    timeout: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Impatient<S> {
    fn unless_stalled<T>(&mut self, cx: &mut Context<'_>, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if done.is_ready() {
            self.stalled = None;
            return done;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.timeout)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the caller does not read")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.unless_stalled(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.unless_stalled(cx, written)
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Instant;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const SHORT: Duration = Duration::from_millis(300);
    const LONG: Duration = Duration::from_secs(60);
    const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: admin\r\n\r\n";

    async fn serving(limits: Limits) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(async || "x".repeat(4000));
        tokio::spawn(serve(listener, router, limits));
        address
    }

    fn patient(connections: usize) -> Limits {
        Limits { head: LONG, body: LONG, write: LONG, connections }
    }

    #[tokio::test]
    async fn a_head_that_drips_is_cut_off_and_so_is_an_idle_connection() {
        let address = serving(Limits { head: SHORT, ..patient(8) }).await;
        for (sent, drips) in [(&b""[..], false), (&GET[..20], false), (GET, false), (GET, true)] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let start = Instant::now();
            for byte in sent {
                // A byte now and then does not win time.
                if stream.write_all(&[*byte]).await.is_err() {
                    break;
                }
                if drips {
                    tokio::time::sleep(SHORT / 10).await;
                }
            }
            let mut rest = Vec::new();
            let _ = tokio::time::timeout(SHORT * 10, stream.read_to_end(&mut rest)).await.expect("it is closed");
            assert!(start.elapsed() >= SHORT, "{:?}", start.elapsed());
            assert_eq!(rest.starts_with(b"HTTP/1.1 200"), sent == GET && !drips, "{}", rest.len());
        }
    }

    #[tokio::test]
    async fn a_caller_that_does_not_read_is_cut_off() {
        let address = serving(Limits { write: SHORT, ..patient(8) }).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let asking = async { while stream.write_all(GET).await.is_ok() {} };
        tokio::time::timeout(LONG, asking).await.expect("the connection is closed");
    }

    #[tokio::test]
    async fn a_connection_too_many_waits() {
        let address = serving(patient(2)).await;
        let ask = async || {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(GET).await.unwrap();
            stream
        };
        let mut start = [0; 12];
        let (mut one, mut two) = (ask().await, ask().await);
        for stream in [&mut one, &mut two] {
            stream.read_exact(&mut start).await.unwrap();
            assert_eq!(&start, b"HTTP/1.1 200");
        }
        let mut three = ask().await;
        assert!(tokio::time::timeout(SHORT, three.read_exact(&mut start)).await.is_err(), "there is no place");
        drop(one);
        tokio::time::timeout(LONG, three.read_exact(&mut start)).await.expect("there is one now").unwrap();
    }
}
