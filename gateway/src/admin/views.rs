//! What the admin API shows.

use std::time::SystemTime;

use serde::Serialize;

use crate::control::{Control, LastReload};
use crate::live::{Route, Snapshot};

/// `GET /v1/status`.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    version: &'static str,
    pid: u32,
    started: String,
    draining: bool,
    generation: u64,
    config: String,
    last_reload: Option<LastReload>,
    listeners: Vec<ListenerView>,
    routes: Vec<RouteView>,
    /// Where live weights and the file's differ.
    differences: Vec<Difference>,
    access_log_lost_lines: u64,
}

#[derive(Debug, Serialize)]
struct ListenerView {
    name: String,
    address: String,
    tls: bool,
    redirect: bool,
}

#[derive(Debug, Serialize)]
struct Difference {
    route: String,
    upstream: String,
    file: u32,
    live: u32,
}

/// `GET /v1/routes/{name}`.
#[derive(Debug, Serialize)]
pub(super) struct RouteView {
    name: String,
    hosts: Vec<String>,
    path: String,
    rate_limits: Vec<String>,
    /// The ETag's content.
    pub(super) version: String,
    backends: Vec<BackendView>,
}

#[derive(Debug, Serialize)]
struct BackendView {
    upstream: String,
    weight: u32,
    file_weight: u32,
    in_flight: i64,
    servers: Vec<ServerView>,
}

#[derive(Debug, Serialize)]
struct ServerView {
    server: String,
    up: bool,
    resolved: bool,
}

/// `GET /v1/certificates`.
#[derive(Debug, Serialize)]
pub(super) struct CertificateView {
    listener: String,
    cert: String,
    names: Vec<String>,
    not_after: String,
    expires_in_days: i64,
    default: bool,
}

pub(super) async fn status(control: &Control, draining: bool) -> Status {
    let snapshot = control.live.snapshot();
    let listeners = control.addresses().await.into_iter().map(|(name, address)| {
        let policy = snapshot.listeners.get(&name);
        ListenerView {
            address: address.to_string(),
            tls: policy.is_some_and(|policy| policy.tls.is_some()),
            redirect: policy.is_some_and(|policy| policy.redirect),
            name,
        }
    });
    let backends = snapshot.routes.iter().flat_map(|route| route.backends.iter().map(move |backend| (route, backend)));
    let differences = backends.filter(|(_, backend)| backend.weight != backend.file_weight).map(|(route, backend)| {
        let (route, upstream) = (route.name.clone(), backend.upstream.name.clone());
        Difference { route, upstream, file: backend.file_weight, live: backend.weight }
    });
    Status {
        version: env!("CARGO_PKG_VERSION"),
        pid: std::process::id(),
        started: humantime::format_rfc3339_seconds(control.started).to_string(),
        draining,
        generation: snapshot.generation,
        config: control.path.display().to_string(),
        last_reload: control.last_reload(),
        listeners: listeners.collect(),
        routes: routes(&snapshot),
        differences: differences.collect(),
        access_log_lost_lines: control.live.access_log.load().lost(),
    }
}

pub(super) fn routes(snapshot: &Snapshot) -> Vec<RouteView> {
    snapshot.routes.iter().map(|route| self::route(route)).collect()
}

pub(super) fn route(route: &Route) -> RouteView {
    let servers = |upstream: &crate::upstream::Upstream| {
        let view = |server: &std::sync::Arc<crate::upstream::ServerState>| ServerView {
            server: server.server.as_str().to_owned(),
            up: server.is_up(),
            resolved: server.is_resolved(),
        };
        upstream.servers.iter().map(view).collect()
    };
    RouteView {
        name: route.name.clone(),
        hosts: route.hosts.iter().map(ToString::to_string).collect(),
        path: route.path.to_string(),
        rate_limits: route.limits.iter().map(|limit| limit.name.clone()).collect(),
        version: route.version.clone(),
        backends: route
            .backends
            .iter()
            .map(|backend| BackendView {
                upstream: backend.upstream.name.clone(),
                weight: backend.weight,
                file_weight: backend.file_weight,
                in_flight: backend.upstream.in_flight(),
                servers: servers(&backend.upstream),
            })
            .collect(),
    }
}

pub(super) fn certificates(snapshot: &Snapshot, now: SystemTime) -> Vec<CertificateView> {
    let mut views = Vec::new();
    for (listener, policy) in snapshot.listeners.iter() {
        for (n, (files, certificate)) in policy.certificates.iter().flat_map(|c| &c.all).enumerate() {
            let left = match certificate.not_after.duration_since(now) {
                Ok(left) => i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                Err(past) => -i64::try_from(past.duration().as_secs()).unwrap_or(i64::MAX),
            };
            views.push(CertificateView {
                listener: listener.clone(),
                cert: files.cert.display().to_string(),
                names: certificate.names.clone(),
                not_after: humantime::format_rfc3339_seconds(certificate.not_after).to_string(),
                expires_in_days: left.div_euclid(86_400),
                default: n == 0,
            });
        }
    }
    views.sort_by(|a, b| (&a.listener, !a.default, &a.cert).cmp(&(&b.listener, !b.default, &b.cert)));
    views
}
