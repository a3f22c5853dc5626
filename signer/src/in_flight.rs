//! One at a time under one name: requests with the same idempotency key wait for each other.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;

use crate::ledger::RequestId;

/// The names that are being worked on.
#[derive(Debug, Default)]
pub(crate) struct InFlight(Mutex<HashMap<RequestId, Arc<tokio::sync::Mutex<()>>>>);

/// A turn; ends when dropped.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    all: &'a InFlight,
    id: RequestId,
    turn: Option<OwnedMutexGuard<()>>,
}

impl InFlight {
    /// Waits until nobody else works on `id`.
    pub(crate) async fn turn(&self, id: RequestId) -> Turn<'_> {
        let mutex = Arc::clone(self.names().entry(id.clone()).or_default());
        // Before waiting, so that one who stops waiting cleans up as well.
        let mut turn = Turn { all: self, id, turn: None };
        turn.turn = Some(mutex.lock_owned().await);
        turn
    }

    fn names(&self) -> MutexGuard<'_, HashMap<RequestId, Arc<tokio::sync::Mutex<()>>>> {
        // Nothing panics while it holds the lock, and the map is whole at every step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut names = self.all.names();
        // Gives up this turn's share of the mutex; shares are taken under the same lock.
        drop(self.turn.take());
        if names.get(&self.id).is_some_and(|mutex| Arc::strong_count(mutex) == 1) {
            names.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;

    fn id(n: u32) -> RequestId {
        RequestId { caller: "c".into(), key: "k".into(), address: [0; 20].into(), idempotency_key: n.to_string() }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn one_at_a_time_and_nothing_is_left() {
        let all = Arc::new(InFlight::default());
        let inside = Arc::new([const { AtomicU32::new(0) }; 3]);
        let tasks = (0..300).map(|i| {
            let (all, inside) = (Arc::clone(&all), Arc::clone(&inside));
            tokio::spawn(async move {
                let slot = &inside[i % 3];
                let wait = all.turn(id(u32::try_from(i % 3).unwrap()));
                // Some stop waiting.
                let Ok(_turn) =
                    tokio::time::timeout(Duration::from_millis(if i % 7 == 0 { 1 } else { 10_000 }), wait).await
                else {
                    return;
                };
                assert_eq!(slot.fetch_add(1, Ordering::SeqCst), 0);
                tokio::task::yield_now().await;
                slot.fetch_sub(1, Ordering::SeqCst);
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        assert!(all.names().is_empty());
    }

    #[tokio::test]
    async fn different_names_do_not_wait() {
        let all = InFlight::default();
        let _one = all.turn(id(1)).await;
        let _two = all.turn(id(2)).await;
        assert!(tokio::time::timeout(Duration::from_millis(10), all.turn(id(1))).await.is_err());
    }
}
