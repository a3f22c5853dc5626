//! What is attacked, and what must hold.
//!
//! The parts of keygate-signer are its own files, without KMS, the ledger and the API, which make most of its build.

#![allow(dead_code, reason = "what the rest of the signer uses")]

extern crate self as keygate_config;
extern crate self as keygate_signer;

pub mod checks;

/// An address, as the configuration reads it too.
#[path = "../../config/src/signer/address.rs"]
mod address;
pub use address::EthAddress;

#[path = "../../signer/src"]
pub mod signer {
    pub mod authorization;
    pub(crate) mod json;
    pub mod signature;
    pub(crate) mod strict;
    pub mod transaction;
    pub mod typed_data;

    /// A key, without what signs.
    pub mod key {
        mod public;

        pub use public::{NotAPublicKey, PublicKey};
    }

    /// What a policy reads of a transaction.
    pub mod policy {
        pub mod calldata;
    }
}
pub use signer::{authorization, key, policy, signature, transaction, typed_data};
use signer::{json, strict};
