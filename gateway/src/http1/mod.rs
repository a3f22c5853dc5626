//! HTTP/1 at the front door: every byte a client sends is judged here, strictly, before anything else sees it.

pub mod body;
mod client;
pub mod fields;
pub mod head;
pub mod response;
pub mod rewrite;

pub(crate) use client::serve;
