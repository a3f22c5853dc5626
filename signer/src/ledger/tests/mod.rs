use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use alloy_primitives::{B256, U256};

use super::*;
use crate::policy::{Allowed, Asset, Spend, Window};

mod approvals;
mod audit;
mod files;
mod nonces;
mod older;
mod place;
#[path = "../../../../tests/support/postgres.rs"]
#[expect(dead_code, reason = "the end-to-end tests' too")]
pub(crate) mod postgres;
mod requests;
mod sends;
mod spending;
mod statements;

use place::{Kind, Place, on_both};

const HOUR: u64 = 3600;
/// Some moment.
const NOW: u64 = 1_800_000_000;
const HOT: Address = Address::repeat_byte(0x11);
const COLD: Address = Address::repeat_byte(0x22);

struct Open {
    ledger: Ledger,
    running: Running,
    callers: BTreeSet<String>,
}

impl Open {
    fn at(path: &Path) -> Self {
        Self::with(path, &[])
    }

    fn with(path: &Path, keys: &[(&str, Address)]) -> Self {
        let keys = keys.iter().map(|(name, address)| ((*name).to_owned(), *address)).collect();
        let Opened { ledger, running, callers, .. } = Ledger::open(path, &keys).unwrap();
        Self { ledger, running, callers }
    }

    fn close(self) {
        drop(self.ledger);
        self.running.wait();
    }
}

fn opened(path: &Path) -> Result<Opened, OpenError> {
    Ledger::open(path, &BTreeMap::new())
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// A nonce that no other request has.
fn unused() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1_000_000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn request(idempotency_key: &str, value: u64) -> Request {
    Request {
        id: RequestId {
            caller: "payments".into(),
            key: "hot".into(),
            address: HOT,
            idempotency_key: idempotency_key.into(),
        },
        digest: [1; 32],
        chain_id: 137,
        nonce: Nonce::Given(unused()),
        replacements: None,
        finishing: false,
        value: U256::from(value),
        body: "{}".into(),
        send: false,
        policy: "payouts".into(),
        allowed: spending(U256::from(value), Some(10)),
        now: at(NOW),
    }
}

/// So much of the chain's own currency, of so much in 24 hours.
fn spending(amount: U256, limit: Option<u64>) -> Allowed {
    let period = Duration::from_secs(24 * HOUR);
    let window = |max| Window { rule: "daily_value", period, max: U256::from(max) };
    let windows = limit.into_iter().map(window).collect();
    Allowed { spends: vec![Spend { asset: Asset::Native, amount, windows }], approval: None }
}

/// Where a request is, that was reserved before.
fn pending(begun: Result<Begun, LedgerError>) -> Reservation {
    match begun {
        Ok(Begun::Pending(reserved)) => reserved.reservation,
        other => panic!("{other:?}"),
    }
}

/// What a request is answered that was signed before.
fn replayed(begun: Result<Begun, LedgerError>) -> Signed {
    match begun {
        Ok(Begun::Signed { signed, .. }) => signed,
        other => panic!("{other:?}"),
    }
}

fn signed(byte: u8) -> Signed {
    Signed { raw: vec![byte; 100], hash: B256::repeat_byte(byte), signature: [byte; 65] }
}

async fn fresh(ledger: &Ledger, request: Request) -> Reservation {
    match ledger.begin(request).await.unwrap() {
        Begun::Fresh(reserved) => reserved.reservation,
        other => panic!("{other:?}"),
    }
}

fn as_key(key: &str, address: Address, request: Request) -> Request {
    Request { id: RequestId { key: key.into(), address, ..request.id }, ..request }
}
