//! Looks after keys that nobody asks to sign: whether they could is known before somebody does.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::Key;

/// As long as all is well.
const CHECK: Duration = Duration::from_secs(60);
/// While it is not.
const CHECK_AGAIN: Duration = Duration::from_secs(10);

/// Checks every key now and then: KMS is asked for its public key, and never to sign. Ends when dropped.
pub(crate) fn watch<'a>(keys: impl IntoIterator<Item = &'a Arc<Key>>) -> JoinSet<()> {
    watch_every(keys, CHECK, CHECK_AGAIN)
}

fn watch_every<'a>(
    keys: impl IntoIterator<Item = &'a Arc<Key>>,
    check: Duration,
    check_again: Duration,
) -> JoinSet<()> {
    let mut watching = JoinSet::new();
    for key in keys {
        let key = Arc::clone(key);
        watching.spawn(async move {
            let mut known = None;
            loop {
                let trouble = key.trouble();
                match (&known, &trouble) {
                    (None, Some(why)) => tracing::error!(key = key.name(), "the key cannot sign: {why}"),
                    (Some(_), None) => tracing::info!(key = key.name(), "the key can sign again, as far as is known"),
                    _ => {}
                }
                tokio::time::sleep(if trouble.is_some() { check_again } else { check }).await;
                known = trouble;
                key.check().await;
            }
        });
    }
    watching
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::fake_kms::{FakeKms, Turn};

    #[tokio::test]
    async fn what_becomes_of_a_key_is_known_without_a_request() {
        const SOON: Duration = Duration::from_millis(5);
        let kms = FakeKms::start().await;
        let key = Arc::new(kms.key(Duration::from_secs(20)).await.unwrap());
        let watching = watch_every([&key], SOON, SOON);
        kms.public_turns.lock().unwrap().push_back(Turn::Error("DisabledException"));
        while key.trouble().is_none() {
            tokio::task::yield_now().await;
        }
        while key.trouble().is_some() {
            tokio::task::yield_now().await;
        }
        assert_eq!(kms.signs(), 0);
        drop(watching);
        // It ends with what holds it: nobody else has the key then.
        while Arc::strong_count(&key) > 1 {
            tokio::task::yield_now().await;
        }
    }
}
