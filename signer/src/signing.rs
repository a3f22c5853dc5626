//! The way of a request for a signature, from a caller that is known to bytes that are answered for ever.
//!
//! Encode (twice) → known idempotency key? its bytes → policy → reserve, durably → sign, verify → store, durably →
//! answer. It encodes before it reserves, so that a transaction that the encoders dispute reserves nothing.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use alloy_primitives::{Address, B256, keccak256};
use sha2::{Digest, Sha256};

use crate::in_flight::InFlight;
use crate::key::{Key, KeyError};
use crate::ledger::{self, Begun, Ledger, LedgerError, Record, Request, RequestId, Reservation, Signed};
use crate::metrics::Metrics;
use crate::policy::{self, Denied, Policy};
use crate::signature::Signature;
use crate::statement::Statement;
use crate::transaction::{EncodersDisagree, Transaction};

/// What signing takes.
#[derive(Debug)]
pub(crate) struct Signing {
    pub(crate) keys: BTreeMap<String, Arc<Key>>,
    pub(crate) ledger: Ledger,
    pub(crate) metrics: Metrics,
    pub(crate) in_flight: InFlight,
}

/// A signed transaction, and whether it was signed before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
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

/// A transaction that both encoders write alike, and what says whether a request is the same.
#[derive(Debug)]
pub(crate) struct Prepared {
    tx: Transaction,
    signing_bytes: Vec<u8>,
    pub(crate) digest: [u8; 32],
}

/// Why there is no signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(transparent)]
    Encoders(#[from] EncodersDisagree),
    #[error("this idempotency key was used for another request")]
    Conflict,
    #[error("too many wait for this idempotency key's request, which is under way")]
    Crowded,
    #[error("nobody waits for it any more: it was dropped before it was reserved")]
    Abandoned,
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error(
        "the clock is {0} seconds behind what was counted last for daily_value: it is wrong now, or was then; how to go on \
         is in docs/signer.md, under \"When the clock was wrong\""
    )]
    ClockBehind(u64),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Refusal {
    /// A short name, for metrics.
    pub(crate) fn outcome(&self) -> &'static str {
        match self {
            Self::Encoders(_) => "encoders-disagree",
            Self::Conflict => "conflict",
            Self::Crowded => "crowded",
            Self::Abandoned => "abandoned",
            Self::Denied(_) => "denied",
            Self::ClockBehind(_) => "clock-behind",
            Self::Key(error) => error.kind(),
            Self::Ledger(_) => "ledger",
        }
    }
}

impl Prepared {
    /// Has both encoders write it. What goes with it and is not signed is told apart by `sidecar`.
    pub(crate) fn new(key: &Key, tx: Transaction, sidecar: Option<[u8; 32]>) -> Result<Self, Refusal> {
        let signing_bytes = tx.signing_bytes()?;
        let digest = request_digest(key.address(), &signing_bytes, sidecar);
        Ok(Self { tx, signing_bytes, digest })
    }
}

impl Signing {
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
        abandoned: impl Fn() -> bool,
    ) -> Result<Answer, Refusal> {
        let Prepared { tx, signing_bytes, digest } = prepared;
        let answer = |signed, replayed| Answer {
            signed,
            from: key.address(),
            chain_id: tx.chain_id(),
            nonce: tx.nonce(),
            replayed,
        };

        match self.timed("lookup", self.ledger.lookup(id.clone())).await? {
            Some(known) if known.digest != digest => return Err(Refusal::Conflict),
            Some(Record { signed: Some(signed), .. }) => return Ok(answer(signed, true)),
            Some(_) | None => {}
        }
        let policy = policy.ok_or_else(|| self.denied(Denied::no_policy()))?;
        policy::judge(policy, &tx).map_err(|denied| self.denied(denied))?;
        if abandoned() {
            return Err(Refusal::Abandoned);
        }
        let caller = id.caller.clone();
        let begin = self.ledger.begin(Request {
            id,
            digest,
            chain_id: tx.chain_id(),
            nonce: tx.nonce(),
            value: tx.value(),
            policy: policy.name.clone(),
            daily_limit: policy.daily_value,
            now: SystemTime::now(),
        });
        let (reservation, fresh) = match self.timed("begin", begin).await? {
            Begun::Fresh(reservation) => (reservation, true),
            Begun::Pending(reservation) => (reservation, false),
            Begun::Signed(signed) => return Ok(answer(signed, true)),
            Begun::Conflict => return Err(Refusal::Conflict),
            Begun::Denied(denied) => return Err(self.denied(denied)),
            Begun::ClockBehind(behind) => return Err(Refusal::ClockBehind(behind.as_secs())),
        };
        self.metrics.verdict("allowed");

        let signature = match self.sign(key, &caller, &keccak256(&signing_bytes)).await {
            Ok(signature) => signature,
            Err(error) => {
                // An earlier attempt under the same reservation may have had an outcome that is not known.
                if fresh && error.nothing_signed() {
                    self.release(reservation).await;
                }
                return Err(Refusal::Key(error));
            }
        };
        let signed = tx.clone().into_signed(&signature)?;
        let mut rsv = [0; 65];
        rsv[..32].copy_from_slice(signature.r());
        rsv[32..64].copy_from_slice(signature.s());
        rsv[64] = signature.y_odd().into();
        let signed = Signed { raw: signed.raw, hash: signed.hash, signature: rsv };
        let stored = self.timed("store", self.ledger.store(reservation, signed, SystemTime::now())).await?;
        self.metrics.signature("transaction");
        Ok(answer(stored, false))
    }

    /// Signs what is no transaction, for `caller`. It is written down before it is answered.
    ///
    /// May stop anywhere: a signature that nobody was given is none.
    pub(crate) async fn statement(
        &self,
        key: &Key,
        policy: Option<&Policy>,
        caller: &str,
        statement: &Statement,
    ) -> Result<Said, Refusal> {
        let digest = statement.signing_hash()?;
        let policy = policy.ok_or_else(|| self.denied(Denied::no_policy()))?;
        statement.judge(policy).map_err(|denied| self.denied(denied))?;
        self.metrics.verdict("allowed");
        let signature = self.sign(key, caller, &digest).await?;
        let record = self.ledger.record(ledger::Statement {
            caller: caller.to_owned(),
            key: key.name().to_owned(),
            address: key.address(),
            policy: policy.name.clone(),
            kind: statement.kind(),
            digest,
            content: statement.content(),
            signature: signature.to_bytes(),
            now: SystemTime::now(),
        });
        self.timed("record", record).await?;
        self.metrics.signature(statement.kind());
        Ok(Said { signature, digest, address: key.address() })
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

    async fn release(&self, reservation: Reservation) {
        if let Err(error) = self.timed("release", self.ledger.release(reservation)).await {
            // It stays reserved, which is safe: a retry finds it.
            tracing::warn!(%error, "a reservation could not be released");
        }
    }

    fn denied(&self, denied: Denied) -> Refusal {
        self.metrics.verdict(denied.rule);
        Refusal::Denied(denied)
    }

    async fn timed<T>(&self, operation: &str, work: impl Future<Output = T>) -> T {
        let _timer = self.metrics.ledger(operation).start_timer();
        work.await
    }
}

/// What says whether two requests are the same: the signing bytes hold every field of a transaction, and the address
/// says by whom it is signed, should the file give a key's name to another key. A sidecar is no field, and another one
/// makes another request.
fn request_digest(address: Address, signing_bytes: &[u8], sidecar: Option<[u8; 32]>) -> [u8; 32] {
    let what: &[u8] = if sidecar.is_some() { b"keygate transaction with sidecar\0" } else { b"keygate transaction\0" };
    Sha256::new()
        .chain_update(what)
        .chain_update(sidecar.as_ref().map_or(&[][..], <[u8; 32]>::as_slice))
        .chain_update(address)
        .chain_update(signing_bytes)
        .finalize()
        .into()
}
