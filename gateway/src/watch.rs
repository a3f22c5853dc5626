//! Watches the file, and the certificates and tokens it names, for changes.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use inotify::{Inotify, WatchMask};
use keygate_config::{Loaded, UpstreamTls};
use tokio::time::Instant;

use crate::control::Control;

/// Editors and deployments write in several steps: a change is looked at when there has been quiet for so long.
const QUIET: Duration = Duration::from_millis(200);
/// And after so long in any case.
const LATEST: Duration = Duration::from_secs(1);
/// Not every change is told of, a link's target in another folder or a folder made anew: files are looked at this often.
const LOOK: Duration = Duration::from_secs(10);
/// A file that could not be read is tried again after so long, as is a reload that failed for something outside the
/// file: nothing else may say that it can be done now.
const AGAIN: Duration = Duration::from_secs(2);

/// Reloads when the files' contents are no longer what was seen of them, until the task is dropped.
///
/// Folders are watched, not files: a file that is replaced by a rename, or behind a link that is moved as Kubernetes
/// moves them, is another file.
pub(crate) async fn watch(control: Arc<Control>) {
    let mut events = match Inotify::init().and_then(|inotify| inotify.into_event_stream([0; 1024])) {
        Ok(events) => Box::pin(events),
        Err(error) => {
            tracing::warn!(%error, "the file is not watched: reload with SIGHUP or `keygate reload`");
            return;
        }
    };
    // Not each write: a log in the same folder has many.
    let changes = WatchMask::CLOSE_WRITE | WatchMask::CREATE | WatchMask::DELETE | WatchMask::MOVE | WatchMask::ATTRIB;
    let mut watched = BTreeMap::new();
    let mut tried = control.seen();
    loop {
        let files = files(&control.live.snapshot().loaded);
        let folders: BTreeSet<PathBuf> = files.iter().filter_map(|f| f.parent()).map(Path::to_owned).collect();
        let mut watches = events.watches();
        let gone: Vec<PathBuf> = watched.keys().filter(|folder| !folders.contains(*folder)).cloned().collect();
        for watch in gone.iter().filter_map(|folder| watched.remove(folder)) {
            // It may have gone with its folder.
            let _ = watches.remove(watch);
        }
        // Those that are watched already as well: a folder that was made anew is another one.
        for folder in folders {
            match watches.add(&folder, changes) {
                Ok(watch) => _ = watched.insert(folder, watch),
                Err(error) => tracing::warn!(folder = %folder.display(), %error, "cannot watch"),
            }
        }
        // Before anything is waited for: what changed while nobody watched has changed as well.
        let before = tried.clone();
        let look = move || before.next(&files, keygate_config::files::read);
        let Some((now, all)) = control.aside.run(look).await else { return };
        // A reload that somebody asked for may have taken it already.
        let news = now != tried && now != control.seen();
        tried = now;
        if news {
            let _ = control.reload().await;
            continue;
        }
        if control.reload_again(AGAIN).await {
            continue;
        }
        let patience = if all && !control.has_failed() { LOOK } else { AGAIN };
        match tokio::time::timeout(patience, next(&mut events)).await {
            Ok(Some(_)) => {}
            Ok(None) => return,
            Err(_) => continue,
        }
        // A log in the same folder is never quiet.
        let latest = Instant::now() + LATEST;
        while Instant::now() < latest && tokio::time::timeout(QUIET, next(&mut events)).await.is_ok() {}
    }
}

async fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    poll_fn(|cx| Pin::new(&mut *stream).poll_next(cx)).await
}

/// What the files are like as this configuration is loaded: to be taken before they are read.
pub(crate) fn seen(loaded: &Loaded) -> Seen {
    let files = files(loaded);
    let text = loaded.source.text.as_bytes();
    let read = |file: &Path| if *file == files[0] { Ok(text.to_vec()) } else { keygate_config::files::read(file) };
    Seen::default().next(&files, read).0
}

/// Files, and what is in them: nothing in one that is not there. One that was never read is not in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen(BTreeMap<PathBuf, Option<u64>>);

impl Seen {
    /// What is seen of these files now, and whether all could be looked at. That one cannot be read (no descriptors
    /// left, no permission) says nothing of what is in it: it is taken to be as it was.
    fn next(&self, files: &[PathBuf], read: impl Fn(&Path) -> io::Result<Vec<u8>>) -> (Self, bool) {
        let (mut next, mut all) = (BTreeMap::new(), true);
        for file in files {
            let content = match read(file) {
                Ok(bytes) => Some(Some(fingerprint(&bytes))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Some(None),
                Err(error) => {
                    tracing::debug!(file = %file.display(), %error, "cannot be looked at");
                    all = false;
                    self.0.get(file).copied()
                }
            };
            next.extend(content.map(|content| (file.clone(), content)));
        }
        (Self(next), all)
    }
}

/// The file, and what it names.
fn files(loaded: &Loaded) -> Vec<PathBuf> {
    let config = &loaded.config;
    let path = &loaded.source.path;
    let mut files = vec![std::path::absolute(path).unwrap_or_else(|_| path.clone())];
    for certificate in config.listeners.values().filter_map(|l| l.tls.as_ref()).flat_map(|tls| &tls.certificates) {
        files.extend([certificate.cert.clone(), certificate.key.clone()]);
    }
    for file in config.upstreams.values().filter_map(|upstream| upstream.tls.as_ref()).flat_map(UpstreamTls::files) {
        files.push(file.value.clone());
    }
    files.extend(config.admin.token_file.iter().map(|file| file.value.clone()));
    files
}

fn fingerprint(content: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> [PathBuf; 2] {
        ["a".into(), "b".into()]
    }

    /// `b` is always there; `a` is read so.
    fn next(seen: &Seen, a: Result<&str, io::ErrorKind>) -> (Seen, bool) {
        seen.next(&files(), |file| match a {
            Err(kind) if file == Path::new("a") => Err(kind.into()),
            Ok(text) if file == Path::new("a") => Ok(text.into()),
            _ => Ok(b"same".to_vec()),
        })
    }

    #[test]
    fn a_file_that_cannot_be_read_has_not_changed() {
        let (seen, all) = next(&Seen::default(), Ok("one"));
        assert!(all);
        // EMFILE has no kind of its own.
        for kind in [io::ErrorKind::PermissionDenied, io::ErrorKind::Other, io::ErrorKind::Interrupted] {
            assert_eq!(next(&seen, Err(kind)), (seen.clone(), false), "{kind}");
        }
        assert_ne!(next(&seen, Ok("two")), (seen.clone(), true));
        assert_eq!(next(&seen, Ok("one")), (seen, true));
    }

    #[test]
    fn a_file_that_goes_or_comes_has() {
        let (seen, _) = next(&Seen::default(), Ok("one"));
        let (gone, all) = next(&seen, Err(io::ErrorKind::NotFound));
        assert!(all && gone != seen);
        assert_eq!(next(&gone, Ok("one")).0, seen);
        assert_ne!(next(&gone, Ok("")).0, gone, "an empty file is not a missing one");
    }

    #[test]
    fn what_could_not_be_read_at_the_start_is_a_change_once_it_can() {
        let (unknown, all) = next(&Seen::default(), Err(io::ErrorKind::PermissionDenied));
        assert!(!all);
        assert_ne!(next(&unknown, Ok("one")).0, unknown);
    }
}
