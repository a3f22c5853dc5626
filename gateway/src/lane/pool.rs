//! Connections to servers, kept by one worker between requests.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::connect::ServerStream;

/// A server's address, and whose TLS is spoken there: [`crate::upstream::tls::ServerTls::id`], or 0 for none. What was
/// opened under another is another's: it was verified by other authorities, for another name, or shows another
/// certificate.
type Key = (SocketAddr, u64);

/// Connections that wait for a request, by server; the one used last is used first.
#[derive(Debug, Default)]
pub(super) struct Pool(Mutex<HashMap<Key, Vec<Idle>>>);

#[derive(Debug)]
struct Idle {
    stream: ServerStream,
    until: Instant,
}

impl Pool {
    /// A connection that is still open, as far as one can know without asking.
    pub(super) fn take(&self, server: SocketAddr, tls: u64) -> Option<ServerStream> {
        let mut pool = self.0.lock();
        let idle = pool.get_mut(&(server, tls))?;
        let now = Instant::now();
        while let Some(Idle { mut stream, until }) = idle.pop() {
            // Who has not been asked has nothing to say: bytes, like an end, are a reason to leave it.
            if stream.is_silent() && now < until {
                return Some(stream);
            }
            stream.end();
        }
        None
    }

    /// Keeps a connection for so long.
    pub(super) fn put(&self, server: SocketAddr, stream: ServerStream, now: Instant, idle: Duration) {
        self.0.lock().entry((server, stream.tls_id())).or_default().push(Idle { stream, until: now + idle });
    }

    /// Closes those whose time is over.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        let mut over = Vec::new();
        self.0.lock().retain(|_, idle| {
            over.extend(idle.extract_if(.., |idle| idle.until <= now));
            !idle.is_empty()
        });
        for Idle { stream, .. } in over {
            stream.end();
        }
    }
}
