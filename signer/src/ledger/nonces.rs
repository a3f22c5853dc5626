//! Nonces that are chosen here: each for one request, in order, with no gaps but those that are known.

use std::collections::BTreeSet;

use alloy_primitives::Address;

use super::db::{Sql, values};
use super::types::{Nonce, Request};
use super::{LedgerError, Reservation};
use crate::policy::{Denied, There, judge_replacement};
use crate::transaction::Transaction;

/// So many gaps are told.
const MAX_GAPS: usize = 1000;

/// What is known of an address's nonces on a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nonces {
    /// The next that is chosen, when there are no gaps; none if none was ever chosen.
    pub next: Option<u64>,
    /// Those below that nobody has: they were given back, or somebody else's transactions had them, and are gone. A
    /// thousand at most.
    pub gaps: Vec<u64>,
    /// Those that are reserved, and not signed.
    pub unsigned: Vec<u64>,
    /// The highest that is signed.
    pub signed: Option<u64>,
}

/// The nonce that a request gets, whose transaction is to be signed as in `body`.
pub(super) fn choose(db: &mut dyn Sql, request: &Request, body: &str) -> Result<Result<u64, Denied>, LedgerError> {
    let (address, chain_id) = (request.id.address, request.chain_id);
    match request.nonce {
        Nonce::Given(nonce) => {
            let there = there(db, request, nonce)?;
            // Somebody has it now: it is chosen for nobody else.
            take(db, address, chain_id, nonce)?;
            Ok(beside(request, body, &there)?.map(|()| nonce))
        }
        Nonce::Managed { at_least } => next(db, address, chain_id, at_least).map(Ok),
        Nonce::Replacing(nonce) => {
            let there = there(db, request, nonce)?;
            if there.is_empty() {
                return Ok(denied("replacements", format!("there is no transaction with nonce {nonce} to replace")));
            }
            Ok(beside(request, body, &there)?.map(|()| nonce))
        }
        Nonce::Gap { nonce, at_least } => {
            let next = known(db, address, chain_id)?.unwrap_or(0);
            if !(at_least..next).contains(&nonce) || is_taken(db, address, chain_id, nonce)? {
                return Ok(denied("nonce", format!("nonce {nonce} is no gap")));
            }
            take(db, address, chain_id, nonce)?;
            Ok(Ok(nonce))
        }
    }
}

/// Whether a request may have the nonce of those that are there, too.
fn beside(request: &Request, body: &str, there: &[There]) -> Result<Result<(), Denied>, LedgerError> {
    if there.is_empty() {
        return Ok(Ok(()));
    }
    let tx = Transaction::from_body(body)
        .map_err(|error| LedgerError::Unusable(format!("what is to be signed is no transaction: {error}")))?;
    Ok(judge_replacement(request.replacements, request.id.address, &tx, there))
}

/// The transactions that have a nonce, as `request` meets them, the oldest first.
fn there(db: &mut dyn Sql, request: &Request, nonce: u64) -> Result<Vec<There>, LedgerError> {
    let rows = db.query(
        "SELECT t.caller, t.body, CASE WHEN s.state IN ('confirmed', 'replaced') THEN 1 ELSE 0 END
         FROM transactions t LEFT JOIN sends s ON s.request = t.id
         WHERE t.address = ?1 AND t.chain_id = ?2 AND t.nonce = ?3 ORDER BY t.id",
        values![request.id.address.into_array(), request.chain_id, nonce],
    )?;
    let read = |body: String| Transaction::from_body(&body).ok();
    rows.iter()
        .map(|row| {
            let (own, tx) = (row.text(0)? == request.id.caller, row.maybe_text(1)?.and_then(read));
            Ok(There { tx, own, is_final: row.flag(2)? })
        })
        .collect()
}

fn denied<T>(rule: &'static str, detail: String) -> Result<T, Denied> {
    Err(Denied { rule, detail })
}

/// The lowest that nobody has, from `at_least` on.
fn next(db: &mut dyn Sql, address: Address, chain_id: u64, at_least: u64) -> Result<u64, LedgerError> {
    let account = address.into_array();
    // What the chain has seen is no gap any more.
    db.execute(
        "DELETE FROM gaps WHERE address = ?1 AND chain_id = ?2 AND nonce < ?3",
        values![account, chain_id, at_least],
    )?;
    // Nobody has a gap: it is one no more when a caller gives it itself, and none when it is given back beside another.
    let gap = db.first(
        "DELETE FROM gaps WHERE address = ?1 AND chain_id = ?2 AND nonce =
             (SELECT min(nonce) FROM gaps WHERE address = ?1 AND chain_id = ?2) RETURNING nonce",
        values![account, chain_id],
    )?;
    if let Some(row) = gap {
        return row.unsigned(0);
    }
    let mut nonce = known(db, address, chain_id)?.unwrap_or(0).max(at_least);
    let after = |nonce: u64| nonce.checked_add(1).ok_or_else(|| LedgerError::Unusable("there is no nonce left".into()));
    // Not one that a caller has given itself.
    while is_taken(db, address, chain_id, nonce)? {
        nonce = after(nonce)?;
    }
    db.execute(
        "INSERT INTO nonces (address, chain_id, next) VALUES (?1, ?2, ?3)
         ON CONFLICT (address, chain_id) DO UPDATE SET next = excluded.next",
        values![account, chain_id, after(nonce)?],
    )?;
    Ok(nonce)
}

/// The next that is chosen where there are no gaps; none if none was chosen yet.
fn known(db: &mut dyn Sql, address: Address, chain_id: u64) -> Result<Option<u64>, LedgerError> {
    let key = values![address.into_array(), chain_id];
    let row = db.first("SELECT next FROM nonces WHERE address = ?1 AND chain_id = ?2", key)?;
    row.map(|row| row.unsigned(0)).transpose()
}

/// Takes a nonce out of the gaps, if it is one.
fn take(db: &mut dyn Sql, address: Address, chain_id: u64, nonce: u64) -> Result<(), LedgerError> {
    db.execute(
        "DELETE FROM gaps WHERE address = ?1 AND chain_id = ?2 AND nonce = ?3",
        values![address.into_array(), chain_id, nonce],
    )?;
    Ok(())
}

/// A nonce that nothing was signed with: the next request has it, if it is one of those that are chosen here, and nobody
/// else has it.
pub(super) fn give_back(db: &mut dyn Sql, address: Address, chain_id: u64, nonce: u64) -> Result<(), LedgerError> {
    let chosen = known(db, address, chain_id)?.is_some_and(|next| nonce < next);
    if chosen && !is_taken(db, address, chain_id, nonce)? {
        let key = values![address.into_array(), chain_id, nonce];
        db.execute("INSERT INTO gaps (address, chain_id, nonce) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING", key)?;
    }
    Ok(())
}

/// Whether a request has a nonce.
fn is_taken(db: &mut dyn Sql, address: Address, chain_id: u64, nonce: u64) -> Result<bool, LedgerError> {
    let key = values![address.into_array(), chain_id, nonce];
    let sql = "SELECT 1 FROM transactions WHERE address = ?1 AND chain_id = ?2 AND nonce = ?3 LIMIT 1";
    Ok(db.first(sql, key)?.is_some())
}

/// The requests that have a nonce, with their transactions, oldest first.
pub(super) fn with(
    db: &mut dyn Sql,
    address: Address,
    chain_id: u64,
    nonce: u64,
) -> Result<Vec<(Reservation, Option<String>)>, LedgerError> {
    let rows = db.query(
        "SELECT id, body FROM transactions WHERE address = ?1 AND chain_id = ?2 AND nonce = ?3 ORDER BY id",
        values![address.into_array(), chain_id, nonce],
    )?;
    rows.iter().map(|row| Ok((Reservation(row.int(0)?), row.maybe_text(1)?))).collect()
}

/// What is known of an address's nonces from `from` on.
pub(super) fn state(db: &mut dyn Sql, address: Address, chain_id: u64, from: u64) -> Result<Nonces, LedgerError> {
    let account = address.into_array();
    let next = known(db, address, chain_id)?;
    let taken = db.query(
        "SELECT DISTINCT nonce FROM transactions WHERE address = ?1 AND chain_id = ?2 AND nonce >= ?3",
        values![account, chain_id, from],
    )?;
    let taken: BTreeSet<u64> = taken.iter().map(|row| row.unsigned(0)).collect::<Result<_, _>>()?;
    let gaps = (from..next.unwrap_or(0)).filter(|nonce| !taken.contains(nonce)).take(MAX_GAPS).collect();
    let unsigned = db.query(
        "SELECT DISTINCT nonce FROM transactions
         WHERE address = ?1 AND chain_id = ?2 AND nonce >= ?3 AND raw IS NULL ORDER BY nonce",
        values![account, chain_id, from],
    )?;
    let signed = db.first(
        "SELECT max(nonce) FROM transactions WHERE address = ?1 AND chain_id = ?2 AND raw IS NOT NULL",
        values![account, chain_id],
    )?;
    Ok(Nonces {
        next,
        gaps,
        unsigned: unsigned.iter().map(|row| row.unsigned(0)).collect::<Result<_, _>>()?,
        signed: signed.map(|row| row.maybe_int(0)).transpose()?.flatten().map(i64::cast_unsigned),
    })
}
