//! The Unix socket: bound for the owner and the group, served until told to stop.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::lock::{Lock, LockError};

/// A request's head must be there within this time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A request's head has this size at most, in bytes.
const HEAD_SIZE: usize = 16 * 1024;
/// After accepting fails (no file descriptors left), it is tried again after this time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The user id of the process at the other end of the socket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    pub(super) uid: u32,
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
    pub(crate) async fn serve(self, router: Router, stop: CancellationToken) {
        let connections = TaskTracker::new();
        loop {
            let stream = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.socket.accept() => match accepted {
                    Ok((stream, _)) => stream,
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
                    connections.spawn(connection(TokioIo::new(stream), peer, router.clone(), stop.clone()));
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

async fn connection(io: TokioIo<tokio::net::UnixStream>, peer: Peer, router: Router, stop: CancellationToken) {
    let service = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        service.call(request)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_SIZE);
    let mut connection = std::pin::pin!(http.serve_connection(io, service));
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
