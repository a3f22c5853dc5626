//! Requests that are held until a second identity approves them.

use std::time::SystemTime;

use serde_json::json;

use super::db::{Row, Sql, values};
use super::types::{Begun, Decided, Decision, Held, Request, RequestId};
use super::{LedgerError, audit, millis};
use crate::policy::Denied;

/// So many requests of one caller wait: the list of all of them stays one that somebody reads.
const MOST: i64 = 100;

/// Nobody has decided, and it was not signed since because it needs no approval any more.
macro_rules! waiting {
    ($columns:literal, $and:literal) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM approvals a WHERE a.approved IS NULL AND NOT EXISTS (SELECT 1 FROM transactions t
             WHERE t.caller = a.caller AND t.address = a.address AND t.idempotency_key = a.idempotency_key)",
            $and
        )
    };
}

/// The rule that a rejection is told with, whichever held the request.
const RULE: &str = "require_approval";

const COLUMNS: &str =
    "SELECT id, caller, key, address, idempotency_key, digest, chain_id, policy, rule, body, asked_at, decided_at,
            decided_by, approved FROM approvals WHERE caller = ?1 AND address = ?2 AND idempotency_key = ?3";

/// What somebody has approved, which is what is signed, however else the same request would be filled now; or what keeps
/// it from being signed. What somebody has rejected is not signed either when it would need no approval any more.
pub(super) fn needed(db: &mut dyn Sql, request: &Request) -> Result<Result<Option<String>, Begun>, LedgerError> {
    let RequestId { caller, key, address, idempotency_key } = &request.id;
    let name = values![caller, address.into_array(), idempotency_key];
    let held_before = db.first(COLUMNS, name)?.map(|row| held(&row)).transpose()?;
    let approval = match (held_before, &request.allowed.approval) {
        (None, None) => return Ok(Ok(None)),
        (None, Some(approval)) => approval,
        (Some(held), approval) => {
            return Ok(match &held.decision {
                _ if held.digest != request.digest => Err(Begun::Conflict),
                None if approval.is_none() => Ok(None),
                None => Err(Begun::StillHeld(held)),
                // Whose say it is no more, perhaps because they cannot be trusted, has said nothing.
                Some(Decision { approved: true, by, .. })
                    if approval.as_ref().is_some_and(|approval| !approval.from.contains(by)) =>
                {
                    let detail = format!("{by:?} has approved it, and may not any more: use another idempotency key");
                    Err(Begun::Denied(Denied { rule: RULE, detail }))
                }
                Some(Decision { approved: true, .. }) => Ok(Some(held.body)),
                Some(Decision { by, .. }) => {
                    let detail = format!("{by:?} has rejected it");
                    Err(Begun::Denied(Denied { rule: RULE, detail }))
                }
            });
        }
    };
    let waiting = db.first(waiting!("count(*)", " AND a.caller = ?1"), values![caller])?;
    if waiting.map(|row| row.int(0)).transpose()?.unwrap_or(0) >= MOST {
        let detail = format!("{MOST} requests of this caller wait for approval already");
        return Ok(Err(Begun::Denied(Denied { rule: RULE, detail })));
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
    let row = row.ok_or_else(|| LedgerError::Other("a row was not inserted".into()))?;
    Ok(Err(Begun::Held(held(&row)?)))
}

/// One of them, by its request's name.
pub(super) fn named(db: &mut dyn Sql, id: &RequestId) -> Result<Option<Held>, LedgerError> {
    let row = db.first(COLUMNS, values![&id.caller, id.address.into_array(), &id.idempotency_key])?;
    row.map(|row| held(&row)).transpose()
}

/// Those that nobody has decided about, oldest first.
pub(super) fn undecided(db: &mut dyn Sql) -> Result<Vec<Held>, LedgerError> {
    let rows = db.query(
        waiting!(
            "id, caller, key, address, idempotency_key, digest, chain_id, policy, rule, body, asked_at, decided_at,
             decided_by, approved",
            " ORDER BY id"
        ),
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
