//! What a client may do besides asking: requests that it takes back at once, and bytes that say nothing.
//!
//! A stream's place is free again when it is reset, so that the bound on streams does not bound a client that resets each
//! as soon as it has begun (CVE-2023-44487), or makes the gateway reset it (CVE-2025-8671): each has begun a request at a
//! server by then. And there are frames that cost their sender nothing and belong to no request (CVE-2019-9512, 9513,
//! 9515): who sends hardly anything else is no client.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::STREAMS;

/// Resets at once that are let pass: all the streams that a client can have open, twice.
const RESETS: u32 = 2 * STREAMS;
/// One of them is forgotten each.
const FORGOTTEN: Duration = Duration::from_millis(100);
/// A stream that was there for so long had its place for that time: the bound on streams was enough.
const AT_ONCE: Duration = Duration::from_secs(1);
/// Bytes that a client may send for each that is of use, as nginx has it.
const USELESS: u64 = 8;
/// Bytes that are let pass before that counts, times [`USELESS`].
const USELESS_AT_FIRST: u64 = 1 << 20;

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// With an answer.
    Answered,
    /// It was reset by the client, or for what the client sent, after so long.
    Reset(Duration),
    /// The answer was cut short by the server, or by the gateway.
    Cut,
}

/// Resets of one connection that count still.
#[derive(Debug)]
pub(super) struct Budget {
    spent: u32,
    /// Until when [`FORGOTTEN`] has been applied.
    at: Instant,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Self {
        Self { spent: 0, at: now }
    }

    /// Counts a stream that has ended. An answer makes up for a reset: a proxy's connection has many users behind it.
    pub(super) fn count(&mut self, end: End, now: Instant) {
        match end {
            End::Answered => self.spent = self.spent.saturating_sub(1),
            End::Reset(after) if after < AT_ONCE => {
                let past = now.saturating_duration_since(self.at).as_millis() / FORGOTTEN.as_millis();
                let past = u32::try_from(past).unwrap_or(u32::MAX);
                self.at = if past < self.spent { self.at + FORGOTTEN * past } else { now };
                self.spent = self.spent.saturating_sub(past) + 1;
            }
            End::Reset(_) | End::Cut => {}
        }
    }

    pub(super) fn is_exceeded(&self) -> bool {
        self.spent > RESETS
    }
}

/// Bytes of one connection, counted by all that it is made of.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    came: AtomicU64,
    went: AtomicU64,
    of_use: AtomicU64,
}

impl Traffic {
    /// Read from the client.
    pub(super) fn came(&self, bytes: usize) {
        self.came.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Written to the client.
    pub(super) fn wrote(&self, bytes: usize) {
        self.went.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Part of a request, or of an answer.
    pub(super) fn of_use(&self, bytes: usize) {
        self.of_use.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// All that was written to the client.
    pub(super) fn went(&self) -> u64 {
        self.went.load(Ordering::Relaxed)
    }

    /// Whether the client sends hardly anything but frames that are of no use.
    pub(super) fn is_flood(&self) -> bool {
        self.came.load(Ordering::Relaxed) / USELESS > self.of_use.load(Ordering::Relaxed) + USELESS_AT_FIRST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: End = End::Reset(Duration::from_millis(3));

    #[test]
    fn resets_at_once_are_bounded() {
        let now = Instant::now();
        let mut budget = Budget::new(now);
        for _ in 0..RESETS {
            budget.count(FAST, now);
        }
        assert!(!budget.is_exceeded(), "all that it may have open, twice");
        budget.count(FAST, now);
        assert!(budget.is_exceeded());
    }

    #[test]
    fn answers_make_up_for_resets_but_are_not_saved_up() {
        let now = Instant::now();
        let mut budget = Budget::new(now);
        for _ in 0..100_000 {
            budget.count(FAST, now);
            budget.count(End::Answered, now);
        }
        assert!(!budget.is_exceeded());
        for _ in 0..100_000 {
            budget.count(End::Answered, now);
        }
        for _ in 0..=RESETS {
            budget.count(FAST, now);
        }
        assert!(budget.is_exceeded());
    }

    #[test]
    fn what_had_its_place_or_is_the_servers_doing_does_not_count() {
        let now = Instant::now();
        let mut budget = Budget::new(now);
        for _ in 0..100_000 {
            budget.count(End::Reset(AT_ONCE), now);
            budget.count(End::Cut, now);
        }
        assert!(!budget.is_exceeded());
    }

    #[test]
    fn resets_are_forgotten() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        // Who cancels as a habit, ten times a second, for a day.
        for tenth in 0..864_000 {
            budget.count(FAST, start + FORGOTTEN * tenth);
        }
        assert!(!budget.is_exceeded());
        // A few more each second are too many in the end.
        let mut budget = Budget::new(start);
        for n in 0..4 * RESETS {
            budget.count(FAST, start + FORGOTTEN * n / 2);
        }
        assert!(budget.is_exceeded());
    }

    #[test]
    fn frames_that_are_of_no_use_are_bounded_by_those_that_are() {
        let traffic = Traffic::default();
        traffic.came(8 << 20);
        assert!(!traffic.is_flood());
        traffic.came(8);
        assert!(traffic.is_flood());
        traffic.of_use(1);
        assert!(!traffic.is_flood());
    }
}
