//! The database file: how it is opened, and what is in it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::time::Duration;

use alloy_consensus::TxEnvelope;
use alloy_eips::Decodable2718;
use alloy_primitives::{Address, U256};
use rusqlite::{Connection, OpenFlags, TransactionBehavior, params};

use super::LedgerError;
use super::files::Files;
use crate::key::PublicKey;
use crate::signature::Signature;

/// `application_id` of the file: "kgl1".
pub(crate) const APPLICATION: i32 = 0x6b67_6c31;

/// Brings the database from one version to the next. It is given the addresses of the file's keys, by name.
type Migration = fn(&Connection, &BTreeMap<String, Address>) -> Result<(), LedgerError>;

/// Each brings the database from the version of its index to the next. Never changed, only added to.
const MIGRATIONS: [Migration; 4] = [
    |db, _| Ok(db.execute_batch(TABLE)?),
    addresses,
    |db, _| Ok(db.execute_batch(COUNTED)?),
    |db, _| Ok(db.execute_batch(STATEMENTS)?),
];

pub(super) const TABLE: &str =
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
        BEGIN SELECT RAISE(ABORT, 'what was signed is not deleted'); END;";

/// A key's name is the file's, and may change; its address does not. From here on requests and spending are by address.
///
/// `address` is null for a reservation from before, under a name that the file did not have any more: it is found by
/// its name alone. Two rows of a caller may share an address and idempotency key, if the file gave one key two names.
const ADDRESSES: &str = "ALTER TABLE transactions ADD COLUMN address BLOB CHECK (length(address) = 20);
    CREATE INDEX by_address ON transactions (caller, address, idempotency_key);";

/// As [`TABLE`] has them, by address.
const BY_ADDRESS: &str = "DROP INDEX spending;
    CREATE INDEX spending ON transactions (policy, address, chain_id, created_at, id);
    DROP TRIGGER signed_for_ever;
    CREATE TRIGGER signed_for_ever
        BEFORE UPDATE OF raw, hash, signature, signed_at, digest, chain_id, nonce, address
        ON transactions WHEN old.raw IS NOT NULL
        BEGIN SELECT RAISE(ABORT, 'what was signed does not change'); END;";

/// From here on `created_at` is what the clock said, and `counted_at` never falls within a policy, address and chain,
/// which totals are taken by: when a request comes in while the clock is behind, that of the one before.
const COUNTED: &str = "ALTER TABLE transactions ADD COLUMN counted_at INTEGER NOT NULL DEFAULT 0;
    UPDATE transactions SET counted_at = created_at;
    DROP INDEX spending;
    CREATE INDEX spending ON transactions (policy, address, chain_id, counted_at, id);";

/// What was signed besides transactions: `kind` is `message`, `typed-data` or `authorization`; `content` is the message,
/// or JSON; `signed_at` is milliseconds since 1970.
const STATEMENTS: &str = "CREATE TABLE statements (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        caller TEXT NOT NULL,
        key TEXT NOT NULL,
        address BLOB NOT NULL CHECK (length(address) = 20),
        policy TEXT NOT NULL,
        kind TEXT NOT NULL,
        digest BLOB NOT NULL CHECK (length(digest) = 32),
        content BLOB NOT NULL,
        signature BLOB NOT NULL CHECK (length(signature) = 65),
        signed_at INTEGER NOT NULL
    ) STRICT;
    CREATE TRIGGER said_for_ever BEFORE UPDATE ON statements
        BEGIN SELECT RAISE(ABORT, 'what was signed does not change'); END;
    CREATE TRIGGER said_is_kept BEFORE DELETE ON statements
        BEGIN SELECT RAISE(ABORT, 'what was signed is not deleted'); END;";

/// What was signed says by whom: its address is read from its signature. A reservation's is the one that the file gives
/// its key's name. Where that takes accounts apart or together, their totals are made anew.
fn addresses(db: &Connection, keys: &BTreeMap<String, Address>) -> Result<(), LedgerError> {
    db.execute_batch(ADDRESSES)?;
    let mut accounts: HashMap<(String, Option<Address>, i64), (U256, i64)> = HashMap::new();
    let mut update = db.prepare("UPDATE transactions SET address = ?2, total = ?3, created_at = ?4 WHERE id = ?1")?;
    let mut select =
        db.prepare("SELECT id, key, policy, chain_id, value, created_at, raw FROM transactions ORDER BY id")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let raw: Option<Vec<u8>> = row.get(6)?;
        let named = || keys.get(&row.get::<_, String>(1).ok()?).copied();
        let address = raw.and_then(|raw| sender(&raw)).or_else(named);
        let account = accounts.entry((row.get(2)?, address, row.get(3)?)).or_insert((U256::ZERO, i64::MIN));
        account.0 = account.0.saturating_add(U256::from_be_bytes(row.get::<_, [u8; 32]>(4)?));
        account.1 = account.1.max(row.get(5)?);
        let address = address.map(Address::into_array);
        update.execute(params![row.get::<_, i64>(0)?, address, account.0.to_be_bytes::<32>(), account.1])?;
    }
    Ok(db.execute_batch(BY_ADDRESS)?)
}

/// Whose signature a raw transaction has.
fn sender(mut raw: &[u8]) -> Option<Address> {
    let tx = TxEnvelope::decode_2718(&mut raw).ok()?;
    let signature = tx.signature();
    let signature = Signature::from_parts(signature.r().to_be_bytes(), signature.s().to_be_bytes(), signature.v())?;
    Some(PublicKey::recover(&tx.signature_hash().0, &signature)?.address())
}

/// The version that the migrations lead to.
pub(crate) const NEWEST: i32 = MIGRATIONS.len() as i32;

/// Opens or makes the database, takes hold of it, and brings it to the newest version.
pub(super) fn open(path: &Path, keys: &BTreeMap<String, Address>) -> Result<(Connection, Files), LedgerError> {
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
    migrate(&mut connection, keys)?;
    files.opened()?;
    Ok((connection, files))
}

/// The callers that have used idempotency keys.
pub(super) fn callers(connection: &Connection) -> Result<BTreeSet<String>, LedgerError> {
    // From one to the next by the index, however many rows each has.
    let mut select = connection.prepare(
        "WITH RECURSIVE known (caller) AS (
             SELECT min(caller) FROM transactions
             UNION ALL SELECT (SELECT min(caller) FROM transactions WHERE caller > known.caller)
             FROM known WHERE known.caller IS NOT NULL)
         SELECT caller FROM known WHERE caller IS NOT NULL",
    )?;
    let callers = select.query_map([], |row| row.get(0))?;
    Ok(callers.collect::<Result<_, _>>()?)
}

fn migrate(connection: &mut Connection, keys: &BTreeMap<String, Address>) -> Result<(), LedgerError> {
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
        migration(&transaction, keys)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", NEWEST)?;
    Ok(transaction.commit()?)
}
