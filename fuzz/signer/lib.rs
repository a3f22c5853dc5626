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

    /// What JSON-RPC asks for, without what answers.
    pub mod api {
        pub mod json_rpc {
            mod envelope;
            mod wanted;

            #[path = "../../../../fuzz/signer/checks/json_rpc.rs"]
            pub mod checks;
        }
    }

    /// A key, without what signs.
    pub mod key {
        mod public;

        pub use public::{NotAPublicKey, PublicKey};
    }

    /// What a policy reads of a transaction.
    pub mod policy {
        mod abi;
        pub mod calldata;
        mod permit2;

        /// What is asked of a policy on the way.
        pub struct Policy {
            tokens: Option<()>,
        }
    }
}
pub use signer::{authorization, key, policy, signature, transaction, typed_data};
use signer::{json, strict};
