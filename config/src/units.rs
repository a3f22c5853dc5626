//! Durations, sizes, rates and amounts of ether, as the file writes them.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Unexpected, Visitor};

/// A type that the file writes as a string.
macro_rules! from_string {
    ($name:ident, $parse:expr, $expects:literal, $example:literal) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expects)
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        $parse(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "description": $expects, "examples": [$example] })
            }
        }
    };
}

/// What the timers can tell apart.
const SHORTEST: Duration = Duration::from_millis(1);
/// Longer than anything that is meant; and any moment plus this is a moment still, in every unit that it is counted in.
pub(crate) const LONGEST: Duration = Duration::from_secs(366 * 86_400);
/// Larger than anything that is meant; sums of it stay far below 2^64.
const LARGEST: u64 = 1 << 50;

/// A span of time, such as `"30s"` or `"1m 30s"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period(pub Duration);

fn period(text: &str) -> Option<Period> {
    humantime::parse_duration(text).ok().filter(|d| (SHORTEST..=LONGEST).contains(d)).map(Period)
}
from_string!(Period, period, "a duration from 1ms to 366d such as \"30s\", \"500ms\" or \"5m\"", "30s");

/// A number of bytes, such as `"1MiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

fn size(text: &str) -> Option<Size> {
    text.parse::<bytesize::ByteSize>().ok().map(|size| Size(size.as_u64())).filter(|size| size.0 <= LARGEST)
}
from_string!(Size, size, "a size such as \"64KiB\" or \"1MiB\", up to 1PiB", "1MiB");

/// So many requests in so much time, such as `"10/s"` or `"100/15m"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests.
    pub count: u32,
    /// The time they are spread over.
    pub per: Duration,
}

fn rate(text: &str) -> Option<Rate> {
    let (count, per) = text.split_once('/')?;
    let count: u32 = count.trim().parse().ok().filter(|n| *n > 0)?;
    let per = per.trim();
    // "/s" is one second, "/15m" is fifteen minutes.
    let per = if per.starts_with(|c: char| c.is_ascii_digit()) { per.to_owned() } else { format!("1{per}") };
    let per = humantime::parse_duration(&per).ok()?;
    // Below a nanosecond a request there is nothing left to count with.
    (per.as_nanos() >= u128::from(count) && per <= LONGEST).then_some(Rate { count, per })
}
from_string!(Rate, rate, "a rate such as \"10/s\", \"300/m\" or \"100/15m\", over 366d at most", "10/s");

/// So many bytes a second, such as `"1KiB/s"`; `"0B/s"` is no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRate(pub u64);

fn byte_rate(text: &str) -> Option<ByteRate> {
    size(text.strip_suffix("/s")?).map(|size| ByteRate(size.0))
}
from_string!(ByteRate, byte_rate, "bytes a second such as \"256B/s\" or \"1KiB/s\"", "1KiB/s");

/// An amount of a chain's own currency, such as `"1 ether"`, `"30 gwei"` or `"21000 wei"`; exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wei(pub u128);

fn wei(text: &str) -> Option<Wei> {
    let (number, unit) = text.trim().split_once(' ')?;
    let decimals: usize = match unit.trim() {
        "wei" => 0,
        "gwei" => 9,
        "ether" => 18,
        _ => return None,
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(part) || part.len() > decimals || number.ends_with('.') {
        return None;
    }
    format!("{whole}{part:0<decimals$}").parse().ok().map(Wei)
}
from_string!(Wei, wei, "an amount such as \"1.5 ether\", \"30 gwei\" or \"21000 wei\"", "1 ether");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        let rate = |text| super::rate(text).map(|r| (r.count, r.per.as_secs()));
        assert_eq!(rate("10/s"), Some((10, 1)));
        assert_eq!(rate("100/15m"), Some((100, 900)));
        assert_eq!(rate("300/m"), Some((300, 60)));
        assert_eq!(rate("1 / 1h"), Some((1, 3600)));
        for bad in [
            "",
            "10",
            "0/s",
            "-1/s",
            "10/",
            "10/0s",
            "10/fortnight",
            "1.5/s",
            "10/s/s",
            "4294967296/s",
            "1/367d",
            "2/1ns",
        ] {
            assert_eq!(rate(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes_and_periods() {
        assert_eq!(size("1MiB"), Some(Size(1 << 20)));
        assert_eq!(size("64 KiB"), Some(Size(65_536)));
        assert_eq!(size("1PiB"), Some(Size(LARGEST)));
        for bad in ["", "lots", "-1B", "1.1PiB", "16EiB", "99999999999999999999", "1e3B", "inf", "NaN"] {
            assert_eq!(size(bad), None, "{bad}");
        }
        assert_eq!(byte_rate("1KiB/s"), Some(ByteRate(1024)));
        assert_eq!(byte_rate("0B/s"), Some(ByteRate(0)));
        for bad in ["1KiB", "/s", "-1B/s", "1KiB/m", "fast/s"] {
            assert_eq!(byte_rate(bad), None, "{bad}");
        }
        assert_eq!(period("1m 30s"), Some(Period(Duration::from_secs(90))));
        assert_eq!(period("366d"), Some(Period(LONGEST)));
        for bad in ["", "soon", "0s", "1us", "999us", "367d", "10000y", "584942417355years", "-1s"] {
            assert_eq!(period(bad), None, "{bad}");
        }
    }

    #[test]
    fn wei_is_exact() {
        assert_eq!(wei("1 ether"), Some(Wei(10u128.pow(18))));
        assert_eq!(wei("0.000000000000000001 ether"), Some(Wei(1)));
        assert_eq!(wei("1.5 gwei"), Some(Wei(1_500_000_000)));
        assert_eq!(wei("7 wei"), Some(Wei(7)));
        for bad in [
            "",
            "1",
            "1.5 wei",
            "1e18 wei",
            "-1 ether",
            ".5 ether",
            "1. ether",
            "1 btc",
            "0.0000000001 gwei",
            "9999999999999999999999 ether",
        ] {
            assert_eq!(wei(bad), None, "{bad}");
        }
    }
}
