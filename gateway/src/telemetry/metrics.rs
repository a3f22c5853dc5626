//! Prometheus metrics. What every request counts is in `requests`, apart; what is here is counted when something goes
//! wrong, or once a connection.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus::{Encoder, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use super::Shared;
use super::in_force::InForce;
use super::requests::Requests;
pub use super::requests::Series;
use crate::live::{Route, Snapshot};
use crate::policy::decide::{Counted, Decision, Then};

/// Every metric of a gateway.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    requests: Arc<Requests>,
    /// Requests refused at the front door.
    pub refused: IntCounterVec,
    /// Requests over a rate limit.
    pub rate_limited: IntCounterVec,
    /// What went wrong with upstreams.
    pub upstream_errors: IntCounterVec,
    /// TLS handshakes that succeeded.
    pub handshakes: IntCounterVec,
    /// TLS handshakes that failed.
    pub handshake_failures: IntCounterVec,
    /// Connections that could not be accepted.
    pub accept_errors: IntCounter,
    /// Reloads.
    pub reloads: IntCounterVec,
    connections: IntGaugeVec,
    access_log_lost: IntGauge,
}

/// A connection that is counted as open until this is dropped.
#[derive(Debug)]
pub struct OpenConnection(IntGauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, labels: &[&str]| {
            register(&registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            register(&registry, IntGaugeVec::new(Opts::new(name, help), labels))
        };
        let requests = Arc::new(Requests::default());
        registry.register(Box::new(Shared(requests.clone()))).expect("each metric is registered once");
        Self {
            requests,
            refused: counters("keygate_refused_total", "Requests refused at the front door.", &["reason"]),
            rate_limited: counters("keygate_rate_limited_total", "Requests over a rate limit.", &["route", "limit"]),
            upstream_errors: counters("keygate_upstream_errors_total", "Failed attempts.", &["upstream", "kind"]),
            handshakes: counters("keygate_tls_handshakes_total", "TLS handshakes.", &["version", "kind"]),
            handshake_failures: counters("keygate_tls_handshake_failures_total", "Failed handshakes.", &["reason"]),
            accept_errors: register(
                &registry,
                IntCounter::new("keygate_accept_errors_total", "Connections that could not be accepted."),
            ),
            reloads: counters("keygate_reloads_total", "Reloads of the file, by what came of them.", &["result"]),
            connections: gauges("keygate_connections", "Open client connections.", &["listener"]),
            access_log_lost: register(
                &registry,
                IntGauge::new("keygate_access_log_lost_lines", "Access log lines dropped since the start."),
            ),
            registry,
        }
    }
}

fn register<T: prometheus::core::Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<T>) -> T {
    let collector = made.expect("names and labels are constants, and valid");
    registry.register(Box::new(collector.clone())).expect("each metric is registered once");
    collector
}

impl Metrics {
    /// Counts a connection as open.
    #[must_use]
    pub fn connection(&self, listener: &str) -> OpenConnection {
        let gauge = self.connections.with_label_values(&[listener]);
        gauge.inc();
        OpenConnection(gauge)
    }

    /// Tells what is in force with every scrape from now on. To be called once.
    pub(crate) fn follow(&self, snapshot: Arc<ArcSwap<Snapshot>>) {
        self.registry.register(Box::new(InForce::new(snapshot))).expect("a gateway has one snapshot in force");
    }

    /// What requests of this route and upstream are counted under; "-" stands for none.
    #[must_use]
    pub fn series(&self, route: &str, upstream: &str) -> Series {
        self.requests.series(route, upstream)
    }

    /// Counts a request that was answered with this status. `upstream`: the name of one of the route's.
    pub fn answered(&self, route: Option<&Route>, upstream: Option<&str>, method: &str, status: u16, took: Duration) {
        let series = route.map_or(Series::default(), |route| route.series(upstream));
        self.requests.answered(series, method, status, took);
    }

    /// Counts what a decision refused.
    pub(crate) fn decided(&self, decision: &Decision) {
        let Then::Answer(answer) = &decision.then else { return };
        match (answer.counted, &decision.route, &decision.limit, &decision.upstream) {
            (Counted::Refused(reason), ..) => self.refused.with_label_values(&[reason]).inc(),
            (Counted::Limited, Some(route), Some((limit, _)), _) => {
                self.rate_limited.with_label_values(&[&route.name, &limit.name]).inc();
            }
            (Counted::Overload, _, _, Some(upstream)) => {
                self.upstream_errors.with_label_values(&[&upstream.name, "overload"]).inc();
            }
            _ => {}
        }
    }

    /// Everything, in Prometheus' text format 0.0.4.
    #[must_use]
    pub fn render(&self, access_log_lost: u64) -> Vec<u8> {
        self.access_log_lost.set(i64::try_from(access_log_lost).unwrap_or(i64::MAX));
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text).expect("writing to memory does not fail");
        text
    }
}
