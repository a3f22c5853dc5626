//! Rate limits: GCRA by governor, over a table whose memory is bounded.

use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{Quota, RateLimiter};
use http::HeaderMap;
use keygate_config::{RateKey, RateLimit};
use parking_lot::Mutex;

/// One of the file's rate limits, with what it remembers. `C` is the clock.
#[derive(Debug)]
pub struct Limit<C: Clock = governor::clock::MonotonicClock> {
    /// Its name in the file.
    pub name: String,
    /// What it counts apart.
    pub key: RateKey,
    /// Requests that may come at once.
    quota: u32,
    /// The time the whole quota takes to come back.
    window: Duration,
    places: usize,
    hasher: RandomState,
    limiter: RateLimiter<u64, Table, C, StateInformationMiddleware>,
}

/// What a limit says of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the request may go on.
    pub allowed: bool,
    /// How many more may come now.
    pub remaining: u32,
    /// When one more may come.
    pub retry_after: Duration,
}

impl<C: Clock> Limit<C> {
    /// A limit as the file describes it.
    ///
    /// As nginx's `burst=N nodelay`: one request, and `burst` more, may come at once; after that, one each time the
    /// rate allows it. Without a burst, the rate's own count may come at once.
    pub fn new(name: &str, limit: &RateLimit, clock: C) -> Self {
        let at_once = limit.burst.map_or(limit.rate.count, |burst| burst.saturating_add(1));
        let at_once = NonZeroU32::new(at_once).unwrap_or(NonZeroU32::MIN);
        let each = (limit.rate.per / limit.rate.count).max(Duration::from_nanos(1));
        let quota = Quota::with_period(each).expect("a rate has a period above zero").allow_burst(at_once);
        let table = Table::new(limit.max_keys);
        Self {
            name: name.to_owned(),
            places: table.sets.len() * WAYS,
            key: limit.key.clone(),
            quota: at_once.get(),
            window: each.saturating_mul(at_once.get()),
            hasher: RandomState::new(),
            limiter: RateLimiter::new(quota, table, clock),
        }
    }

    /// Counts a request of this client, header value or route, and says whether it may go on.
    pub fn check(&self, client: IpAddr, header: Option<&[u8]>, route: &str) -> Verdict {
        let key = match (&self.key, header) {
            (RateKey::Route, _) => self.hasher.hash_one((0u8, route)),
            (RateKey::Header(_), Some(value)) => self.hasher.hash_one((1u8, value)),
            // A request without the header must not be a way around the limit.
            (RateKey::Header(_), None) | (RateKey::ClientIp, _) => self.hasher.hash_one((2u8, network(client))),
        };
        self.check_hash(key)
    }

    fn check_hash(&self, key: u64) -> Verdict {
        match self.limiter.check_key(&key) {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity();
                let each = state.quota().replenish_interval();
                let retry_after = if remaining > 0 { Duration::ZERO } else { each };
                Verdict { allowed: true, remaining, retry_after }
            }
            Err(not_until) => {
                let retry_after = not_until.wait_time_from(self.limiter.clock().now());
                Verdict { allowed: false, remaining: 0, retry_after }
            }
        }
    }

    /// How many keys are remembered at most.
    #[must_use]
    pub fn places(&self) -> usize {
        self.places
    }

    /// `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10): the quota `q`, and its window `w` in seconds.
    #[must_use]
    pub fn policy_header(&self) -> String {
        format!("\"{}\";q={};w={}", self.name, self.quota, whole_seconds(self.window))
    }

    /// `RateLimit` (same draft): what remains, `r`, and in how many seconds more will, `t`.
    #[must_use]
    pub fn limit_header(&self, verdict: Verdict) -> String {
        format!("\"{}\";r={};t={}", self.name, verdict.remaining, whole_seconds(verdict.retry_after))
    }
}

/// A request has more than one value of the header that a limit counts by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the header that requests are counted by is doubled")]
pub struct Doubled;

/// The value of the header that a limit counts by; `None` when there is none, or an empty one.
///
/// What the server behind takes for one value counts as one: names are compared with `_` as `-`, spaces around are left
/// out, and the scheme of `authorization` is written in any case.
///
/// # Errors
/// [`Doubled`]: whichever of two values counted, the server behind might take the other.
pub fn key_of<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<Cow<'a, [u8]>>, Doubled> {
    let same = |a: u8, b: u8| a == b || a == b'_' && b == b'-' || a == b'-' && b == b'_';
    let is_it = |have: &str| have.len() == name.len() && have.bytes().zip(name.bytes()).all(|(a, b)| same(a, b));
    let mut values = headers.iter().filter(|(have, _)| is_it(have.as_str())).map(|(_, value)| value.as_bytes());
    let value = values.next().unwrap_or_default().trim_ascii();
    if values.next().is_some() {
        return Err(Doubled);
    }
    let scheme = value.iter().position(u8::is_ascii_whitespace).filter(|_| name == "authorization");
    Ok(match scheme {
        _ if value.is_empty() => None,
        None => Some(Cow::Borrowed(value)),
        Some(end) => {
            Some(Cow::Owned([&value[..end].to_ascii_lowercase(), &b" "[..], value[end..].trim_ascii()].concat()))
        }
    })
}

/// Seconds, rounded up: a client that waits so long is not refused again.
#[must_use]
pub fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// What counts as one client: an IPv4 address, or an IPv6 /64, which is what one customer is given.
fn network(client: IpAddr) -> u128 {
    match client.to_canonical() {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        // Distinct from every IPv4 address, which has no bit above the 32nd; ::/64 is not routed.
        IpAddr::V6(v6) => v6.to_bits() >> 64 << 64 | 1 << 63,
    }
}

/// Arrival times by hashed key, in a fixed number of places.
///
/// A set-associative table: a key's hash picks a set, and the set's eight ways are searched. A full set gives up its
/// way with the earliest time, which is the client whose quota has recovered furthest; under a flood of keys memory
/// stays as it is, and heavy users stay known longest. Keys are 64-bit hashes under a random seed.
struct Table {
    sets: Box<[Mutex<Set>]>,
}

/// Keys and their times of arrival.
type Set = [(u64, u64); WAYS];

const WAYS: usize = 8;

impl Table {
    fn new(max_keys: u32) -> Self {
        let sets = (max_keys as usize).div_ceil(WAYS).next_power_of_two();
        Self { sets: (0..sets).map(|_| Mutex::new([(0, 0); WAYS])).collect() }
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("places", &(self.sets.len() * WAYS)).finish()
    }
}

impl StateStore for Table {
    type Key = u64;

    fn measure_and_replace<T, F, E>(&self, key: &u64, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        // Zero marks a free way; governor's clock starts at zero, so a used way's time is above it.
        let key = (*key).max(1);
        let mut ways = self.sets[key as usize & (self.sets.len() - 1)].lock();
        let mut place = 0;
        for n in 0..WAYS {
            if ways[n].0 == key {
                let (outcome, next) = f(Some(Nanos::new(ways[n].1)))?;
                ways[n].1 = next.as_u64();
                return Ok(outcome);
            }
            if ways[n].1 < ways[place].1 {
                place = n;
            }
        }
        let (outcome, next) = f(None)?;
        ways[place] = (key, next.as_u64());
        Ok(outcome)
    }
}

/// A clock that starts when it is made: governor's own, as a duration, so that tests can set it.
#[derive(Debug, Clone, Default)]
pub struct ManualClock(std::sync::Arc<std::sync::atomic::AtomicU64>);

impl ManualClock {
    /// Moves the clock on.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX), std::sync::atomic::Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    type Instant = Nanos;
    fn now(&self) -> Nanos {
        Nanos::new(self.0.load(std::sync::atomic::Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limit(toml: &str) -> (Limit<ManualClock>, ManualClock) {
        let text = format!("[rate_limits.api]\nkey = \"client-ip\"\n{toml}");
        let path = "keygate.toml".into();
        let loaded = keygate_config::parse(keygate_config::Source { path, text }).unwrap();
        let clock = ManualClock::default();
        (Limit::new("api", &loaded.config.rate_limits["api"], clock.clone()), clock)
    }

    fn client(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn as_nginx_burst_nodelay() {
        let (limit, clock) = limit("rate = \"10/s\"\nburst = 20");
        let allowed = |n| (0..n).filter(|_| limit.check(client("10.0.0.1"), None, "r").allowed).count();
        assert_eq!(allowed(50), 21);
        clock.advance(Duration::from_millis(100));
        assert_eq!(allowed(5), 1);
        clock.advance(Duration::from_secs(1));
        assert_eq!(allowed(50), 10);
        clock.advance(Duration::from_secs(60));
        assert_eq!(allowed(50), 21);
    }

    #[test]
    fn long_windows() {
        let (limit, clock) = limit("rate = \"100/15m\"");
        let allowed = |n| (0..n).filter(|_| limit.check(client("10.0.0.1"), None, "r").allowed).count();
        assert_eq!(allowed(150), 100);
        assert_eq!(limit.check(client("10.0.0.1"), None, "r").retry_after, Duration::from_secs(9));
        clock.advance(Duration::from_secs(9));
        assert_eq!(allowed(5), 1);
        assert_eq!(limit.policy_header(), "\"api\";q=100;w=900");
    }

    #[test]
    fn clients_are_apart_and_ipv6_counts_by_its_64() {
        let (limit, _) = limit("rate = \"1/m\"");
        let check = |ip| limit.check(client(ip), None, "r").allowed;
        assert!(check("10.0.0.1"));
        assert!(!check("10.0.0.1"));
        assert!(check("10.0.0.2"));
        assert!(!check("::ffff:10.0.0.2"), "a mapped address is the same client");
        assert!(check("2001:db8::1"));
        assert!(!check("2001:db8::ffff:1"));
        assert!(check("2001:db8:0:1::1"));
    }

    #[test]
    fn headers_tell_what_remains() {
        let (limit, _) = limit("rate = \"1/s\"\nburst = 1");
        let verdict = limit.check(client("10.0.0.1"), None, "r");
        assert_eq!(limit.limit_header(verdict), "\"api\";r=1;t=0");
        limit.check(client("10.0.0.1"), None, "r");
        let verdict = limit.check(client("10.0.0.1"), None, "r");
        assert_eq!(limit.limit_header(verdict), "\"api\";r=0;t=1");
    }

    #[test]
    fn a_key_cannot_be_spelt_in_two_ways() {
        let headers = |lines: &[(&str, &str)]| -> HeaderMap {
            lines.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
        };
        let key = |name: &str, lines: &[(&str, &str)]| {
            let headers = headers(lines);
            key_of(&headers, name).map(|key| key.map(|key| String::from_utf8(key.into_owned()).unwrap()))
        };
        let some = |key: &str| Ok(Some(key.to_owned()));
        assert_eq!(key("x-api-key", &[("x-api-key", "one"), ("x-api-keys", "two")]), some("one"));
        assert_eq!(key("x-api-key", &[("x-api-key", " one\t")]), some("one"));
        assert_eq!(key("x-api-key", &[("x_api-key", "one")]), some("one"));
        assert_eq!(key("x-api-key", &[("x-other", "one")]), Ok(None));
        assert_eq!(key("x-api-key", &[("x-api-key", "")]), Ok(None));
        assert_eq!(key("authorization", &[("authorization", "BEARER  a B")]), some("bearer a B"));
        assert_eq!(key("x-api-key", &[("x-api-key", "A b")]), some("A b"));
        for second in ["x-api-key", "x_api_key"] {
            for value in ["one", "two", ""] {
                assert_eq!(
                    key("x-api-key", &[("x-api-key", "one"), (second, value)]),
                    Err(Doubled),
                    "{second} {value}"
                );
            }
        }
    }

    #[test]
    fn a_flood_of_keys_is_bounded_and_does_not_free_a_heavy_user() {
        let (limit, clock) = limit("rate = \"10/s\"\nburst = 20\nmax_keys = 1024");
        assert_eq!(limit.places(), 1024);
        let heavy = client("10.0.0.1");
        for _ in 0..21 {
            limit.check(heavy, None, "r");
        }
        for n in 0..100_000u32 {
            limit.check(IpAddr::V4((0x0b00_0000 + n).into()), None, "r");
            if n % 1000 == 0 {
                clock.advance(Duration::from_micros(1));
            }
        }
        assert!(!limit.check(heavy, None, "r").allowed);
    }

    proptest! {
        #[test]
        fn never_more_than_the_rate_over_any_run(gaps in prop::collection::vec(0u64..300, 1..300)) {
            let (limit, clock) = limit("rate = \"10/s\"\nburst = 5");
            let mut times = Vec::new();
            let mut now = 0;
            for gap in gaps {
                clock.advance(Duration::from_millis(gap));
                now += gap;
                if limit.check(client("10.0.0.1"), None, "r").allowed {
                    times.push(now);
                }
            }
            for (first, start) in times.iter().enumerate() {
                for (last, end) in times.iter().enumerate().skip(first) {
                    let most = 6 + (end - start) / 100;
                    prop_assert!((last - first + 1) as u64 <= most);
                }
            }
        }
    }
}
