//! Request ids.

use std::time::SystemTime;

/// A request id that nobody else has: UUID version 7, which sorts by time (RFC 9562, 5.7).
pub(crate) fn fresh_request_id() -> String {
    // Unlike anybody else's; not beyond guessing, which would cost a system call each.
    let mut random = [0; 10];
    fastrand::fill(&mut random);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid().to_string()
}
