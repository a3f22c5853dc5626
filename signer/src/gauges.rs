//! What is looked at when Prometheus asks: how much of each window is spent, nonces that others wait behind, and
//! what nodes have failed at.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};

use alloy_primitives::U256;
use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry};
use tokio::sync::Mutex;

use crate::api::callers::Callers;
use crate::ledger::LedgerError;
use crate::signing::Signing;

/// Who asks more often sees the same.
const FRESH: Duration = Duration::from_secs(5);

/// Label values come from the file.
#[derive(Debug)]
pub(crate) struct Gauges {
    spent: GaugeVec,
    limit: GaugeVec,
    gaps: IntGaugeVec,
    unsigned: IntGaugeVec,
    unsent: IntGaugeVec,
    node_errors: IntCounterVec,
    looked: Mutex<Option<Instant>>,
}

impl Gauges {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let options = |name: &str, help: &str| Opts::new(name, help).namespace("keygate_signer");
        let window = ["policy", "key", "chain", "asset", "seconds"];
        let gauge = |name, help| GaugeVec::new(options(name, help), &window);
        let nonces = |name, help| IntGaugeVec::new(options(name, help), &["key", "chain"]);
        let gauges = Self {
            spent: gauge("window_spent", "What was spent in a policy's window, in the asset's smallest unit.")?,
            limit: gauge("window_limit", "What may be spent in a policy's window, in the asset's smallest unit.")?,
            gaps: nonces("nonce_gaps", "Nonces that nobody has, and that higher ones wait behind.")?,
            unsigned: nonces("nonces_unsigned", "Nonces that are reserved, and not signed.")?,
            unsent: nonces(
                "nonces_unsent",
                "Nonces of what is signed, not to be sent from here, and not in the pool.",
            )?,
            node_errors: IntCounterVec::new(
                options("node_errors_total", "Answers that a chain's nodes owe, by chain."),
                &["chain"],
            )?,
            looked: Mutex::new(None),
        };
        let Self { spent, limit, gaps, unsigned, unsent, node_errors, .. } = &gauges;
        registry.register(Box::new(spent.clone()))?;
        registry.register(Box::new(limit.clone()))?;
        registry.register(Box::new(gaps.clone()))?;
        registry.register(Box::new(unsigned.clone()))?;
        registry.register(Box::new(unsent.clone()))?;
        registry.register(Box::new(node_errors.clone()))?;
        Ok(gauges)
    }

    /// Looks, unless it has just looked.
    pub(crate) async fn look(&self, signing: &Signing, callers: &Callers) -> Result<(), LedgerError> {
        let mut looked = self.looked.lock().await;
        if looked.is_some_and(|looked| looked.elapsed() < FRESH) {
            return Ok(());
        }
        for chain in signing.post.chains().all() {
            if let Some(rpc) = &chain.rpc {
                self.node_errors.with_label_values(&[&chain.name]).inc_by(rpc.take_failures());
            }
        }
        self.windows(signing, callers).await?;
        self.nonces(signing).await?;
        *looked = Some(Instant::now());
        Ok(())
    }

    async fn windows(&self, signing: &Signing, callers: &Callers) -> Result<(), LedgerError> {
        let now = SystemTime::now();
        let all = signing.post.chains();
        // What the file does not have any more is gone.
        self.spent.reset();
        self.limit.reset();
        let mut seen = BTreeSet::new();
        for caller in callers.by_name().values() {
            let Some(policy) = &caller.policy else { continue };
            for key in signing.keys.values().filter(|key| caller.may_use(key.name())) {
                if !seen.insert((&policy.name, key.name())) {
                    continue;
                }
                let chains = policy.chains.iter().filter_map(|id| all.by_id(*id));
                for chain in chains {
                    for (name, asset, window) in policy.all_windows() {
                        let account = (policy.name.clone(), key.address(), chain.id);
                        let spent = signing.ledger.spent(account, asset, window.period, now).await?;
                        let seconds = window.period.as_secs().to_string();
                        let labels = [&policy.name, key.name(), &chain.name, name, &seconds];
                        self.spent.with_label_values(&labels).set(float(spent));
                        self.limit.with_label_values(&labels).set(float(window.max));
                    }
                }
            }
        }
        Ok(())
    }

    async fn nonces(&self, signing: &Signing) -> Result<(), LedgerError> {
        let chains = signing.post.chains();
        for key in signing.keys.values() {
            for chain in chains.all().filter(|chain| chain.rpc.is_some()) {
                // What the chain was last known to count is no gap.
                let counted = signing.post.counted(chain.id, key.address());
                let from = counted.unwrap_or(0);
                let nonces = signing.ledger.nonces(key.address(), chain.id, from).await?;
                let labels = [key.name(), &chain.name];
                let count = |nonces: &[u64]| i64::try_from(nonces.len()).unwrap_or(i64::MAX);
                self.gaps.with_label_values(&labels).set(count(&nonces.gaps));
                self.unsigned.with_label_values(&labels).set(count(&nonces.unsigned));
                // Until the chain was asked, it may have them all.
                let unsent = counted.map_or(0, |_| count(&nonces.unsent));
                self.unsent.with_label_values(&labels).set(unsent);
            }
        }
        Ok(())
    }
}

/// As near as Prometheus' numbers come.
fn float(amount: U256) -> f64 {
    f64::from(amount)
}
