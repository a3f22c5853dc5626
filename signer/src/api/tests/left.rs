//! What a signer that died has reserved on a ledger that others share.

use std::time::SystemTime;

use alloy_primitives::U256;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::ledger::tests::postgres::PostgresServer;
use crate::ledger::{Begun, Nonce, Record, Request as Reservation, RequestId};
use crate::policy::Allowed;
use crate::start::left;
use crate::transaction::Transaction;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_signs_what_was_reserved_two_minutes_ago_with_its_nonce() {
    let (kms, database) = (FakeKms::start().await, PostgresServer::shared().database());
    let signer = async || {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path(), LOCAL);
        config.ledger.value = keygate_config::Ledger::Postgres(keygate_config::Postgres {
            url: database.url(),
            password_file: None,
            ca: None,
        });
        let key = Arc::new(kms.key(Duration::from_secs(20)).await.unwrap());
        (Signer::with_keys(&config, [("hot".to_owned(), key)].into()).unwrap(), dir)
    };
    let ((dead, _dead), (other, _other)) = (signer().await, signer().await);
    let now = SystemTime::now();
    let address = dead.api.signing.keys["hot"].address();
    let id =
        |name: &str| RequestId { caller: "payments".into(), key: "hot".into(), address, idempotency_key: name.into() };
    // They were about to be signed when it died.
    for (name, ago) in [("old", 121), ("young", 119)] {
        let (transaction, _) = Transaction::parse_draft(tx(1).to_string().as_bytes()).unwrap();
        let begun = dead.api.signing.ledger.begin(Reservation {
            id: id(name),
            digest: [1; 32],
            chain_id: 137,
            nonce: Nonce::Managed { at_least: 7 },
            replacements: None,
            finishing: false,
            value: U256::ONE,
            body: transaction.body(),
            send: false,
            policy: "payouts".into(),
            allowed: Allowed::default(),
            now: now - Duration::from_secs(ago),
        });
        assert!(matches!(begun.await.unwrap(), Begun::Fresh(_)), "{name}");
    }
    drop(dead);

    let signing = &other.api.signing;
    let record = async |name| signing.ledger.lookup(id(name)).await.unwrap().unwrap();
    for _ in 0..2 {
        signing.finish(left(now), &other.api.live, &CancellationToken::new()).await.unwrap();
        let Record { nonce, signed, .. } = record("old").await;
        assert!(nonce == 7 && signed.is_some());
        let Record { nonce, signed, .. } = record("young").await;
        assert!(nonce == 8 && signed.is_none(), "its signer may be about to sign it");
        assert_eq!(kms.signs(), 1);
    }
    // Who is to stop begins no other.
    let stopped = CancellationToken::new();
    stopped.cancel();
    let later = left(now + Duration::from_secs(2));
    signing.finish(later, &other.api.live, &stopped).await.unwrap();
    assert_eq!(kms.signs(), 1);
    // Two seconds later.
    signing.finish(later, &other.api.live, &CancellationToken::new()).await.unwrap();
    assert!(record("young").await.signed.is_some());
}
