//! Connections to servers, kept by one worker between requests.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Connections that wait for a request, by server; the one used last is used first.
#[derive(Debug, Default)]
pub(super) struct Pool(Mutex<HashMap<SocketAddr, Vec<Idle>>>);

#[derive(Debug)]
struct Idle {
    stream: TcpStream,
    until: Instant,
}

impl Pool {
    /// A connection that is still open, as far as one can know without asking.
    pub(super) fn take(&self, server: SocketAddr) -> Option<TcpStream> {
        let mut pool = self.0.lock();
        let idle = pool.get_mut(&server)?;
        let now = Instant::now();
        while let Some(Idle { stream, until }) = idle.pop() {
            // Who has not been asked has nothing to say: bytes, like an end, are a reason to leave it. The system is
            // asked: the runtime knows only what it knew when it last waited.
            let peeked = recv(&stream, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT);
            let silent = matches!(peeked, Err(Errno::AGAIN));
            if silent && now < until {
                return Some(stream);
            }
        }
        None
    }

    /// Keeps a connection for so long.
    pub(super) fn put(&self, server: SocketAddr, stream: TcpStream, now: Instant, idle: Duration) {
        self.0.lock().entry(server).or_default().push(Idle { stream, until: now + idle });
    }

    /// Closes those whose time is over.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        self.0.lock().retain(|_, idle| {
            idle.retain(|idle| now < idle.until);
            !idle.is_empty()
        });
    }
}

/// Opens a connection.
pub(super) async fn connect(server: SocketAddr, wait: Duration) -> io::Result<TcpStream> {
    let stream = tokio::time::timeout(wait, TcpStream::connect(server)).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Whether a connection that could not be opened says something of the server: no descriptor, port or memory left here
/// does not.
pub(super) fn is_theirs(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrNotAvailable, OutOfMemory, PermissionDenied};
    !matches!(error.kind(), AddrNotAvailable | OutOfMemory | PermissionDenied)
        && ![Some(Errno::MFILE), Some(Errno::NFILE)].contains(&Errno::from_io_error(error))
}

/// An error's kind, in the words of the other lane.
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
