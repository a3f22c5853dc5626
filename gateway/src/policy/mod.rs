//! What is decided about a request, and nothing else: no I/O, no sockets, no clock of its own.
//!
//! Every lane turns its request into the same borrowed values, asks here, and applies the same edits.

pub mod decide;
mod fields;
pub mod forward;
pub mod headers;
pub mod limit;
pub mod path;
pub mod route;
pub mod split;

pub use fields::Fields;
