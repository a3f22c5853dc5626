//! Changes to what is live: reloads, weights, listeners that come and go. One at a time, each whole or not at all.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwapOption;
use keygate_config::{Address, At, Config, Loaded, Process};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::aside::Aside;
use crate::listen::{Listening, Slots, Worker, accept};
use crate::live::{Carried, Live, Snapshot};
use crate::telemetry::access_log::AccessLog;
use crate::upstream::ServerState;
use crate::watch::{Seen, seen};
use crate::weights::{self, Weights};

/// Names are waited for so long at a start or a reload; after that they are looked up in the background.
const RESOLVE: Duration = Duration::from_secs(2);

/// Changes what is live.
pub struct Control {
    /// What is live.
    pub live: Arc<Live>,
    /// The file.
    pub path: PathBuf,
    /// When the gateway started.
    pub started: SystemTime,
    workers: Vec<(Handle, Worker)>,
    change: tokio::sync::Mutex<Changing>,
    last_reload: Mutex<Option<LastReload>>,
    /// When a reload failed last for a reason that may pass by itself, if the last one did.
    failed: Mutex<Option<Instant>>,
    /// The files as they were for what is in force; nothing when the last reload failed.
    seen: Mutex<Seen>,
    pub(crate) aside: Aside,
    admin_token: ArcSwapOption<String>,
}

struct Changing {
    carried: Carried,
    weights: Weights,
    listening: Vec<Arc<Listening>>,
    slots: HashMap<String, Arc<Slots>>,
    at_start: AtStart,
}

/// What only a restart changes.
#[derive(PartialEq)]
struct AtStart {
    workers: keygate_config::Workers,
    state_dir: PathBuf,
    admin: Address,
}

impl AtStart {
    fn of(config: &Config) -> Self {
        let Process { workers, state_dir, .. } = &config.process;
        Self { workers: *workers, state_dir: state_dir.clone(), admin: config.admin.listen.value.clone() }
    }
}

/// What a reload did.
#[derive(Debug, Clone, Serialize)]
pub struct Reloaded {
    /// The snapshot now live.
    pub generation: u64,
    /// What an operator should know: live weights dropped, settings that wait for a restart, warnings of the file.
    pub notes: Vec<String>,
}

/// The last reload, for the status.
#[derive(Debug, Clone, Serialize)]
pub struct LastReload {
    /// When, RFC 3339.
    pub at: String,
    /// Whether it took effect.
    pub ok: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What it noted.
    pub notes: Vec<String>,
}

/// Why a file is not in force.
enum NotReloaded {
    /// It is wrong, and must change.
    Wrong(String),
    /// What it names cannot be had: that may pass.
    NotNow(String),
}

impl From<String> for NotReloaded {
    fn from(why: String) -> Self {
        Self::NotNow(why)
    }
}

/// Why weights were not set.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// No such route.
    #[error("no route is named {0:?}")]
    NoRoute(String),
    /// Not the route's backends, or not weights.
    #[error("{0}")]
    Invalid(String),
    /// Somebody else changed them first.
    #[error("the weights have changed since: the version is now {0}")]
    Changed(String),
    /// They could not be kept.
    #[error("{0}")]
    NotKept(#[from] io::Error),
}

/// What a start needs, made whole before anything is served.
pub(crate) struct Prepared {
    pub live: Arc<Live>,
    pub carried: Carried,
    pub weights: Weights,
    pub listening: Vec<Arc<Listening>>,
    pub notes: Vec<String>,
    pub seen: Seen,
}

/// Reads everything the file refers to and binds its listeners. The state folder is this process's while the lock is.
pub(crate) async fn prepare(loaded: Loaded, mut carried: Carried) -> Result<(Prepared, weights::Lock), String> {
    let loaded = Arc::new(loaded);
    let config = &loaded.config;
    needs_listeners(&loaded)?;
    let seen = seen(&loaded);
    let state_dir = &config.process.state_dir;
    create_private_dir(state_dir).map_err(|error| format!("cannot create {}: {error}", state_dir.display()))?;
    let lock = weights::Lock::take(state_dir).map_err(|error| error.to_string())?;
    let mut weights = Weights::load(state_dir).map_err(|error| error.to_string())?;
    let dropped = weights.reconcile(config);
    let warnings = warnings(&loaded);
    let access_log = open_access_log(config)?;
    let snapshot = carried.build(loaded.clone(), &weights, None)?;
    resolve(&snapshot).await;
    let (_, listening) = listeners(config, &[])?;
    if !dropped.is_empty() {
        weights.save().map_err(|error| error.to_string())?;
    }
    let notes = [dropped, warnings].concat();
    let live = Arc::new(Live::new(snapshot, carried.metrics.clone(), access_log));
    Ok((Prepared { live, carried, weights, listening, notes, seen }, lock))
}

impl Control {
    pub(crate) fn new(prepared: Prepared, workers: Vec<(Handle, Worker)>) -> Result<Self, String> {
        let snapshot = prepared.live.snapshot();
        let config = &snapshot.loaded.config;
        let control = Self {
            path: std::path::absolute(&snapshot.loaded.source.path).map_err(|error| error.to_string())?,
            started: SystemTime::now(),
            workers,
            admin_token: ArcSwapOption::new(admin_token(config)?),
            last_reload: Mutex::new(None),
            failed: Mutex::new(None),
            seen: Mutex::new(prepared.seen),
            aside: Aside::start().map_err(|error| error.to_string())?,
            change: tokio::sync::Mutex::new(Changing {
                carried: prepared.carried,
                weights: prepared.weights,
                slots: HashMap::new(),
                at_start: AtStart::of(config),
                listening: Vec::new(),
            }),
            live: prepared.live,
        };
        let mut change = control.change.try_lock().expect("nobody else has it yet");
        for listening in prepared.listening {
            control.start(&mut change, listening);
        }
        drop(change);
        Ok(control)
    }

    fn start(&self, change: &mut Changing, listening: Arc<Listening>) {
        let slots = change.slots.entry(listening.listener.to_string()).or_default();
        for (handle, worker) in &self.workers {
            let accepting = accept(worker.clone(), listening.clone(), slots.clone());
            worker.connections.spawn_on(accepting, handle);
        }
        change.listening.push(listening);
    }

    /// The token that callers over TCP must show.
    pub(crate) fn admin_token(&self) -> Option<Arc<String>> {
        self.admin_token.load_full()
    }

    /// Where clients can connect: listener and address.
    pub async fn addresses(&self) -> Vec<(String, SocketAddr)> {
        self.change.lock().await.listening.iter().map(|l| (l.listener.to_string(), l.address)).collect()
    }

    /// The last reload, if there was one.
    #[must_use]
    pub fn last_reload(&self) -> Option<LastReload> {
        self.last_reload.lock().clone()
    }

    /// Stops accepting connections.
    pub(crate) async fn stop_listening(&self) {
        for listening in self.change.lock().await.listening.drain(..) {
            listening.stop();
        }
    }

    /// Reads the file again and puts it in force: wholly, or not at all. Once begun, it is done to its end.
    ///
    /// # Errors
    /// Everything wrong with the file, or the one thing that could not be done. Nothing has changed then.
    pub async fn reload(self: &Arc<Self>) -> Result<Reloaded, String> {
        let (control, here) = (self.clone(), Handle::current());
        let job = move || here.block_on(control.reload_here(false));
        self.aside.run(job).await.unwrap_or_else(|| Err("the reload broke off: this is a bug".into()))
    }

    /// Does so once more when it failed, at least so long ago, for a reason that may have passed since. To fail in the
    /// same way again is no news. Answers whether there was something to be tried.
    pub(crate) async fn reload_again(self: &Arc<Self>, after: Duration) -> bool {
        if self.failed.lock().is_none_or(|last| last.elapsed() < after) {
            return false;
        }
        let (control, here) = (self.clone(), Handle::current());
        let _ = self.aside.run(move || _ = here.block_on(control.reload_here(true))).await;
        true
    }

    /// Whether [`Self::reload_again`] will have something to do.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.lock().is_some()
    }

    /// The files as they were for what is in force.
    pub(crate) fn seen(&self) -> Seen {
        self.seen.lock().clone()
    }

    async fn reload_here(&self, again: bool) -> Result<Reloaded, String> {
        let result = self.try_reload().await;
        *self.failed.lock() = matches!(result, Err(NotReloaded::NotNow(_))).then(Instant::now);
        let result = result.map_err(|(NotReloaded::Wrong(error) | NotReloaded::NotNow(error))| error);
        let error = result.as_ref().err().cloned();
        if again && error.is_some() && self.last_reload().and_then(|last| last.error) == error {
            self.live.metrics.reloads.with_label_values(&["retried"]).inc();
            return result;
        }
        let notes = match &result {
            Ok(reloaded) => {
                tracing::info!(generation = reloaded.generation, notes = ?reloaded.notes, "reloaded");
                reloaded.notes.clone()
            }
            Err(error) => {
                tracing::error!(%error, "not reloaded: nothing has changed");
                *self.seen.lock() = Seen::default();
                Vec::new()
            }
        };
        let ok = error.is_none();
        self.live.metrics.reloads.with_label_values(&[if ok { "ok" } else { "error" }]).inc();
        let at = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        *self.last_reload.lock() = Some(LastReload { at, ok, error, notes });
        result
    }

    async fn try_reload(&self) -> Result<Reloaded, NotReloaded> {
        let mut change = self.change.lock().await;
        let change = &mut *change;
        let loaded =
            keygate_config::load(&self.path).map_err(|diagnostics| NotReloaded::Wrong(diagnostics.to_string()))?;
        needs_listeners(&loaded).map_err(NotReloaded::Wrong)?;
        let loaded = Arc::new(loaded);
        let config = &loaded.config;
        let seen = seen(&loaded);
        let token = admin_token(config)?;
        let mut notes = warnings(&loaded);
        let mut weights = change.weights.clone();
        let dropped = weights.reconcile(config);
        let before = self.live.snapshot();
        let snapshot = change.carried.build(loaded.clone(), &weights, Some(&before))?;
        resolve(&snapshot).await;
        let log_path = &config.access_log.path.value;
        let access_log = if *log_path == before.loaded.config.access_log.path.value {
            None
        } else {
            Some(Arc::new(open_access_log(config)?))
        };
        let (kept, fresh) = listeners(config, &change.listening)?;
        if !dropped.is_empty() {
            weights.save().map_err(|error| error.to_string())?;
            notes.extend(dropped);
        }
        if change.at_start != AtStart::of(config) {
            notes.push("process.workers, process.state_dir and admin.listen change with a restart only".into());
        }

        // From here on nothing fails.
        let generation = snapshot.generation;
        self.aside.drop(self.live.swap(snapshot));
        if let Some(access_log) = access_log {
            // The one before writes what it has been handed, and ends.
            self.live.access_log.store(access_log);
        }
        self.admin_token.store(token);
        *self.seen.lock() = seen;
        change.weights = weights;
        for listening in std::mem::replace(&mut change.listening, kept) {
            if !change.listening.iter().any(|kept| Arc::ptr_eq(kept, &listening)) {
                listening.stop();
            }
        }
        for listening in fresh {
            self.start(change, listening);
        }
        change.slots.retain(|name, slots| {
            // A higher limit lets those in who wait under the old one.
            slots.wake();
            config.listeners.contains_key(name)
        });
        drop(before);
        change.carried.retain(&self.live.snapshot());
        Ok(Reloaded { generation, notes })
    }

    /// Sets a route's live weights: one for each of its backends. They hold for every request accepted from when this
    /// returns, and across restarts. Answers the route's new version.
    ///
    /// # Errors
    /// [`WeightsError`]; nothing has changed then.
    pub async fn set_weights(
        &self,
        name: &str,
        wanted: BTreeMap<String, u32>,
        if_match: Option<&str>,
    ) -> Result<String, WeightsError> {
        let mut change = self.change.lock().await;
        let snapshot = self.live.snapshot();
        let route = snapshot.routes.iter().find(|route| route.name == name);
        let in_file = snapshot.loaded.config.routes.iter().find(|route| route.name.value == name);
        let (Some(route), Some(in_file)) = (route, in_file) else {
            return Err(WeightsError::NoRoute(name.to_owned()));
        };
        if if_match.is_some_and(|version| version != "*" && version != route.version) {
            return Err(WeightsError::Changed(route.version.clone()));
        }
        let names: Vec<&str> = route.backends.iter().map(|backend| backend.upstream.name.as_str()).collect();
        check_weights(&names, &wanted).map_err(WeightsError::Invalid)?;
        let in_order: Vec<u32> = names.iter().map(|name| wanted[*name]).collect();
        let version = change.carried.version(snapshot.generation + 1);
        let Some(next) = snapshot.with_weights(name, &in_order, version.clone()) else {
            return Err(WeightsError::NoRoute(name.to_owned()));
        };
        let mut weights = change.weights.clone();
        weights.set(in_file, wanted.clone());
        weights.save()?;
        change.weights = weights;
        self.aside.drop(self.live.swap(next));
        tracing::info!(route = name, weights = ?wanted, "weights set");
        Ok(version)
    }
}

/// All backends and no others, none above the limit, and not all zero.
fn check_weights(backends: &[&str], wanted: &BTreeMap<String, u32>) -> Result<(), String> {
    let has = backends.join(", ");
    if let Some(unknown) = wanted.keys().find(|name| !backends.contains(&name.as_str())) {
        return Err(format!("{unknown:?} is no backend of the route, which has: {has}"));
    }
    if let Some(missing) = backends.iter().find(|name| !wanted.contains_key(**name)) {
        return Err(format!("{missing:?} is missing: name a weight for each of {has}"));
    }
    if let Some((name, _)) = wanted.iter().find(|(_, weight)| **weight > keygate_config::MAX_WEIGHT) {
        return Err(format!("the weight of {name:?} is above {}", keygate_config::MAX_WEIGHT));
    }
    if wanted.values().all(|weight| *weight == 0) {
        return Err("all weights are 0: the route would send nothing anywhere".into());
    }
    Ok(())
}

type Sockets = Vec<Arc<Listening>>;

/// Which sockets stay, and which are new. A listener that is only renamed keeps its socket.
fn listeners(config: &Config, current: &[Arc<Listening>]) -> Result<(Sockets, Sockets), String> {
    let (mut kept, mut fresh) = (Vec::new(), Vec::new());
    for (name, listener) in &config.listeners {
        for At { value: address, .. } in &listener.bind {
            let unused = |l: &&Arc<Listening>| l.configured == *address && !kept.iter().any(|k| Arc::ptr_eq(k, l));
            match current.iter().find(|l| *l.listener == **name && unused(l)) {
                Some(same) => kept.push(same.clone()),
                None => {
                    let bound = match current.iter().find(|l| l.configured == *address && address.port() != 0) {
                        Some(other) => other.renamed(name),
                        None => {
                            Listening::bind(name, *address).map_err(|error| in_the_way(&error, *address, current))?
                        }
                    };
                    fresh.push(Arc::new(bound));
                }
            }
        }
    }
    Ok((kept, fresh))
}

/// Why an address cannot be bound, and by whom if it is this gateway: closing that socket first would lose whoever is in
/// its queue, and the address, should the other not be had then.
fn in_the_way(error: &io::Error, address: SocketAddr, current: &[Arc<Listening>]) -> String {
    let ours = |l: &&Arc<Listening>| keygate_config::overlap(l.address, address);
    match current.iter().find(ours).filter(|_| error.kind() == io::ErrorKind::AddrInUse) {
        Some(ours) => format!(
            "cannot bind {address}: this gateway's listener {:?} is bound to {}, and gives it up with a restart only",
            ours.listener, ours.address
        ),
        None => error.to_string(),
    }
}

/// A gateway without listeners is a file that is still being written, or meant for the signer alone.
fn needs_listeners(loaded: &Loaded) -> Result<(), String> {
    if loaded.config.listeners.is_empty() {
        return Err(format!("{} has no listeners", loaded.source.path.display()));
    }
    Ok(())
}

fn open_access_log(config: &Config) -> Result<AccessLog, String> {
    if let Some(path) = config.access_log.file() {
        keygate_config::files::check_log(path)
            .map_err(|why| format!("cannot open the access log {}: {why}", path.display()))?;
    }
    AccessLog::open(&config.access_log.path).map_err(|error| error.to_string())
}

fn admin_token(config: &Config) -> Result<Option<Arc<String>>, String> {
    config.admin.token_file.as_ref().map(|path| keygate_config::files::load_token(path).map(Arc::new)).transpose()
}

/// What the file and its certificates have to say, short of errors.
fn warnings(loaded: &Loaded) -> Vec<String> {
    let mut found: Vec<String> = loaded.warnings.found.iter().map(|warning| warning.message.clone()).collect();
    let certificates = keygate_config::files::check_certificates(loaded, SystemTime::now());
    found.extend(certificates.into_iter().map(|diagnostic| diagnostic.message));
    found
}

async fn resolve(snapshot: &Snapshot) {
    let servers: Vec<Arc<ServerState>> = snapshot
        .upstreams
        .values()
        .flat_map(|upstream| &upstream.servers)
        .filter(|s| !s.is_resolved())
        .cloned()
        .collect();
    let mut tasks = tokio::task::JoinSet::new();
    for server in servers {
        tasks.spawn(async move {
            let why = match timeout(RESOLVE, server.resolve()).await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer in time".to_owned(),
            };
            tracing::warn!(server = server.server.as_str(), why, "server not resolved yet");
        });
    }
    tasks.join_all().await;
}

/// A folder that only its owner can look into.
fn create_private_dir(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}
