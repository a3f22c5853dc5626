//! From the configuration to a signer that serves, and back to nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use keygate_config::SignerAddress;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::callers::CallerError;
use crate::api::listen::{BindError, Limits, Listener, Routers, Serving};
use crate::api::{Api, LARGE, router, spare_router, without_pages};
use crate::chain::Chains;
use crate::gauges::Gauges;
use crate::harden::{self, UserError};
use crate::in_flight::InFlight;
use crate::key::{self, Key, KeyInfo, LoadError};
use crate::ledger::audit::Event;
use crate::ledger::{self, Ledger, Opened};
use crate::live::{Live, Snapshot, SnapshotError};
use crate::metrics::Metrics;
use crate::policy::Rates;
use crate::refused::Refused;
use crate::reload::Reloader;
use crate::sending::Post;
use crate::signing::Signing;
use crate::trail;
use crate::watch::Watch;

/// How often what is reserved and not signed is looked for.
const FINISH_EVERY: Duration = Duration::from_secs(30);
/// What was reserved this long ago is not about to be signed any more: longer than a key's time-out may well be.
const UNFINISHED_AFTER: Duration = Duration::from_secs(120);

/// Chains that are not followed yet are looked for this often.
const FOLLOW: Duration = Duration::from_secs(2);

/// A signer, ready to serve: its keys are loaded, its ledger is open, its sockets are bound.
#[derive(Debug)]
pub struct Signer {
    pub(crate) api: Api,
    ledger: ledger::Running,
    /// For the audit trail.
    changes: UnboundedReceiver<Event>,
    listeners: Vec<Listener>,
    pub(crate) limits: Limits,
    started: keygate_config::Signer,
}

/// The signer's sockets: bound, so that nobody else can be, and taking no connections yet.
#[derive(Debug)]
pub struct Sockets(Vec<Listener>);

impl Sockets {
    /// Binds what the file names. If root does, and the file names a user, Unix sockets are that user's.
    ///
    /// # Errors
    /// [`StartError::Listen`], [`StartError::User`].
    pub fn bind(config: &keygate_config::Signer) -> Result<Self, StartError> {
        let user = harden::user(config)?;
        let owner = user.map(|user| (user.uid.as_raw(), user.gid.as_raw()));
        let bind = |address: &SignerAddress| {
            let listener = Listener::bind(address, owner);
            listener.map_err(|error| StartError::Listen { address: address.clone(), error })
        };
        config.listen.as_slice().iter().map(|address| bind(&address.value)).collect::<Result<_, _>>().map(Self)
    }
}

/// Why a signer does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A key cannot be loaded, or is not the one that is meant.
    #[error("key {name:?}: {error}")]
    Key {
        /// The key's name in the file.
        name: String,
        /// What is wrong with it.
        #[source]
        error: LoadError,
    },
    /// One key has two names: each would have its own limits and idempotency keys.
    #[error("keys {other:?} and {name:?} are the same key, {address}: a key has one name")]
    SameKey {
        /// A name in the file.
        name: String,
        /// Another.
        other: String,
        /// The address of both.
        address: alloy_primitives::Address,
    },
    /// A caller is not as it must be.
    #[error("caller {name:?}: {error}")]
    Caller {
        /// The caller's name in the file.
        name: String,
        /// What is wrong with it.
        #[source]
        error: CallerError,
    },
    /// A chain's nodes are not as they must be.
    #[error("chain {name:?}: {why}")]
    Chain {
        /// The chain's name in the file.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// The ledger cannot be opened.
    #[error("ledger {0}")]
    Ledger(#[from] ledger::OpenError),
    /// A listener cannot be had.
    #[error("listener {address}: {error}")]
    Listen {
        /// Where.
        address: SignerAddress,
        /// What is wrong with it.
        #[source]
        error: BindError,
    },
    /// The user that the signer is to run as.
    #[error(transparent)]
    User(#[from] UserError),
    /// TLS of the listeners, in one line that names the file.
    #[error("{0}")]
    Tls(String),
    /// The metrics cannot be registered.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl From<SnapshotError> for StartError {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::Caller(name, error) => Self::Caller { name, error },
            SnapshotError::Chain(name, why) => Self::Chain { name, why },
            error @ (SnapshotError::Tls(_) | SnapshotError::NoTls(_)) => Self::Tls(error.to_string()),
        }
    }
}

/// Loads the configured keys, and says what is known of them.
///
/// # Errors
/// [`StartError::Key`], [`StartError::SameKey`].
pub async fn load_keys(config: &keygate_config::Signer) -> Result<Vec<KeyInfo>, StartError> {
    Ok(keys(config).await?.values().map(|key| key.info()).collect())
}

impl Signer {
    /// Binds the sockets, loads the keys and callers, opens the ledger, and takes connections. The process stays as it
    /// is: to become the file's `user` is [`crate::confine`]'s.
    ///
    /// # Errors
    /// [`StartError`]: nothing is served if anything is not as the file says.
    pub async fn start(config: &keygate_config::Signer) -> Result<Self, StartError> {
        Self::start_on(Sockets::bind(config)?, config).await
    }

    /// As [`Self::start`], on sockets that were bound before: with more privileges, perhaps.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start_on(sockets: Sockets, config: &keygate_config::Signer) -> Result<Self, StartError> {
        Self::assemble(sockets, config, keys(config).await?)
    }

    #[cfg(test)]
    pub(crate) fn with_keys(
        config: &keygate_config::Signer,
        keys: BTreeMap<String, Arc<Key>>,
    ) -> Result<Self, StartError> {
        Self::assemble(Sockets::bind(config)?, config, keys)
    }

    fn assemble(
        sockets: Sockets,
        config: &keygate_config::Signer,
        keys: BTreeMap<String, Arc<Key>>,
    ) -> Result<Self, StartError> {
        let (live, changes) = Live::new(Snapshot::load(config, &Chains::default())?);
        let live = Arc::new(live);
        let metrics = Metrics::new()?;
        let gauges = Gauges::new(metrics.registry())?;
        for key in keys.values() {
            key.register(metrics.registry())?;
        }
        let addresses = keys.iter().map(|(name, key)| (name.clone(), key.address())).collect();
        let Opened { ledger, running, callers: known, head } =
            Ledger::open_configured(&config.ledger.value, &addresses)?;
        if head.seq == 1 && known.is_empty() {
            tracing::info!(
                "the ledger is new: it knows nothing that was signed before. If there was one, stop, and find it: what \
                 callers ask for again is signed again"
            );
        } else {
            tracing::info!(%head, "the audit trail goes on");
        }
        for caller in forgotten(config, &known) {
            tracing::warn!(
                caller,
                "the ledger knows a caller that the file does not name: if it was removed, all is well; if it was renamed, \
                 its idempotency keys count no longer, and what it asks for again is signed again: give it its name back"
            );
        }
        let Sockets(listeners) = sockets;
        for listener in &listeners {
            if let Err(error) = listener.listen() {
                // Who tries again finds the ledger free.
                drop(ledger);
                running.wait();
                return Err(StartError::Listen { address: listener.address().clone(), error });
            }
            tracing::info!(address = %listener.address(), "listening");
        }
        let signing = Signing {
            keys,
            ledger,
            metrics,
            in_flight: InFlight::default(),
            rates: Rates::default(),
            refused: Arc::new(Refused::default()),
            post: Arc::new(Post::new(Arc::clone(&live))),
        };
        let large = Arc::new(Semaphore::new(LARGE));
        let api = Api { signing, live, gauges, large, tasks: TaskTracker::new() };
        Ok(Self { api, ledger: running, changes, listeners, limits: Limits::default(), started: config.clone() })
    }

    /// What reloads this signer's file, as it was watched since before the start.
    #[must_use]
    pub fn reloader(&self, watch: Watch) -> Reloader {
        let (live, reloads) = (Arc::clone(&self.api.live), self.api.signing.metrics.reloads.clone());
        Reloader { live, reloads, started: self.started.clone(), watch }
    }

    /// Serves until `shutdown`; then accepts no more, finishes what is in flight, and closes the ledger.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send) {
        let Self { api, ledger, changes, listeners, limits, started: _ } = self;
        let tasks = api.tasks.clone();
        let trail = trail::begin(&api, changes).await;
        let (live, api) = (Arc::clone(&api.live), Arc::new(api));
        let all = without_pages(router(Arc::clone(&api)));
        let routers = Routers { all, spare: without_pages(spare_router(Arc::clone(&api))) };
        let watching = key::watch(api.signing.keys.values());
        let stop = CancellationToken::new();
        tasks.spawn(finish(Arc::clone(&api), stop.clone()));
        tasks.spawn(follow(Arc::clone(&api), stop.clone()));
        tasks.spawn(survey(Arc::clone(&api), stop.clone()));
        let serving = Serving { routers, limits, live, stop: stop.clone() };
        let mut listening = JoinSet::new();
        for listener in listeners {
            listening.spawn(listener.serve(serving.clone()));
        }
        shutdown.await;
        stop.cancel();
        drop((serving, api, watching));
        while listening.join_next().await.is_some() {}
        // Signings whose clients have gone away.
        tasks.close();
        tasks.wait().await;
        trail.end().await;
        // The last handle on the ledger went with the last task.
        if tokio::task::spawn_blocking(|| ledger.wait()).await.is_err() {
            tracing::error!("waiting for the ledger failed");
        }
    }
}

/// Signs what is reserved and not signed: what a process before this one left at once, and what another leaves in time.
async fn finish(api: Arc<Api>, stop: CancellationToken) {
    let mut reserved_before = SystemTime::now();
    loop {
        if let Err(error) = api.signing.finish(reserved_before, &api.live, &stop).await {
            tracing::warn!(%error, "what is reserved and not signed could not be looked for");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(FINISH_EVERY) => reserved_before = left(SystemTime::now()),
        }
    }
}

/// What was reserved until then is left over: whoever reserved it, another may sign it.
pub(crate) fn left(now: SystemTime) -> SystemTime {
    now - UNFINISHED_AFTER
}

/// Has every node asked once, so that one that is wrong is in the log before it is needed.
async fn survey(api: Arc<Api>, stop: CancellationToken) {
    let snapshot = api.live.snapshot();
    for rpc in snapshot.chains.all().filter_map(|chain| chain.rpc.as_ref()) {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = rpc.survey() => {}
        }
    }
}

/// Follows every chain, each for itself, and those that a reload adds as well.
async fn follow(api: Arc<Api>, stop: CancellationToken) {
    let mut followed = BTreeSet::new();
    loop {
        for chain in api.live.snapshot().chains.all().filter(|chain| followed.insert(chain.id)) {
            let (api, chain_id, stop) = (Arc::clone(&api), chain.id, stop.clone());
            api.tasks.clone().spawn(async move {
                let Signing { post, ledger, metrics, .. } = &api.signing;
                post.follow(chain_id, ledger, metrics, &stop).await;
            });
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(FOLLOW) => {}
        }
    }
}

/// Callers of the ledger that the file does not have: idempotency keys go by the caller's name.
fn forgotten<'a>(config: &keygate_config::Signer, known: &'a BTreeSet<String>) -> Vec<&'a str> {
    known.iter().map(String::as_str).filter(|caller| !config.callers.contains_key(*caller)).collect()
}

/// Loads the keys, all at once.
async fn keys(config: &keygate_config::Signer) -> Result<BTreeMap<String, Arc<Key>>, StartError> {
    let mut loading = JoinSet::new();
    for (name, key) in &config.keys {
        let (name, key, allow_local) = (name.clone(), key.value.clone(), config.allow_local_keys);
        loading.spawn(async move {
            match Key::load(&name, &key, allow_local).await {
                Ok(key) => {
                    let info = key.info();
                    tracing::info!(key = name, kind = info.kind, address = info.address, "key loaded");
                    Ok((name, Arc::new(key)))
                }
                Err(error) => Err(StartError::Key { name, error }),
            }
        });
    }
    let mut keys = BTreeMap::new();
    while let Some(loaded) = loading.join_next().await {
        // Loading a key panics on broken invariants only, and those end the program.
        let (name, key) = loaded.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
        keys.insert(name, key);
    }
    let mut addresses = BTreeMap::new();
    for (name, key) in &keys {
        if let Some(other) = addresses.insert(key.address(), name) {
            let (name, other) = (name.clone(), other.clone());
            return Err(StartError::SameKey { name, other, address: key.address() });
        }
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_that_are_gone_are_named() {
        let text = "[signer]\nlisten = \"unix:s\"\nledger = \"sqlite:l\"\n[signer.callers]\n\
                    payments = { uid = 1, keys = [] }\nnew = { uid = 2, keys = [] }";
        let source = keygate_config::Source { path: "keygate.toml".into(), text: text.into() };
        let config = keygate_config::parse(source).unwrap().config.signer.unwrap();
        let known = ["payments", "payouts", "zoo"].map(str::to_owned).into();
        assert_eq!(forgotten(&config, &known), ["payouts", "zoo"]);
    }
}
