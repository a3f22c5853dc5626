//! What Prometheus sees.

use std::collections::BTreeMap;
use std::time::Duration;

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder,
};

/// Seconds: a ledger's sync takes a millisecond or so, KMS tens, a deadline ten thousand.
pub(crate) const BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The signer's metrics. Label values come from the file and from this code, never from a request.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    signatures: IntCounterVec,
    verdicts: IntCounterVec,
    key_seconds: HistogramVec,
    key_errors: IntCounterVec,
    ledger_seconds: HistogramVec,
    under_way: IntGaugeVec,
    /// By `outcome`: `ok`, or `error`.
    pub(crate) reloads: IntCounterVec,
}

impl Metrics {
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            IntCounterVec::new(Opts::new(name, help).namespace("keygate_signer"), labels)
        };
        let histogram = |name: &str, help: &str, labels: &[&str]| {
            let options = HistogramOpts::new(name, help).namespace("keygate_signer").buckets(BUCKETS.to_vec());
            HistogramVec::new(options, labels)
        };
        let metrics = Self {
            registry: Registry::new(),
            requests: counter("requests_total", "Requests for a signature, by how they ended.", &["outcome"])?,
            signatures: counter("signatures_total", "Signatures that were answered, by what they are of.", &["what"])?,
            verdicts: counter("verdicts_total", "What the policy said: allowed, or the rule that denied.", &["rule"])?,
            key_seconds: histogram("key_seconds", "Time that one signature took, with all retries.", &["key", "kind"])?,
            key_errors: counter(
                "key_errors_total",
                "Signatures that a key did not make, by error.",
                &["key", "error"],
            )?,
            under_way: IntGaugeVec::new(
                Opts::new("under_way", "Transactions on their way to a chain, by how far they have come.")
                    .namespace("keygate_signer"),
                &["chain", "state"],
            )?,
            ledger_seconds: histogram("ledger_seconds", "Time that the ledger took to answer.", &["operation"])?,
            reloads: counter("reloads_total", "Reloads of the file, by what came of them.", &["outcome"])?,
        };
        let Self {
            registry,
            requests,
            signatures,
            verdicts,
            key_seconds,
            key_errors,
            ledger_seconds,
            under_way,
            reloads,
        } = &metrics;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(signatures.clone()))?;
        registry.register(Box::new(verdicts.clone()))?;
        registry.register(Box::new(key_seconds.clone()))?;
        registry.register(Box::new(key_errors.clone()))?;
        registry.register(Box::new(ledger_seconds.clone()))?;
        registry.register(Box::new(under_way.clone()))?;
        registry.register(Box::new(reloads.clone()))?;
        // There from the start, so that the first error is an increase.
        for outcome in ["ok", "error"] {
            reloads.with_label_values(&[outcome]);
        }
        Ok(metrics)
    }

    /// For what others count.
    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(crate) fn request(&self, outcome: &str) {
        self.requests.with_label_values(&[outcome]).inc();
    }

    pub(crate) fn signature(&self, what: &str) {
        self.signatures.with_label_values(&[what]).inc();
    }

    pub(crate) fn verdict(&self, rule: &str) {
        self.verdicts.with_label_values(&[rule]).inc();
    }

    pub(crate) fn key_signed(&self, key: &str, kind: &str, took: Duration) {
        self.key_seconds.with_label_values(&[key, kind]).observe(took.as_secs_f64());
    }

    pub(crate) fn key_failed(&self, key: &str, error: &str) {
        self.key_errors.with_label_values(&[key, error]).inc();
    }

    /// What is on its way to a chain now, by how far it has come.
    pub(crate) fn under_way<'a>(&self, chain: &str, states: impl Iterator<Item = &'a str>) {
        let mut counts = BTreeMap::from([("queued", 0), ("sent", 0), ("mined", 0)]);
        for state in states {
            *counts.entry(state).or_default() += 1;
        }
        for (state, count) in counts {
            self.under_way.with_label_values(&[chain, state]).set(count);
        }
    }

    pub(crate) fn ledger(&self, operation: &str) -> Histogram {
        self.ledger_seconds.with_label_values(&[operation])
    }

    /// The text that Prometheus reads.
    pub(crate) fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}
