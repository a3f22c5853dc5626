//! A transaction that is asked for: what it is for, how it comes by its nonce, and what says whether two requests are the
//! same.

use std::collections::BTreeSet;

use alloy_primitives::Address;
use sha2::{Digest, Sha256};

use crate::key::Key;
use crate::ledger::{Record, RequestId};
use crate::refusal::Refusal;
use crate::signing::Answer;
use crate::transaction::Transaction;

/// A transaction that both encoders write alike, and what says whether a request is the same.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) tx: Transaction,
    pub(crate) numbering: Numbering,
    pub(crate) purpose: Purpose,
    /// Whether it is to be sent, once it is signed.
    pub(crate) send: bool,
    /// Whether it was counted against its caller's rate before.
    pub(crate) counted: bool,
    pub(crate) digest: [u8; 32],
}

/// How a transaction comes by its nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Numbering {
    /// The caller gives it.
    Given(u64),
    /// It is chosen when the request is reserved.
    Chosen,
    /// It is one that others wait behind.
    Gap(u64),
    /// It is that of the transaction that this one replaces.
    Replacing(u64),
}

/// What a transaction is for, which says how it is judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To do what it says.
    Call,
    /// To take a nonce, and do nothing.
    Nothing,
    /// To do what another with its nonce would do, sooner: one of both is mined, and it is counted already.
    Again {
        /// Who has approved the same call with this nonce before, for other fees.
        approved_by: BTreeSet<String>,
    },
}

impl Prepared {
    /// Has both encoders write it. What goes with it and is not signed is told apart by `sidecar`.
    pub(crate) fn new(
        key: &Key,
        tx: Transaction,
        nonce: Option<u64>,
        sidecar: Option<[u8; 32]>,
    ) -> Result<Self, Refusal> {
        let digest = request_digest(key.address(), &tx.signing_bytes()?, nonce.is_some(), sidecar);
        let numbering = nonce.map_or(Numbering::Chosen, Numbering::Given);
        Ok(Self { tx, numbering, purpose: Purpose::Call, send: false, counted: false, digest })
    }

    /// The same request, whatever `tx` was filled with: this [`asked_digest`] says what the caller asked for.
    pub(crate) fn asked(self, digest: [u8; 32]) -> Self {
        Self { digest, ..self }
    }

    /// To be sent, which is another request than to be signed.
    pub(crate) fn sent(self) -> Self {
        let digest = Sha256::new().chain_update(b"keygate send\0").chain_update(self.digest).finalize().into();
        Self { send: true, digest, ..self }
    }
}

/// What is known of a request before it is filled.
#[derive(Debug, Default)]
pub(crate) struct Before {
    /// What was reserved under its name, and perhaps signed.
    pub(crate) record: Option<Record>,
    /// What is shown to who approves it.
    pub(crate) shown: Option<String>,
}

impl Before {
    /// What was signed: that is the answer.
    pub(crate) fn signed(&self, id: &RequestId) -> Option<Answer> {
        let Record { reservation, signed, chain_id, nonce, .. } = self.record.clone()?;
        Some(Answer { reservation, signed: signed?, from: id.address, chain_id, nonce, replayed: true })
    }

    /// The transaction that is reserved, or was shown: that is what is signed.
    pub(crate) fn body(&self) -> Option<&str> {
        let reserved = self.record.as_ref().and_then(|record| record.body.as_deref());
        reserved.or(self.shown.as_deref())
    }

    /// The transaction that is reserved, and its nonce.
    pub(crate) fn reserved(&self) -> Option<(&str, u64)> {
        let record = self.record.as_ref()?;
        Some((record.body.as_deref()?, record.nonce))
    }
}

/// What says whether two requests are the same, where it is what the caller `asked` for: what it left out, and was filled
/// here, is none of it. To have it sent is another request than to have it signed.
pub(crate) fn asked_digest(address: Address, asked: &[u8], send: bool) -> [u8; 32] {
    let what: &[u8] = if send { b"keygate asked to send\0" } else { b"keygate asked\0" };
    Sha256::new().chain_update(what).chain_update(address).chain_update(asked).finalize().into()
}

/// What says whether two requests are the same: the signing bytes hold every field of a transaction, and the address
/// says by whom it is signed, should the file give a key's name to another key. A nonce that is chosen here is none of
/// the request's. A sidecar is no field, and another one makes another request.
fn request_digest(address: Address, signing_bytes: &[u8], numbered: bool, sidecar: Option<[u8; 32]>) -> [u8; 32] {
    let what: &[u8] = match (numbered, &sidecar) {
        (true, None) => b"keygate transaction\0",
        (true, Some(_)) => b"keygate transaction with sidecar\0",
        (false, None) => b"keygate transaction without nonce\0",
        (false, Some(_)) => b"keygate transaction with sidecar, without nonce\0",
    };
    Sha256::new()
        .chain_update(what)
        .chain_update(sidecar.as_ref().map_or(&[][..], <[u8; 32]>::as_slice))
        .chain_update(address)
        .chain_update(signing_bytes)
        .finalize()
        .into()
}
