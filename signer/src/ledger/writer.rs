//! The thread that owns the database, and commits in groups.

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::files::Files;
use super::operations::{Operation, Outcome};
use super::{Begun, LedgerError, Record, Signed};

/// So many jobs may wait; beyond, callers wait to hand theirs in.
pub(super) const QUEUE: usize = 1024;
/// So many jobs share a commit at most.
const GROUP: usize = 256;

/// Something to do, and who waits for it.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) operation: Operation,
    pub(super) answer: Answer,
}

/// Who waits for an operation.
#[derive(Debug)]
pub(super) enum Answer {
    Lookup(oneshot::Sender<Result<Option<Record>, LedgerError>>),
    Begin(oneshot::Sender<Result<Begun, LedgerError>>),
    Store(oneshot::Sender<Result<Signed, LedgerError>>),
    Release(oneshot::Sender<Result<(), LedgerError>>),
    Record(oneshot::Sender<Result<(), LedgerError>>),
}

pub(super) struct Writer {
    connection: Connection,
    /// Let go after the connection is closed.
    files: Files,
}

impl Writer {
    pub(super) fn new(connection: Connection, files: Files) -> Self {
        Self { connection, files }
    }

    /// Works until every sender is gone.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut group = Vec::new();
        while queue.blocking_recv_many(&mut group, GROUP) > 0 {
            self.work(&mut group);
        }
    }

    /// Runs a group in one transaction. When that fails, each runs in its own: one's trouble is not another's. But a
    /// lock is everybody's, and waiting for it again for each would have the last wait for minutes.
    fn work(&mut self, group: &mut Vec<Job>) {
        match self.commit(group) {
            Ok(outcomes) => group.drain(..).zip(outcomes).for_each(|(job, outcome)| job.answer.send(Ok(outcome))),
            Err(error) if group.len() == 1 || error == LedgerError::Locked => {
                group.drain(..).for_each(|job| job.answer.send(Err(error.clone())))
            }
            Err(_) => {
                for job in group.drain(..) {
                    let outcome = self.commit(std::slice::from_ref(&job)).map(|mut outcomes| outcomes.remove(0));
                    job.answer.send(outcome);
                }
            }
        }
    }

    fn commit(&mut self, jobs: &[Job]) -> Result<Vec<Outcome>, LedgerError> {
        self.files.check()?;
        // What only reads asks for no lock, and works on a full disk too.
        let reads = jobs.iter().all(|job| matches!(job.operation, Operation::Lookup(_)));
        let behavior = if reads { TransactionBehavior::Deferred } else { TransactionBehavior::Immediate };
        let transaction = self.connection.transaction_with_behavior(behavior)?;
        let outcomes = jobs.iter().map(|job| job.operation.run(&transaction)).collect::<Result<_, _>>()?;
        transaction.commit()?;
        // Again: what was committed to a file that has gone is not durable.
        self.files.check()?;
        Ok(outcomes)
    }
}

impl Answer {
    /// Answers. Who does not wait any more is none of the ledger's business.
    fn send(self, outcome: Result<Outcome, LedgerError>) {
        match (self, outcome) {
            (Self::Lookup(to), Ok(Outcome::Lookup(found))) => drop(to.send(Ok(found))),
            (Self::Begin(to), Ok(Outcome::Begin(begun))) => drop(to.send(Ok(begun))),
            (Self::Store(to), Ok(Outcome::Store(stored))) => drop(to.send(stored)),
            (Self::Release(to), Ok(Outcome::Release)) => drop(to.send(Ok(()))),
            (Self::Record(to), Ok(Outcome::Record)) => drop(to.send(Ok(()))),
            (Self::Lookup(to), Err(error)) => drop(to.send(Err(error))),
            (Self::Begin(to), Err(error)) => drop(to.send(Err(error))),
            (Self::Store(to), Err(error)) => drop(to.send(Err(error))),
            (Self::Release(to) | Self::Record(to), Err(error)) => drop(to.send(Err(error))),
            (_, Ok(_)) => unreachable!("an operation has the outcome of its own kind"),
        }
    }
}
