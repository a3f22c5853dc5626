//! The ledger: what was asked for under an idempotency key, what it spends, and the bytes that were signed first.
//!
//! KMS signatures are randomised, so signing again makes another transaction. The order is therefore: [`Ledger::begin`]
//! writes down the request durably, then the key signs, then [`Ledger::store`] writes down the signed bytes durably,
//! and only then are they answered. A crash in between leaves a reservation; a retry finds it and signs the same
//! transaction, nonce and all. What was stored first is what is answered for ever.
//!
//! One thread owns the database and commits in groups: requests that arrive while one group is synced to the disk
//! share the next sync. Every answer is given after the commit that it depends on.
//!
//! One process owns the ledger: it holds a lock on it, and answers nothing once its files are not where they were.

mod files;
mod operations;
mod schema;
#[cfg(test)]
mod statement_tests;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use alloy_primitives::{Address, B256, U256};
use tokio::sync::{mpsc, oneshot};

use self::operations::Operation;
pub(crate) use self::schema::{APPLICATION, NEWEST};
use self::writer::Writer;
use crate::policy::Denied;

/// A handle on the ledger. Cheap to clone; the database closes when the last handle is gone.
#[derive(Debug, Clone)]
pub struct Ledger {
    jobs: mpsc::Sender<writer::Job>,
}

/// The writer's thread, to wait for.
#[derive(Debug)]
pub struct Running(std::thread::JoinHandle<()>);

/// A ledger that was opened.
#[derive(Debug)]
pub struct Opened {
    /// The first handle on it.
    pub ledger: Ledger,
    /// Its thread.
    pub running: Running,
    /// Names of the callers that have used idempotency keys. One that the file does not have any more was removed,
    /// which is well, or renamed: its idempotency keys would all be new.
    pub callers: BTreeSet<String>,
}

/// What names a request for ever: idempotency keys of different callers, or for different keys, are different.
///
/// A signing key is itself by its address, whatever name the file gives it; and a name that the file gives to another
/// key is taken still, for the idempotency keys that were used with it. A caller is its name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestId {
    /// The caller's name in the file.
    pub caller: String,
    /// The signing key's name in the file.
    pub key: String,
    /// The signing key's address.
    pub address: Address,
    /// What the caller chose.
    pub idempotency_key: String,
}

/// A request to reserve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Its name.
    pub id: RequestId,
    /// SHA-256 of the canonical request: the same request has the same digest, another body another.
    pub digest: [u8; 32],
    /// Chain id, at most 2^63-1 (EIP-2294).
    pub chain_id: u64,
    /// The transaction's nonce.
    pub nonce: u64,
    /// Wei that the transaction sends.
    pub value: U256,
    /// The policy that the value is counted under.
    pub policy: String,
    /// Most wei in any 24 hours under this policy, from this address, on this chain.
    pub daily_limit: Option<U256>,
    /// The moment of the request.
    pub now: SystemTime,
}

/// What [`Ledger::begin`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    /// Nothing: the request is reserved now.
    Fresh(Reservation),
    /// The same request, reserved before and not signed: sign it, as it stands.
    Pending(Reservation),
    /// The same request, signed before: these bytes are the answer.
    Signed(Signed),
    /// Another request under the same name.
    Conflict,
    /// The daily limit says no; nothing is reserved.
    Denied(Denied),
    /// The clock is this much behind what was counted last for the daily limit; nothing is reserved. It is wrong now, or
    /// was then: what is to be counted cannot be told.
    ClockBehind(Duration),
}

/// A reserved request: what [`Ledger::store`] and [`Ledger::release`] refer to. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reservation(i64);

/// What the ledger holds under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// By whom it is signed, or to be signed. None is for a reservation of an older keygate, whose key's name was not
    /// in the file any more when the ledger was brought to this version.
    pub address: Option<Address>,
    /// SHA-256 of the canonical request.
    pub digest: [u8; 32],
    /// Chain id.
    pub chain_id: u64,
    /// The transaction's nonce.
    pub nonce: u64,
    /// The signed bytes, once there are any.
    pub signed: Option<Signed>,
}

/// Signed bytes, as they were answered first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The raw transaction.
    pub raw: Vec<u8>,
    /// Its hash.
    pub hash: B256,
    /// r, s, and 0 or 1 for the parity.
    pub signature: [u8; 65],
}

/// What was signed and is no transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The caller's name in the file.
    pub caller: String,
    /// The signing key's name in the file.
    pub key: String,
    /// The signing key's address.
    pub address: Address,
    /// The policy that allowed it.
    pub policy: String,
    /// `message`, `typed-data` or `authorization`.
    pub kind: &'static str,
    /// What the key signed.
    pub digest: B256,
    /// The message; or the JSON of what else it is.
    pub content: Vec<u8>,
    /// r, s, and 27 or 28 for the parity.
    pub signature: [u8; 65],
    /// The moment.
    pub now: SystemTime,
}

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
    /// The reservation is not there any more.
    #[error("the ledger does not hold this reservation")]
    NotReserved,
    /// The ledger is closed.
    #[error("the ledger is closed")]
    Closed,
    /// Anything else, in SQLite's words.
    #[error("the ledger failed: {0}")]
    Other(String),
}

/// Why a ledger cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", path.display())]
pub struct OpenError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub error: LedgerError,
}

impl Ledger {
    /// Opens the database at `path`, or makes one (mode 0600), and starts its thread. As long as that runs, nobody else
    /// opens it here. `keys` are the addresses of the file's keys by name: reservations in a ledger of an older keygate
    /// have names only.
    ///
    /// # Errors
    /// [`OpenError`], with the path.
    pub fn open(path: &Path, keys: &BTreeMap<String, Address>) -> Result<Opened, OpenError> {
        let at = |error| OpenError { path: path.to_owned(), error };
        let (connection, files) = schema::open(path, keys).map_err(at)?;
        let callers = schema::callers(&connection).map_err(at)?;
        let (jobs, queue) = mpsc::channel(writer::QUEUE);
        let thread = std::thread::Builder::new()
            .name("keygate-ledger".into())
            .spawn(move || Writer::new(connection, files).run(queue))
            .map_err(|error| at(LedgerError::Other(error.to_string())))?;
        Ok(Opened { ledger: Self { jobs }, running: Running(thread), callers })
    }

    /// What the ledger holds under `id`.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn lookup(&self, id: RequestId) -> Result<Option<Record>, LedgerError> {
        self.ask(|answer| (Operation::Lookup(id), writer::Answer::Lookup(answer))).await
    }

    /// Reserves a request, durably, unless it is known or the daily limit says no.
    ///
    /// # Errors
    /// [`LedgerError`]: nothing is reserved then, as far as this process knows; if it is after all, a retry finds it.
    pub async fn begin(&self, request: Request) -> Result<Begun, LedgerError> {
        self.ask(|answer| (Operation::Begin(request), writer::Answer::Begin(answer))).await
    }

    /// Stores signed bytes under a reservation, durably. The first win: what comes back is what to answer.
    ///
    /// # Errors
    /// [`LedgerError`]: the bytes may not be given out then.
    pub async fn store(
        &self,
        reservation: Reservation,
        signed: Signed,
        now: SystemTime,
    ) -> Result<Signed, LedgerError> {
        self.ask(|answer| (Operation::Store(reservation, signed, now), writer::Answer::Store(answer))).await
    }

    /// Forgets a reservation under which nothing was signed, and what it spent. Only for when that is certain.
    ///
    /// # Errors
    /// [`LedgerError`]: the reservation stays then.
    pub async fn release(&self, reservation: Reservation) -> Result<(), LedgerError> {
        self.ask(|answer| (Operation::Release(reservation), writer::Answer::Release(answer))).await
    }

    /// Writes down, durably, what was signed besides transactions.
    ///
    /// # Errors
    /// [`LedgerError`]: the signature may not be given out then.
    pub async fn record(&self, statement: Statement) -> Result<(), LedgerError> {
        self.ask(|answer| (Operation::Record(statement), writer::Answer::Record(answer))).await
    }

    async fn ask<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, LedgerError>>) -> (Operation, writer::Answer),
    ) -> Result<T, LedgerError> {
        let (sender, answer) = oneshot::channel();
        let (operation, sender) = job(sender);
        self.jobs.send(writer::Job { operation, answer: sender }).await.map_err(|_| LedgerError::Closed)?;
        answer.await.map_err(|_| LedgerError::Closed)?
    }
}

impl Running {
    /// Waits until the database is closed, which is when all handles are gone. Blocks.
    pub fn wait(self) {
        if self.0.join().is_err() {
            tracing::error!("the ledger's thread panicked");
        }
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
