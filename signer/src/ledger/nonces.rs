//! Nonces that are chosen here: each for one request, the lowest that nobody has.
//!
//! Which nonces are free is known from what is written down here alone: those from `next` on, and below it those in
//! `gaps`, which are ranges. How many transactions a chain's node counts says from where on to choose, this time: it moves
//! nothing for good. Where it lies ahead of `next`, what is left out is a gap; so a node that was wrong has one nonce chosen
//! too high, and those below are chosen once it, or another, is right. To choose takes a look or two, however many
//! transactions there are.
//!
//! Below a nonce that is final, all are used: a node that counts fewer is behind, and is waited for. But that it is final,
//! a node has said as well. So one that goes on to count fewer for [`DOUBTED`] is believed: if it is wrong, what is signed
//! with a used nonce is never mined; if it were not believed, a lie would hold up the address for ever.

use std::ops::{Range, RangeInclusive};
use std::time::{Duration, SystemTime};

use alloy_primitives::Address;

use super::db::{Sql, values};
use super::sends::State;
use super::types::{Nonce, Request};
use super::{LedgerError, Reservation, millis, requests};
use crate::policy::{Denied, There, judge_replacement};
use crate::transaction::Transaction;

/// So many gaps are told, and so many that are not sent.
const MAX_TOLD: usize = 1000;
/// So many requests may have one nonce: whoever comes to it is compared with all of them, while nobody else is served.
const MAX_WITH: u64 = 100;
/// That nonces are used, nodes may deny for less than this: longer than one is behind others, and shorter than anybody
/// waits for a payment.
const DOUBTED: Duration = Duration::from_secs(10 * 60);
/// No address ever gets here: nonces from here on, which only callers give, are not kept account of. Below, SQL's signed
/// integers order them as they are.
const FAR: u64 = 1 << 62;

/// What is known of an address's nonces on a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nonces {
    /// The next that is chosen, when there are no gaps; none if none was ever taken.
    pub next: Option<u64>,
    /// Those below that nobody has: they were given back or left out, or somebody else's transactions had them, and are
    /// gone. A thousand at most.
    pub gaps: Vec<u64>,
    /// Those that are reserved, and not signed.
    pub unsigned: Vec<u64>,
    /// Those whose transactions are signed, and sent by whoever asked for them, or by nobody: higher ones wait. A thousand
    /// at most.
    pub unsent: Vec<u64>,
    /// The highest that is signed.
    pub signed: Option<u64>,
}

/// The nonce that a request gets, whose transaction is to be signed as in `body`.
pub(super) fn choose(db: &mut dyn Sql, request: &Request, body: &str) -> Result<Result<u64, Denied>, LedgerError> {
    let (address, chain_id) = (request.id.address, request.chain_id);
    match request.nonce {
        Nonce::Given(nonce) => {
            let there = match there(db, request, nonce)? {
                Ok(there) => there,
                Err(denied) => return Ok(Err(denied)),
            };
            if let Err(denied) = beside(request, body, &there)? {
                return Ok(Err(denied));
            }
            take(db, address, chain_id, nonce)?;
            Ok(Ok(nonce))
        }
        Nonce::Managed { at_least } => {
            let at_least = unused(db, address, chain_id, at_least, request.now)?;
            next(db, address, chain_id, at_least).map(Ok)
        }
        Nonce::Replacing(nonce) => {
            let there = match there(db, request, nonce)? {
                Ok(there) => there,
                Err(denied) => return Ok(Err(denied)),
            };
            if there.is_empty() {
                return Ok(denied("replacements", format!("there is no transaction with nonce {nonce} to replace")));
            }
            Ok(beside(request, body, &there)?.map(|()| nonce))
        }
        Nonce::Gap { nonce, at_least } => {
            let next = known(db, address, chain_id)?.unwrap_or(0);
            if !(at_least..next).contains(&nonce) || !vacate(db, request, nonce)? {
                return Ok(denied("nonce", format!("nonce {nonce} is no gap")));
            }
            take(db, address, chain_id, nonce)?;
            Ok(Ok(nonce))
        }
    }
}

/// How many have a nonce, if one more may have it at all.
fn room(db: &mut dyn Sql, address: Address, chain_id: u64, nonce: u64) -> Result<Result<u64, Denied>, LedgerError> {
    let row = db.first(
        "SELECT count(*) FROM (SELECT id FROM transactions WHERE address = ?1 AND chain_id = ?2 AND nonce = ?3 LIMIT ?4) AS t",
        values![address.into_array(), chain_id, nonce, MAX_WITH],
    )?;
    Ok(match row.map(|row| row.unsigned(0)).transpose()?.unwrap_or(0) {
        MAX_WITH.. => {
            denied("replacements", format!("{MAX_WITH} transactions have nonce {nonce}, and more than that may not"))
        }
        count => Ok(count),
    })
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

/// The transactions that have a nonce, as `request` meets them, the oldest first; unless there are as many as there may be.
/// Most often there is none, and nothing more is looked up.
fn there(db: &mut dyn Sql, request: &Request, nonce: u64) -> Result<Result<Vec<There>, Denied>, LedgerError> {
    match room(db, request.id.address, request.chain_id, nonce)? {
        Ok(0) => return Ok(Ok(Vec::new())),
        Ok(_) => {}
        Err(denied) => return Ok(Err(denied)),
    }
    let rows = db.query(
        "SELECT t.caller, t.body, s.state
         FROM transactions t LEFT JOIN sends s ON s.request = t.id
         WHERE t.address = ?1 AND t.chain_id = ?2 AND t.nonce = ?3 ORDER BY t.id",
        values![request.id.address.into_array(), request.chain_id, nonce],
    )?;
    let read = |body: String| Transaction::from_body(&body).ok();
    rows.iter()
        .map(|row| {
            let (own, tx) = (row.text(0)? == request.id.caller, row.maybe_text(1)?.and_then(read));
            let state = row.maybe_text(2)?.map(|name| State::named(&name)).transpose()?;
            Ok(There { tx, own, is_final: state.is_some_and(State::is_final) })
        })
        .collect::<Result<_, _>>()
        .map(Ok)
}

fn denied<T>(rule: &'static str, detail: String) -> Result<T, Denied> {
    Err(Denied { rule, detail })
}

/// The lowest that nobody has, from `at_least` on.
fn next(db: &mut dyn Sql, address: Address, chain_id: u64, at_least: u64) -> Result<u64, LedgerError> {
    loop {
        let nonce = match gap(db, address, chain_id, at_least)? {
            Some(gap) => at_least.max(*gap.start()),
            None => at_least.max(known(db, address, chain_id)?.unwrap_or(0)),
        };
        if nonce >= FAR {
            return Err(LedgerError::Unusable("there is no nonce left".into()));
        }
        take(db, address, chain_id, nonce)?;
        // What came to its address only after it was reserved, by an older keygate, was not taken then.
        if !is_taken(db, address, chain_id, nonce)? {
            return Ok(nonce);
        }
    }
}

/// The nonce below which all are used, where a node counts so many now.
fn unused(db: &mut dyn Sql, address: Address, chain_id: u64, count: u64, now: SystemTime) -> Result<u64, LedgerError> {
    let key = (address.into_array(), chain_id);
    let row =
        db.first("SELECT used, doubted_at FROM nonces WHERE address = ?1 AND chain_id = ?2", values![key.0, key.1])?;
    let Some(row) = row else { return Ok(count) };
    let (used, doubted_at, now) = (row.unsigned(0)?, row.maybe_int(1)?, millis(now));
    // A clock that was set back begins again.
    let since = doubted_at.filter(|since| *since <= now);
    let (kept, doubt) = match since {
        _ if count >= used => (used, None),
        Some(since) if u128::from(now.abs_diff(since)) >= DOUBTED.as_millis() => (0, None),
        since => (used, since.or(Some(now))),
    };
    if (kept, doubt) != (used, doubted_at) {
        let sql = "UPDATE nonces SET used = ?3, doubted_at = ?4 WHERE address = ?1 AND chain_id = ?2";
        db.execute(sql, values![key.0, key.1, kept, doubt])?;
    }
    Ok(count.max(kept))
}

/// The next that is chosen where there are no gaps; none if none was taken yet.
fn known(db: &mut dyn Sql, address: Address, chain_id: u64) -> Result<Option<u64>, LedgerError> {
    let key = values![address.into_array(), chain_id];
    let row = db.first("SELECT next FROM nonces WHERE address = ?1 AND chain_id = ?2", key)?;
    row.map(|row| row.unsigned(0)).transpose()
}

/// The first gap that does not end before this nonce.
fn gap(
    db: &mut dyn Sql,
    address: Address,
    chain_id: u64,
    from: u64,
) -> Result<Option<RangeInclusive<u64>>, LedgerError> {
    let row = db.first(
        "SELECT first, last FROM gaps WHERE address = ?1 AND chain_id = ?2 AND last >= ?3 ORDER BY last LIMIT 1",
        values![address.into_array(), chain_id, from],
    )?;
    row.map(|row| Ok(row.unsigned(0)?..=row.unsigned(1)?)).transpose()
}

/// Takes a nonce for somebody: it is free no more. Those that are left out below it are.
fn take(db: &mut dyn Sql, address: Address, chain_id: u64, nonce: u64) -> Result<(), LedgerError> {
    if nonce >= FAR {
        return Ok(());
    }
    let account = address.into_array();
    let next = known(db, address, chain_id)?.unwrap_or(0);
    if nonce >= next {
        leave(db, address, chain_id, next..nonce)?;
        db.execute(
            "INSERT INTO nonces (address, chain_id, next) VALUES (?1, ?2, ?3)
             ON CONFLICT (address, chain_id) DO UPDATE SET next = excluded.next",
            values![account, chain_id, nonce + 1],
        )?;
    } else if let Some(gap) = gap(db, address, chain_id, nonce)?.filter(|gap| gap.contains(&nonce)) {
        db.execute(
            "DELETE FROM gaps WHERE address = ?1 AND chain_id = ?2 AND last = ?3",
            values![account, chain_id, *gap.end()],
        )?;
        leave(db, address, chain_id, *gap.start()..nonce)?;
        leave(db, address, chain_id, nonce + 1..*gap.end() + 1)?;
    }
    Ok(())
}

/// Nobody has these.
fn leave(db: &mut dyn Sql, address: Address, chain_id: u64, gap: Range<u64>) -> Result<(), LedgerError> {
    if !gap.is_empty() {
        db.execute(
            "INSERT INTO gaps (address, chain_id, first, last) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
            values![address.into_array(), chain_id, gap.start, gap.end - 1],
        )?;
    }
    Ok(())
}

/// A nonce that nothing was signed with: another request has it, unless somebody else has it already.
pub(super) fn give_back(db: &mut dyn Sql, address: Address, chain_id: u64, nonce: u64) -> Result<(), LedgerError> {
    let below = known(db, address, chain_id)?.is_some_and(|next| nonce < next);
    if below && !is_taken(db, address, chain_id, nonce)? {
        leave(db, address, chain_id, nonce..nonce + 1)?;
    }
    Ok(())
}

/// This request's nonce is used on the chain, for good, as a node says: so are those below it, by whomever.
pub(super) fn settle(db: &mut dyn Sql, Reservation(id): Reservation) -> Result<(), LedgerError> {
    let Some(row) = db.first("SELECT address, chain_id, nonce FROM transactions WHERE id = ?1", values![id])? else {
        return Err(LedgerError::NotReserved);
    };
    let nonce = row.unsigned(2)?;
    if let (Some(address), true) = (row.maybe_array::<20>(0)?, nonce < FAR) {
        db.execute(
            "UPDATE nonces SET used = ?3 WHERE address = ?1 AND chain_id = ?2 AND used < ?3",
            values![address, row.unsigned(1)?, nonce + 1],
        )?;
    }
    Ok(())
}

/// Whether a request has a nonce.
fn is_taken(db: &mut dyn Sql, address: Address, chain_id: u64, nonce: u64) -> Result<bool, LedgerError> {
    let key = values![address.into_array(), chain_id, nonce];
    let sql = "SELECT id FROM transactions WHERE address = ?1 AND chain_id = ?2 AND nonce = ?3 LIMIT 1";
    Ok(db.first(sql, key)?.is_some())
}

/// Whether another request has a nonce that this one is to have.
pub(super) fn another_has(db: &mut dyn Sql, request: &Request, nonce: u64) -> Result<bool, LedgerError> {
    let row = db.first(
        "SELECT id FROM transactions WHERE address = ?1 AND chain_id = ?2 AND nonce = ?3
             AND NOT (caller = ?4 AND idempotency_key = ?5) LIMIT 1",
        values![
            request.id.address.into_array(),
            request.chain_id,
            nonce,
            &request.id.caller,
            &request.id.idempotency_key
        ],
    )?;
    Ok(row.is_some())
}

/// Whether nobody has a nonce, or now has: reservations that were left unsigned for long are released. Whoever is still
/// about to sign for one finds it gone when it is to be stored, and gives nothing out.
fn vacate(db: &mut dyn Sql, request: &Request, nonce: u64) -> Result<bool, LedgerError> {
    let (address, chain_id) = (request.id.address.into_array(), request.chain_id);
    let stays = db.first(
        "SELECT id FROM transactions WHERE address = ?1 AND chain_id = ?2 AND nonce = ?3
             AND (raw IS NOT NULL OR created_at > ?4) LIMIT 1",
        values![address, chain_id, nonce, millis(crate::start::left(request.now))],
    )?;
    if stays.is_some() {
        return Ok(false);
    }
    let sql = "SELECT id FROM transactions WHERE address = ?1 AND chain_id = ?2 AND nonce = ?3";
    for row in db.query(sql, values![address, chain_id, nonce])? {
        requests::release(db, Reservation(row.int(0)?), request.now)?;
    }
    Ok(true)
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

/// The requests that have a nonce, oldest first, with their transactions and who has approved them; unless there are as
/// many as there may be.
pub(super) fn with(
    db: &mut dyn Sql,
    address: Address,
    chain_id: u64,
    nonce: u64,
) -> Result<Result<Vec<WithNonce>, Denied>, LedgerError> {
    if let Err(denied) = room(db, address, chain_id, nonce)? {
        return Ok(Err(denied));
    }
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
        .collect::<Result<_, _>>()
        .map(Ok)
}

/// What is known of an address's nonces from `from` on.
pub(super) fn state(db: &mut dyn Sql, address: Address, chain_id: u64, from: u64) -> Result<Nonces, LedgerError> {
    let account = address.into_array();
    let used = db.first("SELECT used FROM nonces WHERE address = ?1 AND chain_id = ?2", values![account, chain_id])?;
    let unused = from.max(used.map(|row| row.unsigned(0)).transpose()?.unwrap_or(0));
    let gaps = db.query(
        "SELECT first, last FROM gaps WHERE address = ?1 AND chain_id = ?2 AND last >= ?3 ORDER BY last LIMIT ?4",
        values![account, chain_id, unused, MAX_TOLD as u64],
    )?;
    let gaps = gaps.iter().map(|row| Ok(unused.max(row.unsigned(0)?)..=row.unsigned(1)?));
    let gaps: Vec<RangeInclusive<u64>> = gaps.collect::<Result<_, LedgerError>>()?;
    let unsigned = db.query(
        "SELECT DISTINCT nonce FROM transactions
         WHERE address = ?1 AND chain_id = ?2 AND nonce >= ?3 AND raw IS NULL ORDER BY nonce",
        values![account, chain_id, from],
    )?;
    let unsent = db.query(
        "SELECT DISTINCT t.nonce FROM transactions t
         WHERE t.address = ?1 AND t.chain_id = ?2 AND t.nonce >= ?3 AND t.raw IS NOT NULL
               AND NOT EXISTS (SELECT 1 FROM transactions o WHERE o.address = t.address AND o.chain_id = t.chain_id
                                                              AND o.nonce = t.nonce AND o.send <> 0)
         ORDER BY t.nonce LIMIT ?4",
        values![account, chain_id, from, MAX_TOLD as u64],
    )?;
    let signed = db.first(
        "SELECT max(nonce) FROM transactions WHERE address = ?1 AND chain_id = ?2 AND raw IS NOT NULL",
        values![account, chain_id],
    )?;
    Ok(Nonces {
        next: known(db, address, chain_id)?,
        gaps: gaps.into_iter().flatten().take(MAX_TOLD).collect(),
        unsigned: unsigned.iter().map(|row| row.unsigned(0)).collect::<Result<_, _>>()?,
        unsent: unsent.iter().map(|row| row.unsigned(0)).collect::<Result<_, _>>()?,
        signed: signed.map(|row| row.maybe_int(0)).transpose()?.flatten().map(i64::cast_unsigned),
    })
}
