//! The threads that own the database's connections: one commits in groups, the other reads meanwhile.

use tokio::sync::{mpsc, oneshot};

use super::LedgerError;
use super::db::{Database, Sql};

/// So many jobs may wait; beyond, callers wait to hand theirs in.
pub(super) const QUEUE: usize = 1024;
/// So many jobs share a commit at most.
const GROUP: usize = 256;

/// Something to do, and who waits for it.
pub(super) trait Job: Send {
    /// Whether it only reads.
    fn reads(&self) -> bool;

    /// Does it, on an open transaction. May be done again on another, if that one fails.
    fn run(&mut self, db: &mut dyn Sql) -> Result<(), LedgerError>;

    /// Answers, once it is committed or has failed. Who does not wait any more is none of the ledger's business.
    fn answer(self: Box<Self>, result: Result<(), LedgerError>);
}

/// A job that has an outcome.
struct Typed<T, W> {
    reads: bool,
    work: W,
    outcome: Option<T>,
    to: oneshot::Sender<Result<T, LedgerError>>,
}

/// A job, and where its outcome comes.
pub(super) fn job<T: Send + 'static>(
    reads: bool,
    work: impl FnMut(&mut dyn Sql) -> Result<T, LedgerError> + Send + 'static,
) -> (Box<dyn Job>, oneshot::Receiver<Result<T, LedgerError>>) {
    let (to, answer) = oneshot::channel();
    (Box::new(Typed { reads, work, outcome: None, to }), answer)
}

impl<T: Send, W: FnMut(&mut dyn Sql) -> Result<T, LedgerError> + Send> Job for Typed<T, W> {
    fn reads(&self) -> bool {
        self.reads
    }

    fn run(&mut self, db: &mut dyn Sql) -> Result<(), LedgerError> {
        self.outcome = Some((self.work)(db)?);
        Ok(())
    }

    fn answer(self: Box<Self>, result: Result<(), LedgerError>) {
        let Self { outcome, to, .. } = *self;
        let _ = to.send(result.and_then(|()| outcome.ok_or(LedgerError::Closed)));
    }
}

pub(super) struct Writer<D>(pub(super) D);

impl<D: Database> Writer<D> {
    /// Works until every sender is gone.
    pub(super) fn run(&mut self, mut queue: mpsc::Receiver<Box<dyn Job>>) {
        let mut group = Vec::new();
        while queue.blocking_recv_many(&mut group, GROUP) > 0 {
            self.work(&mut group);
            self.0.tidy();
        }
    }

    /// Runs a group in one transaction. When that fails, each runs in its own: one's trouble is not another's. But a
    /// lock, or a server that is away, is everybody's, and waiting for it again for each would have the last wait for
    /// minutes.
    fn work(&mut self, group: &mut Vec<Box<dyn Job>>) {
        match self.commit(group) {
            Ok(()) => group.drain(..).for_each(|job| job.answer(Ok(()))),
            Err(error) if group.len() == 1 || error.is_everybodys() => {
                group.drain(..).for_each(|job| job.answer(Err(error.clone())));
            }
            Err(_) => {
                for mut job in group.drain(..) {
                    let result = self.commit(std::slice::from_mut(&mut job));
                    job.answer(result);
                }
            }
        }
    }

    fn commit(&mut self, jobs: &mut [Box<dyn Job>]) -> Result<(), LedgerError> {
        let reads = jobs.iter().all(|job| job.reads());
        self.0.transact(reads, &mut |db| jobs.iter_mut().try_for_each(|job| job.run(db)))
    }
}
