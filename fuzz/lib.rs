//! What is attacked, and what must hold.
//!
//! The parts of keygate-gateway are its own files, without the three hundred crates that the rest of it needs: a build with
//! counters of coverage takes seconds. To [`checks`], which the gateway's own tests run too, this is the gateway.

#![allow(dead_code, reason = "what the rest of the gateway uses")]

extern crate self as keygate_config;
extern crate self as keygate_gateway;

pub mod checks;

/// What clients may not claim, as the configuration's validation knows it too.
#[path = "../config/src/forged.rs"]
mod forged;
pub use forged::is_forged;

/// The front door.
#[path = "../gateway/src/http1"]
pub mod http1 {
    pub mod body;
    pub mod fields;
    pub mod head;
    pub mod response;
    pub mod rewrite;
}

/// What a forwarded head is given.
#[path = "../gateway/src/policy"]
pub mod policy {
    mod fields;
    pub mod forward;

    pub use fields::Fields;
}
