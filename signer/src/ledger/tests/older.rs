//! Ledgers of older versions, and of newer.

use alloy_primitives::keccak256;

use super::*;
use crate::key::PublicKey;
use crate::signature;
use crate::transaction::Transaction;

/// A transaction that the first keygate's ledger holds: by whom, and its bytes.
fn old_payment(nonce: u8) -> (Address, Vec<u8>) {
    let secret = k256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap();
    let public = PublicKey::from_sec1(secret.verifying_key().to_encoded_point(false).as_bytes()).unwrap();
    let tx = serde_json::json!({"chainId": 137, "type": 2, "nonce": nonce, "to": HOT.to_string(), "value": 6,
                                "gas": 21000, "maxFeePerGas": 10, "maxPriorityFeePerGas": 1});
    let tx = Transaction::parse(tx.to_string().as_bytes()).unwrap();
    let digest = keccak256(tx.signing_bytes().unwrap());
    let (der, _) = secret.sign_prehash_recoverable(digest.as_slice()).unwrap();
    let signature = signature::assemble(der.to_der().as_bytes(), &digest, &public).unwrap();
    (public.address(), tx.into_signed(&signature).unwrap().raw)
}

#[tokio::test]
async fn a_ledger_from_before_addresses_has_them_now() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let (signer, raw) = old_payment(0);
    let old = rusqlite::Connection::open(&path).unwrap();
    old.execute_batch(schema::sqlite::TABLE).unwrap();
    old.pragma_update(None, "application_id", schema::sqlite::APPLICATION).unwrap();
    old.pragma_update(None, "user_version", 1).unwrap();
    // One key under two names, each with its own total; and names that are reserved only, one of them forgotten.
    let rows = [
        ("hot", "a", 6u64, 6u64, Some(&raw)),
        ("alias", "b", 3, 3, Some(&raw)),
        ("hot", "c", 1, 7, None),
        ("forgotten", "d", 0, 0, None),
    ];
    for (i, (key, name, value, total, raw)) in rows.into_iter().enumerate() {
        let blob = |n: u64| U256::from(n).to_be_bytes::<32>();
        let (hash, signature) = (raw.map(|_| [1u8; 32]), raw.map(|_| [1u8; 65]));
        let (then, nonce) = (i64::try_from(NOW).unwrap() * 1000 + i as i64, i as i64);
        old.execute(
            "INSERT INTO transactions (caller, key, idempotency_key, digest, chain_id, nonce, policy, value, total,
                 created_at, signed_at, raw, hash, signature)
             VALUES ('payments', ?1, ?2, ?3, 137, ?4, 'payouts', ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            rusqlite::params![
                key,
                name,
                [1u8; 32],
                nonce,
                blob(value),
                blob(total),
                then,
                raw.map(|_| then),
                raw,
                hash,
                signature
            ],
        )
        .unwrap();
    }
    drop(old);

    // By now the file calls another key "hot"; what is signed tells by whom, whatever the file says.
    let open = Open::with(&path, &[("hot", HOT), ("new", signer)]);
    let as_new = |name: &str, value| as_key("new", signer, request(name, value));
    for name in ["a", "b"] {
        let record = open.ledger.lookup(as_new(name, 0).id).await.unwrap().unwrap();
        assert_eq!((record.address, record.signed.unwrap().raw), (Some(signer), raw.clone()));
    }
    assert!(matches!(open.ledger.begin(as_new("e", 2)).await, Ok(Begun::Denied(_))), "6 and 3 of 10 are spent");
    fresh(&open.ledger, as_new("e", 1)).await;
    // What is reserved goes by its name.
    assert_eq!(open.ledger.lookup(request("c", 0).id).await.unwrap().unwrap().address, Some(HOT));
    assert!(matches!(open.ledger.begin(request("c", 1)).await, Ok(Begun::Pending(_))));
    assert!(matches!(open.ledger.begin(request("f", 10)).await, Ok(Begun::Denied(_))), "1 of 10 is spent");
    let forgotten = as_key("forgotten", COLD, request("d", 0));
    assert_eq!(open.ledger.lookup(forgotten.id.clone()).await.unwrap().unwrap().address, None);
    assert!(matches!(open.ledger.begin(forgotten.clone()).await, Ok(Begun::Pending(_))));
    assert_eq!(open.ledger.lookup(forgotten.id).await.unwrap().unwrap().address, Some(COLD), "the digest has told");
    open.close();
    let hand = rusqlite::Connection::open(&path).unwrap();
    assert!(hand.execute("UPDATE transactions SET address = x'00' WHERE raw IS NOT NULL", []).is_err());
    Open::at(&path).close();
}

#[test]
fn what_is_no_ledger_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, "x".repeat(5000)).unwrap();
    assert!(matches!(opened(&path).unwrap_err().error, LedgerError::Unusable(_)));
    assert_eq!(std::fs::read_to_string(&path).unwrap().len(), 5000);

    let other = dir.path().join("other.db");
    rusqlite::Connection::open(&other).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    assert!(opened(&other).unwrap_err().to_string().contains("another program's"));

    let newer = dir.path().join("newer.db");
    Sqlite::open(&newer, &BTreeMap::new()).unwrap().connection.pragma_update(None, "user_version", 99).unwrap();
    assert!(opened(&newer).unwrap_err().to_string().contains("version 99"));
}
