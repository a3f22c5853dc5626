//! Work that must not hold requests up, on a thread that gives way to them.
//!
//! To read and check a file of 10,000 routes takes a tenth of a second of a core, which may be the one core that there
//! is, and to free what it was takes milliseconds. So a reload is done here, not on a worker, and a snapshot is kept
//! here until nobody else has it: otherwise the worker whose request happens to be its last would free it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;
use std::{io, thread};

use rustix::process::{getpriority_process, setpriority_process};
use tokio::sync::oneshot;

use crate::live::Snapshot;

/// Beside a worker that wants all of a core, this thread still gets a quarter of it: a reload of 10,000 routes takes half
/// a second then, and a quarter of one otherwise. With 10 it would take more than a second.
const NICER_BY: i32 = 5;
const NICEST: i32 = 19;
/// Snapshots that somebody still had are looked at this often.
const LOOK: Duration = Duration::from_secs(1);

/// The thread. It ends when this is dropped, and what it had to do is done.
pub(crate) struct Aside(Sender<Job>);

enum Job {
    Run(Box<dyn FnOnce() + Send>),
    Drop(Arc<Snapshot>),
}

impl Aside {
    pub(crate) fn start() -> io::Result<Self> {
        let (give, take) = channel();
        thread::Builder::new().name("aside".into()).spawn(move || serve(&take))?;
        Ok(Self(give))
    }

    /// Runs this after what was given before it. `None`: it panicked. It is run to its end though nobody waits for it.
    pub(crate) async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (done, result) = oneshot::channel();
        let job = move || _ = done.send(job());
        self.0.send(Job::Run(Box::new(job))).ok()?;
        result.await.ok()
    }

    /// Drops a snapshot as soon as nobody else has it.
    pub(crate) fn drop(&self, snapshot: Arc<Snapshot>) {
        // The thread is there for as long as this is.
        let _ = self.0.send(Job::Drop(snapshot));
    }
}

fn serve(jobs: &Receiver<Job>) {
    give_way();
    let mut old: Vec<Arc<Snapshot>> = Vec::new();
    loop {
        let job = if old.is_empty() { jobs.recv().map_err(RecvTimeoutError::from) } else { jobs.recv_timeout(LOOK) };
        match job {
            // Who waits for it learns of a panic by its silence.
            Ok(Job::Run(job)) => _ = catch_unwind(AssertUnwindSafe(job)),
            Ok(Job::Drop(snapshot)) => old.push(snapshot),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        // It is in force no longer: who has none of it now gets none any more.
        old.retain(|snapshot| Arc::strong_count(snapshot) > 1);
    }
}

/// Linux has a priority for each thread, and a thread may always lower its own.
fn give_way() {
    let lower = getpriority_process(None).and_then(|now| setpriority_process(None, (now + NICER_BY).min(NICEST)));
    if let Err(error) = lower {
        tracing::debug!(%error, "reloads have the priority of requests");
    }
}

#[cfg(test)]
mod tests {
    use crate::live::Carried;
    use crate::weights::Weights;

    use super::*;

    fn snapshot() -> Arc<Snapshot> {
        let text = "[listeners.http]\nbind = [\"127.0.0.1:0\"]\n".to_owned();
        let loaded = keygate_config::parse(keygate_config::Source { path: "keygate.toml".into(), text }).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let weights = Weights::load(tempfile::tempdir().unwrap().path()).unwrap();
        Arc::new(Carried::new(provider).build(Arc::new(loaded), &weights, None).unwrap())
    }

    #[tokio::test]
    async fn a_snapshot_is_dropped_here_once_nobody_else_has_it() {
        let aside = Aside::start().unwrap();
        let worker = snapshot();
        let left = Arc::downgrade(&worker);
        aside.drop(worker.clone());
        aside.run(|| ()).await.unwrap();
        assert_eq!(left.strong_count(), 2, "a worker has it");
        drop(worker);
        aside.run(|| ()).await.unwrap();
        // What comes next is done after it has been looked at.
        aside.run(|| ()).await.unwrap();
        assert_eq!(left.strong_count(), 0);
    }

    #[tokio::test]
    async fn it_gives_way_and_survives_a_panic() {
        let aside = Aside::start().unwrap();
        let ours = getpriority_process(None).unwrap();
        assert_eq!(aside.run(|| getpriority_process(None).unwrap()).await, Some((ours + NICER_BY).min(NICEST)));
        assert_eq!(getpriority_process(None).unwrap(), ours, "of that thread alone");
        assert_eq!(aside.run(|| assert_eq!(1, 2, "a broken invariant")).await, None);
        assert_eq!(aside.run(|| 3).await, Some(3));
    }
}
