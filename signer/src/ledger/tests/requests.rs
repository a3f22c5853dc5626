//! Requests: reserved, signed, found again, given up.

use std::os::unix::fs::PermissionsExt;

use super::super::requests::FIND;
use super::*;

async fn the_first_signed_bytes_are_kept_for_ever(place: Place) {
    let open = place.open();
    // Larger than SQL's integers are.
    let nonce = u64::MAX - 1;
    let first = Request { nonce: Nonce::Given(nonce), ..request("a", 1) };
    let reservation = fresh(&open.ledger, first).await;
    assert_eq!(open.ledger.store(reservation, signed(7), at(NOW)).await, Ok(signed(7)));
    assert_eq!(open.ledger.store(reservation, signed(8), at(NOW)).await, Ok(signed(7)));
    assert_eq!(open.ledger.release(reservation, at(NOW)).await, Ok(()));
    assert_eq!(replayed(open.ledger.begin(request("a", 1)).await), signed(7));
    open.close();

    let open = place.open();
    assert_eq!(replayed(open.ledger.begin(request("a", 1)).await), signed(7));
    let record = open.ledger.lookup(request("a", 1).id).await.unwrap().unwrap();
    let expected = Record {
        reservation,
        address: Some(HOT),
        digest: [1; 32],
        chain_id: 137,
        nonce,
        body: Some("{}".into()),
        signed: Some(signed(7)),
    };
    assert_eq!(record, expected);
    open.close();
}

#[test]
fn only_its_owner_may_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state/ledger.db");
    let open = Open::at(&path);
    for file in ["ledger.db", "ledger.db-wal", "ledger.db-shm"] {
        let mode = std::fs::metadata(path.with_file_name(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    open.close();
}

#[tokio::test]
async fn a_reservation_survives_and_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let open = Open::at(&path);
    let reservation = fresh(&open.ledger, request("a", 10)).await;
    // A crash: the files as they are on the disk, while the writer has them open.
    let copy = dir.path().join("copy.db");
    for end in ["", "-wal"] {
        let file = |path: &Path| PathBuf::from(format!("{}{end}", path.display()));
        std::fs::copy(file(&path), file(&copy)).unwrap();
    }
    open.close();

    let open = Open::at(&copy);
    assert_eq!(pending(open.ledger.begin(request("a", 10)).await), reservation);
    assert_eq!(open.ledger.lookup(request("a", 10).id).await.unwrap().unwrap().signed, None);
    // It still counts.
    assert!(matches!(open.ledger.begin(request("b", 1)).await, Ok(Begun::Denied(_))));
    assert_eq!(open.ledger.store(reservation, signed(1), at(NOW)).await, Ok(signed(1)));
    open.close();
}

async fn names_are_per_caller_and_key_and_a_changed_body_conflicts(place: Place) {
    let open = place.open();
    fresh(&open.ledger, request("a", 1)).await;
    let other = Request { digest: [2; 32], ..request("a", 1) };
    assert_eq!(open.ledger.begin(other.clone()).await, Ok(Begun::Conflict));
    fresh(&open.ledger, Request { id: RequestId { caller: "other".into(), ..other.id.clone() }, ..other.clone() })
        .await;
    fresh(&open.ledger, Request { id: RequestId { key: "cold".into(), address: COLD, ..other.id.clone() }, ..other })
        .await;
    assert_eq!(open.ledger.lookup(request("b", 1).id).await, Ok(None));
    open.close();
}

async fn a_key_is_itself_under_another_name(place: Place) {
    let open = place.open();
    let reservation = fresh(&open.ledger, request("a", 6)).await;
    let renamed = |name: &str, value| as_key("renamed", HOT, request(name, value));
    assert_eq!(pending(open.ledger.begin(renamed("a", 6)).await), reservation);
    let other = Request { digest: [2; 32], ..renamed("a", 6) };
    assert_eq!(open.ledger.begin(other).await, Ok(Begun::Conflict));
    open.ledger.store(reservation, signed(1), at(NOW)).await.unwrap();
    assert_eq!(replayed(open.ledger.begin(renamed("a", 6)).await), signed(1));
    assert_eq!(open.ledger.lookup(renamed("a", 6).id).await.unwrap().unwrap().signed, Some(signed(1)));
    assert!(matches!(open.ledger.begin(renamed("b", 5)).await, Ok(Begun::Denied(_))), "it is the same allowance");
    // Its old name is another key's now, which signs nothing under the idempotency keys that were used with the name.
    let replaced = Request { digest: [3; 32], ..as_key("hot", COLD, request("a", 6)) };
    assert_eq!(open.ledger.lookup(replaced.id.clone()).await.unwrap().unwrap().address, Some(HOT));
    assert_eq!(open.ledger.begin(replaced.clone()).await, Ok(Begun::Conflict));
    // Where both are known, the address says which is meant.
    let cold = Request { digest: [3; 32], ..as_key("cold", COLD, request("a", 6)) };
    let cold = fresh(&open.ledger, cold).await;
    assert_eq!(pending(open.ledger.begin(replaced.clone()).await), cold);
    // Also when it moves to another policy at the same time.
    let moved = Request { policy: "other".into(), ..replaced };
    assert!(matches!(open.ledger.begin(moved).await, Ok(Begun::Pending(_))));
    open.close();
}

#[test]
fn a_request_is_found_by_indexes_however_many_its_caller_made() {
    let dir = tempfile::tempdir().unwrap();
    let connection = Sqlite::open(&dir.path().join("ledger.db"), &BTreeMap::new()).unwrap().connection;
    let mut explain = connection.prepare(&format!("EXPLAIN QUERY PLAN {}", FIND)).unwrap();
    let none = || rusqlite::types::Null;
    let plan = explain.query_map([none(), none(), none(), none()], |row| row.get::<_, String>(3)).unwrap();
    let plan: Vec<_> = plan.map(Result::unwrap).collect();
    assert!(!plan.iter().any(|step| step.contains("SCAN")), "{plan:?}");
    for columns in ["(caller=? AND address=? AND idempotency_key=?)", "(caller=? AND key=? AND idempotency_key=?)"] {
        assert!(plan.iter().any(|step| step.contains(columns)), "{plan:?}");
    }
}

async fn callers_are_remembered(place: Place) {
    let open = place.open();
    assert!(open.callers.is_empty());
    for (caller, name) in [("b", "1"), ("a", "1"), ("a", "2"), ("c", "1")] {
        let id = RequestId { caller: caller.into(), ..request(name, 0).id };
        fresh(&open.ledger, Request { id, ..request(name, 0) }).await;
    }
    open.close();
    let open = place.open();
    assert_eq!(open.callers, ["a", "b", "c"].map(str::to_owned).into());
    open.close();
}

async fn what_is_released_is_as_if_it_never_was(place: Place) {
    let open = place.open();
    let a = fresh(&open.ledger, request("a", 4)).await;
    let b = fresh(&open.ledger, request("b", 4)).await;
    assert!(matches!(open.ledger.begin(request("c", 3)).await, Ok(Begun::Denied(_))));
    open.ledger.release(a, at(NOW)).await.unwrap();
    open.ledger.release(a, at(NOW)).await.unwrap();
    let c = fresh(&open.ledger, request("c", 6)).await;
    assert!(matches!(open.ledger.begin(request("d", 1)).await, Ok(Begun::Denied(_))));
    // Bytes signed for a reservation that is gone go nowhere.
    assert_eq!(open.ledger.store(a, signed(1), at(NOW)).await, Err(LedgerError::NotReserved));
    let a = fresh(&open.ledger, Request { digest: [9; 32], ..request("a", 0) }).await;
    assert!(a != b && a != c);
    open.close();
}

async fn a_pending_request_moves_to_its_callers_new_policy(place: Place) {
    let open = place.open();
    fresh(&open.ledger, request("a", 10)).await;
    let moved = Request { policy: "other".into(), ..request("a", 10) };
    let tight = Request { allowed: spending(U256::from(10), Some(9)), ..moved.clone() };
    assert!(matches!(open.ledger.begin(tight).await, Ok(Begun::Denied(_))));
    assert!(matches!(open.ledger.begin(request("b", 1)).await, Ok(Begun::Denied(_))), "it stays where it was");
    // Not fresh: whether its key signed it before is not known.
    let pending = open.ledger.begin(moved.clone()).await.unwrap();
    assert!(matches!(pending, Begun::Pending(_)), "{pending:?}");
    assert_eq!(open.ledger.begin(moved.clone()).await, Ok(pending));
    assert!(matches!(
        open.ledger.begin(Request { policy: "other".into(), ..request("c", 1) }).await,
        Ok(Begun::Denied(_))
    ));
    fresh(&open.ledger, request("b", 10)).await;
    open.close();
}

async fn many_at_once_spend_the_limit_once(place: Place) {
    let open = place.open();
    let tasks: Vec<_> = (0..200)
        .map(|i| {
            let ledger = open.ledger.clone();
            tokio::spawn(async move { ledger.begin(request(&(i / 2).to_string(), 1)).await.unwrap() })
        })
        .collect();
    let (mut fresh, mut pending) = (0, 0);
    for task in tasks {
        match task.await.unwrap() {
            Begun::Fresh(_) => fresh += 1,
            Begun::Pending(_) => pending += 1,
            Begun::Denied(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((fresh, pending), (10, 10));
    open.close();
}

async fn signed_bytes_cannot_be_changed_by_hand(place: Place) {
    let open = place.open();
    let reservation = fresh(&open.ledger, request("a", 1)).await;
    open.ledger.store(reservation, signed(1), at(NOW)).await.unwrap();
    open.close();
    for change in ["UPDATE transactions SET nonce = 1", "DELETE FROM transactions", "DELETE FROM audit"] {
        assert!(place.hand(change).unwrap_err().contains("what was"), "{change}");
    }
}

on_both!(
    the_first_signed_bytes_are_kept_for_ever,
    names_are_per_caller_and_key_and_a_changed_body_conflicts,
    a_key_is_itself_under_another_name,
    callers_are_remembered,
    what_is_released_is_as_if_it_never_was,
    a_pending_request_moves_to_its_callers_new_policy,
    many_at_once_spend_the_limit_once,
    signed_bytes_cannot_be_changed_by_hand
);
