//! The files that the database is in: made for their owner alone, held, and looked after.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::LedgerError;
use crate::lock::{Lock, LockError};

/// In bytes.
const LEAST_ROOM: u64 = 1 << 20;

/// The files of an open database, held by this process alone.
///
/// SQLite goes on writing to files that were removed or replaced, and what is written there is gone with the process:
/// the next one would sign again what was signed. So nothing is answered unless the names still lead to the files that
/// were opened.
#[derive(Debug)]
pub(super) struct Files {
    known: Vec<(PathBuf, Identity)>,
    /// Without links: the files beside it are named after this.
    real: PathBuf,
    _lock: Lock,
}

/// What makes a file itself, whatever its name: device and inode.
type Identity = (u64, u64);

impl Files {
    /// Makes the database's file if there is none, readable and writable by its owner only, and takes hold of it.
    pub(super) fn hold(path: &Path) -> Result<Self, LedgerError> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(parent)?;
        // Made here and not by SQLite, for the mode; SQLite gives the files beside it the same. One that is there is
        // not opened: closing it again would end the locks that SQLite may have on it in this process.
        let made = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
            made => made.is_ok(),
        };
        let metadata = std::fs::metadata(path)?;
        if !metadata.is_file() {
            return Err(LedgerError::Unusable("it is not a regular file".into()));
        }
        // SQLite would take it for a new one, and what was signed would be signed again.
        if !made && metadata.len() == 0 {
            let error = "the file is empty: if it was a ledger, restore it; if there was none, remove it";
            return Err(LedgerError::Unusable(error.into()));
        }
        let real = path.canonicalize()?;
        let lock = Lock::of(&real).map_err(|error| match error {
            LockError::Held(_) => LedgerError::InUse(error.to_string()),
            LockError::Io(error) => error.into(),
        })?;
        std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
        File::open(parent)?.sync_all()?;
        Ok(Self { known: vec![(path.to_owned(), identity(path)?)], real, _lock: lock })
    }

    /// The database's own, without links.
    pub(super) fn path(&self) -> &Path {
        &self.real
    }

    /// The database is open: its log is one of the files now, and so is the index of that.
    pub(super) fn opened(&mut self) -> Result<(), LedgerError> {
        for end in ["-wal", "-shm"] {
            let mut beside = self.real.as_os_str().to_owned();
            beside.push(end);
            let beside = PathBuf::from(beside);
            let identity = identity(&beside)?;
            self.known.push((beside, identity));
        }
        self.check()
    }

    /// Sees that the names still lead to the files that were opened.
    pub(super) fn check(&self) -> Result<(), LedgerError> {
        for (path, known) in &self.known {
            match identity(path) {
                Ok(found) if found == *known => {}
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _ => return Err(LedgerError::Replaced(path.clone())),
            }
        }
        Ok(())
    }
}

/// Whether its disk can be written, and has room for more than a few signatures.
pub(super) fn has_room(path: &Path) -> Result<(), LedgerError> {
    let disk = rustix::fs::statvfs(path).map_err(io::Error::from)?;
    if disk.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        return Err(LedgerError::ReadOnly);
    }
    if disk.f_bavail.saturating_mul(disk.f_frsize) < LEAST_ROOM { Err(LedgerError::Full) } else { Ok(()) }
}

fn identity(path: &Path) -> io::Result<Identity> {
    std::fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}
