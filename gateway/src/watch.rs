//! Watches the file, and the certificates and tokens it names, for changes.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use keygate_config::Loaded;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::control::Control;

/// Editors and deployments write in several steps: a change is looked at when there has been quiet for so long.
const QUIET: Duration = Duration::from_millis(200);
/// And after so long in any case.
const LATEST: Duration = Duration::from_secs(1);

/// Reloads when the files' contents are no longer what was `seen` of them, until the task is dropped.
///
/// Folders are watched, not files: a file that is replaced by a rename, or behind a link that is moved as Kubernetes
/// moves them, is another file.
pub(crate) async fn watch(control: Arc<Control>, mut seen: u64) {
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
    loop {
        let files = files(&control.live.snapshot().loaded);
        let folders: BTreeSet<PathBuf> = files.iter().filter_map(|f| f.parent()).map(Path::to_owned).collect();
        for gone in watched.difference(&folders) {
            let _ = watcher.unwatch(gone);
        }
        for folder in folders.difference(&watched) {
            if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
                tracing::warn!(folder = %folder.display(), %error, "cannot watch");
            }
        }
        watched = folders;
        // Before anything is waited for: what changed while nobody watched has changed as well.
        let now = fingerprint(files.iter().map(|file| std::fs::read(file).ok()));
        if now != seen {
            seen = now;
            let _ = control.reload().await;
            continue;
        }
        if changes.recv().await.is_none() {
            return;
        }
        // A log in the same folder is never quiet.
        let latest = Instant::now() + LATEST;
        while Instant::now() < latest && tokio::time::timeout(QUIET, changes.recv()).await.is_ok() {}
    }
}

/// What the files are like as this configuration is loaded: to be taken before they are read.
pub(crate) fn seen(loaded: &Loaded) -> u64 {
    let others = files(loaded).into_iter().skip(1).map(|file| std::fs::read(file).ok());
    fingerprint(std::iter::once(Some(loaded.source.text.clone().into_bytes())).chain(others))
}

/// The file, and what it names.
fn files(loaded: &Loaded) -> Vec<PathBuf> {
    let config = &loaded.config;
    let path = &loaded.source.path;
    let mut files = vec![std::path::absolute(path).unwrap_or_else(|_| path.clone())];
    for certificate in config.listeners.values().filter_map(|l| l.tls.as_ref()).flat_map(|tls| &tls.certificates) {
        files.extend([certificate.cert.clone(), certificate.key.clone()]);
    }
    files.extend(config.admin.token_file.iter().map(|file| file.value.clone()));
    files
}

/// Changes with the contents of the files. A file that cannot be read has none.
fn fingerprint(contents: impl Iterator<Item = Option<Vec<u8>>>) -> u64 {
    let mut hasher = DefaultHasher::new();
    contents.for_each(|content| content.hash(&mut hasher));
    hasher.finish()
}
