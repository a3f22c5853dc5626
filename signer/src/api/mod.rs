//! The internal API: REST and JSON-RPC over a Unix socket. REST's errors are problems (RFC 9457).
//!
//! A caller is known by its bearer token, or, when it shows none, by the user id of its process. Health and metrics
//! are for anyone who may open the socket.

pub(crate) mod callers;
mod json_rpc;
pub(crate) mod listen;
pub(crate) mod openapi;
mod problem;
mod routes;
mod statements;
#[cfg(test)]
mod tests;

pub(crate) use routes::{Api, LARGE, router, spare_router};
