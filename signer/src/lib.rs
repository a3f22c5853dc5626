//! keygate's signing core: keys, what is signed, policy, ledger, internal API.
//!
//! [`Signer::start`] binds the sockets that the configuration names, loads the keys and opens the ledger, or refuses
//! and says why. [`Signer::serve`] then answers until it is told to stop; a [`Reloader`] takes over changes of callers,
//! policies, nodes and certificates meanwhile.
//!
//! A request for a signature passes: caller, strict parse, both encoders, the idempotency key, the policy, a durable
//! reservation, the key, the check of what the key answered, durable storage; then it is answered. What was signed
//! first under an idempotency key is what is answered for ever.
//!
//! The parts that decide are public, pure, and usable alone: [`transaction`], [`signature`], [`policy`], and of [`chain`] what judges nodes' answers.

#![recursion_limit = "256"]

mod api;
pub mod authorization;
pub mod chain;
mod check_policy;
mod client_tls;
pub mod doctor;
mod failpoint;
mod gauges;
mod harden;
mod in_flight;
mod json;
pub mod key;
pub mod ledger;
mod live;
mod lock;
pub mod message;
mod metrics;
pub mod policy;
mod prepared;
mod refusal;
mod refused;
mod reload;
mod sending;
pub mod signature;
mod signing;
mod start;
mod statement;
mod strict;
mod trail;
pub mod transaction;
pub mod typed_data;
mod watch;

use std::path::Path;

pub use alloy_primitives::Address;

pub use api::callers::CallerError;
pub use api::listen::BindError;
pub use api::openapi::openapi;
pub use check_policy::{Question, QuestionError, Verdict, check_policy};
pub use harden::{UserError, confine, harden};
pub use key::KeyInfo;
pub use reload::Reloader;
pub use start::{Signer, Sockets, StartError, load_keys};
pub use watch::Watch;

/// Makes a fresh random key for development: a new file of mode 0600. Answers the key's address.
///
/// # Errors
/// [`key::local::LocalError`], also when the file is there already.
pub fn create_local_key(path: &Path) -> Result<Address, key::local::LocalError> {
    key::local::create(path)
}
