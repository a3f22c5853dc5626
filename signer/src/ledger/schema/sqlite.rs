//! What is in a SQLite database, and how it came to be so.

use std::collections::{BTreeMap, HashMap};

use alloy_consensus::TxEnvelope;
use alloy_eips::Decodable2718;
use alloy_primitives::{Address, U256};
use rusqlite::{Connection, TransactionBehavior, params};

use crate::key::PublicKey;
use crate::ledger::LedgerError;
use crate::ledger::audit;
use crate::ledger::db::sqlite::Open;
use crate::ledger::spends::Total;
use crate::signature::Signature;

/// `application_id` of the file: "kgl1".
pub(crate) const APPLICATION: i32 = 0x6b67_6c31;

/// Brings the database from one version to the next. It is given the addresses of the file's keys, by name.
type Migration = fn(&Connection, &BTreeMap<String, Address>) -> Result<(), LedgerError>;

/// Each brings the database from the version of its index to the next. Never changed, only added to.
const MIGRATIONS: [Migration; 6] = [
    |db, _| Ok(db.execute_batch(TABLE)?),
    addresses,
    |db, _| Ok(db.execute_batch(COUNTED)?),
    |db, _| Ok(db.execute_batch(STATEMENTS)?),
    spends,
    |db, _| Ok(db.execute_batch(FREE)?),
];

pub(in crate::ledger) const TABLE: &str =
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

/// What is spent has rows of its own from here on: of any asset, and of what is no transaction.
///
/// `total` is the running total of `amount` by policy, address, chain and asset, so that the spending of any window is
/// one subtraction; 40 bytes, big-endian, which no sum of 32 bytes ever fills. `asset` is a token's address, or empty for
/// the chain's own currency. `counted_at`, in milliseconds since 1970, never falls within an account. A nonce that is
/// `managed` was chosen here; `body` is the transaction as JSON, without it. `gaps` are nonces that were reserved and
/// given back unused. What is to be sent to the chain is in `sends`. Each entry of `audit` has the SHA-256 of the one
/// before it and of itself.
const SPENDS: &str = "CREATE TABLE spends (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        request INTEGER,
        policy TEXT NOT NULL,
        address BLOB CHECK (length(address) = 20),
        chain_id INTEGER NOT NULL,
        asset BLOB NOT NULL CHECK (length(asset) IN (0, 20)),
        amount BLOB NOT NULL CHECK (length(amount) = 32),
        total BLOB NOT NULL CHECK (length(total) = 40),
        counted_at INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX spending_of ON spends (policy, address, chain_id, asset, counted_at, id);
    CREATE INDEX spends_of ON spends (request);
    CREATE TABLE nonces (
        address BLOB NOT NULL CHECK (length(address) = 20),
        chain_id INTEGER NOT NULL,
        next INTEGER NOT NULL,
        PRIMARY KEY (address, chain_id)
    ) STRICT;
    CREATE TABLE gaps (
        address BLOB NOT NULL CHECK (length(address) = 20),
        chain_id INTEGER NOT NULL,
        nonce INTEGER NOT NULL,
        PRIMARY KEY (address, chain_id, nonce)
    ) STRICT;
    CREATE TABLE approvals (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        caller TEXT NOT NULL,
        key TEXT NOT NULL,
        address BLOB NOT NULL CHECK (length(address) = 20),
        idempotency_key TEXT NOT NULL,
        digest BLOB NOT NULL CHECK (length(digest) = 32),
        chain_id INTEGER NOT NULL,
        policy TEXT NOT NULL,
        rule TEXT NOT NULL,
        body TEXT NOT NULL,
        asked_at INTEGER NOT NULL,
        decided_at INTEGER,
        decided_by TEXT,
        approved INTEGER,
        UNIQUE (caller, address, idempotency_key)
    ) STRICT;
    CREATE TABLE sends (
        request INTEGER PRIMARY KEY,
        state TEXT NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        first_sent_at INTEGER,
        last_sent_at INTEGER,
        block INTEGER,
        succeeded INTEGER,
        note TEXT
    ) STRICT;
    CREATE INDEX sends_by_state ON sends (state);
    CREATE TABLE audit (
        seq INTEGER PRIMARY KEY,
        entry TEXT NOT NULL,
        hash BLOB NOT NULL CHECK (length(hash) = 32)
    ) STRICT;
    CREATE TRIGGER audit_for_ever BEFORE UPDATE ON audit
        BEGIN SELECT RAISE(ABORT, 'what was audited does not change'); END;
    CREATE TRIGGER audit_is_kept BEFORE DELETE ON audit
        BEGIN SELECT RAISE(ABORT, 'what was audited is not deleted'); END;";

/// What moved away, and what came.
const REQUESTS: &str = "DROP INDEX spending;
    ALTER TABLE transactions DROP COLUMN total;
    ALTER TABLE transactions DROP COLUMN counted_at;
    ALTER TABLE transactions ADD COLUMN managed INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE transactions ADD COLUMN send INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE transactions ADD COLUMN body TEXT;
    CREATE INDEX by_nonce ON transactions (address, chain_id, nonce);
    CREATE INDEX unfinished ON transactions (id) WHERE raw IS NULL;
    DROP TRIGGER signed_for_ever;
    CREATE TRIGGER signed_for_ever
        BEFORE UPDATE OF raw, hash, signature, signed_at, digest, chain_id, nonce, address, body, managed
        ON transactions WHEN old.raw IS NOT NULL
        BEGIN SELECT RAISE(ABORT, 'what was signed does not change'); END;";

/// `gaps` are ranges of nonces below `next`, their first and last one, that no transaction has: what lies below the highest
/// that one has, whoever chose it. 2^62 and those above are not kept account of. Those below `used` are not
/// chosen: one is final. `doubted_at`, in milliseconds since 1970, is when a node began to count fewer.
///
/// What is held expires at `expires_at`, in milliseconds since 1970, if nobody decides about it. What was held before there
/// was such a time has a day. `replaces` is the nonce of what it is to replace; `replaced_by` the hash of what took a
/// transaction's place.
const FREE: &str = "DROP TRIGGER signed_for_ever;
    ALTER TABLE transactions DROP COLUMN managed;
    CREATE TRIGGER signed_for_ever
        BEFORE UPDATE OF raw, hash, signature, signed_at, digest, chain_id, nonce, address, body
        ON transactions WHEN old.raw IS NOT NULL
        BEGIN SELECT RAISE(ABORT, 'what was signed does not change'); END;
    DROP TABLE gaps;
    CREATE TABLE gaps (
        address BLOB NOT NULL CHECK (length(address) = 20),
        chain_id INTEGER NOT NULL,
        first INTEGER NOT NULL,
        last INTEGER NOT NULL CHECK (last >= first),
        PRIMARY KEY (address, chain_id, last)
    ) STRICT;
    DELETE FROM nonces;
    ALTER TABLE nonces ADD COLUMN used INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE nonces ADD COLUMN doubted_at INTEGER;
    INSERT INTO nonces (address, chain_id, next, used)
        SELECT t.address, t.chain_id, max(t.nonce) + 1,
               coalesce(max(CASE WHEN s.state IN ('confirmed', 'replaced') THEN t.nonce + 1 END), 0)
        FROM transactions t LEFT JOIN sends s ON s.request = t.id
        WHERE t.address IS NOT NULL AND t.nonce >= 0 AND t.nonce < 1 << 62 GROUP BY t.address, t.chain_id;
    INSERT INTO gaps (address, chain_id, first, last)
        SELECT address, chain_id, before + 1, nonce - 1 FROM
            (SELECT address, chain_id, nonce,
                    lag(nonce, 1, -1) OVER (PARTITION BY address, chain_id ORDER BY nonce) AS before
             FROM transactions WHERE address IS NOT NULL AND nonce >= 0 AND nonce < 1 << 62) AS taken
        WHERE nonce > before + 1;
    ALTER TABLE sends ADD COLUMN replaced_by BLOB CHECK (length(replaced_by) = 32);
    ALTER TABLE approvals ADD COLUMN expires_at INTEGER NOT NULL DEFAULT 0;
    UPDATE approvals SET expires_at = asked_at + 86400000;
    ALTER TABLE approvals ADD COLUMN replaces INTEGER;";

fn spends(db: &Connection, _: &BTreeMap<String, Address>) -> Result<(), LedgerError> {
    db.execute_batch(SPENDS)?;
    let mut totals: HashMap<(String, Option<[u8; 20]>, i64), Total> = HashMap::new();
    let mut insert = db.prepare(
        "INSERT INTO spends (request, policy, address, chain_id, asset, amount, total, counted_at)
         VALUES (?1, ?2, ?3, ?4, x'', ?5, ?6, ?7)",
    )?;
    let mut select =
        db.prepare("SELECT id, policy, address, chain_id, value, counted_at FROM transactions ORDER BY id")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let account = (row.get::<_, String>(1)?, row.get::<_, Option<[u8; 20]>>(2)?, row.get::<_, i64>(3)?);
        let amount = U256::from_be_bytes(row.get::<_, [u8; 32]>(4)?);
        if !amount.is_zero() {
            let total = totals.entry(account.clone()).or_default();
            *total = total.saturating_add(Total::from(amount));
            let (id, counted_at) = (row.get::<_, i64>(0)?, row.get::<_, i64>(5)?);
            let (amount, total) = (amount.to_be_bytes::<32>(), total.to_be_bytes::<40>());
            insert.execute(params![id, account.0, account.1, account.2, amount, total, counted_at])?;
        }
    }
    db.execute_batch(REQUESTS)?;
    audit::begin(&mut Open(db))
}

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

/// Sees that the database is of this version.
pub(in crate::ledger) fn is_newest(connection: &Connection) -> Result<(), LedgerError> {
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    match (number("application_id")?, number("user_version")?) {
        (APPLICATION, NEWEST) => Ok(()),
        (APPLICATION, version) => {
            Err(LedgerError::Unusable(format!("it has version {version}, and this keygate reads {NEWEST}")))
        }
        _ => Err(LedgerError::Unusable("it is another program's database".into())),
    }
}

/// A database as an older keygate has made it.
#[cfg(test)]
pub(in crate::ledger) fn older(connection: &Connection, version: usize) {
    for migration in &MIGRATIONS[..version] {
        migration(connection, &BTreeMap::new()).unwrap();
    }
    connection.pragma_update(None, "application_id", APPLICATION).unwrap();
    connection.pragma_update(None, "user_version", i64::try_from(version).unwrap()).unwrap();
}

/// Brings the database to the newest version.
pub(in crate::ledger) fn migrate(
    connection: &mut Connection,
    keys: &BTreeMap<String, Address>,
) -> Result<(), LedgerError> {
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
