//! The way of a request for a signature, from a caller that is known to bytes that are answered for ever.
//!
//! Encode (twice) → known idempotency key? its bytes → policy → reserve, durably, with its nonce → sign, verify → store,
//! durably → answer. It encodes before it reserves, so that a transaction that the encoders dispute reserves nothing.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use alloy_primitives::{Address, B256, keccak256};
use serde_json::{Value as Json, json};
use tokio_util::sync::CancellationToken;

use crate::chain::node::Moment;
use crate::failpoint::failpoint;
use crate::in_flight::InFlight;
use crate::key::{Key, KeyError};
use crate::ledger::audit::Event;
use crate::ledger::{
    self, Begun, Exposed, Exposure, Ledger, LedgerError, Nonce, Record, Request, RequestId, Reservation, Reserved,
    Signed, Unfinished,
};
use crate::live::Live;
use crate::metrics::Metrics;
use crate::policy::{self, Allowed, Denied, Policy, Rates};
use crate::refused::{Refused, Sum};
use crate::sending::Post;
use crate::signature::Signature;
use crate::statement::Statement;
use crate::transaction::Transaction;

/// A transaction that is refused is in the audit trail up to this size, in bytes of JSON,
const MOST_KEPT: usize = 1024;
/// and why it is, which may name what its caller has named, up to this one.
const MOST_WHY: usize = 512;

pub(crate) use crate::prepared::{Before, Numbering, Prepared, Purpose, asked_digest};
pub(crate) use crate::refusal::Refusal;

/// What signing takes.
#[derive(Debug)]
pub(crate) struct Signing {
    pub(crate) keys: BTreeMap<String, Arc<Key>>,
    pub(crate) ledger: Ledger,
    pub(crate) metrics: Metrics,
    pub(crate) in_flight: InFlight,
    pub(crate) post: Arc<Post>,
    pub(crate) rates: Rates,
    pub(crate) refused: Arc<Refused>,
}

/// A signed transaction, and whether it was signed before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) reservation: Reservation,
    pub(crate) signed: Signed,
    pub(crate) from: Address,
    pub(crate) chain_id: u64,
    pub(crate) nonce: u64,
    pub(crate) replayed: bool,
}

/// What was signed, and is no transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) signature: Signature,
    pub(crate) digest: B256,
    pub(crate) address: Address,
}

impl Signing {
    /// What is known of a request before it is filled.
    pub(crate) async fn before(&self, id: &RequestId, digest: [u8; 32]) -> Result<Before, Refusal> {
        match self.timed("lookup", self.ledger.lookup_or_held(id.clone())).await? {
            (Some(record), _) if record.digest != digest => {
                let RequestId { caller, key, address, idempotency_key } = id;
                let detail =
                    json!({ "key": key, "address": address.to_checksum(None), "idempotencyKey": idempotency_key });
                self.tell_refusal(caller, Refusal::Conflict.outcome(), detail).await;
                Err(Refusal::Conflict)
            }
            (record, held) => {
                let shown = held.filter(|held| held.digest == digest).map(|held| held.body);
                Ok(Before { record, shown })
            }
        }
    }

    async fn held(&self, id: &RequestId, digest: [u8; 32]) -> Result<Option<String>, Refusal> {
        let held = self.timed("lookup", self.ledger.held_as(id.clone())).await?;
        Ok(held.filter(|held| held.digest == digest).map(|held| held.body))
    }

    /// Signs a transaction with `key` under `id`, or answers what was signed under it first. What is `abandoned` before
    /// it is reserved is not reserved. The caller sees to it that there is one at a time under one `id`.
    ///
    /// Must run to its end once it is started: the API runs it in a task of its own, which a client that goes away
    /// does not stop. Even so, all that a stop in the middle leaves is a reservation.
    pub(crate) async fn transaction(
        &self,
        key: &Key,
        policy: Option<&Policy>,
        id: RequestId,
        prepared: Prepared,
        abandoned: impl Fn() -> bool + Send + 'static,
    ) -> Result<Answer, Refusal> {
        let Prepared { mut tx, numbering, purpose, send, counted, digest } = prepared;
        let chain_id = tx.chain_id();
        let answer = |reservation, signed, nonce, replayed| Answer {
            reservation,
            signed,
            from: key.address(),
            chain_id,
            nonce,
            replayed,
        };
        let known = self.timed("lookup", self.ledger.lookup(id.clone())).await?;
        let is_new = known.is_none();
        match known {
            Some(known) if known.digest != digest => {
                return Err(self.refuse(key, &id, &tx, Refusal::Conflict, !counted).await);
            }
            Some(Record { reservation, signed: Some(signed), nonce, .. }) => {
                return Ok(answer(reservation, signed, nonce, true));
            }
            // What is judged is what will be signed.
            Some(Record { body: Some(body), .. }) => tx = reserved(&body)?,
            Some(_) | None => {}
        }
        let now = SystemTime::now();
        let judge = |tx: &Transaction| {
            let policy = policy.ok_or_else(Denied::no_policy)?;
            self.judge(policy, tx, &purpose, numbering, now).map(|allowed| (policy, allowed))
        };
        let mut judged = judge(&tx);
        if let Ok((_, Allowed { approval: Some(_), .. })) = &judged
            && let Some(shown) = self.held(&id, digest).await?
        {
            tx = reserved(&shown)?;
            judged = judge(&tx);
        }
        let (policy, allowed) = match judged {
            Ok(judged) => judged,
            Err(denied) => {
                // What was reserved before was denied then, if it was, and is looked at again and again.
                return Err(self.refuse(key, &id, &tx, denied.into(), !counted).await);
            }
        };
        // Whatever comes after its nonce would wait for ever.
        if is_new && tx.gas() < tx.least_gas() {
            return Err(Refusal::TooLittleGas(tx.least_gas()));
        }
        if !counted {
            self.count(key, &id.caller, policy).await?;
        }
        let nonce = self.nonce(key, chain_id, numbering).await?;
        if send && self.post.rpc(chain_id).is_none() {
            return Err(Refusal::NoRpc);
        }
        if send && tx.max_blob_gas_price().is_some() {
            return Err(Refusal::BlobsNotKept);
        }
        failpoint("before-begin");
        let request = Request {
            id: id.clone(),
            digest,
            chain_id,
            nonce,
            // A cancellation sends nothing: where it is held to less than what it takes now, what is stuck stays so.
            replacements: policy.replacements.filter(|_| purpose != Purpose::Nothing),
            finishing: counted,
            value: tx.value(),
            body: tx.body(),
            send,
            policy: policy.name.clone(),
            allowed,
            now,
        };
        let (reserved, fresh) = match self.timed("begin", self.ledger.begin_unless(request, abandoned)).await? {
            Begun::Fresh(reserved) => (reserved, true),
            Begun::Pending(reserved) => (reserved, false),
            Begun::Signed { reservation, signed, nonce } => return Ok(answer(reservation, signed, nonce, true)),
            Begun::Abandoned => return Err(Refusal::Abandoned),
            Begun::Held(held) => return Err(Refusal::Held(Box::new(held))),
            refused => {
                let refusal = match refused {
                    Begun::StillHeld(held) => Refusal::Held(Box::new(held)),
                    Begun::Denied(denied) => Refusal::Denied(denied),
                    Begun::ClockBehind(behind) => Refusal::ClockBehind(behind.as_secs()),
                    _ => Refusal::Conflict,
                };
                return Err(self.refuse(key, &id, &tx, refusal, !counted).await);
            }
        };
        failpoint("begun");
        self.metrics.verdict("allowed");
        let Reserved { reservation, nonce, .. } = reserved;
        let signed = self.reserved(key, &id.caller, tx, reserved, fresh).await?;
        Ok(answer(reservation, signed, nonce, false))
    }

    /// Judges a transaction by everything but what was spent before.
    pub(crate) fn judge(
        &self,
        policy: &Policy,
        tx: &Transaction,
        purpose: &Purpose,
        numbering: Numbering,
        now: SystemTime,
    ) -> Result<Allowed, Denied> {
        let allowed = match purpose {
            Purpose::Call => policy::judge(policy, tx, now)?,
            Purpose::Nothing => policy::judge_nothing(policy, tx, now)?,
            Purpose::Again { approved_by } => policy::judge_again(policy, tx, approved_by, now)?,
        };
        self.may_give(policy, tx.chain_id(), numbering).map(|()| allowed)
    }

    /// Whether the policy lets a caller give a nonce itself, where keygate chooses them.
    fn may_give(&self, policy: &Policy, chain_id: u64, numbering: Numbering) -> Result<(), Denied> {
        let chosen_here = self.post.rpc(chain_id).is_some();
        match numbering {
            Numbering::Given(_) if chosen_here && !policy.allow_nonce => Err(Denied::nonce_given()),
            _ => Ok(()),
        }
    }

    /// Which nonce to reserve.
    async fn nonce(&self, key: &Key, chain_id: u64, numbering: Numbering) -> Result<Nonce, Refusal> {
        Ok(match numbering {
            Numbering::Given(nonce) => Nonce::Given(nonce),
            Numbering::Replacing(nonce) => Nonce::Replacing(nonce),
            Numbering::Gap(nonce) => {
                let rpc = self.post.rpc(chain_id).ok_or(Refusal::NoRpc)?;
                Nonce::Gap { nonce, at_least: rpc.transaction_count(key.address(), Moment::Pending).await? }
            }
            Numbering::Chosen => {
                let rpc = self.post.rpc(chain_id).ok_or(Refusal::NoNonce)?;
                Nonce::Managed { at_least: self.post.count(&rpc, chain_id, key.address()).await? }
            }
        })
    }

    /// Signs what is reserved, as it was reserved, and stores it. What is `fresh` is released if it is certain that
    /// nothing was signed.
    pub(crate) async fn reserved(
        &self,
        key: &Key,
        caller: &str,
        asked: Transaction,
        reserved: Reserved,
        fresh: bool,
    ) -> Result<Signed, Refusal> {
        let Reserved { reservation, nonce, body } = reserved;
        let tx = match body {
            // Whatever is asked for now, under this name this was reserved.
            Some(body) => self::reserved(&body)?,
            None => asked,
        };
        let tx = tx.with_nonce(nonce);
        let digest = keccak256(tx.signing_bytes()?);
        failpoint("before-key");
        let signature = match self.sign(key, caller, &digest).await {
            Ok(signature) => signature,
            Err(error) => {
                // An earlier attempt under the same reservation may have had an outcome that is not known.
                if fresh && error.nothing_signed() {
                    let release = self.ledger.release(reservation, SystemTime::now());
                    if let Err(error) = self.timed("release", release).await {
                        // It stays reserved, which is safe: a retry finds it.
                        tracing::warn!(%error, "a reservation could not be released");
                    }
                }
                return Err(Refusal::Key(error));
            }
        };
        failpoint("key-signed");
        let signed = tx.into_signed(&signature)?;
        let mut rsv = [0; 65];
        rsv[..32].copy_from_slice(signature.r());
        rsv[32..64].copy_from_slice(signature.s());
        rsv[64] = signature.y_odd().into();
        let signed = Signed { raw: signed.raw, hash: signed.hash, signature: rsv };
        let stored = self.timed("store", self.ledger.store(reservation, signed, SystemTime::now())).await?;
        failpoint("stored");
        self.metrics.signature("transaction");
        Ok(stored)
    }

    /// Signs what is no transaction, for `caller`. What it lets somebody take is counted before it is signed, and it is
    /// written down before it is answered.
    ///
    /// May stop anywhere: a signature that nobody was given is none. What was counted stays counted then.
    pub(crate) async fn statement(
        &self,
        key: &Key,
        policy: Option<&Policy>,
        caller: &str,
        statement: &Statement,
    ) -> Result<Said, Refusal> {
        let digest = statement.signing_hash()?;
        let now = SystemTime::now();
        let judged = match policy {
            Some(policy) => statement.judge(policy, now).map(|allowed| (policy, allowed)),
            None => Err(Denied::no_policy()),
        };
        // What is signed under no name cannot be asked for again, once somebody has approved it.
        let judged = judged.and_then(|(policy, allowed)| match allowed.approval {
            Some(approval) => Err(Denied { rule: approval.rule, detail: approval.detail }),
            None => Ok((policy, allowed.spends)),
        });
        let detail = || json!({ "kind": statement.kind(), "digest": hex::encode(digest) });
        let (policy, spends) = match judged {
            Ok(judged) => judged,
            Err(denied) => {
                return Err(self.refused(key, caller, denied.into(), detail).await);
            }
        };
        self.count(key, caller, policy).await?;
        let counted = if spends.is_empty() {
            Vec::new()
        } else {
            let chain_id = statement.chain_id().unwrap_or_default();
            let exposure = Exposure { policy: policy.name.clone(), address: key.address(), chain_id, spends, now };
            match self.timed("expose", self.ledger.expose(exposure)).await? {
                Exposed::Counted(counted) => counted,
                Exposed::Denied(denied) => return Err(self.refused(key, caller, denied.into(), detail).await),
                Exposed::ClockBehind(behind) => {
                    let refusal = Refusal::ClockBehind(behind.as_secs());
                    return Err(self.refused(key, caller, refusal, detail).await);
                }
            }
        };
        self.metrics.verdict("allowed");
        let signature = match self.sign(key, caller, &digest).await {
            Ok(signature) => signature,
            Err(error) => {
                if error.nothing_signed()
                    && !counted.is_empty()
                    && let Err(error) = self.timed("take-back", self.ledger.take_back(counted)).await
                {
                    tracing::warn!(%error, "what was counted for a signature that was not made stays counted");
                }
                return Err(Refusal::Key(error));
            }
        };
        let record = self.ledger.record(ledger::Statement {
            caller: caller.to_owned(),
            key: key.name().to_owned(),
            address: key.address(),
            policy: policy.name.clone(),
            kind: statement.kind(),
            digest,
            content: statement.content(),
            signature: signature.to_bytes(),
            now,
        });
        self.timed("record", record).await?;
        self.metrics.signature(statement.kind());
        Ok(Said { signature, digest, address: key.address() })
    }

    /// Signs what was reserved before this moment, and not signed: under the same names, with the same nonces, as far as
    /// its caller may have it signed still.
    pub(crate) async fn finish(
        &self,
        reserved_before: SystemTime,
        live: &Live,
        stop: &CancellationToken,
    ) -> Result<(), LedgerError> {
        for Unfinished { id, digest, reserved } in self.ledger.unfinished(reserved_before).await? {
            if stop.is_cancelled() {
                break;
            }
            // Each takes as long as its key: meanwhile a reload may have removed its caller.
            let now = live.snapshot();
            let RequestId { caller, key, address, idempotency_key } = id.clone();
            let left = |why: &dyn std::fmt::Display| {
                tracing::warn!(caller, key, idempotency_key, %why, "what was reserved is not signed");
            };
            let Some(key) = self.keys.values().find(|key| key.address() == address) else {
                left(&"its key is not in the file any more");
                continue;
            };
            let Some(caller) = now.callers.named(&caller).filter(|caller| caller.may_use(key.name())) else {
                left(&"its caller is not in the file any more, or may not use the key");
                continue;
            };
            let Some(Ok(tx)) = reserved.body.as_deref().map(Transaction::from_body) else {
                left(&"it is no transaction");
                continue;
            };
            // Its nonce and what it counts are reserved: this only asks whether it may still be signed.
            let (numbering, send, counted) = (Numbering::Replacing(reserved.nonce), false, true);
            let nothing = tx.does_nothing(address);
            let purpose = if nothing { Purpose::Nothing } else { Purpose::Call };
            failpoint("finishing");
            let prepared = Prepared { tx, numbering, purpose, send, counted, digest };
            match self.transaction(key, caller.policy.as_ref(), id.clone(), prepared, || false).await {
                Ok(Answer { signed, nonce, chain_id, .. }) => {
                    failpoint("finished");
                    self.post.wake(chain_id);
                    let (caller, hash) = (&caller.name, signed.hash);
                    tracing::info!(caller, key = key.name(), idempotency_key, %hash, nonce, "what was reserved is signed");
                }
                Err(refusal) => left(&refusal),
            }
        }
        Ok(())
    }

    async fn sign(&self, key: &Key, caller: &str, digest: &[u8; 32]) -> Result<Signature, KeyError> {
        let start = Instant::now();
        let signature = key.sign(digest, caller).await;
        match &signature {
            Ok(_) => self.metrics.key_signed(key.name(), key.kind(), start.elapsed()),
            Err(error) => self.metrics.key_failed(key.name(), error.kind()),
        }
        signature
    }

    /// Counts a signature for the caller: what is denied for another reason, or was signed before, is none.
    async fn count(&self, key: &Key, caller: &str, policy: &Policy) -> Result<(), Refusal> {
        match self.rates.count(caller, policy.rate) {
            Ok(()) => Ok(()),
            Err(too_often) => Err(self.refused(key, caller, Refusal::TooOften(too_often), || json!({})).await),
        }
    }

    /// A transaction that is refused: counted, and in the audit trail if it is `told`.
    pub(crate) async fn refuse(
        &self,
        key: &Key,
        id: &RequestId,
        tx: &Transaction,
        refusal: Refusal,
        told: bool,
    ) -> Refusal {
        if !told {
            self.verdict(&refusal);
            return refusal;
        }
        let detail = || {
            let body = tx.body();
            match body.len() {
                ..=MOST_KEPT => json!({ "idempotencyKey": id.idempotency_key, "transaction": body }),
                bytes => json!({ "idempotencyKey": id.idempotency_key, "transactionBytes": bytes }),
            }
        };
        self.refused(key, &id.caller, refusal, detail).await
    }

    /// What is refused: counted, and told to the audit trail, by itself or in a sum. It stands, whether that succeeds or
    /// not.
    async fn refused(&self, key: &Key, caller: &str, refusal: Refusal, detail: impl FnOnce() -> Json) -> Refusal {
        self.verdict(&refusal);
        let denied = refusal.denied();
        let rule = denied.map_or(refusal.outcome(), |denied| denied.rule);
        let full = || {
            let mut detail = detail();
            detail["key"] = key.name().into();
            detail["address"] = key.address().to_checksum(None).into();
            if let Some(Denied { rule, detail: why }) = denied {
                detail["rule"] = (*rule).into();
                detail["why"] = beginning(why, MOST_WHY).into();
            }
            if let Refusal::Held(held) = &refusal {
                detail["approval"] = held.approval.into();
            }
            detail
        };
        self.tell(caller, refusal.outcome(), rule, full).await;
        refusal
    }

    /// Tells the audit trail of what a caller is refused before it is a request.
    pub(crate) async fn tell_refusal(&self, caller: &str, what: &'static str, detail: Json) {
        self.tell(caller, what, what, || detail).await;
    }

    /// By itself, or in a sum by `rule`.
    async fn tell(&self, caller: &str, what: &'static str, rule: &'static str, detail: impl FnOnce() -> Json) {
        let now = SystemTime::now();
        if !self.refused.singly(caller, rule, now) {
            return;
        }
        let mut event = Event::new(now, what, detail());
        event.detail.insert("caller".to_owned(), caller.into());
        if let Err(error) = self.timed("note", self.ledger.note(event)).await {
            tracing::error!(%error, "a refusal is not in the audit trail yet: it will be in a sum");
            self.refused.add(caller, Sum::of(rule, now));
        }
    }

    /// Counts it for the metrics, if a rule has said no.
    fn verdict(&self, refusal: &Refusal) {
        if let Some(denied) = refusal.denied() {
            self.metrics.verdict(denied.rule);
        }
    }

    async fn timed<T>(&self, operation: &str, work: impl Future<Output = T>) -> T {
        let _timer = self.metrics.ledger(operation).start_timer();
        work.await
    }
}

/// So many bytes of a text at most.
pub(crate) fn beginning(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

/// A transaction as it was reserved, or approved.
fn reserved(body: &str) -> Result<Transaction, LedgerError> {
    Transaction::from_body(body)
        .map_err(|error| LedgerError::Unusable(format!("what is reserved there is no transaction: {error}")))
}
