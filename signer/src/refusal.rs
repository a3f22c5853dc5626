//! Why there is no signature.

use crate::chain::rpc::RpcError;
use crate::key::KeyError;
use crate::ledger::{Held, LedgerError};
use crate::policy::{Denied, TooOften};
use crate::transaction::{EncodersDisagree, NotBlobs};

/// Why there is no signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(transparent)]
    Encoders(#[from] EncodersDisagree),
    #[error(transparent)]
    Sidecar(#[from] NotBlobs),
    #[error("this idempotency key was used for another request")]
    Conflict,
    #[error("too many wait for this idempotency key's request, which is under way")]
    Crowded,
    #[error("nobody waits for it any more: it was dropped before it was reserved")]
    Abandoned,
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error("it is held until somebody else approves it: {}", .0.rule)]
    Held(Box<Held>),
    #[error("the nonce is missing, and nobody here knows which comes next")]
    NoNonce,
    #[error("it is less than the {0} that the transaction takes before it does anything: it would never be mined")]
    TooLittleGas(u64),
    #[error("the chain has no rpc in the file, to which it could be sent")]
    NoRpc,
    #[error("blobs are not kept here, without which it cannot be sent again: have it signed, and send it with them")]
    BlobsNotKept,
    #[error("the chain does not answer: {0}")]
    Chain(String),
    #[error("{}", .0.denied)]
    TooOften(TooOften),
    #[error(
        "the clock is {0} seconds behind what was counted last for a limit: it is wrong now, or was then; how to go on \
         is in docs/ledger.md, under \"When the clock was wrong\""
    )]
    ClockBehind(u64),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl From<RpcError> for Refusal {
    fn from(error: RpcError) -> Self {
        Self::Chain(error.to_string())
    }
}

impl Refusal {
    /// The rule that says no, and why, if one does.
    pub(crate) fn denied(&self) -> Option<&Denied> {
        match self {
            Self::Denied(denied) => Some(denied),
            Self::TooOften(too_often) => Some(&too_often.denied),
            _ => None,
        }
    }

    /// A short name, for metrics and the audit trail.
    pub(crate) fn outcome(&self) -> &'static str {
        match self {
            Self::Encoders(_) => "encoders-disagree",
            Self::Sidecar(_) => "sidecar",
            Self::Conflict => "conflict",
            Self::Crowded => "crowded",
            Self::Abandoned => "abandoned",
            Self::Denied(_) | Self::TooOften(_) => "denied",
            Self::Held(_) => "held",
            Self::NoNonce => "no-nonce",
            Self::TooLittleGas(_) => "too-little-gas",
            Self::NoRpc => "no-rpc",
            Self::BlobsNotKept => "blobs-not-kept",
            Self::Chain(_) => "chain",
            Self::ClockBehind(_) => "clock-behind",
            Self::Key(error) => error.kind(),
            Self::Ledger(_) => "ledger",
        }
    }
}
