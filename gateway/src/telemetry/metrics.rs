//! Prometheus metrics.

use std::time::Duration;

use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::policy::decide::{Counted, Decision, Then};

/// Every metric of a gateway.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    /// Requests answered.
    pub requests: IntCounterVec,
    /// How long they took, in seconds.
    pub duration: HistogramVec,
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
    /// Live weights.
    pub weights: IntGaugeVec,
    /// When certificates expire.
    pub certificate_expiry: IntGaugeVec,
    /// Which snapshot is live.
    pub generation: IntGauge,
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
        let duration = HistogramOpts::new("http_request_duration_seconds", "From the head to the answer's last byte.")
            .buckets(vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0]);
        Self {
            requests: counters("http_requests_total", "Requests answered.", &["route", "upstream", "method", "status"]),
            duration: register(&registry, HistogramVec::new(duration, &["route", "upstream"])),
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
            weights: gauges("keygate_route_weight", "Live weights.", &["route", "upstream"]),
            certificate_expiry: gauges(
                "keygate_certificate_expiry_timestamp_seconds",
                "When a certificate expires, in Unix time.",
                &["listener", "cert"],
            ),
            generation: register(&registry, IntGauge::new("keygate_generation", "The live snapshot's number.")),
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

    /// Counts a request that was answered with this status.
    pub fn answered(&self, route: &str, upstream: &str, method: &str, status: u16, duration: Duration) {
        self.requests.with_label_values(&[route, upstream, method_label(method), status_label(status)]).inc();
        self.duration.with_label_values(&[route, upstream]).observe(duration.as_secs_f64());
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

/// A method as a label: one of the registered ones, or "other", so that clients cannot make labels.
#[must_use]
pub fn method_label(method: &str) -> &'static str {
    const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"];
    KNOWN.into_iter().find(|known| *known == method).unwrap_or("other")
}

fn status_label(status: u16) -> &'static str {
    static LABELS: std::sync::LazyLock<Vec<String>> =
        std::sync::LazyLock::new(|| (0..1000).map(|status| status.to_string()).collect());
    LABELS.get(usize::from(status)).map_or("0", String::as_str)
}
