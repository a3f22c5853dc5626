//! The live snapshot: everything a request is decided by, immutable, swapped whole.
//!
//! A request keeps the snapshot it began with. What must outlive a snapshot (rate limit state, servers known to be
//! down, counters, session tickets, TLS to servers) is kept in `Carried` by identity, and every snapshot holds it by reference.

mod carried;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arc_swap::ArcSwap;
use keygate_config::{HostPattern, ListenerLimits, ListenerTimeouts, Loaded, PathPattern};
use rustls::ServerConfig;

pub(crate) use self::carried::Carried;
use crate::http1::head::Limits;
use crate::listen::Connection;
use crate::listen::tls::Certificates;
use crate::policy::headers::HeaderPolicy;
use crate::policy::limit::Limit;
use crate::policy::route::Router;
use crate::policy::split::Split;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::{Metrics, Series};
use crate::upstream::Upstream;

/// What every worker and every request can see.
#[derive(Debug)]
pub struct Live {
    snapshot: Arc<ArcSwap<Snapshot>>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The access log.
    pub access_log: ArcSwap<AccessLog>,
}

impl Live {
    pub(crate) fn new(snapshot: Snapshot, metrics: Arc<Metrics>, access_log: AccessLog) -> Self {
        let snapshot = Arc::new(ArcSwap::from_pointee(snapshot));
        metrics.follow(snapshot.clone());
        Self { snapshot, metrics, access_log: ArcSwap::from_pointee(access_log) }
    }

    /// The snapshot in force.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Where the snapshot in force is found, for who looks often.
    pub(crate) fn shared_snapshot(&self) -> Arc<ArcSwap<Snapshot>> {
        self.snapshot.clone()
    }

    /// Puts a snapshot in force, for every request that begins from now on, on every worker. Answers the one before, which
    /// is not to be dropped here and now: see [`crate::aside`].
    pub(crate) fn swap(&self, snapshot: Snapshot) -> Arc<Snapshot> {
        self.snapshot.swap(Arc::new(snapshot))
    }
}

/// Everything a request is decided by.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Counts up with every change, from 1 at the start.
    pub generation: u64,
    /// The file it was made of.
    pub loaded: Arc<Loaded>,
    /// Listeners by name.
    pub listeners: Arc<HashMap<String, Arc<ListenerPolicy>>>,
    /// Upstreams by name.
    pub upstreams: Arc<BTreeMap<String, Arc<Upstream>>>,
    /// Routes, in the order of the file.
    pub routes: Vec<Arc<Route>>,
    router: Arc<Router>,
}

impl Snapshot {
    /// The route of a host (lower case, without port) and a canonical path.
    #[must_use]
    pub fn route(&self, host: &str, path: &str) -> Option<&Arc<Route>> {
        self.router.find(host, path).map(|n| &self.routes[n])
    }

    /// The policy of a connection's listener. When the listener is gone, its connections end under the one they began
    /// with.
    #[must_use]
    pub fn listener(&self, connection: &Connection) -> Arc<ListenerPolicy> {
        self.listeners.get(&*connection.listener).unwrap_or(&connection.policy).clone()
    }

    /// This snapshot with other weights for one route, in the order of its backends. `None` when there is no such route,
    /// or all weights are zero.
    #[must_use]
    pub fn with_weights(&self, name: &str, weights: &[u32], version: String) -> Option<Self> {
        let place = self.routes.iter().position(|route| route.name == name)?;
        let mut route = Route::clone(&self.routes[place]);
        for (backend, weight) in route.backends.iter_mut().zip(weights) {
            backend.weight = *weight;
        }
        route.split = Arc::new(Split::new(weights).ok()?);
        route.version = version;
        let mut next = self.clone();
        next.generation += 1;
        next.routes[place] = Arc::new(route);
        Some(next)
    }
}

/// A listener, as requests see it.
#[derive(Debug)]
pub struct ListenerPolicy {
    /// Whether every request is redirected to https.
    pub redirect: bool,
    /// Proxies whose forwarding headers are believed.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// Headers of answers that no route gives its own.
    pub headers: Arc<HeaderPolicy>,
    /// How long a client may take.
    pub timeouts: ListenerTimeouts,
    /// How much a client may send.
    pub limits: ListenerLimits,
    /// TLS, if it has any.
    pub tls: Option<Arc<ServerConfig>>,
    /// The certificates of that TLS.
    pub certificates: Option<Arc<Certificates>>,
}

impl ListenerPolicy {
    /// What a request's head may be.
    #[must_use]
    pub fn head_limits(&self) -> Limits {
        Limits {
            size: usize::try_from(self.limits.head_size.0).unwrap_or(usize::MAX),
            headers: usize::from(self.limits.header_count),
        }
    }
}

/// A route, as requests see it.
#[derive(Debug, Clone)]
pub struct Route {
    /// Its name.
    pub name: String,
    /// Its hosts; none: any.
    pub hosts: Vec<HostPattern>,
    /// Its path.
    pub path: PathPattern,
    /// Who answers.
    pub backends: Vec<Backend>,
    /// In which shares.
    pub split: Arc<Split>,
    /// Its limits.
    pub limits: Vec<Arc<Limit>>,
    /// Its headers, if it names some.
    pub headers: Option<Arc<HeaderPolicy>>,
    /// The largest request body, if it says.
    pub body_size: Option<u64>,
    /// Requests shared out so far, across snapshots.
    pub turn: Arc<AtomicU64>,
    /// Changes whenever its weights do: the API's ETag.
    pub version: String,
    /// What its requests are counted under that no upstream was chosen for.
    pub unsent: Series,
}

impl Route {
    /// What a request is counted under that this upstream was chosen for.
    pub(crate) fn series(&self, upstream: Option<&str>) -> Series {
        let chosen = upstream.and_then(|name| self.backends.iter().find(|backend| backend.upstream.name == name));
        chosen.map_or(self.unsent, |backend| backend.series)
    }
}

/// A share of a route.
#[derive(Debug, Clone)]
pub struct Backend {
    /// Who answers.
    pub upstream: Arc<Upstream>,
    /// The weight in force.
    pub weight: u32,
    /// The weight in the file.
    pub file_weight: u32,
    /// What its requests are counted under.
    pub series: Series,
}
