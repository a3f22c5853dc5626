//! What is in force, told when it is asked for: gauges that were set with every change would cost a reload of many
//! routes more than the snapshot itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use arc_swap::ArcSwap;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Gauge, Metric, MetricFamily, MetricType};

use super::{describe, family, labelled};
use crate::live::Snapshot;

const GENERATION: (&str, &str) = ("keygate_generation", "The live snapshot's number.");
const WEIGHT: (&str, &str) = ("keygate_route_weight", "Live weights.");
const EXPIRY: (&str, &str) =
    ("keygate_certificate_expiry_timestamp_seconds", "When a certificate expires, in Unix time.");

/// The gauges of the snapshot in force.
pub(crate) struct InForce {
    snapshot: Arc<ArcSwap<Snapshot>>,
    descriptions: [Desc; 3],
}

impl InForce {
    pub(crate) fn new(snapshot: Arc<ArcSwap<Snapshot>>) -> Self {
        let descriptions = [
            describe(GENERATION, &[]),
            describe(WEIGHT, &["route", "upstream"]),
            describe(EXPIRY, &["listener", "cert"]),
        ];
        Self { snapshot, descriptions }
    }
}

impl Collector for InForce {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let snapshot = self.snapshot.load_full();
        let generation = vec![gauge(Metric::default(), snapshot.generation as f64)];
        let weights = snapshot.routes.iter().flat_map(|route| {
            route.backends.iter().map(|backend| {
                let labels = [("route", route.name.as_str()), ("upstream", &backend.upstream.name)];
                gauge(labelled(labels), f64::from(backend.weight))
            })
        });
        // Each file once, however often a listener has it.
        let mut expiries = BTreeMap::new();
        for (name, listener) in snapshot.listeners.iter() {
            for (files, certificate) in listener.certificates.iter().flat_map(|certificates| &certificates.all) {
                expiries.insert((name, files.cert.to_string_lossy()), certificate.not_after);
            }
        }
        let expiry = expiries.iter().map(|((listener, cert), not_after)| {
            let seconds = not_after.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            gauge(labelled([("cert", cert), ("listener", listener)]), seconds as f64)
        });
        vec![
            family(GENERATION, MetricType::GAUGE, generation),
            family(WEIGHT, MetricType::GAUGE, weights.collect()),
            family(EXPIRY, MetricType::GAUGE, expiry.collect()),
        ]
    }
}

fn gauge(mut metric: Metric, value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    metric.set_gauge(gauge);
    metric
}
