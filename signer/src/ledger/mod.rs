//! The ledger: what was asked for under an idempotency key, what it spends, its nonce, and the bytes that were signed
//! first; what was said besides; and the trail of all of it.
//!
//! KMS signatures are randomised, so signing again makes another transaction. The order is therefore: [`Ledger::begin`]
//! writes down the request durably, then the key signs, then [`Ledger::store`] writes down the signed bytes durably,
//! and only then are they answered. A crash in between leaves a reservation; a retry, or the next start, finds it and
//! signs the same transaction, nonce and all. What was stored first is what is answered for ever.
//!
//! One thread writes the database and commits in groups: requests that arrive while one group is synced to the disk
//! share the next sync. Every answer is given after the commit that it depends on. Another thread reads meanwhile, so that
//! what only looks waits for no disk.
//!
//! In SQLite, one process owns the ledger: it holds a lock on it, and answers nothing once its files are not where they
//! were. In PostgreSQL, several take turns.

mod approvals;
pub mod audit;
mod db;
mod error;
mod files;
mod nonces;
mod requests;
mod schema;
mod sends;
mod spends;
mod statements;
#[cfg(test)]
pub(crate) mod tests;
mod types;
mod verify;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use alloy_primitives::{Address, B256, U256};
use tokio::sync::mpsc;

use self::audit::{Event, Head};
use self::db::postgres::Postgres;
use self::db::sqlite::Sqlite;
use self::db::{Database, Sql};
use self::writer::{Job, Writer, job};
use crate::policy::{Asset, Denied};

pub use error::LedgerError;
pub use nonces::{Nonces, WithNonce};
pub(crate) use schema::sqlite::{APPLICATION, NEWEST};
pub use sends::{Progress, Sending, State};
pub use types::{
    Begun, Decided, Decision, Exposed, Exposure, Held, Nonce, Record, Request, RequestId, Reservation, Reserved,
    Signed, Standing, Statement, Unfinished,
};
pub use verify::{Trail, VerifyError, Whole, verify_export};

/// A handle on the ledger. Cheap to clone; the database closes when the last handle is gone.
#[derive(Debug, Clone)]
pub struct Ledger {
    jobs: mpsc::Sender<Box<dyn Job>>,
    reads: mpsc::Sender<Box<dyn Job>>,
    /// Where its file is, if it is in one.
    file: Option<Arc<Path>>,
}

/// The ledger's threads, to wait for: the one that writes, and the one that reads.
#[derive(Debug)]
pub struct Running([std::thread::JoinHandle<()>; 2]);

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
    /// The end of its audit trail.
    pub head: Head,
}

/// Why a ledger cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("{at}: {error}")]
pub struct OpenError {
    /// The file; or the server, without what opens it.
    pub at: String,
    /// What is wrong with it.
    pub error: LedgerError,
}

impl Ledger {
    /// Opens the ledger that the file names. `keys` are the addresses of the file's keys by name: reservations in a
    /// ledger of an older keygate have names only.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_configured(
        config: &keygate_config::Ledger,
        keys: &BTreeMap<String, Address>,
    ) -> Result<Opened, OpenError> {
        match config {
            keygate_config::Ledger::Sqlite(path) => Self::open(path, keys),
            keygate_config::Ledger::Postgres(server) => {
                let at = |error| OpenError { at: server.to_string(), error };
                let (config, tls) = db::postgres::configured(server).map_err(at)?;
                Self::start(move || Postgres::open(config, tls)).map_err(at)
            }
        }
    }

    /// Opens the SQLite database at `path`, or makes one (mode 0600), and starts its thread. As long as that runs, nobody
    /// else opens it here. `keys` as for [`Self::open_configured`].
    ///
    /// # Errors
    /// [`OpenError`], with the path.
    pub fn open(path: &Path, keys: &BTreeMap<String, Address>) -> Result<Opened, OpenError> {
        let at = |error| OpenError { at: path.display().to_string(), error };
        let (file, keys) = (PathBuf::from(path), keys.clone());
        let mut opened = Self::start(move || Sqlite::open(&file, &keys)).map_err(at)?;
        opened.ledger.file = Some(path.into());
        Ok(opened)
    }

    /// Opens a database on a thread of its own, which owns it from then on.
    fn start<D: Database + 'static>(
        open: impl FnOnce() -> Result<D, LedgerError> + Send + 'static,
    ) -> Result<Opened, LedgerError> {
        let ((jobs, queue), (reads, read_queue)) = (mpsc::channel(writer::QUEUE), mpsc::channel(writer::QUEUE));
        let (opened, wait) = std::sync::mpsc::sync_channel(1);
        let (hand_over, take_over) = std::sync::mpsc::sync_channel::<Box<dyn Database>>(1);
        let (reading_ends, reading_ended) = std::sync::mpsc::sync_channel::<()>(0);
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new().name(name.into()).spawn(work);
            thread.map_err(|error| LedgerError::Other(error.to_string()))
        };
        let known = |database: &mut D| {
            let mut known = None;
            database.transact(true, &mut |db| {
                known = Some((requests::callers(db)?, audit::head(db)?));
                Ok(())
            })?;
            known.ok_or(LedgerError::Closed)
        };
        let open = move || {
            let mut database = open()?;
            Ok::<_, LedgerError>((known(&mut database)?, database.reader()?, database))
        };
        let writing = spawn(
            "keygate-ledger",
            Box::new(move || match open() {
                Ok((known, reader, database)) => {
                    let _ = (hand_over.send(reader), opened.send(Ok(known)));
                    let mut writer = Writer(database);
                    writer.run(queue);
                    // The last connection that closes, if it may write, leaves the database in one file.
                    let _ = reading_ended.recv();
                }
                Err(error) => drop(opened.send(Err(error))),
            }),
        )?;
        let reading = spawn(
            "keygate-read",
            Box::new(move || {
                if let Ok(database) = take_over.recv() {
                    Writer(database).run(read_queue);
                }
                drop(reading_ends);
            }),
        )?;
        let (callers, head) = wait.recv().map_err(|_| LedgerError::Closed)??;
        let running = Running([writing, reading]);
        Ok(Opened { ledger: Self { jobs, reads, file: None }, running, callers: callers.into_iter().collect(), head })
    }

    /// What the ledger holds under `id`.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn lookup(&self, id: RequestId) -> Result<Option<Record>, LedgerError> {
        self.ask(true, move |db| requests::lookup(db, &id)).await
    }

    /// The same; and if it holds nothing there, what is or was held.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn lookup_or_held(&self, id: RequestId) -> Result<(Option<Record>, Option<Held>), LedgerError> {
        let look = move |db: &mut dyn db::Sql| {
            let record = requests::lookup(db, &id)?;
            let held = if record.is_none() { approvals::named(db, &id)? } else { None };
            Ok((record, held))
        };
        self.ask(true, look).await
    }

    /// Reserves a request, durably, unless it is known, or a limit says no, or somebody must approve it.
    ///
    /// # Errors
    /// [`LedgerError`]: nothing is reserved then, as far as this process knows; if it is after all, a retry finds it.
    pub async fn begin(&self, request: Request) -> Result<Begun, LedgerError> {
        self.begin_unless(request, || false).await
    }

    /// As [`Self::begin`], unless it is `abandoned` when its turn comes.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub async fn begin_unless(
        &self,
        request: Request,
        abandoned: impl Fn() -> bool + Send + 'static,
    ) -> Result<Begun, LedgerError> {
        let begin =
            move |db: &mut dyn Sql| if abandoned() { Ok(Begun::Abandoned) } else { requests::begin(db, &request) };
        self.ask(false, begin).await
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
        self.ask(false, move |db| requests::store(db, reservation, &signed, now)).await?
    }

    /// Forgets a reservation under which nothing was signed, and what it spent; its nonce is free again. Only for when
    /// that is certain.
    ///
    /// # Errors
    /// [`LedgerError`]: the reservation stays then.
    pub async fn release(&self, reservation: Reservation, now: SystemTime) -> Result<(), LedgerError> {
        self.ask(false, move |db| requests::release(db, reservation, now)).await
    }

    /// What was reserved before this moment and is not signed, oldest first.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn unfinished(&self, before: SystemTime) -> Result<Vec<Unfinished>, LedgerError> {
        self.ask(true, move |db| requests::unfinished(db, before)).await
    }

    /// Counts, durably, what a signature that is no transaction's will let somebody take.
    ///
    /// # Errors
    /// [`LedgerError`]: nothing may be signed then.
    pub async fn expose(&self, exposure: Exposure) -> Result<Exposed, LedgerError> {
        self.ask(false, move |db| statements::expose(db, &exposure)).await
    }

    /// Takes back what was counted for a signature that was not made. Only for when that is certain.
    ///
    /// # Errors
    /// [`LedgerError`]: it stays counted then.
    pub async fn take_back(&self, counted: Vec<i64>) -> Result<(), LedgerError> {
        self.ask(false, move |db| counted.iter().try_for_each(|id| spends::take_back(db, *id))).await
    }

    /// Writes down, durably, what was signed besides transactions.
    ///
    /// # Errors
    /// [`LedgerError`]: the signature may not be given out then.
    pub async fn record(&self, statement: Statement) -> Result<(), LedgerError> {
        self.ask(false, move |db| statements::record(db, &statement)).await
    }

    /// What was spent of an asset in the last `period`, under a policy, by an address, on a chain.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn spent(
        &self,
        (policy, address, chain_id): (String, Address, u64),
        asset: Asset,
        period: Duration,
        now: SystemTime,
    ) -> Result<U256, LedgerError> {
        let spent = move |db: &mut dyn Sql| {
            spends::spent(db, spends::Account { policy: &policy, address, chain_id }, asset, period, now)
        };
        self.ask(true, spent).await
    }

    /// What is known of an address's nonces on a chain, from `from` on.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn nonces(&self, address: Address, chain_id: u64, from: u64) -> Result<Nonces, LedgerError> {
        self.ask(true, move |db| nonces::state(db, address, chain_id, from)).await
    }

    /// What is on its way to a chain, in the order of the nonces.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn under_way(&self, chain_id: u64) -> Result<Vec<Sending>, LedgerError> {
        self.ask(true, move |db| sends::under_way(db, chain_id)).await
    }

    /// How far a transaction has come; nothing, if it is not to be sent.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn progress(&self, reservation: Reservation) -> Result<Option<Progress>, LedgerError> {
        self.ask(true, move |db| sends::find(db, reservation)).await
    }

    /// The hash of the transaction with a nonce that is in a block for good, if one is that was sent from here.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn confirmed(&self, address: Address, chain_id: u64, nonce: u64) -> Result<Option<B256>, LedgerError> {
        self.ask(true, move |db| sends::confirmed(db, address, chain_id, nonce)).await
    }

    /// Writes down how far a transaction has come that was this far `before`. What somebody else has written down meanwhile
    /// stands.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn update(
        &self,
        reservation: Reservation,
        before: Progress,
        progress: Progress,
        now: SystemTime,
    ) -> Result<(), LedgerError> {
        self.ask(false, move |db| sends::update(db, reservation, &before, &progress, now)).await
    }

    /// The requests that nobody has decided about, and that are not expired at this time; oldest first.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn undecided(&self, now: SystemTime) -> Result<Vec<Held>, LedgerError> {
        self.ask(true, move |db| approvals::undecided(db, now)).await
    }

    /// A request that is or was held.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn held(&self, approval: u64) -> Result<Option<Held>, LedgerError> {
        self.ask(true, move |db| approvals::find(db, approval)).await
    }

    /// A request that is or was held, by its name.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn held_as(&self, id: RequestId) -> Result<Option<Held>, LedgerError> {
        self.ask(true, move |db| approvals::named(db, &id)).await
    }

    /// What was signed under a nonce, or is to be, oldest first; or that there is no room for one more.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn with_nonce(
        &self,
        address: Address,
        chain_id: u64,
        nonce: u64,
    ) -> Result<Result<Vec<WithNonce>, Denied>, LedgerError> {
        self.ask(true, move |db| nonces::with(db, address, chain_id, nonce)).await
    }

    /// Decides about a request that is held, as the caller `by`, who has seen what has this `digest`. Who asked for it may
    /// withdraw it, by not approving it.
    ///
    /// # Errors
    /// [`LedgerError`]: nothing is decided then, as far as this process knows.
    pub async fn decide(
        &self,
        approval: u64,
        digest: [u8; 32],
        by: String,
        approved: bool,
        now: SystemTime,
    ) -> Result<Decided, LedgerError> {
        self.ask(false, move |db| approvals::decide(db, approval, digest, &by, approved, now)).await
    }

    /// Writes an event to the audit trail, durably.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn note(&self, event: Event) -> Result<(), LedgerError> {
        self.ask(false, move |db| audit::append(db, &event)).await
    }

    /// Whether it can be read, and its disk has room to write it.
    ///
    /// # Errors
    /// [`LedgerError`]: nothing can be signed then.
    pub async fn works(&self) -> Result<(), LedgerError> {
        let file = self.file.clone();
        let works = move |db: &mut dyn Sql| {
            audit::head(db)?;
            file.as_deref().map_or(Ok(()), files::has_room)
        };
        self.ask(true, works).await
    }

    /// The end of the audit trail.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn head(&self) -> Result<Head, LedgerError> {
        self.ask(true, audit::head).await
    }

    async fn ask<T: Send + 'static>(
        &self,
        reads: bool,
        work: impl FnMut(&mut dyn Sql) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let (job, answer) = job(reads, work);
        let queue = if reads { &self.reads } else { &self.jobs };
        queue.send(job).await.map_err(|_| LedgerError::Closed)?;
        answer.await.map_err(|_| LedgerError::Closed)?
    }
}

impl Running {
    /// Waits until the database is closed, which is when all handles are gone. Blocks.
    pub fn wait(self) {
        for thread in self.0 {
            if thread.join().is_err() {
                tracing::error!("a thread of the ledger panicked");
            }
        }
    }
}

/// A time as the ledger has it: milliseconds since 1970.
pub(crate) fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A time of the ledger's.
pub(crate) fn moment(millis: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap_or_default())
}
