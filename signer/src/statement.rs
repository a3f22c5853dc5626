//! What is signed and is no transaction: messages, typed data, and authorizations of EIP-7702.

use std::time::SystemTime;

use alloy_primitives::B256;

use crate::authorization::Authorization;
use crate::message::Message;
use crate::policy::{self, Allowed, Denied, Policy};
use crate::transaction::EncodersDisagree;
use crate::typed_data::TypedData;

/// Something to sign that no idempotency key is for: to sign it again is to say it again.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Statement {
    Message(Message),
    TypedData(Box<TypedData>),
    Authorization(Authorization),
}

impl Statement {
    /// What it is, as metrics, the log and the ledger call it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Message(_) => "message",
            Self::TypedData(_) => "typed-data",
            Self::Authorization(_) => "authorization",
        }
    }

    /// What the key signs.
    pub(crate) fn signing_hash(&self) -> Result<B256, EncodersDisagree> {
        match self {
            Self::Message(message) => Ok(message.signing_hash()),
            Self::TypedData(data) => data.signing_hash(),
            Self::Authorization(authorization) => authorization.signing_hash(),
        }
    }

    /// The chain that it is for, where it says so.
    pub(crate) fn chain_id(&self) -> Option<u64> {
        match self {
            Self::Message(_) => None,
            Self::TypedData(data) => data.chain_id().map(|id| id.saturating_to()),
            Self::Authorization(authorization) => Some(authorization.chain_id()),
        }
    }

    /// What the ledger keeps of it, for who asks later what was signed.
    pub(crate) fn content(&self) -> Vec<u8> {
        match self {
            Self::Message(message) => message.bytes().to_vec(),
            Self::TypedData(data) => data.json().to_vec(),
            Self::Authorization(authorization) => authorization.to_json().into_bytes(),
        }
    }

    /// Judges it by a policy.
    pub(crate) fn judge(&self, policy: &Policy, now: SystemTime) -> Result<Allowed, Denied> {
        match self {
            Self::Message(message) => policy::judge_message(policy, message, now),
            Self::TypedData(data) => policy::judge_typed_data(policy, data, now),
            Self::Authorization(authorization) => policy::judge_authorization(policy, authorization, now),
        }
    }
}
