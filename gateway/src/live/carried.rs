//! What outlives snapshots, and how the next one is built.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use keygate_config::{Config, Loaded, RateLimit, Server};
use rustls::crypto::CryptoProvider;
use rustls::server::ProducesTickets;

use super::{Backend, ListenerPolicy, Route, Snapshot};
use crate::listen::tls::{self, Certificates};
use crate::policy::headers::HeaderPolicy;
use crate::policy::limit::Limit;
use crate::policy::route::Router;
use crate::policy::split::Split;
use crate::telemetry::metrics::Metrics;
use crate::upstream::tls::Kept;
use crate::upstream::{ServerState, Upstream, UpstreamState};
use crate::weights::Weights;

/// What outlives snapshots, by identity.
pub(crate) struct Carried {
    provider: Arc<CryptoProvider>,
    /// The metrics.
    pub(crate) metrics: Arc<Metrics>,
    servers: HashMap<Server, Arc<ServerState>>,
    upstreams: HashMap<String, Arc<UpstreamState>>,
    upstream_tls: Kept,
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
            upstream_tls: Kept::default(),
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
        self.upstream_tls.retain(|name| config.upstreams.get(name).is_some_and(|upstream| upstream.tls.is_some()));
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
        loaded: Arc<Loaded>,
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
        let upstreams = self.upstreams(config)?;
        let limits = self.limits(config);
        let mut routes = Vec::with_capacity(config.routes.len());
        let before: HashMap<&str, &Arc<Route>> =
            previous.iter().flat_map(|p| &p.routes).map(|route| (route.name.as_str(), route)).collect();
        for route in &config.routes {
            let before = before.get(route.name.as_str()).map(|before| &***before);
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
            // Of many routes, a change is to few: what need not be made again is not.
            let (split, version) = match before.filter(|before| same_shares(&before.backends, &backends)) {
                Some(before) => (before.split.clone(), before.version.clone()),
                None => {
                    let in_force: Vec<u32> = backends.iter().map(|backend| backend.weight).collect();
                    let split =
                        Split::new(&in_force).map_err(|error| format!("route {}: {error}", route.name.value))?;
                    (Arc::new(split), self.version(generation))
                }
            };
            routes.push(Arc::new(Route {
                name: route.name.value.clone(),
                hosts: route.hosts.iter().map(|host| host.value.clone()).collect(),
                path: route.path.value.clone(),
                split,
                backends,
                limits: route.rate_limits.iter().map(|name| limits[name.as_str()].clone()).collect(),
                headers: route.security_headers.as_ref().map(|name| headers[name.as_str()].clone()),
                body_size: route.body_size.map(|size| size.0),
                turn: self.turns.entry(route.name.value.clone()).or_default().clone(),
                version,
                unsent: self.metrics.series(&route.name, "-"),
            }));
        }
        let router = match previous.filter(|previous| same_places(&previous.routes, &routes)) {
            Some(previous) => previous.router.clone(),
            None => {
                let table = routes.iter().enumerate().map(|(n, route)| (route.hosts.iter().collect(), &route.path, n));
                Arc::new(Router::new(table).map_err(|error| error.to_string())?)
            }
        };
        let (listeners, upstreams) = (Arc::new(listeners), Arc::new(upstreams));
        Ok(Snapshot { generation, loaded, listeners, upstreams, routes, router })
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

    fn upstreams(&mut self, config: &Config) -> Result<BTreeMap<String, Arc<Upstream>>, String> {
        let mut upstreams = BTreeMap::new();
        for (name, upstream) in &config.upstreams {
            let server = |server: &Server| {
                let known = self.servers.entry(server.clone());
                known.or_insert_with(|| Arc::new(ServerState::new(server.clone()))).clone()
            };
            let named = || upstream.servers.iter().map(|at| &at.value);
            let servers = named().map(server).collect();
            let tls = match &upstream.tls {
                Some(tls) => self.upstream_tls.build(name, tls, upstream.protocol, named(), &self.provider)?,
                None => Vec::new(),
            };
            let made = Upstream {
                name: name.clone(),
                timeouts: upstream.timeouts,
                max_in_flight: upstream.max_in_flight,
                servers,
                tls,
                protocol: upstream.protocol,
                state: self.upstreams.entry(name.clone()).or_default().clone(),
            };
            upstreams.insert(name.clone(), Arc::new(made));
        }
        Ok(upstreams)
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

/// Whether these are the same upstreams with the same weights, in the same order.
fn same_shares(before: &[Backend], now: &[Backend]) -> bool {
    let of = |backend: &Backend| backend.weight;
    before.iter().map(of).eq(now.iter().map(of))
        && before.iter().zip(now).all(|(before, now)| before.upstream.name == now.upstream.name)
}

/// Whether each place in the list is for the same hosts and path.
fn same_places(before: &[Arc<Route>], now: &[Arc<Route>]) -> bool {
    before.len() == now.len()
        && before.iter().zip(now).all(|(before, now)| before.hosts == now.hosts && before.path == now.path)
}
