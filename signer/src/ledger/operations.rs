//! What is done to the ledger, each inside a transaction that somebody else commits.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use alloy_primitives::{Address, B256, U256};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Begun, LedgerError, Record, Request, RequestId, Reservation, Signed, Statement};
use crate::policy::{self, Denied};

/// Daily limits hold in any window of this length.
const WINDOW: Duration = Duration::from_secs(24 * 60 * 60);

/// A clock that is this much behind the last request's is taken for one that was set right: what comes in is counted as
/// if it had not moved. Beyond, nothing is reserved that a daily limit is for: counted ahead, it would count until that
/// time has come, and counted as the clock says, it might be forgotten too soon.
const BEHIND: Duration = Duration::from_secs(5 * 60);

/// No limit reaches 2^128 wei, so a value above it counts as this much: it is refused where there is a limit, and
/// where there is none the totals cannot overflow.
const MOST_COUNTED: U256 = U256::from_limbs([0, 0, 1, 0]);

#[derive(Debug)]
pub(super) enum Operation {
    Lookup(RequestId),
    Begin(Request),
    Store(Reservation, Signed, SystemTime),
    Release(Reservation),
    Record(Statement),
}

#[derive(Debug)]
pub(super) enum Outcome {
    Lookup(Option<Record>),
    Begin(Begun),
    Store(Result<Signed, LedgerError>),
    Release,
    Record,
}

impl Operation {
    /// Runs on an open transaction. May run again on another if that one fails.
    pub(super) fn run(&self, db: &Connection) -> Result<Outcome, LedgerError> {
        match self {
            Self::Lookup(id) => Ok(Outcome::Lookup(find(db, id)?.map(|found| found.record))),
            Self::Begin(request) => begin(db, request).map(Outcome::Begin),
            Self::Store(reservation, signed, now) => store(db, *reservation, signed, *now).map(Outcome::Store),
            Self::Release(reservation) => release(db, *reservation).map(|()| Outcome::Release),
            Self::Record(statement) => record(db, statement).map(|()| Outcome::Record),
        }
    }
}

struct Found {
    id: i64,
    /// The key's name when it was reserved.
    key: String,
    policy: String,
    record: Record,
}

/// By address, whatever the key was called; else by the key's name, though it is another's by now: its digest, which the
/// address is part of, is another then, and so the idempotency key is taken.
pub(super) const FIND: &str =
    "SELECT id, key, policy, address, digest, chain_id, nonce, raw, hash, signature FROM transactions
     WHERE id IN (SELECT id FROM transactions WHERE caller = ?1 AND address = ?2 AND idempotency_key = ?4
                  UNION ALL
                  SELECT id FROM transactions WHERE caller = ?1 AND key = ?3 AND idempotency_key = ?4)
     ORDER BY address IS ?2 DESC, key = ?3 DESC, id LIMIT 1";

fn find(db: &Connection, id: &RequestId) -> Result<Option<Found>, LedgerError> {
    let mut select = db.prepare_cached(FIND)?;
    let found = select.query_row(params![id.caller, id.address.0.0, id.key, id.idempotency_key], |row| {
        Ok(Found {
            id: row.get(0)?,
            key: row.get(1)?,
            policy: row.get(2)?,
            record: Record {
                address: row.get::<_, Option<[u8; 20]>>(3)?.map(Address::from),
                digest: row.get(4)?,
                chain_id: row.get::<_, i64>(5)?.cast_unsigned(),
                nonce: row.get::<_, i64>(6)?.cast_unsigned(),
                signed: signed(row, 7)?,
            },
        })
    });
    Ok(found.optional()?)
}

/// Columns raw, hash and signature, from `first` on.
fn signed(row: &Row<'_>, first: usize) -> rusqlite::Result<Option<Signed>> {
    let Some(raw) = row.get::<_, Option<Vec<u8>>>(first)? else {
        return Ok(None);
    };
    Ok(Some(Signed { raw, hash: B256::from(row.get::<_, [u8; 32]>(first + 1)?), signature: row.get(first + 2)? }))
}

fn begin(db: &Connection, request: &Request) -> Result<Begun, LedgerError> {
    let elsewhere = match find(db, &request.id)? {
        Some(found) if found.record.digest != request.digest => return Ok(Begun::Conflict),
        Some(Found { record: Record { signed: Some(signed), .. }, .. }) => return Ok(Begun::Signed(signed)),
        Some(found) if found.policy == request.policy && found.record.address.is_some() => {
            return Ok(Begun::Pending(Reservation(found.id)));
        }
        // The caller has another policy now: the reservation moves there, and counts there. It stays one that may have
        // been signed for. As does one whose address was not known: the digest has told.
        Some(found) => Some(found),
        None => None,
    };
    let account = account(db, request, i64::MAX)?;
    if let Some(behind) = behind(request, &account) {
        return Ok(Begun::ClockBehind(behind));
    }
    match allowed(db, request, &account)? {
        Err(denied) => Ok(Begun::Denied(denied)),
        Ok(()) => match elsewhere {
            None => insert(db, request, &request.id.key, &account).map(Begun::Fresh),
            Some(found) => {
                release(db, Reservation(found.id))?;
                insert(db, request, &found.key, &account).map(Begun::Pending)
            }
        },
    }
}

/// The end of the running totals of a policy, address and chain.
struct Account {
    /// When the last request was counted, in milliseconds since 1970.
    last_at: i64,
    total: U256,
}

/// How much the clock is behind the account, if that is too much to count by it.
fn behind(request: &Request, account: &Account) -> Option<Duration> {
    let limited = request.daily_limit.is_some() && !request.value.is_zero();
    let behind = account.last_at.saturating_sub(millis(request.now));
    let behind = Duration::from_millis(u64::try_from(behind).unwrap_or_default());
    (limited && behind > BEHIND).then_some(behind)
}

/// Whether the daily limit lets the request be counted in its account.
fn allowed(db: &Connection, request: &Request, account: &Account) -> Result<Result<(), Denied>, LedgerError> {
    let window = i64::try_from(WINDOW.as_millis()).unwrap_or(i64::MAX);
    // What is exactly as old as the window is out of it.
    let before = self::account(db, request, millis(request.now).saturating_sub(window))?.total;
    let spent = account.total.saturating_sub(before);
    Ok(policy::judge_daily(request.daily_limit, spent, request.value))
}

/// The account as it was at `at`.
fn account(db: &Connection, request: &Request, at: i64) -> Result<Account, LedgerError> {
    let mut select = db.prepare_cached(
        "SELECT counted_at, total FROM transactions
         WHERE policy = ?1 AND address = ?2 AND chain_id = ?3 AND counted_at <= ?4
         ORDER BY counted_at DESC, id DESC LIMIT 1",
    )?;
    let (address, chain_id) = (request.id.address.0.0, request.chain_id.cast_signed());
    let found = select.query_row(params![request.policy, address, chain_id, at], |row| {
        Ok(Account { last_at: row.get(0)?, total: U256::from_be_bytes(row.get::<_, [u8; 32]>(1)?) })
    });
    Ok(found.optional()?.unwrap_or(Account { last_at: i64::MIN, total: U256::ZERO }))
}

fn insert(db: &Connection, request: &Request, key: &str, account: &Account) -> Result<Reservation, LedgerError> {
    let value = request.value.min(MOST_COUNTED);
    let mut insert = db.prepare_cached(
        "INSERT INTO transactions
             (caller, key, address, idempotency_key, digest, chain_id, nonce, policy, value, total,
              created_at, counted_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?;
    let id = insert.insert(params![
        request.id.caller,
        key,
        request.id.address.0.0,
        request.id.idempotency_key,
        request.digest,
        request.chain_id.cast_signed(),
        request.nonce.cast_signed(),
        request.policy,
        value.to_be_bytes::<32>(),
        account.total.saturating_add(value).to_be_bytes::<32>(),
        millis(request.now),
        // A clock that goes back opens no second window.
        millis(request.now).max(account.last_at),
    ])?;
    Ok(Reservation(id))
}

fn store(
    db: &Connection,
    reservation: Reservation,
    signed: &Signed,
    now: SystemTime,
) -> Result<Result<Signed, LedgerError>, LedgerError> {
    let mut update = db.prepare_cached(
        "UPDATE transactions SET raw = ?2, hash = ?3, signature = ?4, signed_at = ?5 WHERE id = ?1 AND raw IS NULL",
    )?;
    if update.execute(params![reservation.0, signed.raw, signed.hash.0, signed.signature, millis(now)])? == 1 {
        return Ok(Ok(signed.clone()));
    }
    let mut select = db.prepare_cached("SELECT raw, hash, signature FROM transactions WHERE id = ?1")?;
    let stored = select.query_row([reservation.0], |row| self::signed(row, 0)).optional()?;
    Ok(stored.flatten().ok_or(LedgerError::NotReserved))
}

/// Deletes a reservation, and takes its value out of the totals that came after it.
fn release(db: &Connection, reservation: Reservation) -> Result<(), LedgerError> {
    let mut delete = db.prepare_cached(
        "DELETE FROM transactions WHERE id = ?1 AND raw IS NULL RETURNING policy, address, chain_id, value",
    )?;
    let deleted = delete.query_row([reservation.0], |row| {
        let address = row.get::<_, Option<[u8; 20]>>(1)?;
        Ok((row.get::<_, String>(0)?, address, row.get::<_, i64>(2)?, row.get::<_, [u8; 32]>(3)?))
    });
    let Some((policy, address, chain_id, value)) = deleted.optional()? else {
        return Ok(());
    };
    let value = U256::from_be_bytes(value);
    if value.is_zero() {
        return Ok(());
    }
    // Few: what was asked for while this request waited for its key.
    let mut select = db.prepare_cached(
        "SELECT id, total FROM transactions WHERE policy = ?1 AND address IS ?2 AND chain_id = ?3 AND id > ?4",
    )?;
    let later = select.query_map(params![policy, address, chain_id, reservation.0], |row| {
        Ok((row.get::<_, i64>(0)?, U256::from_be_bytes(row.get::<_, [u8; 32]>(1)?)))
    })?;
    let later = later.collect::<Result<Vec<_>, _>>()?;
    let mut update = db.prepare_cached("UPDATE transactions SET total = ?2 WHERE id = ?1")?;
    for (id, total) in later {
        update.execute(params![id, total.saturating_sub(value).to_be_bytes::<32>()])?;
    }
    Ok(())
}

fn record(db: &Connection, statement: &Statement) -> Result<(), LedgerError> {
    let mut insert = db.prepare_cached(
        "INSERT INTO statements (caller, key, address, policy, kind, digest, content, signature, signed_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    insert.execute(params![
        statement.caller,
        statement.key,
        statement.address.0.0,
        statement.policy,
        statement.kind,
        statement.digest.0,
        statement.content,
        statement.signature,
        millis(statement.now),
    ])?;
    Ok(())
}

fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
