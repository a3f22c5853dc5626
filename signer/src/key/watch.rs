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
                tokio::time::sleep(if trouble.is_some() { CHECK_AGAIN } else { CHECK }).await;
                known = trouble;
                key.check().await;
            }
        });
    }
    watching
}
