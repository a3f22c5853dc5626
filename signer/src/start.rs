//! From the configuration to a signer that serves, and back to nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use keygate_config::{Address, Ledger as LedgerConfig};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::callers::{CallerError, Callers};
use crate::api::listen::{BindError, Limits, Listener, Routers};
use crate::api::{Api, LARGE, router, spare_router};
use crate::in_flight::InFlight;
use crate::key::{self, Key, KeyInfo, LoadError};
use crate::ledger::{self, Ledger, Opened};
use crate::metrics::Metrics;
use crate::signing::Signing;

/// A signer, ready to serve: its keys are loaded, its ledger is open, its sockets are bound.
#[derive(Debug)]
pub struct Signer {
    api: Api,
    ledger: ledger::Running,
    listeners: Vec<Listener>,
    pub(crate) limits: Limits,
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
    /// The ledger cannot be opened.
    #[error("ledger {0}")]
    Ledger(#[from] ledger::OpenError),
    /// A socket cannot be bound.
    #[error("listener {}: {error}", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        error: BindError,
    },
    /// The signer listens on Unix sockets only.
    #[error("listener {0}: the signer listens on Unix sockets only")]
    NotUnix(std::net::SocketAddr),
    /// The metrics cannot be registered.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Loads the configured keys, and says what is known of them.
///
/// # Errors
/// [`StartError::Key`], [`StartError::SameKey`].
pub async fn load_keys(config: &keygate_config::Signer) -> Result<Vec<KeyInfo>, StartError> {
    Ok(keys(config).await?.values().map(|key| key.info()).collect())
}

impl Signer {
    /// Loads the keys and callers, opens the ledger, binds the sockets.
    ///
    /// # Errors
    /// [`StartError`]: nothing is served if anything is not as the file says.
    pub async fn start(config: &keygate_config::Signer) -> Result<Self, StartError> {
        Self::with_keys(config, keys(config).await?)
    }

    pub(crate) fn with_keys(
        config: &keygate_config::Signer,
        keys: BTreeMap<String, Arc<Key>>,
    ) -> Result<Self, StartError> {
        let callers = Callers::load(config).map_err(|(name, error)| StartError::Caller { name, error })?;
        let metrics = Metrics::new()?;
        for key in keys.values() {
            key.register(metrics.registry())?;
        }
        let LedgerConfig::Sqlite(path) = &config.ledger.value;
        let addresses = keys.iter().map(|(name, key)| (name.clone(), key.address())).collect();
        let Opened { ledger, running, callers: known } = Ledger::open(path, &addresses)?;
        for caller in forgotten(config, &known) {
            tracing::warn!(
                caller,
                "the ledger knows a caller that the file does not name: if it was removed, all is well; if it was renamed, \
                 its idempotency keys count no longer, and what it asks for again is signed again: give it its name back"
            );
        }
        let listeners = config.listen.as_slice().iter().map(|address| match &address.value {
            Address::Unix(path) => {
                Listener::bind(path).map_err(|error| StartError::Listen { path: path.clone(), error })
            }
            Address::Tcp(address) => Err(StartError::NotUnix(*address)),
        });
        let listeners = match listeners.collect::<Result<_, _>>() {
            Ok(listeners) => listeners,
            Err(error) => {
                // Who tries again finds the ledger free.
                drop(ledger);
                running.wait();
                return Err(error);
            }
        };
        let signing = Signing { keys, ledger, metrics, in_flight: InFlight::default() };
        let large = Arc::new(Semaphore::new(LARGE));
        let api = Api { signing, callers, large, tasks: TaskTracker::new() };
        Ok(Self { api, ledger: running, listeners, limits: Limits::default() })
    }

    /// Serves until `shutdown`; then accepts no more, finishes what is in flight, and closes the ledger.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send) {
        let Self { api, ledger, listeners, limits } = self;
        let tasks = api.tasks.clone();
        let api = Arc::new(api);
        let watching = key::watch(api.signing.keys.values());
        let routers = Routers { all: router(Arc::clone(&api)), spare: spare_router(api) };
        let stop = CancellationToken::new();
        let mut serving = JoinSet::new();
        for listener in listeners {
            serving.spawn(listener.serve(routers.clone(), limits.clone(), stop.clone()));
        }
        shutdown.await;
        stop.cancel();
        drop((routers, watching));
        while serving.join_next().await.is_some() {}
        // Signings whose clients have gone away.
        tasks.close();
        tasks.wait().await;
        // The last handle on the ledger went with the last task.
        if tokio::task::spawn_blocking(|| ledger.wait()).await.is_err() {
            tracing::error!("waiting for the ledger failed");
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
