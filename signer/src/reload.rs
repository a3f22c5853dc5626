//! Taking over a file that has changed: whole, or not at all.

use std::sync::Arc;

use prometheus::IntCounterVec;
use tokio::signal::unix::Signal;

use crate::live::{Live, Snapshot, SnapshotError};
use crate::watch::{Events, Watch};

/// Reloads a signer's file.
#[derive(Debug)]
pub struct Reloader {
    pub(crate) live: Arc<Live>,
    pub(crate) reloads: IntCounterVec,
    /// What was in the file at the start.
    pub(crate) started: keygate_config::Signer,
    pub(crate) watch: Watch,
}

/// Why a reload changes nothing.
#[derive(Debug, thiserror::Error)]
enum ReloadError {
    #[error(transparent)]
    File(#[from] keygate_config::Diagnostics),
    #[error("the file has no [signer] any more")]
    NoSigner,
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

impl Reloader {
    /// Reloads at every `hangup`, and when the file or another that it names has changed: tokens, nodes, TLS. Runs
    /// until it is dropped.
    pub async fn follow(mut self, mut hangup: Signal) {
        let mut events = Events::new();
        let mut asked = false;
        loop {
            // Before the look: what changes after that is told of.
            events.watch(&self.watch);
            // Files are read, and certificates checked, where no request waits for it.
            let done = tokio::task::spawn_blocking(move || {
                let changed = self.watch.look();
                if changed || asked {
                    self.reload();
                }
                self
            });
            match done.await {
                Ok(reloader) => self = reloader,
                Err(error) => return tracing::error!(%error, "reloading has ended: restart the signer to change it"),
            }
            asked = tokio::select! {
                signal = hangup.recv() => signal.is_some(),
                () = events.next() => false,
            };
        }
    }

    fn reload(&mut self) {
        let outcome = match self.load() {
            Ok(snapshot) => {
                self.live.replace(snapshot);
                tracing::info!(file = %self.watch.path().display(), "reloaded");
                "ok"
            }
            Err(error) => {
                tracing::error!(%error, "not reloaded: nothing has changed");
                "error"
            }
        };
        self.reloads.with_label_values(&[outcome]).inc();
    }

    fn load(&mut self) -> Result<Snapshot, ReloadError> {
        let config = keygate_config::load(self.watch.path())?.config.signer.ok_or(ReloadError::NoSigner)?;
        // Whatever comes of it: a token that is missing may come.
        self.watch.files(Some(&config));
        let before = self.live.snapshot();
        let mut snapshot = Snapshot::load(&config, &before.chains)?;
        for name in needs_restart(&self.started, &config) {
            tracing::warn!(
                "[signer] {name} has changed, and stays as it was at the start: restart the signer to change it"
            );
        }
        // Its listeners stay, and go on with what they have.
        if snapshot.tls.is_none() {
            snapshot.tls.clone_from(&before.tls);
        }
        Ok(snapshot)
    }
}

/// What has changed, and takes a restart.
fn needs_restart(old: &keygate_config::Signer, new: &keygate_config::Signer) -> Vec<&'static str> {
    let changed = [
        ("listen", old.listen.as_slice() != new.listen.as_slice()),
        ("ledger", old.ledger != new.ledger),
        ("keys", old.keys != new.keys),
        ("allow_local_keys", old.allow_local_keys != new.allow_local_keys),
        ("user", old.user != new.user),
    ];
    changed.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> keygate_config::Signer {
        let text = format!("[signer]\nallow_local_keys = true\n{text}");
        let source = keygate_config::Source { path: "/keygate.toml".into(), text };
        keygate_config::parse(source).unwrap().config.signer.unwrap()
    }

    #[test]
    fn what_stays_until_a_restart_is_named() {
        let base = "listen = \"unix:s\"\nledger = \"sqlite:l\"\n[signer.keys]\na = { local = { path = \"a\" } }\n";
        let old = config(base);
        let named = |from: &str, to: &str| needs_restart(&old, &config(&base.replace(from, to)));
        assert!(named("", "").is_empty());
        // Elsewhere in the file, and as a list, it is the same.
        assert!(named("listen = \"unix:s\"", "# moved\n\nlisten = [\"unix:s\"]").is_empty());
        assert_eq!(named("unix:s", "unix:t"), ["listen"]);
        assert_eq!(named("sqlite:l", "sqlite:m"), ["ledger"]);
        assert_eq!(named("path = \"a\"", "path = \"b\""), ["keys"]);
        assert_eq!(named("[signer.keys]", "user = \"nobody\"\n[signer.keys]"), ["user"]);
        let chain = "[signer.chains]\nbase = { id = 8453 }\n[signer.keys]";
        assert!(named("[signer.keys]", chain).is_empty());
        assert!(named("[signer.keys]", "[signer.callers]\nx = { uid = 1, keys = [] }\n[signer.keys]").is_empty());
    }
}
