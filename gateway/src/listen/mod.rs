//! Where clients connect: sockets, accept loops, TLS, and what a connection is served by.

pub mod tls;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use pingora_core::apps::{HttpServerApp, ServerApp};
use pingora_core::protocols::http::ServerSession;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;

use crate::http1::door::{Door, FIRST_HEAD_IN_DRAIN, NoHead};
use crate::http1::head::{Limits, Refusal};
use crate::live::{ListenerPolicy, Live};
use crate::proxy::{Edge, EdgeProxy};

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
    /// Whether it speaks HTTP/2.
    pub h2: bool,
    /// The listener's policy when the connection was accepted; the live one counts while the listener exists.
    pub policy: Arc<ListenerPolicy>,
    pub(crate) fd: RawFd,
    /// Bytes pass the front door unjudged: HTTP/2 frames, or a tunnel after an upgrade.
    pub(crate) open: AtomicBool,
    /// Why the request under way was refused in mid-body.
    pub(crate) refused: Mutex<Option<Refusal>>,
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
    socket: std::net::TcpListener,
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
        Ok(Self { listener: listener.into(), address: socket.local_addr()?, configured: address, socket, stop })
    }

    /// The same socket under another listener's name.
    ///
    /// # Errors
    /// When the system has no file descriptor left.
    pub fn renamed(&self, listener: &str) -> io::Result<Self> {
        let socket = self.socket.try_clone()?;
        let stop = CancellationToken::new();
        let (address, configured) = (self.address, self.configured);
        Ok(Self { listener: listener.into(), address, configured, socket, stop })
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

    /// Lets those who wait look again.
    pub(crate) fn wake(&self) {
        self.freed.notify_waiters();
    }
}

/// What the connections of one worker share.
#[derive(Clone)]
pub struct Worker {
    pub(crate) live: Arc<Live>,
    pub(crate) proxy: Arc<EdgeProxy>,
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
    let next = async || {
        let limit =
            || worker.live.snapshot().listeners.get(&*listening.listener).map_or(u32::MAX, |l| l.limits.connections);
        let slot = slots.take(limit).await;
        (slot, socket.accept().await)
    };
    let spawn = |stream: TcpStream, peer: SocketAddr, slot: Slot| {
        let (serving, listener) = (worker.clone(), listening.listener.clone());
        worker.connections.spawn(async move {
            serving.serve(stream, peer, &listener).await;
            drop(slot);
        });
    };
    loop {
        let (slot, accepted) = tokio::select! {
            biased;
            () = listening.stop.cancelled() => break,
            next = next() => next,
        };
        match accepted {
            Ok((stream, peer)) => spawn(stream, peer, slot),
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
    // What the kernel has accepted already would be reset with the socket: it is served.
    while let Ok(Ok((stream, peer))) = timeout(Duration::ZERO, socket.accept()).await {
        slots.open.fetch_add(1, Ordering::AcqRel);
        spawn(stream, peer, Slot(slots.clone()));
    }
}

/// Waits until a drain has gone on for so long: who has not asked anything by then is not waited for.
pub(crate) async fn drained_for(mut drain: watch::Receiver<bool>, patience: Duration) {
    let _ = drain.wait_for(|draining| *draining).await;
    tokio::time::sleep(patience).await;
}

impl Worker {
    async fn serve(self, stream: TcpStream, peer: SocketAddr, listener: &Arc<str>) {
        let Some(policy) = self.live.snapshot().listeners.get(&**listener).cloned() else {
            return;
        };
        let metrics = self.live.metrics.clone();
        let _open = metrics.connection(listener);
        let _ = stream.set_nodelay(true);
        let fd = stream.as_raw_fd();
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
        let connection = Arc::new(Connection {
            listener: listener.clone(),
            peer,
            tls,
            h2,
            policy,
            fd,
            open: AtomicBool::new(false),
            refused: Mutex::new(None),
        });
        let door = Box::new(Door::new(io, connection));
        if h2 { self.serve_h2(door).await } else { self.serve_h1(door).await }
    }

    async fn serve_h2(&self, mut door: Box<Door>) {
        let wait = door.connection().policy.timeouts.request_head.0;
        let begun = tokio::select! {
            biased;
            begun = door.expect_h2(wait) => begun,
            () = drained_for(self.drain.clone(), FIRST_HEAD_IN_DRAIN) => false,
        };
        if begun {
            self.proxy.process_new(door, &self.drain).await;
        }
    }

    async fn serve_h1(&self, mut door: Box<Door>) {
        let mut drain = self.drain.clone();
        loop {
            let connection = door.connection().clone();
            let snapshot = self.live.snapshot();
            let policy = snapshot.listener(&connection);
            let limits = Limits {
                size: usize::try_from(policy.limits.head_size.0).unwrap_or(usize::MAX),
                headers: usize::from(policy.limits.header_count),
            };
            let (idle, whole) = (policy.timeouts.idle.0, policy.timeouts.request_head.0);
            let head = match door.next_head(limits, idle, whole, &mut drain).await {
                Ok(head) => head,
                Err(NoHead::Closed) => return,
                Err(NoHead::Refused(refusal)) => {
                    let answer = Edge::refuse(&self.live, &connection, refusal);
                    door.refuse(&answer, policy.timeouts.send.0).await;
                    return;
                }
            };
            drop(snapshot);
            let bytes = door.take_head(&head);
            let mut session = ServerSession::new_http1(door);
            session.set_pipelined_prefix(bytes);
            // The door times the wait for the next head: this only says that there may be one.
            session.set_keepalive(if *drain.borrow() { None } else { Some(idle.as_secs().max(1)) });
            let Some(reused) = self.proxy.process_new_http(session, &self.drain).await else {
                return;
            };
            let (stream, _) = reused.consume();
            match stream.into_any().downcast::<Door>() {
                Ok(same) => door = same,
                Err(_) => unreachable!("pingora gives back the stream it was given"),
            }
        }
    }
}
