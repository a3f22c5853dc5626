//! The database file: how it is opened, and what is in it.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::LedgerError;
use super::files::Files;

/// `application_id` of the file: "kgl1".
const APPLICATION: i32 = 0x6b67_6c31;

/// Each brings the database from the version of its index to the next. Never changed, only added to.
const MIGRATIONS: [&str; 1] = [
    // Totals are running totals of `value` by policy, key and chain, so that the spending of any window is one
    // subtraction; amounts are 32 bytes, big-endian. `created_at` and `signed_at` are milliseconds since 1970;
    // `created_at` never falls within a policy, key and chain, whatever the clock does. A nonce is 64 bits unsigned,
    // in SQLite's 64 bits signed.
    "CREATE TABLE transactions (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        caller TEXT NOT NULL,
        key TEXT NOT NULL,
        idempotency_key TEXT NOT NULL,
        digest BLOB NOT NULL CHECK (length(digest) = 32),
        chain_id INTEGER NOT NULL CHECK (chain_id > 0),
        nonce INTEGER NOT NULL,
        policy TEXT NOT NULL,
        value BLOB NOT NULL CHECK (length(value) = 32),
        total BLOB NOT NULL CHECK (length(total) = 32),
        created_at INTEGER NOT NULL,
        signed_at INTEGER,
        raw BLOB,
        hash BLOB CHECK (hash IS NULL OR length(hash) = 32),
        signature BLOB CHECK (signature IS NULL OR length(signature) = 65),
        UNIQUE (caller, key, idempotency_key),
        CHECK ((raw IS NULL) = (hash IS NULL) AND (raw IS NULL) = (signature IS NULL)
           AND (raw IS NULL) = (signed_at IS NULL))
    ) STRICT;
    CREATE INDEX spending ON transactions (policy, key, chain_id, created_at, id);
    CREATE TRIGGER signed_for_ever BEFORE UPDATE OF raw, hash, signature, signed_at, digest, chain_id, nonce
        ON transactions WHEN old.raw IS NOT NULL
        BEGIN SELECT RAISE(ABORT, 'what was signed does not change'); END;
    CREATE TRIGGER signed_is_kept BEFORE DELETE ON transactions WHEN old.raw IS NOT NULL
        BEGIN SELECT RAISE(ABORT, 'what was signed is not deleted'); END;",
];

/// The version that the migrations lead to.
const NEWEST: i32 = MIGRATIONS.len() as i32;

/// Opens or makes the database, takes hold of it, and brings it to the newest version.
pub(super) fn open(path: &Path) -> Result<(Connection, Files), LedgerError> {
    let mut files = Files::hold(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(2))?;
    let journal: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if journal != "wal" {
        return Err(LedgerError::Unusable(format!(
            "its file system takes no write-ahead log (journal mode {journal})"
        )));
    }
    // The commit of a reservation or of signed bytes survives a loss of power.
    connection.pragma_update(None, "synchronous", "FULL")?;
    migrate(&mut connection)?;
    files.opened()?;
    Ok((connection, files))
}

fn migrate(connection: &mut Connection) -> Result<(), LedgerError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let number = |name| transaction.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let (application, version) = (number("application_id")?, number("user_version")?);
    let tables: i64 = transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if application != APPLICATION && (application != 0 || version != 0 || tables != 0) {
        return Err(LedgerError::Unusable("it is another program's database".into()));
    }
    let done = usize::try_from(version).unwrap_or(usize::MAX);
    let Some(missing) = MIGRATIONS.get(done..) else {
        return Err(LedgerError::Unusable(format!("it has version {version}, and this keygate knows {NEWEST}")));
    };
    for migration in missing {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", NEWEST)?;
    Ok(transaction.commit()?)
}
