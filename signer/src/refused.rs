//! What the audit trail is told of requests that are refused: each by itself, as far as its caller's budget goes, and
//! those beyond it in sums. Who is refused and asks again, for ever, does not fill the disk.
//!
//! What is allowed needs no such budget: it costs a signature, and the policy's `rate` bounds it.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use governor::clock::{Clock, MonotonicClock};
use governor::{Quota, RateLimiter};
use serde_json::json;

use crate::ledger::audit::Event;
use crate::ledger::millis;
use crate::policy::Limiter;

/// So many refusals of one caller are told one by one, at once;
const BURST: NonZeroU32 = NonZeroU32::new(300).unwrap();
/// then one in this time.
const EACH: Duration = Duration::from_secs(1);

/// The budgets of all callers, and what is beyond them and not written yet.
#[derive(Debug, Default)]
pub(crate) struct Refused<C: Clock = MonotonicClock> {
    clock: C,
    callers: Mutex<BTreeMap<String, Account<C>>>,
}

#[derive(Debug)]
struct Account<C: Clock> {
    budget: Limiter<C>,
    beyond: Option<Sum>,
}

/// Refusals that are told together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sum {
    /// The first one's moment, and the last one's.
    from: SystemTime,
    to: SystemTime,
    /// How many, by the rule that said no: these are words of this code, and so not many.
    by: BTreeMap<&'static str, u64>,
}

impl<C: Clock + Clone> Refused<C> {
    /// Whether one more refusal of a caller, by this rule, is to be told by itself. If it is not, it is in the next sum.
    pub(crate) fn singly(&self, caller: &str, rule: &'static str, now: SystemTime) -> bool {
        let mut callers = self.callers();
        let account = self.account(&mut callers, caller);
        let within = account.budget.check().is_ok();
        if !within {
            account.add(Sum::of(rule, now));
        }
        within
    }

    /// Adds to the next sum: a refusal that should have been told by itself and was not, or a sum that was not written.
    pub(crate) fn add(&self, caller: &str, sum: Sum) {
        let mut callers = self.callers();
        self.account(&mut callers, caller).add(sum);
    }

    /// The sums so far, by caller; what is refused from here on is in others.
    pub(crate) fn take(&self) -> Vec<(String, Sum)> {
        let mut callers = self.callers();
        let sums = callers.iter_mut().filter_map(|(caller, account)| Some((caller.clone(), account.beyond.take()?)));
        sums.collect()
    }

    fn callers(&self) -> MutexGuard<'_, BTreeMap<String, Account<C>>> {
        // Nothing in here panics half-way.
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn account<'a>(&self, callers: &'a mut BTreeMap<String, Account<C>>, caller: &str) -> &'a mut Account<C> {
        if !callers.contains_key(caller) {
            let quota = Quota::with_period(EACH).unwrap_or(Quota::per_second(NonZeroU32::MIN)).allow_burst(BURST);
            let budget = RateLimiter::direct_with_clock(quota, self.clock.clone());
            callers.insert(caller.to_owned(), Account { budget, beyond: None });
        }
        callers.get_mut(caller).unwrap_or_else(|| unreachable!("it was inserted"))
    }
}

impl<C: Clock> Account<C> {
    fn add(&mut self, more: Sum) {
        match &mut self.beyond {
            None => self.beyond = Some(more),
            Some(sum) => {
                (sum.from, sum.to) = (sum.from.min(more.from), sum.to.max(more.to));
                for (rule, count) in more.by {
                    *sum.by.entry(rule).or_default() += count;
                }
            }
        }
    }
}

impl Sum {
    /// One refusal.
    pub(crate) fn of(rule: &'static str, now: SystemTime) -> Self {
        Self { from: now, to: now, by: BTreeMap::from([(rule, 1)]) }
    }

    /// As the trail is told of it.
    pub(crate) fn event(&self, caller: &str, now: SystemTime) -> Event {
        let count: u64 = self.by.values().sum();
        let (from, to) = (millis(self.from), millis(self.to));
        Event::new(now, "refused", json!({ "caller": caller, "count": count, "by": self.by, "from": from, "to": to }))
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use governor::clock::FakeRelativeClock;
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn budgets() -> (FakeRelativeClock, Refused<FakeRelativeClock>) {
        let clock = FakeRelativeClock::default();
        (clock.clone(), Refused { clock, callers: Mutex::default() })
    }

    #[test]
    fn what_is_beyond_the_budget_is_summed_up() {
        let (clock, refused) = budgets();
        let singly = (0..1000).filter(|n| refused.singly("a", "to", at(*n))).count();
        assert_eq!(singly, 300);
        assert!(refused.singly("b", "to", at(0)), "another's is its own");
        for n in 0..20 {
            assert!(!refused.singly("a", "rate", at(2000 + n)));
        }
        let sums = refused.take();
        let [(caller, sum)] = &sums[..] else { panic!("{sums:?}") };
        let event = sum.event(caller, at(2020));
        assert_eq!((event.what, event.at), ("refused", at(2020)));
        let expected = json!({
            "caller": "a", "count": 720, "by": { "to": 700, "rate": 20 }, "from": 300_000, "to": 2_019_000,
        });
        assert_eq!(serde_json::Value::from(event.detail), expected);
        assert_eq!(refused.take(), [], "it is told once");
        clock.advance(Duration::from_secs(2));
        assert_eq!((0..5).filter(|_| refused.singly("a", "to", at(3000))).count(), 2);
        assert_eq!(refused.take(), [("a".to_owned(), Sum { by: [("to", 3)].into(), ..Sum::of("to", at(3000)) })]);
    }

    #[test]
    fn what_was_not_written_is_in_the_next_sum() {
        let (_, refused) = budgets();
        refused.add("a", Sum::of("to", at(5)));
        let taken = refused.take();
        refused.add("a", Sum::of("rate", at(9)));
        for (caller, sum) in taken {
            refused.add(&caller, sum);
        }
        let by = [("rate", 1), ("to", 1)].into();
        assert_eq!(refused.take(), [("a".to_owned(), Sum { from: at(5), to: at(9), by })]);
    }

    proptest! {
        /// However refusals, time and sums follow one another: nothing is lost, and what is told is bounded.
        #[test]
        fn everything_is_counted(steps in prop::collection::vec((0usize..3, 0u64..400, 0u64..20), 0..40)) {
            let (clock, refused) = budgets();
            let (mut asked, mut singly, mut summed, mut passed) = ([0; 3], [0; 3], [0; 3], 0);
            for (caller, count, seconds) in steps {
                let name = caller.to_string();
                asked[caller] += count;
                singly[caller] += (0..count).filter(|_| refused.singly(&name, "to", at(passed))).count() as u64;
                clock.advance(Duration::from_secs(seconds));
                passed += seconds;
                for (name, sum) in refused.take() {
                    summed[name.parse::<usize>().unwrap()] += sum.by.values().sum::<u64>();
                }
            }
            for caller in 0..3 {
                prop_assert_eq!(singly[caller] + summed[caller], asked[caller]);
                prop_assert!(singly[caller] <= 300 + passed);
            }
        }
    }
}
