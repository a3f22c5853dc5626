//! When something may be signed.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};

/// Minutes of a day.
const DAY: u16 = 24 * 60;
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// Hours of some days of the week, in UTC, such as `"Mon-Fri 08:00-18:00"`: from the first minute to the one before the
/// last. Hours over midnight are those of the day they begin on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    /// Whether each day is meant, Monday first.
    days: [bool; 7],
    /// Minutes from midnight.
    from: u16,
    /// Minutes from midnight, of the next day if not after `from`.
    to: u16,
}

impl Hours {
    /// Minutes of a week.
    pub const WEEK: u16 = 7 * DAY;

    /// Whether a minute of the week is one of these; the first is that of Monday's midnight.
    #[must_use]
    pub fn contain(&self, minute: u16) -> bool {
        let (day, minute) = (usize::from(minute / DAY % 7), minute % DAY);
        if self.from < self.to {
            return self.days[day] && (self.from..self.to).contains(&minute);
        }
        (self.days[day] && minute >= self.from) || (self.days[(day + 6) % 7] && minute < self.to)
    }
}

impl std::str::FromStr for Hours {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        const EXPECTED: &str =
            "expected hours in UTC such as \"08:00-18:00\", \"Mon-Fri 08:00-18:00\" or \"Sat,Sun 22:00-06:00\"";
        let expected = || format!("{EXPECTED}, found {text:?}");
        let (days, hours) = text.split_once(' ').map_or((None, text), |(days, hours)| (Some(days), hours));
        let days = days.map_or(Some([true; 7]), days_of).ok_or_else(expected)?;
        let (from, to) = hours.split_once('-').ok_or_else(expected)?;
        let (from, to) = (minute(from).ok_or_else(expected)?, minute(to).ok_or_else(expected)?);
        if from == DAY || from == to {
            return Err(format!("all of a day is written \"00:00-24:00\", found {text:?}"));
        }
        Ok(Self { days, from, to })
    }
}

/// `Mon`, `Mon-Fri` or `Mon,Wed,Sat-Sun`.
fn days_of(text: &str) -> Option<[bool; 7]> {
    let day = |name: &str| DAYS.iter().position(|day| *day == name);
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        // "Fri-Mon" is over the week's end.
        for step in 0..=(last + 7 - first) % 7 {
            days[(first + step) % 7] = true;
        }
    }
    Some(days)
}

/// `HH:MM`, up to 24:00.
fn minute(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let number = |digits: &str| match digits.as_bytes() {
        [a @ b'0'..=b'9', b @ b'0'..=b'9'] => Some(u16::from(a - b'0') * 10 + u16::from(b - b'0')),
        _ => None,
    };
    let (hour, minute) = (number(hour)?, number(minute)?);
    (minute < 60).then_some(hour * 60 + minute).filter(|minute| *minute <= DAY)
}

impl<'de> Deserialize<'de> for Hours {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Hours {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Hours".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "hours in UTC, of some days or of all",
            "pattern": "^([A-Za-z,-]+ )?[0-9]{2}:[0-9]{2}-[0-9]{2}:[0-9]{2}$",
            "examples": ["Mon-Fri 08:00-18:00"]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minutes_that_are_meant() {
        let at = |day: usize, hour: u16, minute: u16| u16::try_from(day).unwrap() * DAY + hour * 60 + minute;
        let contain = |text: &str, minute| text.parse::<Hours>().unwrap().contain(minute);
        let office = "Mon-Fri 08:00-18:00";
        assert!(contain(office, at(0, 8, 0)) && contain(office, at(4, 17, 59)));
        for out in [at(0, 7, 59), at(4, 18, 0), at(5, 12, 0), at(6, 12, 0)] {
            assert!(!contain(office, out));
        }
        let night = "Sun,Fri 22:00-06:00";
        assert!(contain(night, at(4, 22, 0)) && contain(night, at(5, 5, 59)) && contain(night, at(0, 0, 0)));
        assert!(!contain(night, at(4, 5, 0)) && !contain(night, at(5, 22, 0)) && !contain(night, at(0, 6, 0)));
        let weekend = "Fri-Mon 00:00-24:00";
        let days: Vec<_> = (0..7).filter(|day| contain(weekend, at(*day, 23, 59))).collect();
        assert_eq!(days, [0, 4, 5, 6]);
        let count = |text: &str| (0..Hours::WEEK).filter(|minute| contain(text, *minute)).count();
        assert_eq!(count("00:00-24:00"), usize::from(Hours::WEEK));
        assert_eq!((count("23:59-00:01"), count("Tue 23:59-00:00"), count("12:00-00:00")), (14, 1, 7 * 12 * 60));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for bad in [
            "",
            "Mon",
            "Mon-Fri",
            "mon 08:00-18:00",
            "Monday 08:00-18:00",
            "Mon- 08:00-18:00",
            "Mon,,Tue 08:00-18:00",
            "Mon 8:00-18:00",
            "08:00",
            "08:00-18",
            "08:00 - 18:00",
            "08:60-18:00",
            "08:00-24:01",
            "24:00-08:00",
            "08:00-08:00",
            "00:00-00:00",
            "08:00-18:00 UTC",
            " 08:00-18:00",
            "Mon  08:00-18:00",
            "+8:00-18:00",
        ] {
            assert!(bad.parse::<Hours>().is_err(), "{bad:?}");
        }
    }
}
