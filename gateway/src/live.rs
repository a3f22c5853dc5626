//! The live snapshot: everything a request is decided by, immutable, swapped whole.
//!
//! A request keeps the snapshot it began with. What must outlive a snapshot (rate limit state, servers known to be
//! down, counters, session tickets) is kept in `Carried` by identity, and every snapshot holds it by reference.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arc_swap::ArcSwap;
use keygate_config::{Config, HostPattern, ListenerLimits, ListenerTimeouts, Loaded, PathPattern, RateLimit, Server};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::ProducesTickets;

use crate::listen::Connection;
use crate::listen::tls::{self, Certificates};
use crate::policy::headers::HeaderPolicy;
use crate::policy::limit::Limit;
use crate::policy::route::Router;
use crate::policy::split::Split;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::{Metrics, Series};
use crate::upstream::{ServerState, Upstream, UpstreamState};
use crate::weights::Weights;

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

    /// Puts a snapshot in force, for every request that begins from now on, on every worker.
    pub(crate) fn swap(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
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

/// What outlives snapshots, by identity.
pub(crate) struct Carried {
    provider: Arc<CryptoProvider>,
    /// The metrics.
    pub(crate) metrics: Arc<Metrics>,
    servers: HashMap<Server, Arc<ServerState>>,
    upstreams: HashMap<String, Arc<UpstreamState>>,
    limits: HashMap<String, (RateLimit, Arc<Limit>)>,
    turns: HashMap<String, Arc<AtomicU64>>,
    tickets: HashMap<String, Arc<dyn ProducesTickets>>,
    /// Tells the versions of one process from those of the next.
    boot: String,
}

impl Carried {
    pub(crate) fn new(provider: Arc<CryptoProvider>) -> Self {
        let boot = uuid::Uuid::now_v7().simple().to_string()[20..].to_owned();
        let (servers, upstreams, limits) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self {
            provider,
            metrics: Arc::default(),
            servers,
            upstreams,
            limits,
            turns: HashMap::new(),
            tickets: HashMap::new(),
            boot,
        }
    }

    /// A version for weights that change with this generation.
    pub(crate) fn version(&self, generation: u64) -> String {
        format!("{}-{generation}", self.boot)
    }

    /// Forgets what the snapshot does not use.
    pub(crate) fn retain(&mut self, snapshot: &Snapshot) {
        let config = &snapshot.loaded.config;
        self.servers.retain(|_, state| Arc::strong_count(state) > 1);
        self.upstreams.retain(|name, _| config.upstreams.contains_key(name));
        self.limits.retain(|name, _| config.rate_limits.contains_key(name));
        self.tickets.retain(|name, _| config.listeners.contains_key(name));
        let routes: HashSet<&str> = snapshot.routes.iter().map(|route| route.name.as_str()).collect();
        self.turns.retain(|name, _| routes.contains(name.as_str()));
    }

    /// Builds a snapshot completely, without any effect on the one in force.
    ///
    /// # Errors
    /// What cannot be used, in one line: a certificate, mostly; the rest has been validated.
    pub(crate) fn build(
        &mut self,
        loaded: Loaded,
        weights: &Weights,
        previous: Option<&Snapshot>,
    ) -> Result<Snapshot, String> {
        let generation = previous.map_or(1, |previous| previous.generation + 1);
        let config = &loaded.config;
        let headers: HashMap<&str, Arc<HeaderPolicy>> = config
            .security_headers
            .iter()
            .map(|(name, headers)| (name.as_str(), Arc::new(HeaderPolicy::new(headers))))
            .collect();
        let listeners = self.listeners(config, &headers)?;
        let upstreams = self.upstreams(config);
        let limits = self.limits(config);
        let mut routes = Vec::with_capacity(config.routes.len());
        let before: HashMap<&str, &Arc<Route>> =
            previous.iter().flat_map(|p| &p.routes).map(|route| (route.name.as_str(), route)).collect();
        for route in &config.routes {
            let backends: Vec<Backend> = route
                .backends
                .iter()
                .map(|backend| Backend {
                    upstream: upstreams[&backend.upstream.value].clone(),
                    weight: weights.live(route, &backend.upstream).unwrap_or(backend.weight),
                    file_weight: backend.weight,
                    series: self.metrics.series(&route.name, &backend.upstream),
                })
                .collect();
            let in_force: Vec<u32> = backends.iter().map(|backend| backend.weight).collect();
            let same = |r: &&&Arc<Route>| {
                let of = |b: &[Backend]| b.iter().map(|b| (b.upstream.name.clone(), b.weight)).collect::<Vec<_>>();
                of(&r.backends) == of(&backends)
            };
            let kept = before.get(route.name.as_str()).filter(same);
            let version = kept.map_or_else(|| self.version(generation), |r| r.version.clone());
            routes.push(Arc::new(Route {
                name: route.name.value.clone(),
                hosts: route.hosts.iter().map(|host| host.value.clone()).collect(),
                path: route.path.value.clone(),
                split: Arc::new(Split::new(&in_force).map_err(|error| format!("route {}: {error}", route.name.value))?),
                backends,
                limits: route.rate_limits.iter().map(|name| limits[name.as_str()].clone()).collect(),
                headers: route.security_headers.as_ref().map(|name| headers[name.as_str()].clone()),
                body_size: route.body_size.map(|size| size.0),
                turn: self.turns.entry(route.name.value.clone()).or_default().clone(),
                version,
                unsent: self.metrics.series(&route.name, "-"),
            }));
        }
        let table = routes.iter().enumerate().map(|(n, route)| (route.hosts.iter().collect(), &route.path, n));
        let router = Arc::new(Router::new(table).map_err(|error| error.to_string())?);
        let (listeners, upstreams) = (Arc::new(listeners), Arc::new(upstreams));
        Ok(Snapshot { generation, loaded: Arc::new(loaded), listeners, upstreams, routes, router })
    }

    fn listeners(
        &mut self,
        config: &Config,
        headers: &HashMap<&str, Arc<HeaderPolicy>>,
    ) -> Result<HashMap<String, Arc<ListenerPolicy>>, String> {
        let mut listeners = HashMap::new();
        for (name, listener) in &config.listeners {
            let certificates = match &listener.tls {
                Some(tls) => Some(Arc::new(Certificates::load(tls, &self.provider)?)),
                None => None,
            };
            let tls = match (&listener.tls, &certificates) {
                (Some(tls), Some(certificates)) => {
                    let tickets = match self.tickets.get(name) {
                        Some(tickets) => tickets.clone(),
                        None => rustls::crypto::aws_lc_rs::Ticketer::new().map_err(|error| error.to_string())?,
                    };
                    self.tickets.insert(name.clone(), tickets.clone());
                    let made =
                        tls::server_config(tls.min_version, certificates.clone(), tickets, self.provider.clone());
                    Some(made.map_err(|error| error.to_string())?)
                }
                _ => None,
            };
            let headers = match &listener.security_headers {
                Some(name) => headers[name.as_str()].clone(),
                None => Arc::default(),
            };
            let policy = ListenerPolicy {
                redirect: listener.redirect.is_some(),
                trusted_proxies: listener.trusted_proxies.clone(),
                headers,
                timeouts: listener.timeouts,
                limits: listener.limits,
                tls,
                certificates,
            };
            listeners.insert(name.clone(), Arc::new(policy));
        }
        Ok(listeners)
    }

    fn upstreams(&mut self, config: &Config) -> BTreeMap<String, Arc<Upstream>> {
        let mut upstreams = BTreeMap::new();
        for (name, upstream) in &config.upstreams {
            let server = |server: &Server| {
                let known = self.servers.entry(server.clone());
                known.or_insert_with(|| Arc::new(ServerState::new(server.clone()))).clone()
            };
            let servers = upstream.servers.iter().map(|at| &at.value).map(server).collect();
            let made = Upstream {
                name: name.clone(),
                timeouts: upstream.timeouts,
                max_in_flight: upstream.max_in_flight,
                servers,
                state: self.upstreams.entry(name.clone()).or_default().clone(),
            };
            upstreams.insert(name.clone(), Arc::new(made));
        }
        upstreams
    }

    /// Limits that did not change keep what they remember.
    fn limits(&mut self, config: &Config) -> HashMap<String, Arc<Limit>> {
        let mut limits = HashMap::new();
        for (name, limit) in &config.rate_limits {
            let kept = self.limits.get(name).filter(|(before, _)| *before == limit.value).map(|(_, kept)| kept.clone());
            let made = kept.unwrap_or_else(|| Arc::new(Limit::new(name, limit, governor::clock::MonotonicClock)));
            self.limits.insert(name.clone(), (limit.value.clone(), made.clone()));
            limits.insert(name.clone(), made);
        }
        limits
    }
}
