//! The internal API: REST over Unix sockets, TLS, and plain HTTP on loopback. Errors are problems (RFC 9457).
//!
//! A caller is known by its bearer token, or, when it shows none, by the user id of its process or the name in its
//! certificate. Health and metrics are for anyone who may connect.

mod browsers;
pub(crate) mod callers;
pub(crate) mod listen;
mod problem;
mod routes;
mod statements;
#[cfg(test)]
mod tests;

pub(crate) use browsers::without_pages;
pub(crate) use routes::{Api, LARGE, router, spare_router};
