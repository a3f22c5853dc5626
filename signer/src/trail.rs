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
    let task = tokio::spawn(write(ledger, changes, refused, stop.clone()));
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

async fn write(ledger: Ledger, mut changes: UnboundedReceiver<Event>, refused: Arc<Refused>, stop: CancellationToken) {
    let (mut said, mut at) = (0, Instant::now());
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
                if head.seq >= said + ENTRIES || (at.elapsed() >= EVERY && head.seq > said) {
                    // The first look is at the start, which has said it.
                    if said > 0 {
                        say(head);
                    }
                    (said, at) = (head.seq, Instant::now());
                } else if said == 0 {
                    said = head.seq;
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
