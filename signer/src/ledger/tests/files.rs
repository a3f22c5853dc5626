//! The database's files, its lock and its disk.

use super::*;

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
    let writer = Sqlite::open(&path, &BTreeMap::new()).unwrap();
    let connection = &writer.connection;
    let pages: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(())).unwrap();
    let (jobs, queue) = mpsc::channel(4);
    let thread = std::thread::spawn(move || Writer(writer).run(queue));
    let ledger = Ledger { reads: jobs.clone(), jobs, file: None };
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
        assert_eq!(open.ledger.release(reservation, at(NOW)).await.err(), error, "{end}");
        assert_eq!(open.ledger.lookup(request(&name("a"), 0).id).await.err(), error, "{end}");
        undo();
        assert_eq!(pending(open.ledger.begin(request(&name("a"), 0)).await), reservation, "{end}");
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
    let writer = Sqlite::open(&dir.path().join("ledger.db"), &BTreeMap::new()).unwrap();
    let (jobs, queue) = mpsc::channel(4);
    let ledger = Ledger { reads: jobs.clone(), jobs, file: None };
    // Chain 0 breaks a CHECK. All three are in the queue before the writer starts, so they share a group.
    let bad = Request { chain_id: 0, ..request("bad", 1) };
    let (one, bad, two) = tokio::join!(ledger.begin(request("a", 1)), ledger.begin(bad), async {
        let begin = ledger.begin(request("b", 1));
        std::thread::spawn(move || Writer(writer).run(queue));
        begin.await
    });
    assert!(matches!((one, two), (Ok(Begun::Fresh(_)), Ok(Begun::Fresh(_)))));
    assert!(matches!(bad, Err(LedgerError::Other(_))), "{bad:?}");
}

/// How often the write-ahead log has begun anew: the checkpoint sequence number in its header
/// (<https://www.sqlite.org/fileformat2.html#walformat>).
fn begun_anew(log: &Path) -> u32 {
    let header = std::fs::read(log).unwrap();
    header.get(12..16).map_or(0, |number| u32::from_be_bytes(number.try_into().unwrap()))
}

#[tokio::test]
async fn the_log_begins_anew_while_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let Open { ledger, running, .. } = Open::at(&path);
    let log = dir.path().join("ledger.db-wal");
    let before = begun_anew(&log);
    // Two who write in turns, so that the writer never rests.
    let write = async || {
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while begun_anew(&log) < before + 2 {
            for _ in 0..100 {
                ledger.note(Event::new(at(NOW), "noted", serde_json::json!({}))).await.unwrap();
            }
            assert!(std::time::Instant::now() < deadline, "{} bytes", std::fs::metadata(&log).unwrap().len());
        }
    };
    tokio::join!(write(), write());
    drop(ledger);
    running.wait();
    assert!(!log.exists(), "the last to close leaves one file");
}

#[test]
fn an_empty_file_is_not_taken_for_a_new_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    std::fs::write(&path, "").unwrap();
    let error = opened(&path).unwrap_err().to_string();
    assert!(error.contains("is empty: if it was a ledger, restore it"), "{error}");
}
