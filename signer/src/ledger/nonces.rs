//! Nonces that are chosen here: each for one request, in order, with no gaps but those that are known.

use std::collections::BTreeSet;

use alloy_primitives::Address;

use super::db::{Sql, values};
use super::types::{Nonce, Request};
use super::{LedgerError, Reservation};
use crate::policy::Denied;

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

/// The nonce that a request gets.
pub(super) fn choose(db: &mut dyn Sql, request: &Request) -> Result<Result<u64, Denied>, LedgerError> {
    let (address, chain_id) = (request.id.address, request.chain_id);
    match request.nonce {
        Nonce::Given { nonce, most } => {
            let there = of(db, address, chain_id, nonce)?;
            // Somebody has it now: it is chosen for nobody else.
            take(db, address, chain_id, nonce)?;
            Ok(room(nonce, there.len(), most).map(|()| nonce))
        }
        Nonce::Managed { at_least } => next(db, address, chain_id, at_least).map(Ok),
        Nonce::Replacing { nonce, most } => match of(db, address, chain_id, nonce)?.len() {
            0 => Ok(denied("replacements", format!("there is no transaction with nonce {nonce} to replace"))),
            there => Ok(room(nonce, there, most).map(|()| nonce)),
        },
        Nonce::Gap { nonce, at_least } => {
            let next = known(db, address, chain_id)?.unwrap_or(0);
            if !(at_least..next).contains(&nonce) || !of(db, address, chain_id, nonce)?.is_empty() {
                return Ok(denied("nonce", format!("nonce {nonce} is no gap")));
            }
            take(db, address, chain_id, nonce)?;
            Ok(Ok(nonce))
        }
    }
}

/// Whether one more may have a nonce that so many have. The first is no replacement.
fn room(nonce: u64, there: usize, most: u32) -> Result<(), Denied> {
    if there <= most as usize {
        return Ok(());
    }
    denied("replacements", format!("the transaction with nonce {nonce} was replaced {} times, of {most}", there - 1))
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
    while !of(db, address, chain_id, nonce)?.is_empty() {
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
    if chosen && of(db, address, chain_id, nonce)?.is_empty() {
        let key = values![address.into_array(), chain_id, nonce];
        db.execute("INSERT INTO gaps (address, chain_id, nonce) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING", key)?;
    }
    Ok(())
}

/// The requests that have a nonce, oldest first.
pub(super) fn of(
    db: &mut dyn Sql,
    address: Address,
    chain_id: u64,
    nonce: u64,
) -> Result<Vec<Reservation>, LedgerError> {
    let rows = db.query(
        "SELECT id FROM transactions WHERE address = ?1 AND chain_id = ?2 AND nonce = ?3 ORDER BY id",
        values![address.into_array(), chain_id, nonce],
    )?;
    rows.iter().map(|row| Ok(Reservation(row.int(0)?))).collect()
}

/// A request that has a nonce, as others may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WithNonce {
    /// Its place in the ledger.
    pub reservation: Reservation,
    /// Who asked for it.
    pub caller: String,
    /// The transaction as JSON without its nonce; none for one from before there were such.
    pub body: Option<String>,
    /// Who has approved it, if somebody has.
    pub approved_by: Option<String>,
}

/// The requests that have a nonce, oldest first, with their transactions and who has approved them.
pub(super) fn with(
    db: &mut dyn Sql,
    address: Address,
    chain_id: u64,
    nonce: u64,
) -> Result<Vec<WithNonce>, LedgerError> {
    let rows = db.query(
        "SELECT t.id, t.caller, t.body, a.decided_by FROM transactions t
         LEFT JOIN approvals a ON a.caller = t.caller AND a.address = t.address
              AND a.idempotency_key = t.idempotency_key AND a.digest = t.digest AND a.approved = 1
         WHERE t.address = ?1 AND t.chain_id = ?2 AND t.nonce = ?3 ORDER BY t.id",
        values![address.into_array(), chain_id, nonce],
    )?;
    rows.iter()
        .map(|row| {
            Ok(WithNonce {
                reservation: Reservation(row.int(0)?),
                caller: row.text(1)?,
                body: row.maybe_text(2)?,
                approved_by: row.maybe_text(3)?,
            })
        })
        .collect()
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
