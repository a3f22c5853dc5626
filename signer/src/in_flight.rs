//! One attempt at a time under one name: requests with the same idempotency key share what comes of it.
//!
//! They do not take turns: each turn would be an attempt of its own, and a key that does not answer would hold all of
//! them, and their connections, for as many deadlines as there are requests.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::ledger::RequestId;
use crate::signing::{Answer, Refusal};

/// So many requests wait for one attempt at most.
const WAITING: usize = 32;

type Names = Arc<Mutex<HashMap<RequestId, Arc<Shared>>>>;

/// The names that are being worked on.
#[derive(Debug, Default)]
pub(crate) struct InFlight(Names);

/// An attempt under way, as those see it who wait for it.
#[derive(Debug)]
struct Shared {
    digest: [u8; 32],
    outcome: watch::Sender<Option<Result<Answer, Refusal>>>,
}

/// What a request is to do.
#[derive(Debug)]
pub(crate) enum Part {
    /// The attempt itself, and wait for it like the others.
    First(Attempt, Waiting),
    /// Wait for the attempt under way.
    Another(Waiting),
    /// Nothing: the attempt under way is for another request.
    Conflict,
    /// Nothing: enough wait already.
    Crowded,
}

/// The attempt under way; ends when dropped.
#[derive(Debug)]
pub(crate) struct Attempt {
    names: Names,
    id: RequestId,
    shared: Arc<Shared>,
}

/// Waits for an attempt's outcome. Who drops it waits no more.
#[derive(Debug)]
pub(crate) struct Waiting(watch::Receiver<Option<Result<Answer, Refusal>>>);

impl InFlight {
    /// Joins the attempt under way under `id`, or begins it.
    pub(crate) fn join(&self, id: &RequestId, digest: [u8; 32]) -> Part {
        let mut names = lock(&self.0);
        if let Some(shared) = names.get(id) {
            return match shared.outcome.receiver_count() {
                _ if shared.digest != digest => Part::Conflict,
                WAITING.. => Part::Crowded,
                _ => Part::Another(Waiting(shared.outcome.subscribe())),
            };
        }
        let (outcome, waiting) = watch::channel(None);
        let shared = Arc::new(Shared { digest, outcome });
        names.insert(id.clone(), Arc::clone(&shared));
        Part::First(Attempt { names: Arc::clone(&self.0), id: id.clone(), shared }, Waiting(waiting))
    }
}

impl Attempt {
    /// Says whether nobody waits for it; then nobody will, either: who comes from now on begins another.
    pub(crate) fn abandoned(&self) -> impl Fn() -> bool + Send + 'static + use<> {
        let (names, id, shared) = (Arc::clone(&self.names), self.id.clone(), Arc::clone(&self.shared));
        move || {
            let mut names = lock(&names);
            let abandoned = shared.outcome.receiver_count() == 0;
            if abandoned {
                leave(&mut names, &id, &shared);
            }
            abandoned
        }
    }

    /// Tells all who wait what came of it.
    pub(crate) fn end(self, outcome: Result<Answer, Refusal>) {
        // First, so that who comes now begins another, and does not wait for one that is over.
        leave(&mut lock(&self.names), &self.id, &self.shared);
        self.shared.outcome.send_replace(Some(outcome));
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        leave(&mut lock(&self.names), &self.id, &self.shared);
    }
}

impl Waiting {
    /// What came of the attempt; nothing, if it was given up.
    pub(crate) async fn outcome(mut self) -> Option<Result<Answer, Refusal>> {
        self.0.wait_for(Option::is_some).await.ok()?.clone()
    }
}

/// Takes an attempt out, if it is still the one under its name.
fn leave(names: &mut HashMap<RequestId, Arc<Shared>>, id: &RequestId, left: &Arc<Shared>) {
    if names.get(id).is_some_and(|shared| Arc::ptr_eq(shared, left)) {
        names.remove(id);
    }
}

fn lock(names: &Names) -> MutexGuard<'_, HashMap<RequestId, Arc<Shared>>> {
    // Nothing panics while it holds the lock, and the map is whole at every step.
    names.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: [u8; 32] = [1; 32];

    fn id(n: u32) -> RequestId {
        RequestId { caller: "c".into(), key: "k".into(), address: [0; 20].into(), idempotency_key: n.to_string() }
    }

    fn first(all: &InFlight, n: u32) -> (Attempt, Waiting) {
        match all.join(&id(n), DIGEST) {
            Part::First(attempt, waiting) => (attempt, waiting),
            other => panic!("{other:?}"),
        }
    }

    fn another(all: &InFlight, n: u32) -> Waiting {
        match all.join(&id(n), DIGEST) {
            Part::Another(waiting) => waiting,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn all_who_wait_have_the_same_outcome() {
        let all = InFlight::default();
        let (attempt, one) = first(&all, 1);
        let two = another(&all, 1);
        assert!(matches!(all.join(&id(1), [2; 32]), Part::Conflict));
        let other_name = first(&all, 2);
        let three = tokio::spawn(another(&all, 1).outcome());
        tokio::task::yield_now().await;
        attempt.end(Err(Refusal::Conflict));
        for outcome in [one.outcome().await, two.outcome().await, three.await.unwrap()] {
            assert_eq!(outcome, Some(Err(Refusal::Conflict)));
        }
        let (attempt, _) = first(&all, 1);
        drop((attempt, other_name));
        assert_eq!(all.0.lock().unwrap().len(), 0, "nothing is left");
    }

    #[tokio::test]
    async fn so_many_wait_and_no_more() {
        let all = InFlight::default();
        let (_attempt, one) = first(&all, 1);
        let mut waiting: Vec<_> = (1..WAITING).map(|_| another(&all, 1)).collect();
        assert!(matches!(all.join(&id(1), DIGEST), Part::Crowded));
        waiting.pop();
        drop(another(&all, 1));
        drop((one, waiting));
    }

    #[tokio::test]
    async fn an_attempt_that_nobody_waits_for_is_left_alone() {
        let all = InFlight::default();
        let (attempt, one) = first(&all, 1);
        let two = another(&all, 1);
        drop(one);
        assert!(!attempt.abandoned()());
        drop(two);
        assert!(attempt.abandoned()());
        let (again, waiting) = first(&all, 1);
        drop(attempt);
        // The one that was given up takes no other with it.
        let two = another(&all, 1);
        drop(again);
        assert_eq!((waiting.outcome().await, two.outcome().await), (None, None));
    }
}
