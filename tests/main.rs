//! keygate from outside: the binary as it is shipped, real clients, and real parts around it. Run with `tests/run`.
//!
//! One binary, one module a feature; [`support`] is what they are made of.

mod differential;
mod gateway;
mod harness;
mod signer;
mod supervise;
mod support;
mod vectors;
