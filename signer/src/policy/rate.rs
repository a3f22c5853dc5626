//! So many signatures for a caller in so much time: GCRA, by governor.
//!
//! What was counted is no part of a policy: it outlives one that is read again, as long as the rate stays the same.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use keygate_config::units::Rate;

use super::Denied;

/// How often callers had something signed, by their names.
#[derive(Debug, Default)]
pub struct Rates<C: Clock = MonotonicClock> {
    clock: C,
    callers: Mutex<BTreeMap<String, (Rate, Limiter<C>)>>,
}

/// Of one caller.
pub(crate) type Limiter<C> = RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// A caller has too much signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TooOften {
    /// The rule and why, as any other.
    pub denied: Denied,
    /// When there is room for one again.
    pub retry_after: Duration,
}

impl<C: Clock + Clone> Rates<C> {
    /// By this clock.
    #[must_use]
    pub fn new(clock: C) -> Self {
        Self { clock, callers: Mutex::default() }
    }

    /// Counts a signature for a caller, unless it has as many as it may. A caller whose rate is another than before
    /// begins anew.
    ///
    /// # Errors
    /// [`TooOften`]: it is not counted.
    pub fn count(&self, caller: &str, rate: Option<Rate>) -> Result<(), TooOften> {
        // Nothing in here panics half-way.
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(rate) = rate else {
            callers.remove(caller);
            return Ok(());
        };
        let limiter = || (rate, RateLimiter::direct_with_clock(quota(rate), self.clock.clone()));
        if callers.get(caller).is_none_or(|(known, _)| *known != rate) {
            callers.insert(caller.to_owned(), limiter());
        }
        let Some((_, limiter)) = callers.get(caller) else { return Ok(()) };
        limiter.check().map_err(|until| {
            let (retry_after, per) = (until.wait_time_from(self.clock.now()), rate.per);
            let detail = format!("the caller has had {} signatures in {per:?}, which is what it may", rate.count);
            TooOften { denied: Denied { rule: "rate", detail }, retry_after }
        })
    }
}

/// All at once, or spread over the time; then one after another as it passes.
fn quota(rate: Rate) -> Quota {
    let count = NonZeroU32::new(rate.count).unwrap_or(NonZeroU32::MIN);
    // A rate is a nanosecond a request at least.
    let each = (rate.per / count.get()).max(Duration::from_nanos(1));
    Quota::with_period(each).unwrap_or(Quota::per_second(count)).allow_burst(count)
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    const RATE: Option<Rate> = Some(Rate { count: 2, per: Duration::from_secs(60) });

    #[test]
    fn each_caller_has_its_own_and_it_comes_back() {
        let clock = FakeRelativeClock::default();
        let rates = Rates::new(clock.clone());
        let ok = |caller: &str, rate| rates.count(caller, rate).is_ok();
        assert!(ok("a", RATE) && ok("a", RATE));
        let denied = rates.count("a", RATE).unwrap_err();
        assert_eq!((denied.denied.rule, denied.retry_after), ("rate", Duration::from_secs(30)));
        assert!(ok("b", RATE));
        clock.advance(Duration::from_secs(29));
        assert_eq!(rates.count("a", RATE).unwrap_err().retry_after, Duration::from_secs(1));
        clock.advance(Duration::from_secs(1));
        assert!(ok("a", RATE) && !ok("a", RATE));
        assert!((0..9).all(|_| ok("c", None)));
    }

    #[test]
    fn another_rate_begins_anew() {
        let rates = Rates::new(FakeRelativeClock::default());
        let ok = |count| rates.count("a", Some(Rate { count, per: Duration::from_secs(60) })).is_ok();
        assert!(ok(1) && !ok(1));
        assert!(ok(2) && ok(2) && !ok(2));
    }

    #[test]
    fn the_steepest_rates_are_rates() {
        let rates = Rates::new(FakeRelativeClock::default());
        for rate in [
            Rate { count: u32::MAX, per: Duration::from_secs(5) },
            Rate { count: 1, per: Duration::from_secs(366 * 86_400) },
            Rate { count: 1, per: Duration::from_nanos(1) },
        ] {
            assert!(rates.count("a", Some(rate)).is_ok());
        }
    }
}
