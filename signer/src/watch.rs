//! Watches the file, and the tokens, certificates and nodes' URLs that it names, for changes.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use futures_core::Stream;
use inotify::{EventStream, Inotify, WatchMask};
use keygate_config::Loaded;
use tokio::time::{Instant, timeout};

/// Editors and deployments write in several steps: a change is looked at when there has been quiet for so long.
const QUIET: Duration = Duration::from_millis(200);
/// And after so long in any case.
const LATEST: Duration = Duration::from_secs(1);
/// Not every change is told of, a link's target in another folder or a folder made anew: files are looked at this often.
const LOOK: Duration = Duration::from_secs(10);

/// Files, and what was in them when they were looked at last.
#[derive(Debug)]
pub struct Watch {
    /// The configuration.
    path: PathBuf,
    /// None of those that could not be read.
    seen: BTreeMap<PathBuf, Option<Content>>,
}

impl Watch {
    /// The files that this configuration is made of. To be called before any of them is read: what changes
    /// from here on is a change.
    #[must_use]
    pub fn new(loaded: &Loaded) -> Self {
        let path = std::path::absolute(&loaded.source.path).unwrap_or_else(|_| loaded.source.path.clone());
        let mut watch = Self { path, seen: BTreeMap::new() };
        watch.files(loaded.config.signer.as_ref());
        // It was read before.
        watch.seen.insert(watch.path.clone(), Some(Some(fingerprint(loaded.source.text.as_bytes()))));
        watch
    }

    /// The configuration, as an absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Watches what this configuration names, from now on: to be called before it is read.
    pub(crate) fn files(&mut self, config: Option<&keygate_config::Signer>) {
        let files = config.into_iter().flat_map(keygate_config::Signer::files).map(Path::to_owned);
        let seen = |file: PathBuf| {
            let seen = self.seen.get(&file).copied().unwrap_or_else(|| content(&file));
            (file, seen)
        };
        self.seen = files.chain([self.path.clone()]).map(seen).collect();
    }

    /// Looks at the files; answers whether one has changed. One that cannot be read for the moment has not, and has once
    /// it can: what failed for it may succeed.
    pub(crate) fn look(&mut self) -> bool {
        let mut changed = false;
        for (file, seen) in &mut self.seen {
            let now = content(file);
            changed |= now.is_some() && now != *seen;
            *seen = now;
        }
        changed
    }

    fn folders(&self) -> BTreeSet<PathBuf> {
        self.seen.keys().filter_map(|file| file.parent()).map(Path::to_owned).collect()
    }
}

/// The kernel's word that something has happened in these folders.
///
/// Folders are watched, not files: a file that is replaced by a rename, or behind a link that is moved as Kubernetes
/// moves them, is another file.
pub(crate) struct Events(Option<Pin<Box<EventStream<[u8; 1024]>>>>);

impl Events {
    pub(crate) fn new() -> Self {
        match Inotify::init().and_then(|inotify| inotify.into_event_stream([0; 1024])) {
            Ok(events) => Self(Some(Box::pin(events))),
            Err(error) => {
                tracing::warn!(%error, "files are not watched, and looked at every {} seconds", LOOK.as_secs());
                Self(None)
            }
        }
    }

    /// Watches the folders of these files. Those that are watched already as well: a folder that was made anew is
    /// another one. One that is no longer needed stays: what happens there is looked at, and nothing has changed.
    pub(crate) fn watch(&self, watch: &Watch) {
        let Some(events) = &self.0 else { return };
        let mask = WatchMask::CLOSE_WRITE | WatchMask::CREATE | WatchMask::DELETE | WatchMask::MOVE | WatchMask::ATTRIB;
        for folder in watch.folders() {
            if let Err(error) = events.watches().add(&folder, mask) {
                tracing::warn!(folder = %folder.display(), %error, "cannot watch");
            }
        }
    }

    /// Waits until the files are worth a look.
    pub(crate) async fn next(&mut self) {
        let Some(events) = &mut self.0 else { return tokio::time::sleep(LOOK).await };
        let mut event = async || poll_fn(|cx| events.as_mut().poll_next(cx)).await;
        if timeout(LOOK, event()).await.is_ok() {
            // A log in the same folder is never quiet.
            let latest = Instant::now() + LATEST;
            while Instant::now() < latest && timeout(QUIET, event()).await.is_ok() {}
        }
    }
}

/// What is in a file, by its fingerprint: nothing in one that is not there.
type Content = Option<u64>;

fn content(file: &Path) -> Option<Content> {
    match keygate_config::files::read(file) {
        Ok(content) => Some(Some(fingerprint(&content))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(None),
        Err(_) => None,
    }
}

fn fingerprint(content: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(dir: &Path) -> Watch {
        let text = "[signer]\nlisten = \"unix:s\"\nledger = \"sqlite:l\"\n[signer.callers]\n\
                    one = { token_file = \"one\", keys = [] }\n";
        let path = dir.join("keygate.toml");
        std::fs::write(&path, text).unwrap();
        Watch::new(&keygate_config::load(&path).unwrap())
    }

    #[test]
    fn what_comes_goes_or_is_another_has_changed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let mut watch = watch(dir.path());
        let token = dir.path().join("one");
        assert!(!watch.look());
        std::fs::write(&token, "a").unwrap();
        assert!(watch.look() && !watch.look());
        std::fs::write(&token, "a").unwrap();
        assert!(!watch.look(), "the same again");
        std::fs::write(&token, "b").unwrap();
        assert!(watch.look());
        std::fs::remove_file(&token).unwrap();
        assert!(watch.look() && !watch.look());
        // A folder cannot be read: that says nothing.
        std::fs::create_dir(&token).unwrap();
        assert!(!watch.look());
        std::fs::remove_dir(&token).unwrap();
        assert!(watch.look() && !watch.look(), "it can be read again");
    }

    #[test]
    fn a_change_between_the_reading_of_the_file_and_the_first_look_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        watch(dir.path());
        let path = dir.path().join("keygate.toml");
        let loaded = keygate_config::load(&path).unwrap();
        std::fs::write(&path, format!("{}# more\n", loaded.source.text)).unwrap();
        assert!(Watch::new(&loaded).look());
    }
}
