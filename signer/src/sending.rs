//! What was signed to be sent goes to its chain, and is followed until it is final; and what the chain knows of nonces.
//!
//! Everything that is known is in the ledger: a process that dies in between leaves nothing out, and several may do the
//! same: to send the same bytes again does no harm.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use alloy_primitives::Address;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::chain::node::{Moment, Sent};
use crate::chain::rejected::Rejected;
use crate::chain::rpc::{Rpc, RpcError};
use crate::chain::track::{Seen, Step, Tracked, step};
use crate::chain::{Chain, Chains};
use crate::ledger::{Ledger, LedgerError, Progress, RequestId, Sending, State};
use crate::metrics::Metrics;
use crate::signing::Answer;

/// What is under way is asked about this often: about as often as the fastest chains have blocks.
const POLL: Duration = Duration::from_secs(2);
/// Who asked for a transaction waits this long for it to be sent; then it is only signed, and sent soon.
const FIRST: Duration = Duration::from_secs(5);

/// Chains, and what is on its way to them.
#[derive(Debug)]
pub(crate) struct Post {
    pub(crate) chains: Chains,
    /// How many transactions an address has, as far as was asked.
    counts: Mutex<HashMap<(u64, Address), u64>>,
    /// Something is to be sent.
    woken: BTreeMap<u64, Notify>,
}

impl Post {
    pub(crate) fn new(chains: Chains) -> Self {
        let woken = chains.all().filter(|chain| chain.rpc.is_some()).map(|chain| (chain.id, Notify::new())).collect();
        Self { chains, counts: Mutex::default(), woken }
    }

    /// The nodes of a chain, if the file names any.
    pub(crate) fn rpc(&self, chain_id: u64) -> Option<&Rpc> {
        self.chains.by_id(chain_id)?.rpc.as_ref()
    }

    /// How many transactions of this address the chain has known, at some time: the next nonce is no lower.
    pub(crate) async fn count(&self, rpc: &Rpc, chain_id: u64, address: Address) -> Result<u64, RpcError> {
        if let Some(count) = self.counts.lock().get(&(chain_id, address)) {
            return Ok(*count);
        }
        let count = rpc.transaction_count(address, Moment::Pending).await?;
        self.counts.lock().insert((chain_id, address), count);
        Ok(count)
    }

    /// Asks the chain again next time: its answer was not what the ledger had thought.
    fn forget(&self, chain_id: u64, address: Address) {
        self.counts.lock().remove(&(chain_id, address));
    }

    /// There is something to send.
    pub(crate) fn wake(&self, chain_id: u64) {
        if let Some(woken) = self.woken.get(&chain_id) {
            woken.notify_one();
        }
    }

    /// Sends for the first time what was just signed, so that who asked for it finds it there. What comes of it is written
    /// down, and what does not succeed is tried again.
    pub(crate) async fn send_first(&self, ledger: &Ledger, id: &RequestId, answer: &Answer) {
        let (Some(chain), Some(rpc)) = (self.chains.by_id(answer.chain_id), self.rpc(answer.chain_id)) else { return };
        let Answer { reservation, signed, nonce, chain_id, .. } = answer.clone();
        let sent = async {
            let progress = ledger.progress(reservation).await?.filter(|progress| progress.state == State::Queued);
            let Some(progress) = progress else { return Ok(()) };
            let sending = Sending { reservation, id: id.clone(), chain_id, nonce, signed, progress };
            let now = SystemTime::now();
            if let Some(next) = self.send(chain, rpc, &sending, now).await? {
                told(chain, &sending, &next);
                ledger.update(reservation, next, now).await?;
            }
            Ok::<_, PassError>(())
        };
        match tokio::time::timeout(FIRST, sent).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(chain = chain.name, %error, "what was signed is not sent yet"),
            Err(_) => tracing::warn!(chain = chain.name, "what was signed is not sent yet: the chain takes its time"),
        }
    }

    /// Follows what is under way on a chain, until told to stop.
    pub(crate) async fn follow(&self, chain_id: u64, ledger: &Ledger, metrics: &Metrics, stop: &CancellationToken) {
        let (Some(chain), Some(woken)) = (self.chains.by_id(chain_id), self.woken.get(&chain_id)) else { return };
        let Some(rpc) = &chain.rpc else { return };
        loop {
            let pass = async {
                if let Err(error) = self.pass(chain, rpc, ledger, metrics).await {
                    tracing::warn!(chain = chain.name, %error, "what is under way could not be followed");
                }
                tokio::select! {
                    () = woken.notified() => {}
                    () = tokio::time::sleep(POLL) => {}
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = pass => {}
            }
        }
    }

    /// Looks once at everything that is under way on a chain.
    async fn pass(&self, chain: &Chain, rpc: &Rpc, ledger: &Ledger, metrics: &Metrics) -> Result<(), PassError> {
        let under_way = ledger.under_way(chain.id).await?;
        metrics.under_way(&chain.name, under_way.iter().map(|sending| sending.progress.state.name()));
        // One that the node refuses holds up those behind it, and no others.
        let mut counted: HashMap<Address, Counted> = HashMap::new();
        for sending in under_way {
            let now = SystemTime::now();
            let next = match sending.progress.state {
                State::Queued => self.send(chain, rpc, &sending, now).await?,
                _ => {
                    let address = sending.id.address;
                    let counts = match counted.get(&address) {
                        Some(counts) => *counts,
                        None => *counted.entry(address).or_insert(Counted::ask(chain, rpc, address).await?),
                    };
                    self.look(chain, rpc, &sending, counts, now).await?
                }
            };
            if let Some(next) = next.filter(|next| *next != sending.progress) {
                told(chain, &sending, &next);
                ledger.update(sending.reservation, next, now).await?;
            }
        }
        Ok(())
    }

    /// Sends what was not sent before, or was refused some time ago.
    async fn send(
        &self,
        chain: &Chain,
        rpc: &Rpc,
        sending: &Sending,
        now: SystemTime,
    ) -> Result<Option<Progress>, RpcError> {
        let before = &sending.progress;
        let last = before.last_sent_at.map(moment);
        if last.is_some_and(|last| now.duration_since(last).unwrap_or_default() < chain.settings.rebroadcast) {
            return Ok(None);
        }
        let sent = rpc.send(&sending.signed.raw).await?;
        let (state, note) = match sent {
            Sent::Accepted => (State::Sent, None),
            // It was sent before, or another transaction has its nonce: its receipt will tell.
            Sent::Rejected(Rejected::NonceTooLow, note) => {
                self.forget(chain.id, sending.id.address);
                (State::Sent, Some(note))
            }
            Sent::Rejected(_, note) => (State::Queued, Some(note)),
        };
        let at = Some(millis(now));
        let first_sent_at = before.first_sent_at.or(at.filter(|_| state == State::Sent));
        let attempts = before.attempts.saturating_add(1);
        Ok(Some(Progress { state, attempts, first_sent_at, last_sent_at: at, note, ..before.clone() }))
    }

    /// Asks what became of what was sent.
    async fn look(
        &self,
        chain: &Chain,
        rpc: &Rpc,
        sending: &Sending,
        counted: Counted,
        now: SystemTime,
    ) -> Result<Option<Progress>, RpcError> {
        let before = &sending.progress;
        let hash = sending.signed.hash;
        let Counted { head, settled_count, latest_count } = counted;
        let known = rpc.knows(hash).await?;
        let receipt = rpc.receipt(hash).await?;
        let seen = Seen { head, settled_count, latest_count, known, receipt };
        let first_sent = before.first_sent_at.map_or(now, moment);
        let tracked =
            Tracked { nonce: sending.nonce, first_sent, last_sent: before.last_sent_at.map_or(first_sent, moment) };
        let settings = &chain.settings;
        Ok(Some(match step(settings, &tracked, &seen, now) {
            Step::Confirmed { block, success } => Progress {
                state: State::Confirmed,
                block: Some(block),
                succeeded: Some(success),
                note: None,
                ..before.clone()
            },
            Step::Mined { .. } => {
                let (block, succeeded) = (receipt.map(|r| r.block), receipt.map(|r| r.success));
                Progress { state: State::Mined, block, succeeded, note: None, ..before.clone() }
            }
            Step::Replaced => {
                self.forget(chain.id, sending.id.address);
                Progress { state: State::Replaced, block: None, succeeded: None, note: None, ..before.clone() }
            }
            Step::Rebroadcast => {
                let lost = Progress { last_sent_at: None, block: None, succeeded: None, ..before.clone() };
                return self.send(chain, rpc, &Sending { progress: lost, ..sending.clone() }, now).await;
            }
            Step::Stuck => {
                let note = before.note.clone().or_else(|| Some(STUCK.to_owned()));
                Progress { state: State::Sent, block: None, succeeded: None, note, ..before.clone() }
            }
            Step::Wait => Progress { state: State::Sent, block: None, succeeded: None, ..before.clone() },
        }))
    }
}

/// What is said of a transaction that no block has for long.
pub(crate) const STUCK: &str = "no block has it: it may be replaced by one that offers more";

/// What a chain says of a sender; asked before its transactions are, so that one that is mined meanwhile looks mined.
#[derive(Debug, Clone, Copy)]
struct Counted {
    head: u64,
    settled_count: u64,
    latest_count: u64,
}

impl Counted {
    async fn ask(chain: &Chain, rpc: &Rpc, address: Address) -> Result<Self, RpcError> {
        let head = rpc.block_number().await?;
        let settled = Moment::Block(chain.settings.settled_block(head));
        Ok(Self {
            head,
            settled_count: rpc.transaction_count(address, settled).await?,
            latest_count: rpc.transaction_count(address, Moment::Latest).await?,
        })
    }
}

/// Why a pass ended early.
#[derive(Debug, thiserror::Error)]
enum PassError {
    #[error(transparent)]
    Rpc(#[from] RpcError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

fn told(chain: &Chain, sending: &Sending, next: &Progress) {
    let (chain, hash, nonce) = (&chain.name, sending.signed.hash, sending.nonce);
    let (caller, key, name) = (&sending.id.caller, &sending.id.key, &sending.id.idempotency_key);
    let (state, block, why) = (next.state.name(), next.block, next.note.as_deref());
    let before = &sending.progress;
    if next.note.is_some() && next.note != before.note {
        tracing::warn!(chain, caller, key, idempotency_key = name, %hash, nonce, state, why, "held up");
    } else if next.state != before.state {
        tracing::info!(chain, caller, key, idempotency_key = name, %hash, nonce, state, block, "under way");
    }
}

fn moment(millis: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap_or_default())
}

fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
