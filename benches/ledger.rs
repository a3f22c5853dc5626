//! What it costs to write down a payment: reserved before it is signed, stored before it is answered, both durably.
//!
//! One at a time pays for two flushes of the disk alone. Of many at once, those that arrive while the disk is flushed
//! share the next flush. The ledger is on the disk that the build is on.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use alloy_primitives::{Address, B256, U256};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use keygate_signer::ledger::{Begun, Ledger, Nonce, Opened, Request, RequestId, Signed};
use keygate_signer::policy::{Allowed, Asset, Spend, Window};
use tokio::task::JoinSet;

criterion_main!(benches);
criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    targets = reserve_and_store
}

/// A round is one payment for each of those that ask at once, and ends with the last; the rate is of payments.
fn reserve_and_store(c: &mut Criterion) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let mut group = c.benchmark_group("ledger, reserve and store");
    for at_once in [1, 16, 256] {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let Opened { ledger, running, .. } =
            Ledger::open(&dir.path().join("ledger.db"), &BTreeMap::new()).expect("a new ledger");
        let mut payments = 0..;
        group.throughput(Throughput::Elements(at_once));
        group.bench_function(BenchmarkId::new("at once", at_once), |b| {
            b.iter_custom(|rounds| {
                let start = Instant::now();
                for _ in 0..rounds {
                    runtime.block_on(async {
                        let mut round = JoinSet::new();
                        for nonce in payments.by_ref().take(at_once as usize) {
                            round.spawn(payment(ledger.clone(), nonce));
                        }
                        while let Some(done) = round.join_next().await {
                            done.expect("it is stored");
                        }
                    });
                }
                start.elapsed()
            });
        });
        drop(ledger);
        running.wait();
    }
    group.finish();
}

async fn payment(ledger: Ledger, nonce: u64) {
    let id = RequestId {
        caller: "payments".into(),
        key: "hot-wallet".into(),
        address: Address::repeat_byte(7),
        idempotency_key: format!("payout-{nonce}"),
    };
    let day = Window { rule: "daily_value", period: Duration::from_secs(24 * 60 * 60), max: U256::MAX };
    let value = U256::from(1_000_000_000_000_u64);
    let spend = Spend { asset: Asset::Native, amount: value, windows: vec![day] };
    let request = Request {
        id: id.clone(),
        digest: U256::from(nonce).to_be_bytes(),
        chain_id: 137,
        nonce: Nonce::Given(nonce),
        replacements: None,
        finishing: false,
        body: String::new(),
        send: false,
        value,
        policy: "payouts".into(),
        allowed: Allowed { spends: vec![spend], approval: None },
        now: SystemTime::now(),
    };
    // As the signer does: what was signed before is answered.
    assert_eq!(ledger.lookup(id).await.expect("a ledger"), None);
    let Begun::Fresh(reserved) = ledger.begin(request).await.expect("a ledger") else {
        panic!("it is a new one");
    };
    let signed = Signed { raw: vec![2; 116], hash: B256::from(U256::from(nonce)), signature: [1; 65] };
    ledger.store(reserved.reservation, signed, SystemTime::now()).await.expect("a ledger");
}
