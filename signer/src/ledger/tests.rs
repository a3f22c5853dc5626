use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, UNIX_EPOCH};

use alloy_primitives::keccak256;
use proptest::prelude::*;

use super::*;
use crate::key::PublicKey;
use crate::signature;
use crate::transaction::Transaction;

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
        let Opened { ledger, running, callers } = Ledger::open(path, &keys).unwrap();
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
        nonce: u64::MAX - 1,
        value: U256::from(value),
        policy: "payouts".into(),
        daily_limit: Some(U256::from(10)),
        now: at(NOW),
    }
}

fn signed(byte: u8) -> Signed {
    Signed { raw: vec![byte; 100], hash: B256::repeat_byte(byte), signature: [byte; 65] }
}

async fn fresh(ledger: &Ledger, request: Request) -> Reservation {
    match ledger.begin(request).await.unwrap() {
        Begun::Fresh(reservation) => reservation,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_first_signed_bytes_are_kept_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state/ledger.db");
    let open = Open::at(&path);
    let reservation = fresh(&open.ledger, request("a", 1)).await;
    assert_eq!(open.ledger.store(reservation, signed(7), at(NOW)).await, Ok(signed(7)));
    assert_eq!(open.ledger.store(reservation, signed(8), at(NOW)).await, Ok(signed(7)));
    assert_eq!(open.ledger.release(reservation).await, Ok(()));
    assert_eq!(open.ledger.begin(request("a", 1)).await, Ok(Begun::Signed(signed(7))));
    open.close();

    let open = Open::at(&path);
    assert_eq!(open.ledger.begin(request("a", 1)).await, Ok(Begun::Signed(signed(7))));
    let record = open.ledger.lookup(request("a", 1).id).await.unwrap().unwrap();
    let expected =
        Record { address: Some(HOT), digest: [1; 32], chain_id: 137, nonce: u64::MAX - 1, signed: Some(signed(7)) };
    assert_eq!(record, expected);
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
    assert_eq!(open.ledger.begin(request("a", 10)).await, Ok(Begun::Pending(reservation)));
    assert_eq!(open.ledger.lookup(request("a", 10).id).await.unwrap().unwrap().signed, None);
    // It still counts.
    assert!(matches!(open.ledger.begin(request("b", 1)).await, Ok(Begun::Denied(_))));
    assert_eq!(open.ledger.store(reservation, signed(1), at(NOW)).await, Ok(signed(1)));
    open.close();
}

#[tokio::test]
async fn names_are_per_caller_and_key_and_a_changed_body_conflicts() {
    let dir = tempfile::tempdir().unwrap();
    let open = Open::at(&dir.path().join("ledger.db"));
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

fn as_key(key: &str, address: Address, request: Request) -> Request {
    Request { id: RequestId { key: key.into(), address, ..request.id }, ..request }
}

#[tokio::test]
async fn a_key_is_itself_under_another_name() {
    let dir = tempfile::tempdir().unwrap();
    let open = Open::at(&dir.path().join("ledger.db"));
    let reservation = fresh(&open.ledger, request("a", 6)).await;
    let renamed = |name: &str, value| as_key("renamed", HOT, request(name, value));
    assert_eq!(open.ledger.begin(renamed("a", 6)).await, Ok(Begun::Pending(reservation)));
    let other = Request { digest: [2; 32], ..renamed("a", 6) };
    assert_eq!(open.ledger.begin(other).await, Ok(Begun::Conflict));
    open.ledger.store(reservation, signed(1), at(NOW)).await.unwrap();
    assert_eq!(open.ledger.begin(renamed("a", 6)).await, Ok(Begun::Signed(signed(1))));
    assert_eq!(open.ledger.lookup(renamed("a", 6).id).await.unwrap().unwrap().signed, Some(signed(1)));
    assert!(matches!(open.ledger.begin(renamed("b", 5)).await, Ok(Begun::Denied(_))), "it is the same allowance");
    // Its old name is another key's now, which signs nothing under the idempotency keys that were used with the name.
    let replaced = Request { digest: [3; 32], ..as_key("hot", COLD, request("a", 6)) };
    assert_eq!(open.ledger.lookup(replaced.id.clone()).await.unwrap().unwrap().address, Some(HOT));
    assert_eq!(open.ledger.begin(replaced.clone()).await, Ok(Begun::Conflict));
    // Where both are known, the address says which is meant.
    let cold = Request { digest: [3; 32], ..as_key("cold", COLD, request("a", 6)) };
    let cold = fresh(&open.ledger, cold).await;
    assert_eq!(open.ledger.begin(replaced.clone()).await, Ok(Begun::Pending(cold)));
    // Also when it moves to another policy at the same time.
    let moved = Request { policy: "other".into(), ..replaced };
    assert!(matches!(open.ledger.begin(moved).await, Ok(Begun::Pending(_))));
    open.close();
}

#[test]
fn a_request_is_found_by_indexes_however_many_its_caller_made() {
    let dir = tempfile::tempdir().unwrap();
    let (connection, _files) = schema::open(&dir.path().join("ledger.db"), &BTreeMap::new()).unwrap();
    let mut explain = connection.prepare(&format!("EXPLAIN QUERY PLAN {}", operations::FIND)).unwrap();
    let none = || rusqlite::types::Null;
    let plan = explain.query_map([none(), none(), none(), none()], |row| row.get::<_, String>(3)).unwrap();
    let plan: Vec<_> = plan.map(Result::unwrap).collect();
    assert!(!plan.iter().any(|step| step.contains("SCAN")), "{plan:?}");
    for columns in ["(caller=? AND address=? AND idempotency_key=?)", "(caller=? AND key=? AND idempotency_key=?)"] {
        assert!(plan.iter().any(|step| step.contains(columns)), "{plan:?}");
    }
}

#[tokio::test]
async fn callers_are_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let open = Open::at(&path);
    assert!(open.callers.is_empty());
    for (caller, name) in [("b", "1"), ("a", "1"), ("a", "2"), ("c", "1")] {
        let id = RequestId { caller: caller.into(), ..request(name, 0).id };
        fresh(&open.ledger, Request { id, ..request(name, 0) }).await;
    }
    open.close();
    let open = Open::at(&path);
    assert_eq!(open.callers, ["a", "b", "c"].map(str::to_owned).into());
    open.close();
}

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
    old.execute_batch(schema::TABLE).unwrap();
    old.pragma_update(None, "application_id", schema::APPLICATION).unwrap();
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

#[tokio::test]
async fn what_is_released_is_as_if_it_never_was() {
    let dir = tempfile::tempdir().unwrap();
    let open = Open::at(&dir.path().join("ledger.db"));
    let a = fresh(&open.ledger, request("a", 4)).await;
    let b = fresh(&open.ledger, request("b", 4)).await;
    assert!(matches!(open.ledger.begin(request("c", 3)).await, Ok(Begun::Denied(_))));
    open.ledger.release(a).await.unwrap();
    open.ledger.release(a).await.unwrap();
    let c = fresh(&open.ledger, request("c", 6)).await;
    assert!(matches!(open.ledger.begin(request("d", 1)).await, Ok(Begun::Denied(_))));
    // Bytes signed for a reservation that is gone go nowhere.
    assert_eq!(open.ledger.store(a, signed(1), at(NOW)).await, Err(LedgerError::NotReserved));
    let a = fresh(&open.ledger, Request { digest: [9; 32], ..request("a", 0) }).await;
    assert!(a != b && a != c);
    open.close();
}

#[tokio::test]
async fn the_daily_limit_rolls() {
    let dir = tempfile::tempdir().unwrap();
    let open = Open::at(&dir.path().join("ledger.db"));
    let at = |name: &str, value, hours: u64| Request { now: at(NOW + hours * HOUR), ..request(name, value) };
    fresh(&open.ledger, at("a", 6, 0)).await;
    fresh(&open.ledger, at("b", 4, 12)).await;
    let denied = |begun| match begun {
        Ok(Begun::Denied(denied)) => denied.rule == "daily_value",
        _ => false,
    };
    assert!(denied(open.ledger.begin(at("c", 1, 23)).await));
    let almost = Request { now: at("c", 1, 24).now - Duration::from_millis(1), ..at("c", 1, 24) };
    assert!(denied(open.ledger.begin(almost).await));
    fresh(&open.ledger, at("c", 6, 24)).await;
    assert!(denied(open.ledger.begin(at("d", 1, 35)).await));
    // A clock that goes back opens no second window: a little, it is as if it had stood still; more, and it is refused.
    let little = Request { now: at("d", 1, 24).now - Duration::from_secs(300), ..at("d", 1, 24) };
    assert!(denied(open.ledger.begin(little).await));
    let behind = Duration::from_secs(24 * HOUR);
    assert_eq!(open.ledger.begin(at("d", 1, 0)).await, Ok(Begun::ClockBehind(behind)));
    fresh(&open.ledger, at("d", 4, 36)).await;
    // Another chain, key or policy has its own.
    fresh(&open.ledger, Request { chain_id: 1, ..at("e", 10, 36) }).await;
    fresh(&open.ledger, Request { policy: "other".into(), ..at("f", 10, 36) }).await;
    let elsewhere = RequestId { key: "cold".into(), address: COLD, ..request("g", 0).id };
    fresh(&open.ledger, Request { id: elsewhere, ..at("g", 10, 36) }).await;
    // None at all.
    fresh(&open.ledger, Request { daily_limit: None, value: U256::MAX, ..at("h", 0, 36) }).await;
    assert!(denied(open.ledger.begin(at("i", 1, 36)).await));
    open.close();
}

/// What docs/signer.md has operators do, at this time.
fn recover(path: &Path, seconds: u64) {
    let docs = include_str!("../../../docs/signer.md");
    let command = docs.lines().find(|line| line.contains("UPDATE transactions")).unwrap();
    let sql = command.split('"').nth(1).unwrap().replace("unixepoch()", &seconds.to_string());
    rusqlite::Connection::open(path).unwrap().execute_batch(&sql).unwrap();
}

#[tokio::test]
async fn a_clock_that_ran_ahead_is_said_and_can_be_recovered_from() {
    const YEARS: u64 = 24 * 3650;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let open = Open::at(&path);
    let at = |name: &str, value, hours: u64| Request { now: at(NOW + hours * HOUR), ..request(name, value) };
    let denied = |begun| matches!(begun, Ok(Begun::Denied(_)));
    let behind = |hours: u64| Ok(Begun::ClockBehind(Duration::from_secs(hours * HOUR)));
    fresh(&open.ledger, at("a", 4, 0)).await;
    // The clock is years ahead for one request, and then right again.
    let ahead = fresh(&open.ledger, at("ahead", 6, YEARS)).await;
    assert_eq!(open.ledger.begin(at("b", 1, 1)).await, behind(YEARS - 1));
    assert_eq!(open.ledger.begin(at("ahead", 6, 1)).await, Ok(Begun::Pending(ahead)), "what is reserved is signed");
    // What spends nothing, or has no limit, or is counted elsewhere, goes on.
    fresh(&open.ledger, at("zero", 0, 1)).await;
    fresh(&open.ledger, Request { chain_id: 1, ..at("elsewhere", 10, 1) }).await;
    open.close();
    let open = Open::at(&path);
    assert_eq!(open.ledger.begin(at("b", 1, 2)).await, behind(YEARS - 2), "after a restart too");
    assert!(denied(open.ledger.begin(at("b", 5, YEARS + 23)).await), "where the clock was ahead, it is spent");
    open.close();

    recover(&path, NOW + 3 * HOUR);
    let open = Open::at(&path);
    assert!(denied(open.ledger.begin(at("b", 1, 3)).await), "4 and 6 of 10 are spent");
    fresh(&open.ledger, at("b", 4, 24)).await;
    assert!(denied(open.ledger.begin(at("c", 1, 26)).await), "from the recovery on, for 24 hours");
    fresh(&open.ledger, at("c", 6, 27)).await;
    assert!(denied(open.ledger.begin(at("d", 1, 28)).await));
    // Released, it is as if the clock had never been ahead.
    let ahead = fresh(&open.ledger, at("again", 4, YEARS)).await;
    assert_eq!(open.ledger.begin(at("d", 4, 48)).await, behind(YEARS - 48));
    open.ledger.release(ahead).await.unwrap();
    fresh(&open.ledger, at("d", 4, 48)).await;
    open.close();
    let hand = rusqlite::Connection::open(&path).unwrap();
    let said = "SELECT created_at FROM transactions WHERE idempotency_key = 'ahead'";
    let said: i64 = hand.query_row(said, [], |row| row.get(0)).unwrap();
    assert_eq!(said.cast_unsigned(), (NOW + YEARS * HOUR) * 1000, "what the clock said is kept");
}

#[tokio::test]
async fn a_clock_that_is_a_little_behind_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let open = Open::at(&dir.path().join("ledger.db"));
    let at = |name: &str, value, seconds: u64| Request { now: at(NOW + seconds), ..request(name, value) };
    fresh(&open.ledger, at("a", 1, 300)).await;
    fresh(&open.ledger, at("b", 9, 0)).await;
    // It counts as of the first, not from five minutes before.
    assert!(matches!(open.ledger.begin(at("c", 1, 24 * HOUR + 299)).await, Ok(Begun::Denied(_))));
    fresh(&open.ledger, at("c", 10, 24 * HOUR + 300)).await;
    open.close();
}

#[tokio::test]
async fn a_pending_request_moves_to_its_callers_new_policy() {
    let dir = tempfile::tempdir().unwrap();
    let open = Open::at(&dir.path().join("ledger.db"));
    fresh(&open.ledger, request("a", 10)).await;
    let moved = Request { policy: "other".into(), ..request("a", 10) };
    let tight = Request { daily_limit: Some(U256::from(9)), ..moved.clone() };
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_spend_the_limit_once() {
    let dir = tempfile::tempdir().unwrap();
    let open = Open::at(&dir.path().join("ledger.db"));
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

#[tokio::test]
async fn a_full_disk_and_a_lock_have_names() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let open = Open::at(&path);
    let reservation = fresh(&open.ledger, request("a", 1)).await;
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(open.ledger.begin(request("b", 1)).await, Err(LedgerError::Locked));
    assert_eq!(open.ledger.store(reservation, signed(1), at(NOW)).await, Err(LedgerError::Locked));
    assert!(open.ledger.lookup(request("a", 1).id).await.unwrap().is_some(), "reading needs no lock");
    other.execute_batch("ROLLBACK").unwrap();
    fresh(&open.ledger, request("b", 1)).await;
    open.close();

    // A disk that takes no more pages, for a writer of its own.
    let (connection, files) = schema::open(&path, &BTreeMap::new()).unwrap();
    let pages: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(())).unwrap();
    let (jobs, queue) = mpsc::channel(4);
    let thread = std::thread::spawn(move || Writer::new(connection, files).run(queue));
    let ledger = Ledger { jobs };
    let big = Signed { raw: vec![0; 100_000], ..signed(1) };
    assert_eq!(ledger.store(reservation, big, at(NOW)).await, Err(LedgerError::Full));
    assert_eq!(ledger.store(reservation, signed(2), at(NOW)).await, Ok(signed(2)), "and it goes on");
    drop(ledger);
    thread.join().unwrap();
}

/// What was done to a file of the ledger, and how to undo it.
fn gone(path: &Path, replaced: bool) -> impl FnOnce() + use<> {
    let (path, away) = (path.to_owned(), path.with_extension("away"));
    std::fs::rename(&path, &away).unwrap();
    if replaced {
        std::fs::copy(&away, &path).unwrap();
    }
    move || std::fs::rename(away, path).unwrap()
}

#[tokio::test]
async fn a_file_that_is_moved_replaced_or_removed_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let open = Open::at(&path);
    for (i, (end, replaced)) in ["", "-wal", "-shm"].into_iter().flat_map(|end| [(end, false), (end, true)]).enumerate()
    {
        let name = |name| format!("{name}{i}");
        let reservation = fresh(&open.ledger, request(&name("a"), 0)).await;
        let file = PathBuf::from(format!("{}{end}", path.display()));
        let undo = gone(&file, replaced);
        let error = Some(LedgerError::Replaced(file));
        assert_eq!(open.ledger.begin(request(&name("b"), 0)).await.err(), error, "{end}");
        assert_eq!(open.ledger.store(reservation, signed(1), at(NOW)).await.err(), error, "{end}");
        assert_eq!(open.ledger.release(reservation).await.err(), error, "{end}");
        assert_eq!(open.ledger.lookup(request(&name("a"), 0).id).await.err(), error, "{end}");
        undo();
        assert_eq!(open.ledger.begin(request(&name("a"), 0)).await, Ok(Begun::Pending(reservation)), "{end}");
        assert_eq!(open.ledger.lookup(request(&name("b"), 0).id).await, Ok(None), "{end}");
    }
    open.close();
}

#[tokio::test]
async fn a_file_that_goes_while_it_is_written_is_seen_to_have_gone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let open = Open::at(&path);
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let ledger = open.ledger.clone();
    let waits = tokio::spawn(async move { ledger.begin(request("a", 1)).await });
    tokio::time::sleep(Duration::from_millis(700)).await;
    let undo = gone(&path, false);
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(waits.await.unwrap(), Err(LedgerError::Replaced(path)));
    undo();
    assert!(matches!(open.ledger.begin(request("a", 1)).await, Ok(Begun::Pending(_))), "it was written all the same");
    open.close();
}

#[tokio::test]
async fn one_process_has_the_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let open = Open::at(&path);
    let error = opened(&path).unwrap_err();
    assert!(matches!(error.error, LedgerError::InUse(_)), "{error}");
    assert!(error.to_string().starts_with(&path.display().to_string()), "{error}");
    // The first has not noticed, and keeps SQLite's own locks too.
    fresh(&open.ledger, request("a", 1)).await;
    open.close();
    Open::at(&path).close();
}

#[tokio::test]
async fn a_ledger_may_be_behind_a_link() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("disk")).unwrap();
    let (path, link) = (dir.path().join("disk/ledger.db"), dir.path().join("link.db"));
    for name in ["disk/ledger.db", "other.db"] {
        Open::at(&dir.path().join(name)).close();
    }
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let open = Open::at(&link);
    fresh(&open.ledger, request("a", 1)).await;
    assert!(matches!(opened(&path).unwrap_err().error, LedgerError::InUse(_)));
    // The link leads elsewhere now, and so would the next start.
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(dir.path().join("other.db"), &link).unwrap();
    assert_eq!(open.ledger.begin(request("b", 1)).await, Err(LedgerError::Replaced(link)));
    open.close();
}

#[tokio::test]
async fn a_lock_is_waited_for_once_by_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let open = Open::at(&path);
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let start = std::time::Instant::now();
    let asking: Vec<_> = (0..20)
        .map(|i| {
            let ledger = open.ledger.clone();
            tokio::spawn(async move { ledger.begin(request(&i.to_string(), 0)).await })
        })
        .collect();
    for asked in asking {
        assert_eq!(asked.await.unwrap(), Err(LedgerError::Locked));
    }
    // The first alone, and then all the others.
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    drop(other);
    open.close();
}

#[tokio::test]
async fn one_requests_trouble_is_not_anothers() {
    let dir = tempfile::tempdir().unwrap();
    let (connection, files) = schema::open(&dir.path().join("ledger.db"), &BTreeMap::new()).unwrap();
    let (jobs, queue) = mpsc::channel(4);
    let ledger = Ledger { jobs };
    // Chain 0 breaks a CHECK. All three are in the queue before the writer starts, so they share a group.
    let bad = Request { chain_id: 0, ..request("bad", 1) };
    let (one, bad, two) = tokio::join!(ledger.begin(request("a", 1)), ledger.begin(bad), async {
        let begin = ledger.begin(request("b", 1));
        std::thread::spawn(move || Writer::new(connection, files).run(queue));
        begin.await
    });
    assert!(matches!((one, two), (Ok(Begun::Fresh(_)), Ok(Begun::Fresh(_)))));
    assert!(matches!(bad, Err(LedgerError::Other(_))), "{bad:?}");
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
    schema::open(&newer, &BTreeMap::new()).unwrap().0.pragma_update(None, "user_version", 99).unwrap();
    assert!(opened(&newer).unwrap_err().to_string().contains("version 99"));
}

#[test]
fn signed_bytes_cannot_be_changed_by_hand() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let open = Open::at(&path);
        let reservation = fresh(&open.ledger, request("a", 1)).await;
        open.ledger.store(reservation, signed(1), at(NOW)).await.unwrap();
        open.close();
    });
    let hand = rusqlite::Connection::open(&path).unwrap();
    assert!(hand.execute("UPDATE transactions SET raw = x'00'", []).is_err());
    assert!(hand.execute("DELETE FROM transactions", []).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// The clock jumps both ways, minutes or years at once. Whatever was asked for less than 24 hours before the clock's
    /// hand, or in its future, counts as spent; what is released at any time counts no more; and what is refused for the
    /// clock is so only when something was counted ahead of it.
    #[test]
    fn a_clock_that_jumps_frees_no_allowance(
        steps in prop::collection::vec((prop_oneof![0..900u64, 0..48 * HOUR, 0..100_000 * HOUR], 0u64..6, any::<bool>()), 1..40),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let open = Open::at(&dir.path().join("ledger.db"));
            // When it was asked for, as of when it is counted, what it spends.
            let mut spent: Vec<(u64, u64, u64, Reservation)> = Vec::new();
            for (i, (clock, value, release)) in steps.into_iter().enumerate() {
                let now = NOW + clock;
                let counted = spent.iter().filter(|(then, ..)| *then > now - 24 * HOUR).map(|(_, _, value, _)| value);
                let counted: u64 = counted.sum();
                let last = spent.iter().map(|(_, counted, ..)| *counted).max().unwrap_or(0);
                let request = Request { now: at(now), ..request(&i.to_string(), value) };
                match open.ledger.begin(request).await.unwrap() {
                    Begun::Fresh(reservation) => {
                        assert!(value == 0 || counted + value <= 10, "{counted} + {value}");
                        if release && !spent.is_empty() {
                            let (.., earlier) = spent.swap_remove(i % spent.len());
                            open.ledger.release(earlier).await.unwrap();
                        }
                        spent.push((now, now.max(last), value, reservation));
                    }
                    Begun::ClockBehind(_) => {
                        assert!(value > 0 && last > now + 300, "{now} {spent:?}");
                    }
                    Begun::Denied(_) => {
                        // Never for nothing: all that is held is above the limit.
                        let held: u64 = spent.iter().map(|(_, _, value, _)| value).sum();
                        assert!(held + value > 10, "{held} + {value}");
                    }
                    other => panic!("{other:?}"),
                }
            }
            open.close();
        });
    }

    /// Against a model that remembers everything: in every window of 24 hours the limit holds, and nothing that fits
    /// is denied.
    #[test]
    fn spending_is_exact(steps in prop::collection::vec((0u64..10 * HOUR, 0u64..6, any::<bool>()), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let open = Open::at(&dir.path().join("ledger.db"));
            let mut now = NOW;
            let mut spent: Vec<(u64, u64)> = Vec::new();
            let mut last = None;
            for (i, (later, value, release)) in steps.into_iter().enumerate() {
                now += later;
                let window: u64 = spent.iter().filter(|(then, _)| *then > now - 24 * HOUR).map(|(_, value)| value).sum();
                let request = Request { now: at(now), ..request(&i.to_string(), value) };
                match open.ledger.begin(request).await.unwrap() {
                    Begun::Fresh(reservation) => {
                        assert!(value == 0 || window + value <= 10);
                        // Releases the one before, so that its value is taken out below this one.
                        if release && let Some((index, reservation)) = last.take() {
                            open.ledger.release(reservation).await.unwrap();
                            spent.remove(index);
                        }
                        spent.push((now, value));
                        last = Some((spent.len() - 1, reservation));
                    }
                    Begun::Denied(_) => assert!(window + value > 10),
                    other => panic!("{other:?}"),
                }
            }
            open.close();
        });
    }
}
