//! What the audit trail is told of the signer itself, and of what is refused in sums; and what the log is told of the
//! trail: its head, for who keeps one elsewhere.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value as Json, json};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::api::Api;
use crate::ledger::audit::{Event, Head};
use crate::ledger::{Ledger, LedgerError};
use crate::refused::Refused;

/// The head is said this often, if there is a new one,
const EVERY: Duration = Duration::from_secs(3600);
/// or after so many entries,
const ENTRIES: u64 = 10_000;
/// which are counted this often.
const LOOK: Duration = Duration::from_secs(60);
/// What is refused beyond a caller's budget is summed up this often.
const SUMS: Duration = Duration::from_secs(10);
/// What could not be written is tried again after this time.
const AGAIN: Duration = Duration::from_secs(5);

/// Writes until it is ended.
pub(crate) struct Trail {
    task: JoinHandle<()>,
    stop: CancellationToken,
}

/// Says that the signer has started, and writes down what `changes` and what is refused.
pub(crate) async fn begin(api: &Api, changes: UnboundedReceiver<Event>) -> Trail {
    let ledger = api.signing.ledger.clone();
    let detail = json!({ "version": env!("CARGO_PKG_VERSION"), "policies": api.live.snapshot().digest() });
    note(&ledger, own("started", detail)).await;
    let stop = CancellationToken::new();
    let refused = Arc::clone(&api.signing.refused);
    let task = tokio::spawn(write(ledger, changes, refused, stop.clone(), say));
    Trail { task, stop }
}

impl Trail {
    /// Writes what is left, says that the signer has stopped, and lets go of the ledger.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the end is not in the audit trail");
        }
    }
}

fn own(what: &'static str, detail: Json) -> Event {
    Event::new(SystemTime::now(), what, detail)
}

async fn write(
    ledger: Ledger,
    mut changes: UnboundedReceiver<Event>,
    refused: Arc<Refused>,
    stop: CancellationToken,
    say: impl Fn(Head),
) {
    let mut said = Said::default();
    let (mut look, mut sums) = (tokio::time::interval(LOOK), tokio::time::interval(SUMS));
    sums.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(change) = changes.recv() => {
                while !note(&ledger, change.clone()).await {
                    tokio::select! {
                        () = stop.cancelled() => break,
                        () = tokio::time::sleep(AGAIN) => {}
                    }
                }
            }
            _ = sums.tick() => sum_up(&ledger, &refused).await,
            _ = look.tick() => {
                let Ok(head) = ledger.head().await else { continue };
                if said.is_due(head.seq, Instant::now()) {
                    say(head);
                }
            }
        }
    }
    while let Ok(change) = changes.try_recv() {
        note(&ledger, change).await;
    }
    sum_up(&ledger, &refused).await;
    note(&ledger, own("stopped", json!({}))).await;
    if let Ok(head) = ledger.head().await {
        say(head);
    }
}

/// Writes what is to be told in sums; what cannot be written is in the next ones.
async fn sum_up(ledger: &Ledger, refused: &Refused) {
    for (caller, sum) in refused.take() {
        if !note(ledger, sum.event(&caller, SystemTime::now())).await {
            refused.add(&caller, sum);
        }
    }
}

/// Which head was said last, and when.
#[derive(Debug, Default)]
struct Said(Option<(u64, Instant)>);

impl Said {
    /// Whether the head, which is the entry `seq`, is to be said now; then it is. The first look is at the start, which has
    /// said it.
    fn is_due(&mut self, seq: u64, now: Instant) -> bool {
        let due = self.0.is_none_or(|(said, at)| seq >= said + ENTRIES || (now >= at + EVERY && seq > said));
        let first = self.0.is_none();
        if due {
            self.0 = Some((seq, now));
        }
        due && !first
    }
}

fn say(head: Head) {
    tracing::info!(%head, "the head of the audit trail");
}

/// Whether it is written.
async fn note(ledger: &Ledger, event: Event) -> bool {
    let what = event.what;
    let noted: Result<(), LedgerError> = ledger.note(event).await;
    if let Err(error) = &noted {
        tracing::error!(%error, what, "not written to the audit trail");
    }
    noted.is_ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::ledger::Opened;

    #[test]
    fn the_head_is_said_once_an_hour_or_after_many_entries_if_it_is_new() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut said = Said::default();
        for (seq, after, due) in [
            (20_000, Duration::ZERO, false),
            (20_001, EVERY - second, false),
            (20_001, EVERY, true),
            (20_001, EVERY * 2, false),
            (20_002, EVERY * 3, true),
            (20_003, EVERY * 3 + LOOK, false),
            (20_001 + ENTRIES, EVERY * 3 + LOOK, false),
            (20_002 + ENTRIES, EVERY * 3 + LOOK, true),
            (20_003 + ENTRIES, EVERY * 4, false),
            (20_003 + ENTRIES, EVERY * 4 + LOOK, true),
        ] {
            assert_eq!(said.is_due(seq, start + after), due, "{seq} after {after:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn while_it_runs_the_head_is_said_every_hour() {
        let dir = tempfile::tempdir().unwrap();
        let Opened { ledger, running, .. } = Ledger::open(&dir.path().join("ledger.db"), &[].into()).unwrap();
        let (_changes, changed) = tokio::sync::mpsc::unbounded_channel();
        let (stop, said) = (CancellationToken::new(), Arc::new(Mutex::new(Vec::new())));
        let say = {
            let said = Arc::clone(&said);
            move |head: Head| said.lock().unwrap().push((head.seq, Instant::now()))
        };
        let (start, task) =
            (Instant::now(), tokio::spawn(write(ledger.clone(), changed, Arc::default(), stop.clone(), say)));
        // The clock stands still until all wait for it, or for the ledger.
        while said.lock().unwrap().len() < 3 {
            assert!(note(&ledger, own("something", json!({}))).await);
            tokio::time::sleep(LOOK).await;
        }
        stop.cancel();
        task.await.unwrap();
        let mut said = said.lock().unwrap().clone();
        let (last, _) = said.pop().unwrap();
        assert_eq!(last, ledger.head().await.unwrap().seq, "and at the end");
        said.insert(0, (0, start));
        for hour in said.windows(2) {
            assert!(hour[1].0 > hour[0].0 && hour[1].1 >= hour[0].1 + EVERY, "{said:?}");
        }
        drop(ledger);
        running.wait();
    }
}
