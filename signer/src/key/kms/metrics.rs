//! What Prometheus sees of a key in KMS.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// Cheap to clone. Every series has the key's name.
#[derive(Debug, Clone)]
pub(super) struct Metrics {
    seconds: HistogramVec,
    errors: IntCounterVec,
    breaker: IntGaugeVec,
    queue: IntGauge,
    queue_seconds: Histogram,
}

impl Metrics {
    pub(super) fn new(key: &str) -> Result<Self, prometheus::Error> {
        let options = |name: &str, help: &str| {
            Opts::new(name, help).namespace("keygate_signer").subsystem("kms").const_label("key", key)
        };
        let histogram =
            |name: &str, help: &str| HistogramOpts::from(options(name, help)).buckets(crate::metrics::BUCKETS.to_vec());
        Ok(Self {
            seconds: HistogramVec::new(
                histogram("seconds", "Time that KMS took to answer one call of Sign or GetPublicKey."),
                &["region"],
            )?,
            errors: IntCounterVec::new(
                options("errors_total", "Calls of KMS that failed, by error; throttling is one."),
                &["region", "error"],
            )?,
            breaker: IntGaugeVec::new(
                options("breaker", "Whether the region is asked: 0 it is, 1 one call probes, 2 it is not."),
                &["region"],
            )?,
            queue: IntGauge::with_opts(options("queue", "Requests that wait for their turn to ask KMS."))?,
            queue_seconds: Histogram::with_opts(histogram("queue_seconds", "Time that requests waited for a turn."))?,
        })
    }

    pub(super) fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        let Self { seconds, errors, breaker, queue, queue_seconds } = self;
        registry.register(Box::new(seconds.clone()))?;
        registry.register(Box::new(errors.clone()))?;
        registry.register(Box::new(breaker.clone()))?;
        registry.register(Box::new(queue.clone()))?;
        registry.register(Box::new(queue_seconds.clone()))
    }

    pub(super) fn answered(&self, region: &str, took: Duration) {
        self.seconds.with_label_values(&[region]).observe(took.as_secs_f64());
    }

    pub(super) fn failed(&self, region: &str, error: &str) {
        self.errors.with_label_values(&[region, error]).inc();
    }

    pub(super) fn breaker(&self, region: &str, level: i64) {
        self.breaker.with_label_values(&[region]).set(level);
    }

    pub(super) fn queue(&self, length: usize) {
        self.queue.set(i64::try_from(length).unwrap_or(i64::MAX));
    }

    pub(super) fn queued(&self, waited: Duration) {
        self.queue_seconds.observe(waited.as_secs_f64());
    }
}
