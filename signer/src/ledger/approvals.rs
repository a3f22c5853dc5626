//! Requests that are held until a second identity approves them, who asked withdraws them, or they expire.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::db::{Row, Sql, values};
use super::types::{Begun, Decided, Decision, Held, Nonce, Request, RequestId, Standing};
use super::{LedgerError, audit, millis, nonces};
use crate::policy::{Approval, Denied};

/// So many requests of one caller wait: the list of all of them stays one that somebody reads.
const MOST: i64 = 100;
/// And so many are held in a day that nobody else has decided about: who asks and withdraws, or waits until it is expired, fills
/// no disk.
const MOST_A_DAY: i64 = 1000;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What has a nonce under the name of the approval `a`: it needed no approval then, or was signed with one.
macro_rules! under_it {
    ($what:literal, $and:literal) => {
        concat!(
            "(SELECT ",
            $what,
            " FROM transactions t WHERE t.caller = a.caller AND t.address = a.address
             AND t.idempotency_key = a.idempotency_key AND ",
            $and,
            ")"
        )
    };
}

/// Nobody has decided, and it is not expired at the time ?1, unless a nonce waits for it; and it was not signed since because
/// it needs no approval any more.
macro_rules! waiting {
    ($columns:expr, $and:literal) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM approvals a WHERE a.approved IS NULL AND (a.expires_at > ?1 OR EXISTS ",
            under_it!("1", "t.raw IS NULL"),
            ") AND NOT EXISTS ",
            under_it!("1", "t.raw IS NOT NULL"),
            $and
        )
    };
}

/// What [`held`] reads. What is reserved is what is shown: that is signed.
macro_rules! columns {
    () => {
        concat!(
            "a.id, a.caller, a.key, a.address, a.idempotency_key, a.digest, a.chain_id, a.policy, a.rule, coalesce(",
            under_it!("max(t.body)", "t.raw IS NULL"),
            ", a.body), a.asked_at, a.decided_at, a.decided_by, a.approved, a.expires_at, a.replaces, ",
            under_it!("count(*)", "t.raw IS NULL"),
            ", ",
            under_it!("count(*)", "t.raw IS NOT NULL")
        )
    };
}

/// The rule that a rejection is told with, whichever held the request.
const RULE: &str = "require_approval";

const NAMED: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM approvals a WHERE a.caller = ?1 AND a.address = ?2 AND a.idempotency_key = ?3"
);

/// What somebody has approved, which is what is signed, however else the same request would be filled now; or what keeps
/// it from being signed. What was rejected or withdrawn, or is expired, is not signed either when it would need no approval
/// any more.
pub(super) fn needed(db: &mut dyn Sql, request: &Request) -> Result<Result<Option<String>, Begun>, LedgerError> {
    let RequestId { caller, key, address, idempotency_key } = &request.id;
    let name = values![caller, address.into_array(), idempotency_key];
    let held_before = db.first(NAMED, name)?.map(|row| held(&row)).transpose()?;
    let approval = match (held_before, &request.allowed.approval) {
        (None, None) => return Ok(Ok(None)),
        (None, Some(approval)) => approval,
        (Some(held), approval) => return Ok(decided(held, request, approval.as_ref()).map_err(|begun| *begun)),
    };
    let waiting = db.first(waiting!("count(*)", " AND a.caller = ?2"), values![millis(request.now), caller])?;
    if waiting.map(|row| row.int(0)).transpose()?.unwrap_or(0) >= MOST {
        let detail = format!("{MOST} requests of this caller wait for approval already");
        return Ok(Err(Begun::Denied(Denied { rule: RULE, detail })));
    }
    let today = db.first(
        "SELECT count(*) FROM approvals WHERE caller = ?1 AND asked_at > ?2 AND (approved IS NULL OR decided_by = ?1)",
        values![caller, millis(request.now.checked_sub(DAY).unwrap_or(UNIX_EPOCH))],
    )?;
    if today.map(|row| row.int(0)).transpose()?.unwrap_or(0) >= MOST_A_DAY {
        let detail =
            format!("{MOST_A_DAY} requests of this caller were held in 24 hours that nobody else decided about");
        return Ok(Err(Begun::Denied(Denied { rule: RULE, detail })));
    }
    let replaces = match request.nonce {
        Nonce::Replacing(nonce) | Nonce::Given(nonce) if nonces::another_has(db, request, nonce)? => {
            Some(nonce.cast_signed())
        }
        Nonce::Replacing(_) | Nonce::Given(_) | Nonce::Managed { .. } | Nonce::Gap { .. } => None,
    };
    db.execute(
        "INSERT INTO approvals (caller, key, address, idempotency_key, digest, chain_id, policy, rule, body, asked_at,
                                expires_at, replaces)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
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
            millis(request.now + approval.expires_after),
            replaces,
        ],
    )?;
    let row = db.first(NAMED, name)?;
    let row = row.ok_or_else(|| LedgerError::Other("a row was not inserted".into()))?;
    Ok(Err(Begun::Held(held(&row)?)))
}

/// What a request may have that was held before, if it needs this `approval` now.
fn decided(held: Held, request: &Request, approval: Option<&Approval>) -> Result<Option<String>, Box<Begun>> {
    if held.digest != request.digest {
        return Err(Begun::Conflict.into());
    }
    let by = held.decision.as_ref().map(|decision| decision.by.clone()).unwrap_or_default();
    let why = match (held.standing(request.now), approval) {
        (Standing::Expired, _) => "nobody has decided about it in time: it is expired".to_owned(),
        (Standing::Signed, _) => "it was signed".to_owned(),
        (Standing::Withdrawn, _) => "it was withdrawn".to_owned(),
        (Standing::Rejected, _) => format!("{by:?} has rejected it"),
        (Standing::Held, Some(_)) => return Err(Begun::StillHeld(held).into()),
        (Standing::Approved, Some(approval)) if approval.from.contains(&by) => return Ok(Some(held.body)),
        // Whose say it is no more, perhaps because they cannot be trusted, has said nothing.
        (Standing::Approved, Some(_)) => format!("{by:?} has approved it, and may not any more"),
        // What the policy has judged is signed, which may have been filled in otherwise than what was shown.
        (Standing::Held | Standing::Approved, None) => return Ok(None),
    };
    Err(Begun::Denied(Denied { rule: RULE, detail: format!("{why}; use another idempotency key") }).into())
}

/// One of them, by its request's name.
pub(super) fn named(db: &mut dyn Sql, id: &RequestId) -> Result<Option<Held>, LedgerError> {
    let row = db.first(NAMED, values![&id.caller, id.address.into_array(), &id.idempotency_key])?;
    row.map(|row| held(&row)).transpose()
}

/// Those that nobody has decided about, and that are not expired; oldest first.
pub(super) fn undecided(db: &mut dyn Sql, now: SystemTime) -> Result<Vec<Held>, LedgerError> {
    let rows = db.query(waiting!(columns!(), " ORDER BY a.id"), values![millis(now)])?;
    rows.iter().map(held).collect()
}

/// One of them, whatever was decided.
pub(super) fn find(db: &mut dyn Sql, approval: u64) -> Result<Option<Held>, LedgerError> {
    let row = db.first(concat!("SELECT ", columns!(), " FROM approvals a WHERE a.id = ?1"), values![approval])?;
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
    match held.standing(now) {
        // Who was told no would have it paid otherwise, and it might be signed yet: then it would be paid twice.
        Standing::Held if held.reserved && !approved => return Ok(Decided::UnderWay),
        Standing::Signed => return Ok(Decided::UnderWay),
        Standing::Held => {}
        Standing::Expired => return Ok(Decided::Expired(held)),
        Standing::Approved | Standing::Rejected | Standing::Withdrawn => return Ok(Decided::Already(held)),
    }
    // Who asks may withdraw it, and no more.
    if held.id.caller == by && approved {
        return Ok(Decided::Own);
    }
    db.execute(
        "UPDATE approvals SET decided_at = ?2, decided_by = ?3, approved = ?4 WHERE id = ?1",
        values![approval, millis(now), by, approved],
    )?;
    let held = Held { decision: Some(Decision { approved, by: by.to_owned(), at: millis(now) }), ..held };
    let detail = json!({ "approval": approval, "by": by, "digest": hex::encode(digest) });
    audit::append(db, &audit::Event::new(now, held.standing(now).name(), detail))?;
    Ok(Decided::Done(held))
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
        expires_at: row.int(14)?,
        replaces: row.maybe_int(15)?.map(i64::cast_unsigned),
        reserved: row.int(16)? > 0,
        signed: row.int(17)? > 0,
        decision,
    })
}
