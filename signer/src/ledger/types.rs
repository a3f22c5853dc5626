//! What the ledger is asked, and what it answers.

use std::time::{Duration, SystemTime};

use alloy_primitives::{Address, B256, U256};
use keygate_config::Replacements;

use super::millis;
use crate::policy::{Allowed, Denied, Spend};

/// What names a request for ever: idempotency keys of different callers, or for different keys, are different.
///
/// A signing key is itself by its address, whatever name the file gives it; and a name that the file gives to another
/// key is taken still, for the idempotency keys that were used with it. A caller is its name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestId {
    /// The caller's name in the file.
    pub caller: String,
    /// The signing key's name in the file.
    pub key: String,
    /// The signing key's address.
    pub address: Address,
    /// What the caller chose.
    pub idempotency_key: String,
}

/// A request to reserve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Its name.
    pub id: RequestId,
    /// SHA-256 of the canonical request: the same request has the same digest, another body another.
    pub digest: [u8; 32],
    /// Chain id, at most 2^63-1 (EIP-2294).
    pub chain_id: u64,
    /// Which nonce it gets.
    pub nonce: Nonce,
    /// What the policy says of replacing, should a transaction have this nonce.
    pub replacements: Option<Replacements>,
    /// Whether nobody asks for it now: what was reserved and not signed is tried again, and again.
    pub finishing: bool,
    /// Wei that the transaction sends.
    pub value: U256,
    /// The transaction as JSON, without its nonce: what is signed, should this process not live to sign it.
    pub body: String,
    /// Whether it is to be sent to the chain, once it is signed.
    pub send: bool,
    /// The policy that it is counted under.
    pub policy: String,
    /// What the policy said: what it spends, and whether somebody must approve it.
    pub allowed: Allowed,
    /// The moment of the request.
    pub now: SystemTime,
}

/// Which nonce a transaction gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nonce {
    /// The caller's. Where a transaction has it, it is to replace that.
    Given(u64),
    /// The lowest that is free, from `at_least` on.
    Managed {
        /// How many transactions of this address the chain knows, as its nodes say.
        at_least: u64,
    },
    /// One that others wait behind, and that nobody has; or only who has it reserved for long, and has nothing signed.
    Gap {
        /// It.
        nonce: u64,
        /// How many transactions of this address the chain knows, in its pool too.
        at_least: u64,
    },
    /// That of a transaction that it is to replace.
    Replacing(u64),
}

/// What [`Ledger::begin`](super::Ledger::begin) found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    /// Nothing: the request is reserved now.
    Fresh(Reserved),
    /// The same request, reserved before and not signed: sign it, as it stands.
    Pending(Reserved),
    /// The same request, signed before: these bytes are the answer.
    Signed {
        /// Its place in the ledger.
        reservation: Reservation,
        /// The bytes.
        signed: Signed,
        /// The transaction's nonce.
        nonce: u64,
    },
    /// Another request under the same name.
    Conflict,
    /// Nobody waits for it any more; nothing is reserved.
    Abandoned,
    /// Somebody else must approve it first; nothing is reserved but its name.
    Held(Held),
    /// The same request, held before, and nobody has decided.
    StillHeld(Held),
    /// A limit says no; nothing is reserved.
    Denied(Denied),
    /// The clock is this much behind what was counted last for a window; nothing is reserved. It is wrong now, or was
    /// then: what is to be counted cannot be told.
    ClockBehind(Duration),
}

/// A reserved request: what [`Ledger::store`](super::Ledger::store) and [`Ledger::release`](super::Ledger::release)
/// refer to. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reservation(pub(crate) i64);

/// What a request has for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reserved {
    /// Its place in the ledger.
    pub reservation: Reservation,
    /// The transaction's nonce.
    pub nonce: u64,
    /// The transaction as it is to be signed, as JSON without its nonce, where that is not what is asked for now: as it was
    /// reserved, or approved. None for one from before there were such.
    pub body: Option<String>,
}

/// A request that waits for somebody's approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// What it is approved by.
    pub approval: u64,
    /// Who asks, with which key, under which name.
    pub id: RequestId,
    /// The request's digest: what is approved.
    pub digest: [u8; 32],
    /// Chain id.
    pub chain_id: u64,
    /// The policy it is under.
    pub policy: String,
    /// The rule that holds it.
    pub rule: String,
    /// The transaction as JSON.
    pub body: String,
    /// The nonce of the transaction that it is to replace, if it is to replace one.
    pub replaces: Option<u64>,
    /// When it was asked for, in milliseconds since 1970.
    pub asked_at: i64,
    /// When it expires, if nobody has decided about it, in milliseconds since 1970.
    pub expires_at: i64,
    /// Whether a nonce is reserved for it, from when it needed no approval: it may be signed at any moment, and does not
    /// expire.
    pub reserved: bool,
    /// Whether it is signed.
    pub signed: bool,
    /// What was decided, and by whom; none yet.
    pub decision: Option<Decision>,
}

/// How things stand with a request that is or was held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It waits for somebody's decision.
    Held,
    /// It may be signed.
    Approved,
    /// It may not.
    Rejected,
    /// Who asked for it does not want it any more.
    Withdrawn,
    /// Nobody has decided in time.
    Expired,
    /// Nobody has decided, and it is signed: it needed no approval any more.
    Signed,
}

impl Standing {
    /// In a word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Withdrawn => "withdrawn",
            Self::Expired => "expired",
            Self::Signed => "signed",
        }
    }
}

impl Held {
    /// How things stand with it at a time. All but [`Standing::Held`] stands for ever, unless a nonce is reserved for it after
    /// it has expired.
    #[must_use]
    pub fn standing(&self, now: SystemTime) -> Standing {
        match &self.decision {
            Some(Decision { approved: true, .. }) => Standing::Approved,
            Some(Decision { by, .. }) if *by == self.id.caller => Standing::Withdrawn,
            Some(_) => Standing::Rejected,
            None if self.signed => Standing::Signed,
            None if millis(now) >= self.expires_at && !self.reserved => Standing::Expired,
            None => Standing::Held,
        }
    }
}

/// What somebody decided about a request that was held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may be signed.
    pub approved: bool,
    /// The caller who decided.
    pub by: String,
    /// When, in milliseconds since 1970.
    pub at: i64,
}

/// What came of a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decided {
    /// It stands.
    Done(Held),
    /// It was decided before, in the same way or another.
    Already(Held),
    /// It is too late.
    Expired(Held),
    /// It is signed, or a nonce is reserved for it and it may be: nobody says no to it any more.
    UnderWay,
    /// Who asks for something does not approve it.
    Own,
    /// What is approved is not what is held.
    Other,
    /// There is no such approval.
    Unknown,
}

/// What the ledger holds under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its place in the ledger.
    pub reservation: Reservation,
    /// By whom it is signed, or to be signed. None is for a reservation of an older keygate, whose key's name was not
    /// in the file any more when the ledger was brought to this version.
    pub address: Option<Address>,
    /// SHA-256 of the canonical request.
    pub digest: [u8; 32],
    /// Chain id.
    pub chain_id: u64,
    /// The transaction's nonce.
    pub nonce: u64,
    /// The transaction as JSON without its nonce; none for one from before there were such.
    pub body: Option<String>,
    /// The signed bytes, once there are any.
    pub signed: Option<Signed>,
}

/// Signed bytes, as they were answered first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The raw transaction.
    pub raw: Vec<u8>,
    /// Its hash.
    pub hash: B256,
    /// r, s, and 0 or 1 for the parity.
    pub signature: [u8; 65],
}

/// A request that is reserved, and not signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// What it has.
    pub reserved: Reserved,
    /// Its name.
    pub id: RequestId,
    /// The request's digest.
    pub digest: [u8; 32],
}

/// What is signed besides transactions, before it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposure {
    /// The policy it is counted under.
    pub policy: String,
    /// The signing key's address.
    pub address: Address,
    /// The chain that its domain names.
    pub chain_id: u64,
    /// What it lets somebody take.
    pub spends: Vec<Spend>,
    /// The moment.
    pub now: SystemTime,
}

/// What came of [`Ledger::expose`](super::Ledger::expose).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exposed {
    /// It is counted, in these places.
    Counted(Vec<i64>),
    /// A limit says no.
    Denied(Denied),
    /// As [`Begun::ClockBehind`].
    ClockBehind(Duration),
}

/// What was signed and is no transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The caller's name in the file.
    pub caller: String,
    /// The key's name in the file.
    pub key: String,
    /// The key's address.
    pub address: Address,
    /// The policy that allowed it.
    pub policy: String,
    /// `message`, `typed-data` or `authorization`.
    pub kind: &'static str,
    /// What the key signed.
    pub digest: B256,
    /// The message; or the JSON of what else it is.
    pub content: Vec<u8>,
    /// r, s, and 27 or 28 for the parity.
    pub signature: [u8; 65],
    /// The moment.
    pub now: SystemTime,
}
