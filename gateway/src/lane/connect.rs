//! Connections to servers: how they are opened, plain or through TLS, and what they are when they are open.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::client::TlsStream;

use crate::upstream::tls::{ServerTls, refusal};

/// The head of a TLS record (RFC 8446, 5.1), and the most there is behind it (5.2; in 1.2, RFC 5246, 6.2.3).
const RECORD_HEAD: usize = 5;
const RECORD: usize = (16 << 10) + 2048;
/// Records that are read off a connection before it is used again: tickets and new keys, of which servers send few.
const MOST_RECORDS: usize = 16;

/// A server's connection.
#[derive(Debug)]
pub(super) enum ServerStream {
    Plain(TcpStream),
    /// Apart, so that plain connections stay as small as they are.
    Tls(Box<Secured>),
}

/// A connection through TLS, and [`ServerTls::id`] of whose it is.
#[derive(Debug)]
pub(super) struct Secured {
    stream: TlsStream<TcpStream>,
    id: u64,
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum NoConnection {
    Tcp(io::Error),
    Tls(io::Error),
}

/// Opens a connection. `wait` is for all of it.
pub(super) async fn connect(
    address: SocketAddr,
    tls: Option<&ServerTls>,
    wait: Duration,
) -> Result<ServerStream, NoConnection> {
    let by = Instant::now() + wait;
    let opened = timeout_at(by, TcpStream::connect(address)).await;
    let stream = opened.map_err(io::Error::from).flatten().map_err(NoConnection::Tcp)?;
    stream.set_nodelay(true).map_err(NoConnection::Tcp)?;
    let Some(tls) = tls else { return Ok(ServerStream::Plain(stream)) };
    let shaken = timeout_at(by, tls.connector.connect(tls.name.clone(), stream)).await;
    let stream = shaken.map_err(io::Error::from).flatten().map_err(NoConnection::Tls)?;
    Ok(ServerStream::Tls(Box::new(Secured { stream, id: tls.id })))
}

impl NoConnection {
    /// Whether it says something of the server: no descriptor, port or memory left here does not.
    pub(super) fn is_theirs(&self) -> bool {
        use io::ErrorKind::{AddrNotAvailable, OutOfMemory, PermissionDenied};
        match self {
            Self::Tcp(error) => {
                !matches!(error.kind(), AddrNotAvailable | OutOfMemory | PermissionDenied)
                    && ![Some(Errno::MFILE), Some(Errno::NFILE)].contains(&Errno::from_io_error(error))
            }
            Self::Tls(_) => true,
        }
    }

    /// Whether the server took too long.
    pub(super) fn is_late(&self) -> bool {
        let (Self::Tcp(error) | Self::Tls(error)) = self;
        error.kind() == io::ErrorKind::TimedOut
    }

    /// What it is counted as.
    pub(super) fn counted(&self) -> &'static str {
        match self {
            Self::Tcp(_) => "connect",
            Self::Tls(_) => "tls",
        }
    }

    /// Its kind, for the log.
    pub(super) fn kind(&self) -> String {
        match self {
            Self::Tcp(error) => kind_of(error).to_owned(),
            Self::Tls(_) if self.is_late() => "TLSHandshakeTimedout".to_owned(),
            Self::Tls(error) => refusal(error).unwrap_or_else(|| format!("TLSHandshakeFailure {}", kind_of(error))),
        }
    }
}

impl std::fmt::Display for NoConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(error) => error.fmt(f),
            Self::Tls(error) => write!(f, "TLS handshake: {error}"),
        }
    }
}

/// An error's kind, for the log.
pub(super) fn kind_of(error: &io::Error) -> &'static str {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, TimedOut, UnexpectedEof};
    match error.kind() {
        ConnectionRefused => "ConnectRefused",
        TimedOut => "ConnectTimedout",
        HostUnreachable | NetworkUnreachable => "ConnectNoRoute",
        UnexpectedEof => "ConnectionClosed",
        _ => "ReadError",
    }
}

impl ServerStream {
    /// Whether it is still open and nothing has been said, as far as one can know without asking. The system is asked:
    /// the runtime knows only what it knew when it last waited.
    pub(super) fn is_silent(&mut self) -> bool {
        match self {
            Self::Plain(stream) => {
                matches!(recv(stream, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT), Err(Errno::AGAIN))
            }
            Self::Tls(tls) => is_silent(&mut tls.stream),
        }
    }

    /// The protocol that TLS agreed on; nothing, where it was not asked for one.
    pub(super) fn alpn(&self) -> Option<&[u8]> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(tls) => Some(tls.stream.get_ref().1.alpn_protocol().unwrap_or_default()),
        }
    }

    /// Whose TLS it is; 0 without TLS.
    pub(super) fn tls_id(&self) -> u64 {
        match self {
            Self::Plain(_) => 0,
            Self::Tls(tls) => tls.id,
        }
    }

    /// Ends a connection that waits for a request: what TLS says at an end is said (RFC 8446, 6.1), if it can be at
    /// once. What breaks off in the middle says nothing, so that it is not taken for whole.
    pub(super) fn end(self) {
        let Self::Tls(mut tls) = self else { return };
        let (tcp, session) = tls.stream.get_mut();
        session.send_close_notify();
        let _ = session.write_tls(&mut AtOnce(tcp));
    }
}

/// A server may send tickets and new keys whenever it likes: they are read off. Anything else, bytes as an end, is a
/// reason to leave it, and so is a record of which only the beginning is here.
fn is_silent(stream: &mut TlsStream<TcpStream>) -> bool {
    let (tcp, session) = stream.get_mut();
    // What was read together with the last answer counts, too.
    let mut record = Vec::new();
    for _ in 0..MOST_RECORDS {
        let mut unread = record.as_slice();
        while !unread.is_empty() {
            if !matches!(session.read_tls(&mut unread), Ok(1..)) {
                return false;
            }
        }
        match session.process_new_packets() {
            Ok(state) if state.plaintext_bytes_to_read() == 0 && !state.peer_has_closed() => {}
            _ => return false,
        }
        let mut head = [0; RECORD_HEAD];
        match recv(&*tcp, &mut head, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN) => return true,
            Ok((RECORD_HEAD, _)) => {}
            _ => return false,
        }
        let whole = RECORD_HEAD + usize::from(u16::from_be_bytes([head[3], head[4]]));
        record.resize(whole, 0);
        if whole > RECORD_HEAD + RECORD
            || !matches!(recv(&*tcp, record.as_mut_slice(), RecvFlags::DONTWAIT), Ok((n, _)) if n == whole)
        {
            return false;
        }
    }
    false
}

/// Writes what can be written at once.
struct AtOnce<'a>(&'a TcpStream);

impl Write for AtOnce<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(self.0, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for ServerStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(tls) => {
                // What was written may wait in TLS still, and who reads waits for what comes of it. When it cannot be
                // sent, what is read says why.
                if tls.stream.get_ref().1.wants_write() {
                    let _ = Pin::new(&mut tls.stream).poll_flush(cx);
                }
                Pin::new(&mut tls.stream).poll_read(cx, buf)
            }
        }
    }
}

impl AsyncWrite for ServerStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(tls) => {
                if tls.stream.get_ref().1.wants_write() {
                    ready!(Pin::new(&mut tls.stream).poll_flush(cx))?;
                }
                let taken = tls.stream.get_mut().1.writer().write(bytes)?;
                // Some of it may be on its way, whatever comes of the rest: it counts as sent, and who writes or reads
                // next is told of an error.
                let _ = Pin::new(&mut tls.stream).poll_flush(cx);
                Poll::Ready(Ok(taken))
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(tls) => Pin::new(&mut tls.stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(&mut tls.stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests;
