//! Ledgers of older versions, and of newer.

use alloy_primitives::keccak256;
use keygate_config::Ledger as Config;

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
    schema::sqlite::older(&old, 1);
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

/// What each version before this one holds, counts as it did: what was signed, what is reserved, what was said.
#[tokio::test]
async fn each_older_version_is_brought_to_this_one() {
    let (signer, raw) = old_payment(0);
    // The fifth has a test of its own, in either database.
    for version in 1..5 {
        let place = Kind::Sqlite.place();
        let Config::Sqlite(path) = place.config() else { unreachable!() };
        let old = rusqlite::Connection::open(&path).unwrap();
        schema::sqlite::older(&old, version);
        for (hour, (name, value, total, signed)) in
            [("a", 6u64, 6u64, true), ("b", 3, 9, false), ("c", 0, 9, false)].into_iter().enumerate()
        {
            let blob = |n: u64| format!("x'{}'", hex::encode(U256::from(n).to_be_bytes::<32>()));
            let then = (NOW + hour as u64 * HOUR) * 1000;
            let bytes = |bytes: &[u8]| if signed { format!("x'{}'", hex::encode(bytes)) } else { "NULL".into() };
            let mut columns = "caller, key, idempotency_key, digest, chain_id, nonce, policy, value, total, created_at,
                               signed_at, raw, hash, signature"
                .to_owned();
            let mut values = format!(
                "'payments', 'hot', '{name}', x'{}', 137, {hour}, 'payouts', {}, {}, {then}, {}, {}, {}, {}",
                "01".repeat(32),
                blob(value),
                blob(total),
                if signed { then.to_string() } else { "NULL".into() },
                bytes(&raw),
                bytes(&[1; 32]),
                bytes(&[1; 65]),
            );
            if version >= 2 {
                columns += ", address";
                values += &format!(", x'{}'", hex::encode(signer));
            }
            if version >= 3 {
                columns += ", counted_at";
                values += &format!(", {then}");
            }
            old.execute_batch(&format!("INSERT INTO transactions ({columns}) VALUES ({values})")).unwrap();
        }
        if version >= 4 {
            let said = "INSERT INTO statements (caller, key, address, policy, kind, digest, content, signature, signed_at)
                        VALUES ('payments', 'hot', zeroblob(20), 'payouts', 'message', zeroblob(32), x'00', zeroblob(65), 1)";
            old.execute_batch(said).unwrap();
        }
        drop(old);

        let open = place.with(&[("hot", signer)]);
        let request = |name: &str, value, hours| {
            let request = as_key("hot", signer, request(name, value));
            Request { now: at(NOW + hours * HOUR), ..request }
        };
        assert_eq!(replayed(open.ledger.begin(request("a", 6, 3)).await).raw, raw, "from version {version}");
        let b = pending(open.ledger.begin(request("b", 3, 3)).await);
        assert!(matches!(open.ledger.begin(request("d", 2, 3)).await, Ok(Begun::Denied(_))), "9 of 10 are spent");
        fresh(&open.ledger, request("d", 1, 3)).await;
        assert!(matches!(open.ledger.begin(request("e", 7, 24)).await, Ok(Begun::Denied(_))));
        fresh(&open.ledger, request("e", 6, 24)).await;
        // Given up, it is taken out of all that came after it.
        open.ledger.release(b, at(NOW)).await.unwrap();
        assert!(matches!(open.ledger.begin(request("f", 4, 24)).await, Ok(Begun::Denied(_))));
        fresh(&open.ledger, request("f", 3, 24)).await;
        let c = pending(open.ledger.begin(request("c", 0, 3)).await);
        let late = Signed { hash: keccak256(b"c"), raw: b"c".to_vec(), ..super::signed(1) };
        open.ledger.store(c, late, at(NOW)).await.unwrap();
        open.close();
        let began = place.hand("SELECT entry FROM audit WHERE seq = 1").unwrap();
        let began: serde_json::Value = serde_json::from_str(&began).unwrap();
        assert_eq!((&began["what"], &began["transactions"]), (&"began".into(), &3.into()));
        assert_eq!(began["statements"], u32::from(version >= 4));
        let whole = Trail::open(&place.config()).unwrap().verify(None).unwrap();
        assert_eq!((whole.transactions, whole.statements), (1, 0), "what came before it has no entry");
    }
}

/// Those that callers gave before keygate chose any: they are not chosen, and those between them are.
#[tokio::test]
async fn nonces_that_were_given_before_are_not_chosen() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let old = rusqlite::Connection::open(&path).unwrap();
    schema::sqlite::older(&old, 4);
    for (i, nonce) in [5, 2, 2, i64::MAX, -1].into_iter().enumerate() {
        let insert = "INSERT INTO transactions (caller, key, idempotency_key, digest, chain_id, nonce, policy, value, total,
                                                created_at, address)
                      VALUES ('payments', 'hot', ?1, zeroblob(32), 137, ?2, 'payouts', zeroblob(32), zeroblob(32), 0, ?3)";
        old.execute(insert, rusqlite::params![i.to_string(), nonce, HOT.into_array()]).unwrap();
    }
    drop(old);
    let open = Open::with(&path, &[]);
    for expected in [0, 1, 3, 4, 6, 7] {
        let name = format!("new {expected}");
        let request = Request { nonce: Nonce::Managed { at_least: 0 }, ..request(&name, 0) };
        assert_eq!(fresh_nonce(&open.ledger, request).await, expected);
    }
    open.close();
}

/// What the version before this one has: nonces that were chosen, given and given back, and what waits for approval.
async fn the_version_before_goes_on(place: Place) {
    place.before();
    let bytes = |byte: u8, length| match place {
        Place::Sqlite(_) => format!("x'{}'", hex::encode(vec![byte; length])),
        Place::Postgres(_) => format!("'\\x{}'", hex::encode(vec![byte; length])),
    };
    let (hot, digest, value) = (bytes(0x11, 20), bytes(1, 32), bytes(0, 32));
    for nonce in [0, 2, 5] {
        let columns =
            "caller, key, address, idempotency_key, digest, chain_id, nonce, managed, send, body, policy, value";
        place
            .hand(&format!(
                "INSERT INTO transactions ({columns}, created_at) VALUES
                 ('payments', 'hot', {hot}, 'old {nonce}', {digest}, 137, {nonce}, 1, 0, '{{}}', 'payouts', {value}, 1)"
            ))
            .unwrap();
    }
    place.hand(&format!("INSERT INTO nonces (address, chain_id, next) VALUES ({hot}, 137, 6)")).unwrap();
    // Somebody else's had those before the first of another key's, which is in a block for good.
    let cold = bytes(0x22, 20);
    for (nonce, state) in [(50, "confirmed"), (60, "sent")] {
        place
            .hand(&format!(
                "INSERT INTO transactions (caller, key, address, idempotency_key, digest, chain_id, nonce, managed, send,
                                           body, policy, value, created_at) VALUES
                 ('payments', 'cold', {cold}, 'sent {nonce}', {digest}, 137, {nonce}, 1, 1, '{{}}', 'payouts', {value}, 1)"
            ))
            .unwrap();
        let of = format!("SELECT id, '{state}' FROM transactions WHERE idempotency_key = 'sent {nonce}'");
        place.hand(&format!("INSERT INTO sends (request, state) {of}")).unwrap();
    }
    place.hand(&format!("INSERT INTO gaps (address, chain_id, nonce) VALUES ({hot}, 137, 1)")).unwrap();
    let columns = "caller, key, address, idempotency_key, digest, chain_id, policy, rule, body, asked_at";
    place
        .hand(&format!(
            "INSERT INTO approvals ({columns}) VALUES
             ('payments', 'hot', {hot}, 'large', {digest}, 137, 'payouts', 'require_approval', '{{}}', {NOW}000)"
        ))
        .unwrap();
    let open = place.open();
    let held = open.ledger.held(1).await.unwrap().unwrap();
    assert_eq!((held.asked_at, held.expires_at), (millis(at(NOW)), millis(at(NOW + 24 * HOUR))));
    for (i, expected) in [1, 3, 4, 6].into_iter().enumerate() {
        let new = Request { nonce: Nonce::Managed { at_least: 0 }, ..request(&i.to_string(), 0) };
        assert_eq!(fresh_nonce(&open.ledger, new).await, expected);
    }
    let next = Request { nonce: Nonce::Managed { at_least: 3 }, ..as_key("cold", COLD, request("next", 0)) };
    assert_eq!(fresh_nonce(&open.ledger, next).await, 51);
    pending(open.ledger.begin(request("old 2", 0)).await);
    open.close();
}

async fn fresh_nonce(ledger: &Ledger, request: Request) -> u64 {
    match ledger.begin(request).await.unwrap() {
        Begun::Fresh(reserved) => reserved.nonce,
        other => panic!("{other:?}"),
    }
}

on_both!(the_version_before_goes_on);

/// It may take as long as it takes, and nothing else may.
#[tokio::test]
async fn a_migration_has_no_time_limit() {
    let place = super::place::Kind::Postgres.place();
    place.before();
    place
        .hand(
            "CREATE FUNCTION in_time() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF current_setting('statement_timeout') <> '0'
                    OR current_setting('idle_in_transaction_session_timeout') <> '0'
                 THEN RAISE 'there is a limit'; END IF; END $$;
             CREATE EVENT TRIGGER in_time ON ddl_command_end EXECUTE FUNCTION in_time();",
        )
        .unwrap();
    place.open().close();
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
