//! What one process at a time may have.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The only hold on a file. The system ends it with the process, however that ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _held: File,
}

/// Why a file cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    /// Somebody has it.
    #[error("another process has it, and holds {}", .0.display())]
    Held(PathBuf),
    /// The operating system's word.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Lock {
    /// Takes hold of the file at `path`, by a lock on `path.lock`, which stays when the hold ends: if it were removed,
    /// one process could lock the old file and another a new one of its name.
    pub(crate) fn of(path: &Path) -> Result<Self, LockError> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".lock");
        let beside = PathBuf::from(beside);
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&beside)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _held: file }),
            Err(TryLockError::WouldBlock) => Err(LockError::Held(beside)),
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let lock = Lock::of(&path).unwrap();
        let error = Lock::of(&path).unwrap_err();
        assert!(error.to_string().contains("file.lock"), "{error}");
        assert!(Lock::of(&dir.path().join("other")).is_ok());
        drop(lock);
        assert!(Lock::of(&path).is_ok());
        assert!(matches!(Lock::of(&dir.path().join("none/file")), Err(LockError::Io(_))));
    }
}
