//! When something may be signed.

use std::time::{SystemTime, UNIX_EPOCH};

use keygate_config::Hours;

use super::{Denied, Policy};

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

pub(super) fn judge(policy: &Policy, now: SystemTime) -> Result<(), Denied> {
    let Some(hours) = &policy.hours else { return Ok(()) };
    let Some(minute) = minute_of_week(now) else {
        return Denied::new("hours", "the clock is before 1970");
    };
    if hours.iter().any(|hours| hours.contain(minute)) {
        return Ok(());
    }
    let (day, hour, minute) = (DAYS[usize::from(minute / 1440)], minute / 60 % 24, minute % 60);
    Denied::new("hours", format!("{day} {hour:02}:{minute:02} UTC is not within them"))
}

/// In UTC, from Monday's midnight on.
fn minute_of_week(now: SystemTime) -> Option<u16> {
    // The first of January 1970 was a Thursday.
    let minutes = now.duration_since(UNIX_EPOCH).ok()?.as_secs() / 60 + 3 * 1440;
    u16::try_from(minutes % u64::from(Hours::WEEK)).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_minute_is_utc() {
        // 2026-11-20 was a Friday; 23:59:59.
        let friday = UNIX_EPOCH + Duration::from_secs(1_795_219_199);
        let with = |hours: &str| Policy { hours: Some(vec![hours.parse().unwrap()]), ..Policy::default() };
        let rule = |hours: &str, now| judge(&with(hours), now);
        assert_eq!(rule("Fri 23:59-24:00", friday), Ok(()));
        assert_eq!(rule("Sat 00:00-00:01", friday + Duration::from_secs(1)), Ok(()));
        let denied = rule("Fri 23:59-24:00", friday + Duration::from_secs(1)).unwrap_err();
        assert_eq!(denied, Denied { rule: "hours", detail: "Sat 00:00 UTC is not within them".into() });
        assert!(rule("00:00-24:00", UNIX_EPOCH - Duration::from_secs(1)).is_err());
        assert_eq!(minute_of_week(UNIX_EPOCH), Some(3 * 1440));
        assert!(judge(&Policy { hours: Some(vec![]), ..Policy::default() }, friday).is_err());
        assert_eq!(judge(&Policy::default(), UNIX_EPOCH - Duration::from_secs(1)), Ok(()));
    }
}
