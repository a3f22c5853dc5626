//! Checkpoints of SQLite's write-ahead log: what it holds is moved into the database, so that it can begin anew.
//!
//! SQLite makes them in the commit that finds the log long, which waits for the database's pages to be synced then. Here a
//! thread of its own makes them, beside those who commit. But while they commit, the log never ends where the thread's
//! checkpoint does, and so would grow without end: the little that came meanwhile is moved by the writer, when nobody
//! waits for it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::ledger::LedgerError;

/// So many rows that were changed since are worth a checkpoint: their log is some 8 MiB.
const ROWS: u64 = 1024;

/// The thread that makes checkpoints.
#[derive(Debug)]
pub(super) struct Checkpoints {
    ask: Option<SyncSender<()>>,
    moved: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// How many rows the writer had changed at the last checkpoint.
    rows: u64,
}

impl Checkpoints {
    /// Starts the thread, for a database that is open in WAL mode, and leaves it to make all checkpoints.
    pub(super) fn start(writer: &Connection, path: &Path) -> Result<Self, LedgerError> {
        writer.pragma_update(None, "wal_autocheckpoint", 0)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let own = Connection::open_with_flags(path, flags)?;
        own.busy_timeout(Duration::from_secs(2))?;
        own.pragma_update(None, "synchronous", "FULL")?;
        let (ask, asked) = sync_channel(1);
        let moved = Arc::new(AtomicBool::new(false));
        let work = {
            let moved = Arc::clone(&moved);
            move || {
                while asked.recv().is_ok() {
                    checkpoint(&own);
                    moved.store(true, Ordering::Release);
                }
            }
        };
        let thread = std::thread::Builder::new().name("keygate-checkpt".into()).spawn(work)?;
        Ok(Self { ask: Some(ask), moved, thread: Some(thread), rows: 0 })
    }

    /// The writer has committed, and has answered.
    pub(super) fn committed(&mut self, writer: &Connection) {
        if self.moved.swap(false, Ordering::Acquire) {
            checkpoint(writer);
            return;
        }
        let rows = writer.total_changes();
        if rows - self.rows >= ROWS
            && let Some(Ok(())) = self.ask.as_ref().map(|ask| ask.try_send(()))
        {
            self.rows = rows;
        }
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        drop(self.ask.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that makes the ledger's checkpoints panicked");
        }
    }
}

/// Moves all that no reader needs any more. What fails leaves everything in the log, where it is as safe.
fn checkpoint(connection: &Connection) {
    if let Err(error) = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
        tracing::warn!(%error, "the ledger's write-ahead log could not be moved into it");
    }
}
