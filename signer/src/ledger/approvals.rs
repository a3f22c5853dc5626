//! Requests that are held until a second identity approves them.

use std::time::SystemTime;

use serde_json::json;

use super::db::{Row, Sql, values};
use super::types::{Begun, Decided, Decision, Held, Request, RequestId};
use super::{LedgerError, audit, millis};
use crate::policy::{Approval, Denied};

/// So many of a caller's requests wait at most: who approves must find the others' among them.
pub(super) const WAITING: usize = 100;

const COLUMNS: &str =
    "SELECT id, caller, key, address, idempotency_key, digest, chain_id, policy, rule, body, asked_at, decided_at,
            decided_by, approved FROM approvals WHERE caller = ?1 AND address = ?2 AND idempotency_key = ?3";

/// What keeps a request from being signed now; nothing, once somebody has approved it.
pub(super) fn needed(db: &mut dyn Sql, request: &Request, approval: &Approval) -> Result<Option<Begun>, LedgerError> {
    let RequestId { caller, key, address, idempotency_key } = &request.id;
    let name = values![caller, address.into_array(), idempotency_key];
    let denied = |detail| Some(Begun::Denied(Denied { rule: approval.rule, detail }));
    if let Some(row) = db.first(COLUMNS, name)? {
        let held = held(&row)?;
        return Ok(match &held.decision {
            _ if held.digest != request.digest => Some(Begun::Conflict),
            None => Some(Begun::Held(held)),
            // What was filled in otherwise is not what was approved: asked for again, it is filled in as that was.
            Some(Decision { approved: true, .. }) if held.body != request.body => Some(Begun::Held(held)),
            // Whose say it is by now, perhaps because they cannot be trusted, is not theirs.
            Some(Decision { approved: true, by, .. }) if !approval.from.contains(by) => {
                denied(format!("{by:?}, who has approved it, may not any more: ask under another idempotency key"))
            }
            Some(Decision { approved: true, .. }) => None,
            Some(Decision { by, .. }) => denied(format!("{by:?} has rejected it")),
        });
    }
    let waiting = db.query(
        "SELECT id FROM approvals WHERE caller = ?1 AND approved IS NULL LIMIT ?2",
        values![caller, WAITING as u64],
    )?;
    if waiting.len() >= WAITING {
        return Ok(denied(format!("{WAITING} requests of this caller wait for somebody's approval already")));
    }
    db.execute(
        "INSERT INTO approvals (caller, key, address, idempotency_key, digest, chain_id, policy, rule, body, asked_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        values![
            caller,
            key,
            address.into_array(),
            idempotency_key,
            request.digest,
            request.chain_id,
            &request.policy,
            approval.rule,
            &request.body,
            millis(request.now),
        ],
    )?;
    let row = db.first(COLUMNS, name)?;
    row.map(|row| held(&row).map(Begun::Held)).transpose()
}

/// One of them, by its request's name.
pub(super) fn named(db: &mut dyn Sql, id: &RequestId) -> Result<Option<Held>, LedgerError> {
    let row = db.first(COLUMNS, values![&id.caller, id.address.into_array(), &id.idempotency_key])?;
    row.map(|row| held(&row)).transpose()
}

/// Those that nobody has decided about, oldest first.
pub(super) fn undecided(db: &mut dyn Sql) -> Result<Vec<Held>, LedgerError> {
    let rows = db.query(
        "SELECT id, caller, key, address, idempotency_key, digest, chain_id, policy, rule, body, asked_at, decided_at,
                decided_by, approved FROM approvals WHERE approved IS NULL ORDER BY id",
        &[],
    )?;
    rows.iter().map(held).collect()
}

/// One of them, whatever was decided.
pub(super) fn find(db: &mut dyn Sql, approval: u64) -> Result<Option<Held>, LedgerError> {
    let row = db.first(
        "SELECT id, caller, key, address, idempotency_key, digest, chain_id, policy, rule, body, asked_at, decided_at,
                decided_by, approved FROM approvals WHERE id = ?1",
        values![approval],
    )?;
    row.map(|row| held(&row)).transpose()
}

/// Decides about a request, by its digest: what somebody has seen is what is signed.
pub(super) fn decide(
    db: &mut dyn Sql,
    approval: u64,
    digest: [u8; 32],
    by: &str,
    approved: bool,
    now: SystemTime,
) -> Result<Decided, LedgerError> {
    let Some(held) = find(db, approval)? else { return Ok(Decided::Unknown) };
    if held.digest != digest {
        return Ok(Decided::Other);
    }
    if held.decision.is_some() {
        return Ok(Decided::Already(held));
    }
    // Who asks may take it back.
    if held.id.caller == by && approved {
        return Ok(Decided::Own);
    }
    db.execute(
        "UPDATE approvals SET decided_at = ?2, decided_by = ?3, approved = ?4 WHERE id = ?1",
        values![approval, millis(now), by, approved],
    )?;
    let detail = json!({ "approval": approval, "by": by, "digest": hex::encode(digest) });
    audit::append(db, &audit::Event::new(now, if approved { "approved" } else { "rejected" }, detail))?;
    Ok(Decided::Done(Held { decision: Some(Decision { approved, by: by.to_owned(), at: millis(now) }), ..held }))
}

fn held(row: &Row) -> Result<Held, LedgerError> {
    let decision = match (row.maybe_int(11)?, row.maybe_text(12)?, row.maybe_int(13)?) {
        (Some(at), Some(by), Some(approved)) => Some(Decision { approved: approved != 0, by, at }),
        _ => None,
    };
    Ok(Held {
        approval: row.unsigned(0)?,
        id: RequestId {
            caller: row.text(1)?,
            key: row.text(2)?,
            address: row.array::<20>(3)?.into(),
            idempotency_key: row.text(4)?,
        },
        digest: row.array(5)?,
        chain_id: row.unsigned(6)?,
        policy: row.text(7)?,
        rule: row.text(8)?,
        body: row.text(9)?,
        asked_at: row.int(10)?,
        decision,
    })
}
