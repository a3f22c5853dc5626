//! The audit trail, and what is done to it.

use keygate_config::Ledger as Config;
use serde_json::{Value as Json, json};

use super::super::audit::{Broken, Kept};
use super::*;

fn entries(path: &Path) -> Vec<Kept> {
    let mut kept = Vec::new();
    let mut trail = Trail::open(&Config::Sqlite(path.to_owned())).unwrap();
    trail
        .export(0, |entry| {
            kept.push(entry.clone());
            Ok::<_, LedgerError>(())
        })
        .unwrap();
    kept
}

fn verified(path: &Path, expected: Option<Head>) -> Result<Head, VerifyError> {
    Trail::open(&Config::Sqlite(path.to_owned())).unwrap().verify(expected)
}

/// A ledger in which something of each kind has happened.
async fn eventful(path: &Path) -> Head {
    let open = Open::at(path);
    let a = fresh(&open.ledger, request("a", 4)).await;
    open.ledger.store(a, signed_of(b"a"), at(NOW)).await.unwrap();
    open.ledger.begin(request("b", 7)).await.unwrap();
    open.ledger.begin(Request { digest: [9; 32], ..request("a", 4) }).await.unwrap();
    let c = fresh(&open.ledger, request("c", 1)).await;
    open.ledger.release(c, at(NOW)).await.unwrap();
    let d = fresh(&open.ledger, request("d", 1)).await;
    open.ledger.store(d, signed_of(b"d"), at(NOW)).await.unwrap();
    open.ledger.record(super::statements::statement("hello")).await.unwrap();
    let head = open.ledger.head().await.unwrap();
    open.close();
    head
}

/// Bytes with their own hash, as transactions have.
fn signed_of(raw: &[u8]) -> Signed {
    Signed { raw: raw.to_vec(), hash: alloy_primitives::keccak256(raw), signature: [1; 65] }
}

#[tokio::test]
async fn everything_that_happens_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let head = eventful(&path).await;
    let kept = entries(&path);
    let entries: Vec<Json> = kept.iter().map(|kept| serde_json::from_str(&kept.entry).unwrap()).collect();
    let what: Vec<_> = entries.iter().map(|entry| entry["what"].as_str().unwrap()).collect();
    let expected =
        ["began", "reserved", "signed", "denied", "conflict", "reserved", "released", "reserved", "signed", "signed"];
    assert_eq!(what, expected);
    let reserved = &entries[1];
    assert_eq!((&reserved["caller"], &reserved["key"]), (&json!("payments"), &json!("hot")));
    assert_eq!((&reserved["idempotencyKey"], &reserved["seq"]), (&json!("a"), &json!(2)));
    assert_eq!(entries[3]["rule"], "daily_value");
    assert_eq!(verified(&path, None), Ok(head));
    assert_eq!(verified(&path, Some(head)), Ok(head));
}

/// Whatever a hand in the database does is found.
#[tokio::test]
async fn any_change_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let original = dir.path().join("ledger.db");
    let head = eventful(&original).await;
    let tampered = |sql: &str, expected: Option<Head>| {
        let path = dir.path().join("tampered.db");
        std::fs::copy(&original, &path).unwrap();
        let db = rusqlite::Connection::open(&path).unwrap();
        db.execute_batch(
            "DROP TRIGGER audit_for_ever; DROP TRIGGER audit_is_kept; DROP TRIGGER signed_for_ever;
             DROP TRIGGER signed_is_kept; DROP TRIGGER said_for_ever; DROP TRIGGER said_is_kept;",
        )
        .unwrap();
        db.execute_batch(sql).unwrap();
        drop(db);
        verified(&path, expected)
    };
    let broken = |sql: &str| match tampered(sql, None) {
        Err(VerifyError::Broken(broken)) => broken,
        other => panic!("{sql}: {other:?}"),
    };
    assert_eq!(tampered("", None), Ok(head));
    assert_eq!(broken("UPDATE audit SET entry = replace(entry, 'hot', 'not') WHERE seq = 2"), Broken::Hash(2));
    assert_eq!(broken("UPDATE audit SET hash = zeroblob(32) WHERE seq = 4"), Broken::Hash(4));
    assert_eq!(broken("DELETE FROM audit WHERE seq = 4"), Broken::Gap { expected: 4, found: 5 });
    assert_eq!(broken("DELETE FROM audit WHERE seq = 1"), Broken::Gap { expected: 1, found: 2 });
    assert!(matches!(broken("DELETE FROM audit WHERE seq = 10"), Broken::Unaudited(_)), "a statement is left");
    assert!(matches!(broken("DELETE FROM audit WHERE seq > 8"), Broken::Unaudited(_)), "a transaction is left");
    assert!(matches!(broken("DELETE FROM transactions WHERE idempotency_key = 'a'"), Broken::Vanished { seq: 3, .. }));
    assert!(matches!(broken("UPDATE transactions SET raw = x'00'"), Broken::Vanished { seq: 3, .. }));
    assert!(matches!(broken("UPDATE statements SET content = x'00'"), Broken::Vanished { seq: 10, .. }));
    assert!(matches!(
        broken("UPDATE transactions SET raw = x'0000', hash = zeroblob(32), signature = zeroblob(65), signed_at = 1;
                INSERT INTO transactions SELECT 99, caller, key, 'more', digest, chain_id, nonce, policy, value, created_at,
                    signed_at, raw, hash, signature, address, managed, send, body FROM transactions LIMIT 1"),
        Broken::Vanished { .. }
    ));
    // Nothing but what is kept elsewhere tells that the end was cut off, with all that it says.
    let cut = "DELETE FROM audit WHERE seq > 9; DELETE FROM statements";
    assert!(tampered(cut, None).is_ok());
    assert_eq!(tampered(cut, Some(head)), Err(VerifyError::Broken(Broken::Head(head))));
    let other = Head { hash: B256::ZERO, ..head };
    assert_eq!(tampered("", Some(other)), Err(VerifyError::Broken(Broken::Head(other))));
}

#[tokio::test]
async fn it_is_read_while_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let open = Open::at(&path);
    let a = fresh(&open.ledger, request("a", 1)).await;
    open.ledger.store(a, signed_of(b"a"), at(NOW)).await.unwrap();
    let head = verified(&path, None).unwrap();
    assert_eq!(open.ledger.head().await, Ok(head));
    fresh(&open.ledger, request("b", 1)).await;
    assert_eq!(verified(&path, Some(head)).map(|head| head.seq), Ok(head.seq + 1));
    open.close();
}
