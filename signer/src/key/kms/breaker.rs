//! A circuit breaker: whether a region is worth asking.

use std::time::{Duration, Instant};

/// So many failures in a row, and a region is left alone: more than one request's own tries.
pub(super) const FAILURES: u32 = 10;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Closed, everybody asks. Open, nobody does, for a while that doubles with each probe that fails. Then one may probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Breaker {
    Closed { failures: u32 },
    Open { until: Instant, pause: Duration },
    Probing { pause: Duration },
}

/// Leave to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leave {
    /// As everybody.
    Ordinary,
    /// As the one who finds out whether others may.
    Probe,
}

impl Breaker {
    pub(super) const NEW: Self = Self::Closed { failures: 0 };

    /// Whether one may ask now. Who has leave says how it went.
    pub(super) fn admit(&mut self, now: Instant) -> Option<Leave> {
        match *self {
            Self::Closed { .. } => Some(Leave::Ordinary),
            Self::Open { until, pause } if until <= now => {
                *self = Self::Probing { pause };
                Some(Leave::Probe)
            }
            Self::Open { .. } | Self::Probing { .. } => None,
        }
    }

    /// There was an answer.
    pub(super) fn succeeded(&mut self) {
        *self = Self::NEW;
    }

    /// There was none, or one of a service that fails.
    pub(super) fn failed(&mut self, now: Instant) {
        let open = |pause| Self::Open { until: now + pause, pause };
        *self = match *self {
            Self::Closed { failures } if failures + 1 < FAILURES => Self::Closed { failures: failures + 1 },
            Self::Closed { .. } => open(FIRST_PAUSE),
            Self::Probing { pause } => open((pause * 2).min(LONGEST_PAUSE)),
            // Of one who asked before it was opened.
            open @ Self::Open { .. } => open,
        };
    }

    /// Who had leave did not wait for the answer: another may probe.
    pub(super) fn given_up(&mut self, leave: Leave, now: Instant) {
        if let (Leave::Probe, Self::Probing { pause }) = (leave, *self) {
            *self = Self::Open { until: now, pause };
        }
    }

    /// How long nobody will have leave, if nobody has now.
    pub(super) fn shut_for(&self, now: Instant) -> Option<Duration> {
        match *self {
            Self::Closed { .. } => None,
            Self::Open { until, .. } => until.checked_duration_since(now).filter(|wait| !wait.is_zero()),
            Self::Probing { .. } => Some(FIRST_PAUSE),
        }
    }

    /// For Prometheus: 0 closed, 1 probing, 2 open.
    pub(super) fn level(&self) -> i64 {
        match self {
            Self::Closed { .. } => 0,
            Self::Probing { .. } => 1,
            Self::Open { .. } => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn opened(at: Instant) -> Breaker {
        let mut breaker = Breaker::NEW;
        for _ in 0..FAILURES {
            assert_eq!(breaker.admit(at), Some(Leave::Ordinary));
            breaker.failed(at);
        }
        breaker
    }

    #[test]
    fn opens_after_failures_in_a_row_and_no_others() {
        let now = Instant::now();
        let mut breaker = Breaker::NEW;
        for _ in 0..5 {
            for _ in 1..FAILURES {
                breaker.failed(now);
            }
            breaker.succeeded();
        }
        assert_eq!(breaker.admit(now), Some(Leave::Ordinary));
        assert_eq!(opened(now).admit(now), None);
        assert_eq!(opened(now).shut_for(now), Some(FIRST_PAUSE));
    }

    #[test]
    fn one_probes_at_a_time_and_pauses_double() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        for pause in [1, 2, 4, 8, 16, 30, 30].map(Duration::from_secs) {
            assert_eq!(breaker.shut_for(now), Some(pause));
            assert_eq!(breaker.admit(now + pause - Duration::from_nanos(1)), None);
            now += pause;
            assert_eq!(breaker.shut_for(now), None);
            assert_eq!((breaker.admit(now), breaker.admit(now)), (Some(Leave::Probe), None));
            breaker.failed(now);
        }
        assert_eq!(breaker.admit(now + LONGEST_PAUSE), Some(Leave::Probe));
        breaker.succeeded();
        assert_eq!(breaker, Breaker::NEW);
    }

    #[test]
    fn a_probe_that_is_given_up_is_anothers() {
        let now = Instant::now();
        let mut breaker = opened(now);
        let later = now + FIRST_PAUSE;
        assert_eq!(breaker.admit(later), Some(Leave::Probe));
        // Of one who asked before it was opened: not the probe's.
        breaker.given_up(Leave::Ordinary, later);
        assert_eq!(breaker.admit(later), None);
        breaker.given_up(Leave::Probe, later);
        assert_eq!(breaker.admit(later), Some(Leave::Probe));
    }

    proptest! {
        /// Whatever happens: it is not shut for longer than the longest pause, unless somebody probes; and a success
        /// closes it.
        #[test]
        fn it_never_stays_shut(events in prop::collection::vec((0u8..4, 0u64..40_000), 0..200)) {
            let mut now = Instant::now();
            let mut breaker = Breaker::NEW;
            let mut probes = 0;
            for (event, millis) in events {
                now += Duration::from_millis(millis);
                match event {
                    0 => probes += u32::from(breaker.admit(now) == Some(Leave::Probe)),
                    1 => { breaker.failed(now); probes = 0 }
                    2 => { breaker.succeeded(); probes = 0 }
                    _ => { breaker.given_up(Leave::Probe, now); probes = 0 }
                }
                prop_assert!(probes <= 1, "one probes at a time");
                prop_assert!(breaker.shut_for(now).unwrap_or_default() <= LONGEST_PAUSE);
                let mut later = breaker;
                prop_assert_eq!(later.admit(now).is_none(), breaker.shut_for(now).is_some());
                later.given_up(Leave::Probe, now);
                let probing = matches!(later, Breaker::Probing { .. });
                prop_assert!(probing || later.admit(now + LONGEST_PAUSE).is_some());
            }
        }
    }
}
