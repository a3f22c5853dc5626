//! Watches the file, and the certificates and tokens it names, for changes.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::control::Control;

/// Editors and deployments write in several steps: a change is looked at when there has been quiet for so long.
const QUIET: Duration = Duration::from_millis(200);
/// And after so long in any case.
const LATEST: Duration = Duration::from_secs(1);

/// Reloads when the files' contents change, until the task is dropped.
///
/// Folders are watched, not files: a file that is replaced by a rename, or behind a link that is moved as Kubernetes
/// moves them, is another file.
pub(crate) async fn watch(control: Arc<Control>) {
    let (changed, mut changes) = mpsc::channel(1);
    let made = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            // One that waits already is enough.
            let _ = changed.try_send(());
        }
    });
    let mut watcher: RecommendedWatcher = match made {
        Ok(watcher) => watcher,
        Err(error) => {
            tracing::warn!(%error, "the file is not watched: reload with SIGHUP or `keygate reload`");
            return;
        }
    };
    let mut watched = BTreeSet::new();
    let mut seen = fingerprint(&files(&control));
    let text = control.live.snapshot().loaded.source.text.clone();
    if std::fs::read_to_string(&control.path).is_ok_and(|now| now != text) {
        // Changed between the start and now.
        let _ = control.reload().await;
    }
    loop {
        let folders: BTreeSet<PathBuf> =
            files(&control).iter().filter_map(|f| f.parent()).map(Path::to_owned).collect();
        for gone in watched.difference(&folders) {
            let _ = watcher.unwatch(gone);
        }
        for folder in folders.difference(&watched) {
            if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
                tracing::warn!(folder = %folder.display(), %error, "cannot watch");
            }
        }
        watched = folders;
        if changes.recv().await.is_none() {
            return;
        }
        // A log in the same folder is never quiet.
        let latest = Instant::now() + LATEST;
        while Instant::now() < latest && tokio::time::timeout(QUIET, changes.recv()).await.is_ok() {}
        let now = fingerprint(&files(&control));
        if now != seen {
            seen = now;
            let _ = control.reload().await;
        }
    }
}

/// The file, and what it names.
fn files(control: &Control) -> Vec<PathBuf> {
    let snapshot = control.live.snapshot();
    let config = &snapshot.loaded.config;
    let mut files = vec![control.path.clone()];
    for certificate in config.listeners.values().filter_map(|l| l.tls.as_ref()).flat_map(|tls| &tls.certificates) {
        files.extend([certificate.cert.clone(), certificate.key.clone()]);
    }
    files.extend(config.admin.token_file.clone());
    files
}

/// Changes with the contents of the files. A file that cannot be read has none.
fn fingerprint(files: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for file in files {
        std::fs::read(file).ok().hash(&mut hasher);
    }
    hasher.finish()
}
