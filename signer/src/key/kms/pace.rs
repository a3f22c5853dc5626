//! How often KMS is asked: a rate below the account's quota, and a queue for what comes faster.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::sync::oneshot;

use super::metrics::Metrics;
use super::queue::{Joined, Queue};

type Limiter = RateLimiter<NotKeyed, InMemoryState, MonotonicClock, NoOpMiddleware<Instant>>;

/// There is no turn in time. Another is likely to find one after this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Busy(pub(super) Duration);

/// Hands out turns, each to one call of KMS.
#[derive(Debug)]
pub(super) struct Pace(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limiter: Limiter,
    /// Between two turns, on average.
    period: Duration,
    state: Mutex<State>,
    metrics: Metrics,
}

#[derive(Debug)]
struct State {
    queue: Queue<oneshot::Sender<Result<(), Busy>>>,
    /// Whether a task hands out turns: there is one while somebody waits.
    paced: bool,
}

/// A place in the queue, which is given back when dropped.
struct Place<'a> {
    shared: &'a Shared,
    caller: &'a str,
    ticket: u64,
}

impl Pace {
    /// So many turns a second, a tenth of them at once; and so many who wait for one.
    pub(super) fn new(rate: u32, queue: u32, metrics: Metrics) -> Self {
        // Neither is 0 in a file that was validated.
        let cells = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(cells(rate)).allow_burst(cells(rate / 10));
        Self(Arc::new(Shared {
            limiter: RateLimiter::direct_with_clock(quota, MonotonicClock),
            period: quota.replenish_interval(),
            state: Mutex::new(State { queue: Queue::new(queue as usize), paced: false }),
            metrics,
        }))
    }

    /// Waits for a turn, among callers that take turns.
    ///
    /// May be dropped at any time: who waits no more takes nobody's turn.
    pub(super) async fn turn(&self, caller: &str, deadline: Instant) -> Result<(), Busy> {
        let shared = &*self.0;
        let (start, (sender, turn)) = (Instant::now(), oneshot::channel());
        let place = {
            let mut state = shared.state();
            if state.queue.len() == 0 && shared.limiter.check().is_ok() {
                shared.metrics.queued(Duration::ZERO);
                return Ok(());
            }
            // Who comes later may come between: a lower bound.
            let waits = shared.for_turns(state.queue.ahead_of(caller) + 1);
            if start + waits > deadline {
                return Err(Busy(start + waits - deadline));
            }
            let whole = Busy(shared.for_turns(state.queue.len()));
            let ticket = match state.queue.join(caller, sender) {
                Joined::Full => return Err(whole),
                Joined::Place(ticket) => ticket,
                Joined::InPlaceOf(ticket, other) => {
                    // It may be waiting no more.
                    let _ = other.send(Err(whole));
                    ticket
                }
            };
            shared.metrics.queue(state.queue.len());
            if !state.paced {
                state.paced = true;
                tokio::spawn(hand_out(Arc::clone(&self.0)));
            }
            Place { shared, caller, ticket }
        };
        let turn = tokio::time::timeout_at(deadline.into(), turn).await;
        drop(place);
        // Without an answer, it is too late; the sender is dropped with its place, and that is still had here.
        turn.map_or(Err(Busy(shared.period)), |turn| turn.unwrap_or(Err(Busy(shared.period))))?;
        shared.metrics.queued(start.elapsed());
        Ok(())
    }
}

/// Hands out turns as they come, until nobody waits.
async fn hand_out(shared: Arc<Shared>) {
    loop {
        let soon = match shared.limiter.check() {
            Ok(()) => {
                let mut state = shared.state();
                // Not to who has gone away.
                while let Some(next) = state.queue.next() {
                    if next.send(Ok(())).is_ok() {
                        break;
                    }
                }
                shared.metrics.queue(state.queue.len());
                Duration::ZERO
            }
            Err(not_yet) => not_yet.wait_time_from(MonotonicClock.now()),
        };
        {
            let mut state = shared.state();
            if state.queue.len() == 0 {
                state.paced = false;
                return;
            }
        }
        if !soon.is_zero() {
            tokio::time::sleep(soon).await;
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock, and the queue is whole at every step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn for_turns(&self, turns: usize) -> Duration {
        self.period.saturating_mul(u32::try_from(turns).unwrap_or(u32::MAX))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.queue.leave(self.caller, self.ticket);
        self.shared.metrics.queue(state.queue.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn pace(rate: u32, queue: u32) -> Arc<Pace> {
        Arc::new(Pace::new(rate, queue, Metrics::new("hot").unwrap()))
    }

    /// Waits in a task of its own; it is in the queue when this returns.
    async fn waits(pace: &Arc<Pace>, caller: &'static str) -> tokio::task::JoinHandle<Result<(), Busy>> {
        let before = pace.0.state().queue.len();
        let waits = tokio::spawn({
            let pace = Arc::clone(pace);
            async move { pace.turn(caller, Instant::now() + LONG).await }
        });
        while pace.0.state().queue.len() == before && !waits.is_finished() {
            tokio::task::yield_now().await;
        }
        waits
    }

    #[tokio::test]
    async fn a_flood_is_not_served_before_the_next_caller() {
        let pace = pace(20, 100);
        while pace.turn("first", Instant::now()).await.is_ok() {}
        let mut flood = Vec::new();
        for _ in 0..50 {
            flood.push(waits(&pace, "flood").await);
        }
        let other = waits(&pace, "other").await;
        assert_eq!(other.await.unwrap(), Ok(()));
        assert!(flood.iter().filter(|one| one.is_finished()).count() < 10);
        for one in flood {
            one.abort();
        }
        while pace.0.state().queue.len() > 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn the_queue_is_bounded_and_says_when_to_come_back() {
        let pace = pace(1, 3);
        assert_eq!(pace.turn("a", Instant::now() + LONG).await, Ok(()));
        let mut waiting = Vec::new();
        for _ in 0..3 {
            waiting.push(waits(&pace, "a").await);
        }
        assert_eq!(pace.turn("a", Instant::now() + LONG).await, Err(Busy(Duration::from_secs(3))));
        // Another caller takes the place of the last.
        let other = waits(&pace, "b").await;
        assert_eq!(waiting.pop().unwrap().await.unwrap(), Err(Busy(Duration::from_secs(3))));
        for one in waiting.into_iter().chain([other]) {
            one.abort();
        }
    }

    #[tokio::test]
    async fn a_deadline_that_would_pass_is_refused_at_once() {
        let pace = pace(1, 100);
        assert_eq!(pace.turn("a", Instant::now()).await, Ok(()));
        let mut waiting = Vec::new();
        for _ in 0..5 {
            waiting.push(waits(&pace, "a").await);
        }
        let Err(Busy(wait)) = pace.turn("a", Instant::now() + Duration::from_secs(2)).await else { panic!() };
        // The sixth turn is in six seconds.
        assert_eq!(wait.as_secs_f64().round(), 4.0);
        // It took no place, and who waits no more gives theirs back.
        assert_eq!(pace.0.state().queue.len(), 5);
        for one in waiting {
            one.abort();
            assert!(one.await.is_err());
        }
        assert_eq!(pace.0.state().queue.len(), 0);
    }
}
