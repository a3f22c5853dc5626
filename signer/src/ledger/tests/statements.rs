//! What was signed besides transactions.

use rusqlite::Connection;

use super::*;

pub(super) fn statement(content: &str) -> Statement {
    Statement {
        caller: "payments".into(),
        key: "hot".into(),
        address: Address::repeat_byte(0x11),
        policy: "payouts".into(),
        kind: "message",
        digest: B256::repeat_byte(1),
        content: content.into(),
        signature: [2; 65],
        now: UNIX_EPOCH + Duration::from_secs(1_800_000_000),
    }
}

async fn recorded(path: &Path, content: &str) {
    let Opened { ledger, running, .. } = Ledger::open(path, &BTreeMap::new()).unwrap();
    ledger.record(statement(content)).await.unwrap();
    drop(ledger);
    running.wait();
}

#[tokio::test]
async fn what_was_said_is_there_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    recorded(&path, "one").await;
    recorded(&path, "one").await;
    let db = Connection::open(&path).unwrap();
    let rows: Vec<(String, Vec<u8>, i64)> = db
        .prepare("SELECT caller, content, signed_at FROM statements")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(rows, vec![("payments".to_owned(), b"one".to_vec(), 1_800_000_000_000); 2]);
    for change in ["DELETE FROM statements", "UPDATE statements SET content = x'00'"] {
        assert!(db.execute_batch(change).unwrap_err().to_string().contains("what was signed"), "{change}");
    }
}
