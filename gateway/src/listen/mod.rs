//! Where clients connect: sockets, accept loops, TLS, and what a connection is served by.

pub mod tls;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;

use crate::lane::Lane;
use crate::live::{ListenerPolicy, Live, Snapshot};

/// After an answer to a request that was not read whole, so much more is read and dropped, so that the client gets to
/// see the answer before the connection is reset.
pub(crate) const LINGER_BYTES: usize = 1 << 20;
pub(crate) const LINGER_TIME: Duration = Duration::from_secs(2);
/// While draining, a connection without a request so far is given so long for its first.
pub(crate) const FIRST_HEAD_IN_DRAIN: Duration = Duration::from_millis(500);

/// A client's bytes, plain or out of TLS.
pub type ClientStream = Either<TcpStream, tokio_rustls::server::TlsStream<TcpStream>>;

/// What is known of a client's connection.
#[derive(Debug)]
pub struct Connection {
    /// The listener's name.
    pub listener: Arc<str>,
    /// The other end.
    pub peer: SocketAddr,
    /// The TLS version ("TLSv1.3"), when there is TLS.
    pub tls: Option<&'static str>,
    /// The listener's policy when the connection was accepted; the live one counts while the listener exists.
    pub policy: Arc<ListenerPolicy>,
}

/// A listening socket, shared by all workers.
#[derive(Debug)]
pub struct Listening {
    /// The listener's name.
    pub listener: Arc<str>,
    /// Where, with the port that port 0 became.
    pub address: SocketAddr,
    /// Where, as the file says.
    pub configured: SocketAddr,
    socket: Arc<std::net::TcpListener>,
    stop: CancellationToken,
}

impl Listening {
    /// Binds an address.
    ///
    /// # Errors
    /// Those of the system, with the address.
    pub fn bind(listener: &str, address: SocketAddr) -> io::Result<Self> {
        let bind = || -> io::Result<std::net::TcpListener> {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            if address.is_ipv6() {
                socket.set_only_v6(true)?;
            }
            socket.set_nonblocking(true)?;
            socket.bind(&address.into())?;
            socket.listen(4096)?;
            Ok(socket.into())
        };
        let socket = bind().map_err(|error| io::Error::new(error.kind(), format!("cannot bind {address}: {error}")))?;
        let stop = CancellationToken::new();
        let (address, configured) = (socket.local_addr()?, address);
        Ok(Self { listener: listener.into(), address, configured, socket: Arc::new(socket), stop })
    }

    /// The same socket under another listener's name.
    #[must_use]
    pub fn renamed(&self, listener: &str) -> Self {
        let (address, configured, socket) = (self.address, self.configured, self.socket.clone());
        Self { listener: listener.into(), address, configured, socket, stop: CancellationToken::new() }
    }

    /// Ends the accept loops; connections go on.
    pub fn stop(&self) {
        self.stop.cancel();
    }
}

/// Connections of a listener that are open, over all its addresses and workers.
#[derive(Debug, Default)]
pub struct Slots {
    open: AtomicU32,
    freed: Notify,
}

/// A connection's place; it is free again when this is dropped.
struct Slot(Arc<Slots>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
        self.0.freed.notify_one();
    }
}

impl Slots {
    /// Waits until there is a place under the limit, which is asked anew each time: a reload may change it.
    async fn take(self: &Arc<Self>, limit: impl Fn() -> u32) -> Slot {
        loop {
            let freed = self.freed.notified();
            let taken = self
                .open
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, |open| (open < limit()).then_some(open + 1));
            if taken.is_ok() {
                return Slot(self.clone());
            }
            freed.await;
        }
    }

    /// Takes a place whatever the limit: the connection has been accepted, and there is no later.
    fn take_at_once(self: &Arc<Self>) -> Slot {
        self.open.fetch_add(1, Ordering::AcqRel);
        Slot(self.clone())
    }

    /// Lets those who wait look again.
    pub(crate) fn wake(&self) {
        self.freed.notify_waiters();
    }
}

/// What the connections of one worker share.
#[derive(Clone)]
pub struct Worker {
    pub(crate) live: Arc<Live>,
    pub(crate) lane: Arc<Lane>,
    pub(crate) drain: watch::Receiver<bool>,
    pub(crate) connections: tokio_util::task::TaskTracker,
}

/// Accepts connections on this worker until the listener is stopped.
pub async fn accept(worker: Worker, listening: Arc<Listening>, slots: Arc<Slots>) {
    let socket = match listening.socket.try_clone().and_then(TcpListener::from_std) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::error!(address = %listening.address, %error, "cannot accept on this worker");
            return;
        }
    };
    let named = |snapshot: &Snapshot| snapshot.listeners.get(&*listening.listener).cloned();
    let Some(mut policy) = named(&worker.live.snapshot()) else {
        return;
    };
    let serve = |stream: TcpStream, peer: SocketAddr, policy: &Arc<ListenerPolicy>, slot: Slot| {
        let (serving, listener, policy) = (worker.clone(), listening.listener.clone(), policy.clone());
        worker.connections.spawn(async move {
            serving.serve(stream, peer, listener, policy).await;
            drop(slot);
        });
    };
    loop {
        let accepted = tokio::select! {
            biased;
            () = listening.stop.cancelled() => break,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                // A connection first, then a place for it: an idle address takes no place away from a busy one. What
                // else comes waits in the kernel.
                let limit = || named(&worker.live.snapshot()).map_or(u32::MAX, |policy| policy.limits.connections);
                let slot = tokio::select! {
                    slot = slots.take(limit) => slot,
                    () = listening.stop.cancelled() => slots.take_at_once(),
                };
                // A listener that was just taken out of the file ends under the policy it had.
                policy = named(&worker.live.snapshot()).unwrap_or(policy);
                serve(stream, peer, &policy, slot);
            }
            Err(error) => {
                // Out of file descriptors or memory: others end, and then there is room.
                if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
                    worker.live.metrics.accept_errors.inc();
                    tracing::warn!(address = %listening.address, %error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
    if Arc::strong_count(&listening.socket) > 1 {
        // It has another name now, under which what the kernel has accepted already is served.
        return;
    }
    // What the kernel has accepted already would be reset with the socket: it is served.
    while let Ok(Ok((stream, peer))) = timeout(Duration::ZERO, socket.accept()).await {
        serve(stream, peer, &policy, slots.take_at_once());
    }
}

/// Waits until a drain has gone on for so long: who has not asked anything by then is not waited for.
pub(crate) async fn drained_for(mut drain: watch::Receiver<bool>, patience: Duration) {
    let _ = drain.wait_for(|draining| *draining).await;
    tokio::time::sleep(patience).await;
}

impl Worker {
    async fn serve(self, stream: TcpStream, peer: SocketAddr, listener: Arc<str>, policy: Arc<ListenerPolicy>) {
        let metrics = self.live.metrics.clone();
        let _open = metrics.connection(&listener);
        let _ = stream.set_nodelay(true);
        let (io, tls, h2): (ClientStream, _, _) = match &policy.tls {
            None => (Either::Left(stream), None, false),
            Some(config) => {
                let handshake = TlsAcceptor::from(config.clone()).accept(stream);
                let handshake = tokio::select! {
                    biased;
                    done = timeout(policy.timeouts.handshake.0, handshake) => done,
                    () = drained_for(self.drain.clone(), FIRST_HEAD_IN_DRAIN) => return,
                };
                match handshake {
                    Ok(Ok(stream)) => {
                        let session = stream.get_ref().1;
                        let h2 = session.alpn_protocol() == Some(b"h2");
                        let version = match session.protocol_version() {
                            Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
                            _ => "TLSv1.2",
                        };
                        let resumed = session.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
                        metrics
                            .handshakes
                            .with_label_values(&[version, if resumed { "resumed" } else { "full" }])
                            .inc();
                        (Either::Right(stream), Some(version), h2)
                    }
                    Ok(Err(error)) => {
                        let reason = match error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
                            Some(_) => "protocol",
                            None => "connection",
                        };
                        metrics.handshake_failures.with_label_values(&[reason]).inc();
                        tracing::debug!(%peer, %error, "TLS handshake failed");
                        return;
                    }
                    Err(_) => {
                        metrics.handshake_failures.with_label_values(&["timeout"]).inc();
                        return;
                    }
                }
            }
        };
        let connection = Connection { listener, peer, tls, policy };
        if !h2 {
            return crate::http1::serve(&self.lane, io, &connection, self.drain).await;
        }
        crate::http2::serve(&self.lane, io, &connection, self.drain).await;
    }
}
