//! Where callers connect: Unix sockets, TLS, and plain HTTP on loopback; bound, and served until told to stop.
//!
//! No client holds a connection for nothing: a handshake, a head, a body and the reading of an answer each have their
//! time, and there are so many connections and no more. When all are taken and stay so, a few more are served, for
//! health and metrics alone.

mod impatient;
pub(crate) mod tls;
mod unix;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use keygate_config::SignerAddress;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::live::Live;
use impatient::Impatient;

/// A TLS handshake must be over within this time.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A request's head must be there within this time, and the next one's after an answer.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A client that does not read must have read some of an answer within this time.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// So many connections are served at once, on all listeners; others wait to be accepted. Well below the 1024 file
/// descriptors that a process has by default: the ledger and KMS need some.
const CONNECTIONS: usize = 512;
/// Whoever waits for one of those is served as a spare once none has been free for this time.
const PATIENCE: Duration = Duration::from_millis(500);
/// So many spare connections: one request each, and soon.
const SPARE: usize = 16;
/// A spare connection's handshake must be over, and its head be there, within this time each.
const SPARE_HEAD_TIMEOUT: Duration = Duration::from_secs(1);
/// A request's head has this size at most, in bytes.
const HEAD_SIZE: usize = 16 * 1024;
/// So many connections wait to be accepted.
const BACKLOG: i32 = 1024;
/// After accepting fails (no file descriptors left), it is tried again after this time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who is at the other end of a connection, as far as the connection tells.
#[derive(Debug, Clone)]
pub(super) enum Peer {
    /// A process of this user.
    Unix {
        /// The user id.
        uid: u32,
    },
    /// Somebody who speaks TLS, and showed this certificate.
    Tls(Option<Arc<tls::Certificate>>),
    /// Somebody on this machine.
    Http,
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
    handshake_timeout: Duration,
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
        Self {
            handshake_timeout: HANDSHAKE_TIMEOUT,
            head_timeout: HEAD_TIMEOUT,
            write_timeout: WRITE_TIMEOUT,
            connections,
            patience: PATIENCE,
            spare,
        }
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

/// A bound socket, that takes no connections yet.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Socket,
    address: SignerAddress,
    /// Of a Unix socket.
    file: Option<unix::SocketFile>,
}

/// Why a listener cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Something listens there: another signer, most likely.
    #[error("something listens there already")]
    Taken,
    /// What is there is no socket, and is left alone.
    #[error("there is a file that is no socket")]
    NoSocket,
    /// Whoever is on the way would read the tokens.
    #[error("tokens would cross the network in the clear: use https://, or an address of loopback")]
    Plain,
    /// The operating system's word.
    #[error(transparent)]
    Io(io::Error),
}

impl From<io::Error> for BindError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::AddrInUse { Self::Taken } else { Self::Io(error) }
    }
}

/// What all listeners share.
#[derive(Debug, Clone)]
pub(crate) struct Serving {
    pub(crate) routers: Routers,
    pub(crate) limits: Limits,
    pub(crate) live: Arc<Live>,
    pub(crate) stop: CancellationToken,
}

impl Listener {
    /// Binds a socket. That of a Unix socket is this user's and group's, if they are given.
    pub(crate) fn bind(address: &SignerAddress, owner: Option<(u32, u32)>) -> Result<Self, BindError> {
        let (socket, file) = match address {
            SignerAddress::Unix(path) => unix::bind(path, owner).map(|(socket, file)| (socket, Some(file)))?,
            SignerAddress::Http(address) if !keygate_config::may_be_plain(*address) => return Err(BindError::Plain),
            SignerAddress::Http(address) | SignerAddress::Https(address) => (bind_tcp(*address)?, None),
        };
        Ok(Self { socket, address: address.clone(), file })
    }

    /// Takes connections from now on: they wait until they are served.
    pub(crate) fn listen(&self) -> Result<(), BindError> {
        self.socket.set_nonblocking(true)?;
        // Of two that have bound it, one gets to listen.
        Ok(self.socket.listen(BACKLOG)?)
    }

    pub(crate) fn address(&self) -> &SignerAddress {
        &self.address
    }

    /// Serves until it is to stop, and then until the last request in flight is answered.
    pub(crate) async fn serve(self, serving: Serving) {
        let Self { socket, address, file: _file } = self;
        let socket = match address {
            SignerAddress::Unix(_) => UnixListener::from_std(socket.into()).map(Accepting::Unix),
            SignerAddress::Https(_) => TcpListener::from_std(socket.into()).map(Accepting::Https),
            SignerAddress::Http(_) => TcpListener::from_std(socket.into()).map(Accepting::Http),
        };
        match socket {
            Ok(socket) => socket.serve(&serving).await,
            Err(error) => tracing::error!(%address, %error, "cannot accept connections"),
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// A socket that takes connections.
enum Accepting {
    Unix(UnixListener),
    Https(TcpListener),
    Http(TcpListener),
}

/// A connection that was taken.
enum Accepted {
    Unix(UnixStream),
    Https(TcpStream),
    Http(TcpStream),
}

impl Accepting {
    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Unix(socket) => socket.accept().await.map(|(stream, _)| Accepted::Unix(stream)),
            Self::Https(socket) => socket.accept().await.map(|(stream, _)| Accepted::Https(stream)),
            Self::Http(socket) => socket.accept().await.map(|(stream, _)| Accepted::Http(stream)),
        }
    }

    async fn serve(self, serving: &Serving) {
        let connections = TaskTracker::new();
        let mut full_since = None;
        loop {
            let accept = async {
                // First the connection: a spare place that waited for one would be had by who needs none.
                let accepted = self.accept().await?;
                let (place, spare) = serving.limits.place(&mut full_since).await?;
                io::Result::Ok((accepted, place, spare))
            };
            tokio::select! {
                () = serving.stop.cancelled() => break,
                accepted = accept => match accepted {
                    Ok((accepted, place, spare)) => {
                        connections.spawn(serving.clone().connection(accepted, place, spare));
                    }
                    // It went away while it waited.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        connections.close();
        connections.wait().await;
    }
}

impl Serving {
    async fn connection(self, accepted: Accepted, place: Place, spare: bool) {
        let timeout = self.limits.write_timeout;
        match accepted {
            Accepted::Unix(stream) => match stream.peer_cred() {
                Ok(credentials) => {
                    let peer = Peer::Unix { uid: credentials.uid() };
                    self.http(Impatient::new(stream, timeout), peer, place, spare).await;
                }
                Err(error) => tracing::warn!(%error, "a connection without a peer's credentials was closed"),
            },
            Accepted::Http(stream) => {
                let _ = stream.set_nodelay(true);
                self.http(Impatient::new(stream, timeout), Peer::Http, place, spare).await;
            }
            Accepted::Https(stream) => {
                let _ = stream.set_nodelay(true);
                match self.handshake(Impatient::new(stream, timeout), spare).await {
                    Ok((stream, peer)) => self.http(stream, peer, place, spare).await,
                    Err(error) => tracing::debug!(error, "a TLS handshake failed"),
                }
            }
        }
    }

    async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        spare: bool,
    ) -> Result<(tokio_rustls::server::TlsStream<S>, Peer), String> {
        let tls = self.live.snapshot().tls.clone().ok_or("there is no certificate to show")?;
        let timeout = if spare { SPARE_HEAD_TIMEOUT } else { self.limits.handshake_timeout };
        let handshake = TlsAcceptor::from(Arc::clone(&tls.config)).accept(stream);
        let stream = tokio::select! {
            () = self.stop.cancelled() => return Err("the signer stops".to_owned()),
            done = tokio::time::timeout(timeout, handshake) => match done {
                Ok(done) => done.map_err(|error| error.to_string())?,
                Err(_) => return Err(format!("it took longer than {timeout:?}")),
            },
        };
        let chain = stream.get_ref().1.peer_certificates();
        let certificate = chain.map(|chain| tls::Certificate::new(chain, tls)).transpose()?;
        Ok((stream, Peer::Tls(certificate.map(Arc::new))))
    }

    async fn http<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        self,
        stream: S,
        peer: Peer,
        place: Place,
        spare: bool,
    ) {
        let router = if spare { self.routers.spare } else { self.routers.all };
        connection(stream, http(&self.limits, spare), peer, place, router, self.stop).await;
    }
}

fn http(limits: &Limits, spare: bool) -> http1::Builder {
    let head_timeout = if spare { limits.head_timeout.min(SPARE_HEAD_TIMEOUT) } else { limits.head_timeout };
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(head_timeout).max_buf_size(HEAD_SIZE).keep_alive(!spare);
    http
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    http: http1::Builder,
    peer: Peer,
    place: Place,
    router: Router,
    stop: CancellationToken,
) {
    let service = TowerToHyperService::new(router);
    let shown = peer.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(shown.clone());
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
        tracing::debug!(%error, ?peer, "a connection ended early");
    }
}

#[cfg(test)]
mod tests;
