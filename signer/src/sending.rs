//! What was signed to be sent goes to its chain, and is followed until it is final; and what the chain knows of nonces.
//!
//! Everything that is known is in the ledger: a process that dies in between leaves nothing out, and several may do the
//! same: to send the same bytes again does no harm.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use alloy_primitives::Address;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::chain::node::{Moment, Sent, Used};
use crate::chain::rejected::Rejected;
use crate::chain::rpc::{Rpc, RpcError};
use crate::chain::search::Search;
use crate::chain::track::{Seen, Step, Tracked, User, step};
use crate::chain::turns::{Kind, Turns};
use crate::chain::{Chain, Chains};
use crate::failpoint::failpoint;
use crate::ledger::{Ledger, LedgerError, Progress, RequestId, Sending, State, millis, moment};
use crate::live::Live;
use crate::metrics::Metrics;
use crate::signing::Answer;

/// What is under way is asked about this often: about as often as the fastest chains have blocks.
const POLL: Duration = Duration::from_secs(2);
/// Who asked for a transaction waits this long for it to be sent; then it is only signed, and sent soon.
const FIRST: Duration = Duration::from_secs(5);
/// How many transactions an address has is asked again after this time: somebody else may use the key.
const COUNT_AGAIN: Duration = Duration::from_secs(10);

/// The type of transactions whose authorizations use nonces besides their own (EIP-7702).
const WITH_AUTHORIZATIONS: u8 = 4;

/// Chains, as the file has them now, and what is on its way to them.
#[derive(Debug)]
pub(crate) struct Post {
    live: Arc<Live>,
    /// Something is to be sent.
    woken: Mutex<HashMap<u64, Arc<Notify>>>,
}

impl Post {
    pub(crate) fn new(live: Arc<Live>) -> Self {
        Self { live, woken: Mutex::default() }
    }

    /// The chains of the file. Who keeps them asks the nodes that it had then.
    pub(crate) fn chains(&self) -> Arc<Chains> {
        Arc::clone(&self.live.snapshot().chains)
    }

    /// The nodes of a chain, if the file names any.
    pub(crate) fn rpc(&self, chain_id: u64) -> Option<Arc<Rpc>> {
        self.chains().by_id(chain_id)?.rpc.clone()
    }

    /// How many transactions of this address the chain has known, at some time: the next nonce is no lower, as far as the
    /// chain is right. One that was asked before need not answer: the ledger knows what was signed here since.
    pub(crate) async fn count(&self, rpc: &Rpc, chain_id: u64, address: Address) -> Result<u64, RpcError> {
        let before = match rpc.counts.lock().get_mut(&address) {
            Some((count, asked)) if asked.elapsed() < COUNT_AGAIN => return Ok(*count),
            Some((count, asked)) => {
                // One asks; the others go on.
                *asked = Instant::now();
                Some(*count)
            }
            None => None,
        };
        match (rpc.transaction_count(address, Moment::Pending).await, before) {
            (Ok(count), _) => {
                rpc.counts.lock().insert(address, (count, Instant::now()));
                Ok(count)
            }
            (Err(error), Some(count)) => {
                tracing::warn!(chain_id, %error, "the chain does not say how many transactions there are: the ledger does");
                Ok(count)
            }
            (Err(error), None) => Err(error),
        }
    }

    /// What [`Self::count`] was answered last, by the nodes of the file.
    pub(crate) fn counted(&self, chain_id: u64, address: Address) -> Option<u64> {
        self.rpc(chain_id)?.counts.lock().get(&address).map(|(count, _)| *count)
    }

    /// There is something to send.
    pub(crate) fn wake(&self, chain_id: u64) {
        self.woken(chain_id).notify_one();
    }

    fn woken(&self, chain_id: u64) -> Arc<Notify> {
        Arc::clone(self.woken.lock().entry(chain_id).or_default())
    }

    /// Sends for the first time what was just signed, so that who asked for it finds it there. What comes of it is written
    /// down, and what does not succeed is tried again.
    pub(crate) async fn send_first(&self, ledger: &Ledger, id: &RequestId, answer: &Answer) {
        let chains = self.chains();
        let Some(chain) = chains.by_id(answer.chain_id) else { return };
        let Some(rpc) = &chain.rpc else { return };
        let Answer { reservation, signed, nonce, chain_id, .. } = answer.clone();
        let sent = async {
            let progress = ledger.progress(reservation).await?.filter(|progress| progress.state == State::Queued);
            let Some(progress) = progress else { return Ok(()) };
            let sending = Sending { reservation, id: id.clone(), chain_id, nonce, signed, progress };
            let now = SystemTime::now();
            match self.send(chain, rpc, &sending, now).await {
                Ok(None) => {}
                Ok(Some(next)) => {
                    told(chain, &sending, &next);
                    ledger.update(reservation, sending.progress, next, now).await?;
                }
                Err(error) => {
                    held_up(&error, ledger, &sending).await?;
                    return Err(error.into());
                }
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
        let woken = self.woken(chain_id);
        let mut turns = Turns::default();
        loop {
            let pass = async {
                // As the file has it now: its nodes may be others than before, or none.
                let chains = self.chains();
                if let Some(chain) = chains.by_id(chain_id)
                    && let Some(rpc) = &chain.rpc
                    && let Err(error) = self.pass(At { chain, rpc, ledger }, metrics, &mut turns).await
                {
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

    /// Looks at what is under way on a chain, and has its turn.
    async fn pass(&self, at: At<'_>, metrics: &Metrics, turns: &mut Turns) -> Result<(), PassError> {
        let At { chain, rpc, ledger } = at;
        let under_way = ledger.under_way(chain.id).await?;
        metrics.under_way(&chain.name, under_way.iter().map(|sending| sending.progress.state.name()));
        let addresses: BTreeSet<Address> = under_way.iter().map(|sending| sending.id.address).collect();
        let mut counted = HashMap::new();
        for address in addresses {
            match Counted::ask(chain, rpc, address).await {
                Ok(counts) => drop(counted.insert(address, counts)),
                Err(error) => {
                    let concerned = under_way.iter().filter(|sending| sending.id.address == address);
                    unanswered(at, concerned.collect(), &under_way, &error).await?;
                }
            }
        }
        let mined = |sending: &&Sending| sending.progress.state == State::Mined;
        let mut mined: HashSet<_> =
            under_way.iter().filter(mined).map(|sending| (sending.id.address, sending.nonce)).collect();
        let followed: Vec<_> =
            under_way.iter().filter_map(|sending| Some((sending, *counted.get(&sending.id.address)?))).collect();
        let kinds: Vec<_> =
            followed.iter().map(|(sending, counts)| (sending.reservation, counts.kind(sending))).collect();
        for (place, may_search) in turns.next(&kinds, chain.settings.rebroadcast, Instant::now()) {
            let (sending, counts) = followed[place];
            let now = SystemTime::now();
            let account = (sending.id.address, sending.nonce);
            let other_mined = mined.contains(&account);
            let next = match &sending.progress {
                // No node takes it any more: it was sent, and that was not written down; or another has its nonce.
                before @ Progress { state: State::Queued, .. } if counts.latest_count > sending.nonce => {
                    let at = Some(millis(now));
                    let (first_sent_at, note) = (before.first_sent_at.or(at), Some(USED.to_owned()));
                    Ok(Some(Progress { state: State::Sent, first_sent_at, last_sent_at: at, note, ..before.clone() }))
                }
                Progress { state: State::Queued, .. } => self.send(chain, rpc, sending, now).await.map_err(Into::into),
                _ => self.look(at, sending, counts, may_search, other_mined, now).await,
            };
            let next = match next {
                Ok(next) => next,
                Err(PassError::Rpc(error)) => {
                    let (hash, nonce) = (sending.signed.hash, sending.nonce);
                    tracing::warn!(chain = chain.name, %hash, nonce, %error, "could not be followed");
                    unanswered(at, vec![sending], &under_way, &error).await?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if let Some(next) = next.filter(|next| *next != sending.progress) {
                told(chain, sending, &next);
                if next.block.is_some() && sending.signed.raw.first() == Some(&WITH_AUTHORIZATIONS) {
                    // Authorizations take nonces of whoever signed them (EIP-7702).
                    rpc.counts.lock().clear();
                }
                if next.state == State::Mined {
                    mined.insert(account);
                }
                failpoint("following");
                ledger.update(sending.reservation, sending.progress.clone(), next, now).await?;
            }
        }
        Ok(())
    }

    /// Sends what was not sent before, or was refused some time ago: what a node refuses because one before it is not there
    /// yet, it takes soon; what it refuses for good, it is not asked about all the time.
    async fn send(
        &self,
        chain: &Chain,
        rpc: &Rpc,
        sending: &Sending,
        now: SystemTime,
    ) -> Result<Option<Progress>, RpcError> {
        let before = &sending.progress;
        let pause = chain.settings.rebroadcast.min(POLL.saturating_mul(1 << before.attempts.min(16)) / 2);
        let last = before.last_sent_at.map(moment);
        if last.is_some_and(|last| now.duration_since(last).is_ok_and(|since| since < pause)) {
            return Ok(None);
        }
        failpoint("sending");
        let sent = rpc.send(&sending.signed.raw).await?;
        failpoint("sent");
        let (state, note) = match sent {
            Sent::Accepted => (State::Sent, None),
            // It was sent before, or another transaction has its nonce: its receipt will tell.
            Sent::Rejected(Rejected::NonceTooLow, note) => {
                if !rpc.knows(sending.signed.hash).await? {
                    rpc.counts.lock().remove(&sending.id.address);
                }
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
        at: At<'_>,
        sending: &Sending,
        counted: Counted,
        may_search: bool,
        other_mined: bool,
        now: SystemTime,
    ) -> Result<Option<Progress>, PassError> {
        let At { chain, rpc, .. } = at;
        let before = &sending.progress;
        let hash = sending.signed.hash;
        let Counted { head, settled_count, latest_count } = counted;
        let known = rpc.knows(hash).await?;
        let receipt = rpc.receipt(hash).await?;
        let mut seen = Seen { head, settled_count, latest_count, known, receipt, user: User::Unsought };
        let first_sent = before.first_sent_at.map_or(now, moment);
        let tracked =
            Tracked { nonce: sending.nonce, first_sent, last_sent: before.last_sent_at.map_or(first_sent, moment) };
        let settings = &chain.settings;
        if step(settings, &tracked, &seen, now) == Step::Seek {
            let Some(user) = seek(at, sending, head, may_search).await? else { return Ok(None) };
            seen.user = user;
        }
        let step = step(settings, &tracked, &seen, now);
        Ok(Some(match step {
            Step::Confirmed { block, success } => Progress {
                state: State::Confirmed,
                block: Some(block),
                succeeded: Some(success),
                note: None,
                ..before.clone()
            },
            Step::Mined { block, .. } => {
                let (block, succeeded) = (Some(block), receipt.map(|r| r.success));
                Progress { state: State::Mined, block, succeeded, note: None, ..before.clone() }
            }
            Step::Replaced(by) => {
                rpc.counts.lock().remove(&sending.id.address);
                let by = Some(by);
                Progress {
                    state: State::Replaced,
                    block: None,
                    succeeded: None,
                    note: None,
                    replaced_by: by,
                    ..before.clone()
                }
            }
            Step::Rebroadcast => {
                let lost = Progress { last_sent_at: None, block: None, succeeded: None, ..before.clone() };
                return Ok(self.send(chain, rpc, &Sending { progress: lost, ..sending.clone() }, now).await?);
            }
            Step::Stuck => {
                // One in its place, of this ledger, that is mined says by what its nonce is used.
                let note =
                    if latest_count <= sending.nonce { Some(STUCK) } else { Some(UNSEEN).filter(|_| !other_mined) };
                let note = note.map(str::to_owned);
                Progress { state: State::Sent, block: None, succeeded: None, note, ..before.clone() }
            }
            Step::Wait | Step::Seek => {
                // Whether it is stuck is not known any more, once its nonce is used.
                let note = before.note.clone().filter(|note| latest_count <= sending.nonce || note != STUCK);
                Progress { state: State::Sent, block: None, succeeded: None, note, ..before.clone() }
            }
        }))
    }
}

/// Looks for what has used a transaction's nonce: in the ledger, and on the chain. None, if it may not look there now.
async fn seek(at: At<'_>, sending: &Sending, head: u64, may_search: bool) -> Result<Option<User>, LedgerError> {
    let At { chain, rpc, ledger } = at;
    let Sending { id, chain_id, nonce, signed, .. } = sending;
    if let Some(hash) = ledger.confirmed(id.address, *chain_id, *nonce).await? {
        return Ok(Some(User::Another(hash)));
    }
    if !may_search {
        return Ok(None);
    }
    let search = Search::new(*nonce, chain.settings.settled_block(head), head);
    Ok(Some(match rpc.used_by(id.address, *nonce, search).await {
        Ok(Some(Used { block, hash })) if hash == signed.hash => User::Itself { block },
        Ok(Some(Used { hash, .. })) => User::Another(hash),
        Ok(None) => User::Unseen,
        Err(error) => {
            tracing::warn!(chain = chain.name, hash = %signed.hash, nonce, %error, "what used its nonce is not seen");
            match error {
                // It keeps no state as old as that, or its block is too long to be read.
                RpcError::Refused(_) | RpcError::BadAnswer(_) | RpcError::TooLong(_) => User::Unseen,
                // Nobody has answered: nothing is known that was not.
                _ => return Ok(None),
            }
        }
    }))
}

/// What is said of a transaction that no block has for long.
pub(crate) const STUCK: &str = "no block has it: it may be replaced by one that offers more";

/// What is said of a transaction that no node has taken, and none will.
const USED: &str = "its nonce is used, by it or by another: a block will tell";

/// What is said of a transaction that may be mined, or replaced, and nobody knows which.
pub(crate) const UNSEEN: &str = "its nonce is used, and no block is seen that says by what: it may be mined; look for it \
                                 elsewhere before it is paid again";

/// Says of what no node has taken why that is.
async fn held_up(chain_error: &RpcError, ledger: &Ledger, sending: &Sending) -> Result<(), LedgerError> {
    let before = &sending.progress;
    if before.state != State::Queued || before.note.is_some() {
        return Ok(());
    }
    let next = Progress { note: Some(chain_error.to_string()), ..before.clone() };
    ledger.update(sending.reservation, before.clone(), next, SystemTime::now()).await
}

/// What is said of some, or is not said in time, says nothing of the others, while a node answers at all.
async fn unanswered(at: At<'_>, some: Vec<&Sending>, all: &[Sending], error: &RpcError) -> Result<(), PassError> {
    let answers = at.rpc.block_number().await;
    let (some, error) = match &answers {
        Ok(_) => (some, error),
        Err(error) => (all.iter().collect(), error),
    };
    for sending in some {
        held_up(error, at.ledger, sending).await?;
    }
    Ok(answers.map(drop)?)
}

/// Where what is under way goes, and is written down.
#[derive(Clone, Copy)]
struct At<'a> {
    chain: &'a Chain,
    rpc: &'a Rpc,
    ledger: &'a Ledger,
}

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

    /// What a look at one of its transactions may tell.
    fn kind(&self, Sending { nonce, progress, .. }: &Sending) -> Kind {
        match progress {
            Progress { state: State::Queued, .. } => Kind::Open,
            // Its receipt is there, and its block not deep enough.
            Progress { state: State::Mined, succeeded: Some(_), .. } => Kind::Open,
            _ if self.settled_count > *nonce => Kind::Used,
            Progress { state: State::Sent, .. } if *nonce > self.latest_count => Kind::Behind,
            _ => Kind::Open,
        }
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
