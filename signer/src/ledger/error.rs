//! Why the ledger does not answer.

use std::path::PathBuf;

/// Why the ledger does not answer. Nothing that was signed may be given out then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// No room on the disk.
    #[error("the ledger's disk is full")]
    Full,
    /// The file or its file system cannot be written.
    #[error("the ledger is read-only")]
    ReadOnly,
    /// Another process holds the database's lock.
    #[error("the ledger is locked by another process")]
    Locked,
    /// Another signer has the ledger.
    #[error("the ledger is in use: {0}")]
    InUse(String),
    /// A file of the ledger was moved, replaced or removed while it was open.
    #[error("{} is not the file any more that was opened: it was moved, replaced or removed", .0.display())]
    Replaced(PathBuf),
    /// The file is no ledger, is damaged, or was written by a newer keygate.
    #[error("the ledger is not usable: {0}")]
    Unusable(String),
    /// The database is there, and no ledger in it.
    #[error("there is no ledger in this database")]
    Missing,
    /// The reservation is not there any more.
    #[error("the ledger does not hold this reservation")]
    NotReserved,
    /// The ledger is closed.
    #[error("the ledger is closed")]
    Closed,
    /// The database's server cannot be reached, or has gone.
    #[error("the ledger's server is away: {0}")]
    Away(String),
    /// The database's server lets nobody in with this user, password or database.
    #[error("the ledger's server refuses the connection: {0}")]
    Refused(String),
    /// Anything else, in the database's words.
    #[error("the ledger failed: {0}")]
    Other(String),
}

impl LedgerError {
    /// Whether it is not one request's trouble but that of all.
    pub(super) fn is_everybodys(&self) -> bool {
        matches!(self, Self::Locked | Self::ReadOnly | Self::Away(_) | Self::Refused(_))
    }
}

impl From<rusqlite::Error> for LedgerError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        match error.sqlite_error_code() {
            Some(Code::DiskFull) => Self::Full,
            Some(Code::ReadOnly) => Self::ReadOnly,
            Some(Code::DatabaseBusy | Code::DatabaseLocked) => Self::Locked,
            Some(Code::DatabaseCorrupt | Code::NotADatabase) => Self::Unusable(error.to_string()),
            _ => Self::Other(error.to_string()),
        }
    }
}

impl From<std::io::Error> for LedgerError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::Full,
            std::io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            _ => Self::Unusable(error.to_string()),
        }
    }
}
