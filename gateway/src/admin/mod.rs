//! The admin API: what is live, and changes to it.

mod api;
mod listen;
mod views;

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keygate_config::Address;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::watch;

use self::listen::Limits;
use crate::control::Control;

/// Where the admin API is bound.
pub(crate) enum Bound {
    Unix(UnixListener, SocketFile),
    Tcp(TcpListener),
}

/// A socket's file, which is removed with it.
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Binds the admin API. A socket that a dead process left behind is replaced; a live one's is not.
pub(crate) async fn bind(address: &Address) -> io::Result<Bound> {
    let explain = |error: io::Error| io::Error::new(error.kind(), format!("cannot bind {address}: {error}"));
    match address {
        Address::Tcp(address) => TcpListener::bind(address).await.map(Bound::Tcp).map_err(explain),
        Address::Unix(path) => bind_unix(path).await.map_err(explain),
    }
}

async fn bind_unix(path: &Path) -> io::Result<Bound> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    if std::fs::symlink_metadata(path).is_ok_and(|found| !found.file_type().is_socket()) {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
    }
    match UnixStream::connect(path).await {
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AddrInUse, "another gateway answers there")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
        Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(Bound::Unix(listener, SocketFile(path.to_owned())))
}

/// Serves the admin API until the task is dropped.
pub(crate) async fn serve(bound: Bound, control: Arc<Control>, draining: watch::Receiver<bool>) {
    let limits = Limits::default();
    match bound {
        Bound::Unix(listener, _file) => {
            let router = api::router(control, draining, false, limits.body);
            listen::serve(listener, router, limits).await;
        }
        Bound::Tcp(listener) => {
            let router = api::router(control, draining, true, limits.body);
            listen::serve(listener, router, limits).await;
        }
    }
}
