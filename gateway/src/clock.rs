//! Times as text. Each thread formats a second once, and writes it again until the next.

use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

/// `Mon, 01 Jan 2026 00:00:00 GMT`, as `Date` has it (RFC 9110, 5.6.7).
pub(crate) type HttpDate = [u8; 29];

/// A moment as the access log has it: `2026-01-01T00:00:00.000Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timestamp([u8; 24]);

/// A second as it was formatted last, in either way.
struct Formatted<const N: usize>(u64, [u8; N]);

thread_local! {
    static DATE: RefCell<Formatted<29>> = const { RefCell::new(Formatted(u64::MAX, [0; 29])) };
    static SECOND: RefCell<Formatted<20>> = const { RefCell::new(Formatted(u64::MAX, [0; 20])) };
}

impl<const N: usize> Formatted<N> {
    fn of(&mut self, second: u64, format: impl FnOnce(SystemTime) -> String) -> [u8; N] {
        if self.0 != second {
            // The years that fit are those that have four digits.
            if let Ok(text) = format(UNIX_EPOCH + Duration::from_secs(second)).as_bytes().try_into() {
                *self = Self(second, text);
            }
        }
        self.1
    }
}

/// This moment, as `Date` has it.
pub(crate) fn http_date(time: SystemTime) -> HttpDate {
    let second = since_epoch(time).as_secs();
    DATE.with_borrow_mut(|date| date.of(second, httpdate::fmt_http_date))
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let time = since_epoch(time);
        let format = |time| humantime::format_rfc3339_seconds(time).to_string();
        let mut text = [b'Z'; 24];
        text[..20].copy_from_slice(&SECOND.with_borrow_mut(|second| second.of(time.as_secs(), format)));
        let millis = time.subsec_millis();
        text[19] = b'.';
        for (place, digit) in text[20..23].iter_mut().zip([millis / 100, millis / 10 % 10, millis % 10]) {
            *place = b'0' + digit as u8;
        }
        Self(text)
    }
}

impl Timestamp {
    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn as_they_are_formatted_one_by_one(
            start in 0u64..253_402_300_000_000,
            steps in prop::collection::vec(0u64..2500, 1..20)
        ) {
            let mut millis = start;
            for step in steps {
                millis = (millis + step).min(253_402_300_799_999);
                let time = UNIX_EPOCH + Duration::from_millis(millis);
                let (stamp, date) = (Timestamp::from(time), http_date(time));
                prop_assert_eq!(stamp.as_str(), humantime::format_rfc3339_millis(time).to_string());
                prop_assert_eq!(date.to_vec(), httpdate::fmt_http_date(time).into_bytes());
            }
        }
    }
}
