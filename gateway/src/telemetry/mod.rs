//! What is told of the requests served: metrics and the access log.

pub mod access_log;
pub mod metrics;
pub(crate) mod request_id;
