//! The audit trail, and what is done to it.

use serde_json::{Value as Json, json};

use super::super::audit::{Broken, Kept};
use super::*;

fn entries(place: &Place) -> Vec<Kept> {
    let mut kept = Vec::new();
    let each = |entry: &Kept| {
        kept.push(entry.clone());
        Ok::<_, LedgerError>(())
    };
    apart(|| Trail::open(&place.config()).unwrap().each(0, each).unwrap());
    kept
}

fn verified(place: &Place, expected: Option<Head>) -> Result<Head, VerifyError> {
    apart(|| Trail::open(&place.config()).unwrap().verify(expected).map(|whole| whole.head))
}

/// What blocks: on a thread that is not the runtime's.
fn apart<T: Send>(what: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(what).join().unwrap())
}

/// A ledger in which something of each kind has happened.
async fn eventful(place: &Place) -> Head {
    let open = place.open();
    let a = fresh(&open.ledger, request("a", 4)).await;
    open.ledger.store(a, signed_of(b"a"), at(NOW)).await.unwrap();
    // What is refused changes nothing, and is told by who asks: one by one, or in a sum.
    assert!(matches!(open.ledger.begin(request("b", 7)).await, Ok(Begun::Denied(_))));
    assert_eq!(open.ledger.begin(Request { digest: [9; 32], ..request("a", 4) }).await, Ok(Begun::Conflict));
    open.ledger.note(Event::new(at(NOW), "denied", json!({ "rule": "daily_value" }))).await.unwrap();
    open.ledger.note(Event::new(at(NOW), "refused", json!({ "count": 7, "by": { "rate": 7 } }))).await.unwrap();
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

async fn everything_that_happens_is_in_it(place: Place) {
    let head = eventful(&place).await;
    let kept = entries(&place);
    let entries: Vec<Json> = kept.iter().map(|kept| serde_json::from_str(&kept.entry).unwrap()).collect();
    let what: Vec<_> = entries.iter().map(|entry| entry["what"].as_str().unwrap()).collect();
    let expected =
        ["began", "reserved", "signed", "denied", "refused", "reserved", "released", "reserved", "signed", "signed"];
    assert_eq!(what, expected);
    let reserved = &entries[1];
    assert_eq!((&reserved["caller"], &reserved["key"]), (&json!("payments"), &json!("hot")));
    assert_eq!((&reserved["idempotencyKey"], &reserved["seq"]), (&json!("a"), &json!(2)));
    let whole = apart(|| Trail::open(&place.config()).unwrap().verify(None)).unwrap();
    assert_eq!(whole, Whole { head, transactions: 2, statements: 1, refused: 8, summed: 7 });
    let mut export = Vec::new();
    apart(|| Trail::open(&place.config()).unwrap().export(1, &mut export)).unwrap();
    assert_eq!(verify_export(&*export, Some(head)), Ok(whole));
    assert_eq!(verified(&place, None), Ok(head));
    assert_eq!(verified(&place, Some(head)), Ok(head));
}

/// Whatever a hand in the database does is found.
async fn any_change_is_found(place: Place) {
    let head = eventful(&place).await;
    let tampered = |sql: &str, expected: Option<Head>| {
        let place = place.copy();
        place.unguarded();
        if !sql.is_empty() {
            place.hand(sql).unwrap();
        }
        verified(&place, expected)
    };
    let broken = |sql: &str| match tampered(sql, None) {
        Err(VerifyError::Broken(broken)) => broken,
        other => panic!("{sql}: {other:?}"),
    };
    assert_eq!(tampered("", None), Ok(head));
    assert_eq!(broken("UPDATE audit SET entry = replace(entry, 'hot', 'not') WHERE seq = 2"), Broken::Hash(2));
    assert_eq!(broken("UPDATE audit SET hash = zeroblob(32) WHERE seq = 4"), Broken::Hash(4));
    assert_eq!(broken("DELETE FROM audit WHERE seq = 4"), Broken::Gap { expected: 4, found: 5 });
    let fewer = "UPDATE audit SET entry = replace(entry, '\"count\":7', '\"count\":6') WHERE seq = 5";
    assert_eq!(broken(fewer), Broken::Hash(5));
    assert_eq!(broken("DELETE FROM audit WHERE seq = 1"), Broken::Gap { expected: 1, found: 2 });
    assert!(matches!(broken("DELETE FROM audit WHERE seq = 10"), Broken::Unaudited(_)), "a statement is left");
    assert!(matches!(broken("DELETE FROM audit WHERE seq > 8"), Broken::Unaudited(_)), "a transaction is left");
    assert!(matches!(broken("DELETE FROM transactions WHERE idempotency_key = 'a'"), Broken::Vanished { seq: 3, .. }));
    assert!(matches!(broken("UPDATE transactions SET raw = zeroblob(1)"), Broken::Vanished { seq: 3, .. }));
    assert!(matches!(broken("UPDATE statements SET content = zeroblob(1)"), Broken::Vanished { seq: 10, .. }));
    assert!(matches!(
        broken("UPDATE transactions SET raw = zeroblob(2), hash = zeroblob(32), signature = zeroblob(65), signed_at = 1;
                INSERT INTO transactions (caller, key, idempotency_key, digest, chain_id, nonce, policy, value, created_at,
                    signed_at, raw, hash, signature, address, send, body)
                SELECT caller, key, 'more', digest, chain_id, nonce, policy, value, created_at, signed_at, raw, hash,
                    signature, address, send, body FROM transactions LIMIT 1"),
        Broken::Vanished { .. }
    ));
    // Nothing but what is kept elsewhere tells that the end was cut off, with all that it says.
    let cut = "DELETE FROM audit WHERE seq > 9; DELETE FROM statements";
    assert!(tampered(cut, None).is_ok());
    assert_eq!(tampered(cut, Some(head)), Err(VerifyError::Broken(Broken::Head(head))));
    let other = Head { hash: B256::ZERO, ..head };
    assert_eq!(tampered("", Some(other)), Err(VerifyError::Broken(Broken::Head(other))));
}

async fn it_is_read_while_it_is_written(place: Place) {
    let open = place.open();
    let a = fresh(&open.ledger, request("a", 1)).await;
    open.ledger.store(a, signed_of(b"a"), at(NOW)).await.unwrap();
    let head = verified(&place, None).unwrap();
    assert_eq!(open.ledger.head().await, Ok(head));
    fresh(&open.ledger, request("b", 1)).await;
    assert_eq!(verified(&place, Some(head)).map(|head| head.seq), Ok(head.seq + 1));
    open.close();
}

/// What a caller tries again is told, without what was reserved; and what nobody asks for, when it changes something.
async fn what_is_tried_again_is_told_shortly(place: Place) {
    let open = place.open();
    fresh(&open.ledger, request("a", 4)).await;
    pending(open.ledger.begin(request("a", 4)).await);
    let finishing = |policy: &str| Request { finishing: true, policy: policy.into(), ..request("a", 4) };
    for policy in ["payouts", "payouts", "other", "other"] {
        pending(open.ledger.begin(finishing(policy)).await);
    }
    open.close();
    let kept: Vec<Json> = entries(&place).iter().map(|kept| serde_json::from_str(&kept.entry).unwrap()).collect();
    let told: Vec<_> =
        kept.iter().skip(1).map(|entry| (&entry["what"], &entry["policy"], &entry["transaction"])).collect();
    let again = json!("tried-again");
    let expected = [
        (&json!("reserved"), &json!("payouts"), &json!("{}")),
        (&again, &json!("payouts"), &Json::Null),
        (&again, &json!("other"), &Json::Null),
    ];
    assert_eq!(told, expected);
}

on_both!(
    everything_that_happens_is_in_it,
    any_change_is_found,
    it_is_read_while_it_is_written,
    what_is_tried_again_is_told_shortly
);
