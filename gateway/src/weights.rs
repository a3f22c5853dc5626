//! Weights set while traffic flows, kept across restarts.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use keygate_config::{At, Config, MAX_WEIGHT, MOST_BACKENDS, Route, files};
use serde::{Deserialize, Serialize};

/// Live weights by route, as `state_dir/weights.json` keeps them.
#[derive(Debug, Clone)]
pub struct Weights {
    path: PathBuf,
    routes: BTreeMap<String, Entry>,
}

/// A route's live weights, and what the file said when they were set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    live: BTreeMap<String, u32>,
    file: BTreeMap<String, u32>,
}

impl Entry {
    /// Whether they can be laid out as a table: somebody may have written them by hand.
    fn check(&self) -> Result<(), String> {
        if self.live.len() > MOST_BACKENDS {
            return Err(format!("it has more than {MOST_BACKENDS} backends"));
        }
        if let Some((upstream, _)) = self.live.iter().find(|(_, weight)| **weight > MAX_WEIGHT) {
            return Err(format!("the weight of {upstream:?} is above {MAX_WEIGHT}"));
        }
        if self.live.values().all(|weight| *weight == 0) {
            return Err("all its weights are 0".into());
        }
        Ok(())
    }
}

/// A state folder that no other gateway has while this lives: two would write over each other's weights.
///
/// The kernel lets go of it with the process, however that ends.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "held, not used")] File);

impl Lock {
    /// Takes the folder, without waiting for it.
    ///
    /// # Errors
    /// When another gateway has it, or the disk will not; with the folder.
    pub(crate) fn take(state_dir: &Path) -> io::Result<Self> {
        let path = state_dir.join("lock");
        let failed =
            |error: io::Error| io::Error::new(error.kind(), format!("cannot lock {}: {error}", path.display()));
        let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::Error(error)) => Err(failed(error)),
            Err(TryLockError::WouldBlock) => {
                let why = format!("another gateway has the state folder {}", state_dir.display());
                Err(io::Error::new(io::ErrorKind::WouldBlock, why))
            }
        }
    }
}

impl Weights {
    /// Reads what was kept in this folder.
    ///
    /// # Errors
    /// When there is a file that cannot be read or understood: guessing at weights moves traffic.
    pub fn load(state_dir: &Path) -> io::Result<Self> {
        let path = state_dir.join("weights.json");
        let broken = |why: &dyn Display| {
            let why = format!("{}: {why}; mend or remove the file", path.display());
            io::Error::new(io::ErrorKind::InvalidData, why)
        };
        let routes = match files::read(&path) {
            Ok(bytes) => {
                let routes: BTreeMap<String, Entry> = serde_json::from_slice(&bytes).map_err(|error| broken(&error))?;
                for (name, entry) in &routes {
                    entry.check().map_err(|why| broken(&format!("route {name:?}: {why}")))?;
                }
                routes
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
        };
        Ok(Self { path, routes })
    }

    /// The live weight of a backend, when it differs from the file's.
    #[must_use]
    pub fn live(&self, route: &Route, upstream: &str) -> Option<u32> {
        self.routes.get(&route.name.value)?.live.get(upstream).copied()
    }

    /// Drops what the file has overtaken: weights that changed there since they were set live. Says which.
    ///
    /// A route that is gone keeps its entry: it may be back with the next edit, and must not then take traffic as it did
    /// before somebody moved it.
    pub fn reconcile(&mut self, config: &Config) -> Vec<String> {
        let mut notes = Vec::new();
        for route in &config.routes {
            let name = &route.name.value;
            if self.routes.get(name).is_some_and(|entry| entry.file != in_file(route)) {
                self.routes.remove(name);
                notes.push(format!("route {name}: its weights changed in the file; the live weights are dropped"));
            }
        }
        notes
    }

    /// Sets a route's live weights, one for each backend of the file.
    pub fn set(&mut self, route: &At<Route>, live: BTreeMap<String, u32>) {
        let file = in_file(route);
        if live == file {
            self.routes.remove(&route.name.value);
        } else {
            self.routes.insert(route.name.value.clone(), Entry { live, file });
        }
    }

    /// Writes them down, durably: when this returns, they survive a power cut.
    ///
    /// # Errors
    /// Those of the disk, with the file. What was kept before is still there.
    pub fn save(&self) -> io::Result<()> {
        let save = || -> io::Result<()> {
            let temporary = self.path.with_extension("json.new");
            let mut file = File::create(&temporary)?;
            file.write_all(&serde_json::to_vec_pretty(&self.routes)?)?;
            file.sync_all()?;
            fs::rename(&temporary, &self.path)?;
            match self.path.parent() {
                Some(parent) => File::open(parent)?.sync_all(),
                None => Ok(()),
            }
        };
        save().map_err(|error| io::Error::new(error.kind(), format!("cannot write {}: {error}", self.path.display())))
    }
}

fn in_file(route: &Route) -> BTreeMap<String, u32> {
    route.backends.iter().map(|backend| (backend.upstream.value.clone(), backend.weight)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(blue: u32, green: u32) -> Config {
        let text = format!(
            "[upstreams.blue]\nservers = [\"a:1\"]\n[upstreams.green]\nservers = [\"b:1\"]\n[[routes]]\nname = \"r\"\n\
             backends = [{{ upstream = \"blue\", weight = {blue} }}, {{ upstream = \"green\", weight = {green} }}]"
        );
        keygate_config::parse(keygate_config::Source { path: "keygate.toml".into(), text }).unwrap().config
    }

    fn empty() -> Config {
        keygate_config::parse(keygate_config::Source { path: "keygate.toml".into(), text: String::new() })
            .unwrap()
            .config
    }

    fn live(blue: u32, green: u32) -> BTreeMap<String, u32> {
        BTreeMap::from([("blue".into(), blue), ("green".into(), green)])
    }

    #[test]
    fn live_weights_survive_a_restart_and_yield_to_a_changed_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = config(90, 10);
        let mut weights = Weights::load(dir.path()).unwrap();
        weights.set(&file.routes[0], live(50, 50));
        weights.save().unwrap();

        let mut weights = Weights::load(dir.path()).unwrap();
        assert!(weights.reconcile(&file).is_empty());
        assert_eq!(weights.live(&file.routes[0], "green"), Some(50));

        // A file that is saved in two steps, or a route taken out by mistake.
        assert!(weights.reconcile(&empty()).is_empty());
        assert_eq!(weights.live(&file.routes[0], "green"), Some(50));

        let notes = weights.reconcile(&config(80, 20));
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert_eq!(weights.live(&file.routes[0], "green"), None);
    }

    #[test]
    fn back_to_the_files_weights_is_no_difference() {
        let dir = tempfile::tempdir().unwrap();
        let file = config(90, 10);
        let mut weights = Weights::load(dir.path()).unwrap();
        weights.set(&file.routes[0], live(50, 50));
        weights.set(&file.routes[0], live(90, 10));
        assert_eq!(weights.live(&file.routes[0], "blue"), None);
    }

    #[test]
    fn a_state_folder_has_one_owner_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::take(dir.path()).unwrap();
        let refused = Lock::take(dir.path()).unwrap_err().to_string();
        assert_eq!(refused, format!("another gateway has the state folder {}", dir.path().display()));
        drop(lock);
        Lock::take(dir.path()).unwrap();
        let nowhere = Lock::take(&dir.path().join("nowhere")).unwrap_err().to_string();
        assert!(nowhere.contains("nowhere/lock"), "{nowhere}");
    }

    #[test]
    fn a_broken_state_file_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("weights.json"), "{").unwrap();
        assert!(Weights::load(dir.path()).unwrap_err().to_string().contains("weights.json"));
        // What would be a table without end, or none.
        let many: Vec<String> = (0..65).map(|n| format!("\"u{n}\": 1")).collect();
        for (live, why) in [
            (r#""blue": 4000000000, "green": 1"#, "the weight of \"blue\" is above 10000"),
            (r#""blue": 0, "green": 0"#, "all its weights are 0"),
            ("", "all its weights are 0"),
            (&many.join(", "), "it has more than 64 backends"),
        ] {
            let kept = format!(r#"{{ "r": {{ "live": {{ {live} }}, "file": {{ "blue": 90, "green": 10 }} }} }}"#);
            fs::write(dir.path().join("weights.json"), kept).unwrap();
            let refused = Weights::load(dir.path()).unwrap_err().to_string();
            assert!(refused.contains(&format!("weights.json: route \"r\": {why}; mend or remove")), "{refused}");
        }
        fs::remove_file(dir.path().join("weights.json")).unwrap();
        fs::create_dir(dir.path().join("weights.json")).unwrap();
        let refused = Weights::load(dir.path()).unwrap_err().to_string();
        assert!(refused.ends_with("weights.json: not a regular file"), "{refused}");
    }
}
