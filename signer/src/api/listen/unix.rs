//! A Unix socket: bound for the owner and the group.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use super::BindError;
use crate::lock::{Lock, LockError};

/// A socket's file, and the hold on its place. The file goes when this is dropped.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Let go after the socket's file is gone.
    _lock: Lock,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // If it is gone already, so much the better.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Binds a socket at `path`, mode 0660, of this user if one is given. One that a dead process left is replaced.
pub(super) fn bind(path: &Path, owner: Option<(u32, u32)>) -> Result<(Socket, SocketFile), BindError> {
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
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(&fresh)?)?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o660))?;
    if let Some((uid, gid)) = owner {
        std::os::unix::fs::chown(&fresh, Some(uid), Some(gid))?;
    }
    std::fs::rename(&fresh, path)?;
    Ok((socket, SocketFile { path: path.to_owned(), _lock: lock }))
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
