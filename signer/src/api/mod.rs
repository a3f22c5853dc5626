//! The internal API: REST and JSON-RPC over Unix sockets, TLS, and plain HTTP on loopback. REST's errors are problems
//! (RFC 9457).
//!
//! A caller is known by its bearer token, or, when it shows none, by the user id of its process or the name in its
//! certificate. Health and metrics are for anyone who may connect.

mod approvals;
mod browsers;
pub(crate) mod callers;
mod json_rpc;
mod lifecycle;
pub(crate) mod listen;
pub(crate) mod openapi;
pub(crate) mod problem;
mod request;
mod routes;
mod statements;
#[cfg(test)]
pub(crate) mod tests;
mod transactions;

pub(crate) use browsers::without_pages;
pub(crate) use routes::{Api, LARGE, router, spare_router};
