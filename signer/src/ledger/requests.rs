//! Requests: reserved, signed, or given up.

use std::time::SystemTime;

use alloy_primitives::B256;
use serde_json::{Value as Json, json};

use super::db::{Row, Sql, values};
use super::spends::{self, Account, Refused};
use super::types::{Begun, Record, Request, RequestId, Reservation, Reserved, Signed, Unfinished};
use super::{LedgerError, approvals, audit, millis, nonces, sends};
use crate::failpoint::failpoint;

struct Found {
    policy: String,
    record: Record,
}

/// By address, whatever the key was called; else by the key's name, though it is another's by now: its digest, which the
/// address is part of, is another then, and so the idempotency key is taken.
pub(super) const FIND: &str =
    "SELECT id, policy, body, address, digest, chain_id, nonce, raw, hash, signature FROM transactions
     WHERE id IN (SELECT id FROM transactions WHERE caller = ?1 AND address = ?2 AND idempotency_key = ?4
                  UNION ALL
                  SELECT id FROM transactions WHERE caller = ?1 AND key = ?3 AND idempotency_key = ?4)
     ORDER BY CASE WHEN address = ?2 THEN 0 ELSE 1 END, CASE WHEN key = ?3 THEN 0 ELSE 1 END, id LIMIT 1";

/// What is there under this name.
pub(super) fn lookup(db: &mut dyn Sql, id: &RequestId) -> Result<Option<Record>, LedgerError> {
    Ok(find(db, id)?.map(|found| found.record))
}

fn find(db: &mut dyn Sql, id: &RequestId) -> Result<Option<Found>, LedgerError> {
    let found = db.first(FIND, values![&id.caller, id.address.into_array(), &id.key, &id.idempotency_key])?;
    found
        .map(|row| {
            Ok(Found {
                policy: row.text(1)?,
                record: Record {
                    reservation: Reservation(row.int(0)?),
                    address: row.maybe_array::<20>(3)?.map(Into::into),
                    digest: row.array(4)?,
                    chain_id: row.unsigned(5)?,
                    nonce: row.unsigned(6)?,
                    body: row.maybe_text(2)?,
                    signed: signed(&row, 7)?,
                },
            })
        })
        .transpose()
}

/// Columns raw, hash and signature, from `first` on.
pub(super) fn signed(row: &Row, first: usize) -> Result<Option<Signed>, LedgerError> {
    let Some(raw) = row.maybe_bytes(first)? else { return Ok(None) };
    let (raw, hash) = (raw.to_vec(), B256::from(row.array::<32>(first + 1)?));
    Ok(Some(Signed { raw, hash, signature: row.array(first + 2)? }))
}

/// Reserves a request, unless it is known, or a limit says no, or somebody must approve it. What changes something, or is
/// answered with a signature, is in the audit trail with it; what is refused is told by who asks, as often as may be.
pub(super) fn begin(db: &mut dyn Sql, request: &Request) -> Result<Begun, LedgerError> {
    let begun = decide(db, request)?;
    let detail = || told(request);
    let (what, detail) = match &begun {
        Begun::Fresh(reserved) => ("reserved", with(detail(), reserved)),
        // What was reserved with it is written down already.
        Begun::Pending(_) if request.finishing => return Ok(begun),
        Begun::Pending(reserved) => ("tried-again", without_body(with(detail(), reserved))),
        Begun::Signed { .. } => ("replayed", detail()),
        Begun::Held(held) => {
            let mut detail = detail();
            detail["approval"] = held.approval.into();
            detail["rule"] = held.rule.as_str().into();
            ("held", detail)
        }
        Begun::StillHeld(_) | Begun::Conflict | Begun::Abandoned | Begun::Denied(_) | Begun::ClockBehind(_) => {
            return Ok(begun);
        }
    };
    audit::append(db, &audit::Event::new(request.now, what, detail))?;
    Ok(begun)
}

fn with(mut detail: Json, reserved: &Reserved) -> Json {
    detail["request"] = reserved.reservation.0.into();
    detail["nonce"] = reserved.nonce.into();
    if let Some(body) = &reserved.body {
        detail["transaction"] = body.as_str().into();
    }
    detail
}

/// Of what is written down already.
fn without_body(mut detail: Json) -> Json {
    if let Some(fields) = detail.as_object_mut() {
        fields.remove("transaction");
    }
    detail
}

fn decide(db: &mut dyn Sql, request: &Request) -> Result<Begun, LedgerError> {
    let elsewhere = match find(db, &request.id)? {
        Some(found) if found.record.digest != request.digest => return Ok(Begun::Conflict),
        Some(Found { record: Record { reservation, signed: Some(signed), nonce, .. }, .. }) => {
            return Ok(Begun::Signed { reservation, signed, nonce });
        }
        Some(found) if found.policy == request.policy && found.record.address.is_some() => {
            return Ok(Begun::Pending(reserved(&found)));
        }
        // The caller has another policy now: the reservation moves there, and counts there. It stays one that may have
        // been signed for. As does one whose address was not known: the digest has told.
        Some(found) => Some(found),
        None => None,
    };
    let account = Account { policy: &request.policy, address: request.id.address, chain_id: request.chain_id };
    let entries = match spends::judge(db, account, &request.allowed.spends, request.now)? {
        Ok(entries) => entries,
        Err(Refused::Denied(denied)) => return Ok(Begun::Denied(denied)),
        Err(Refused::ClockBehind(behind)) => return Ok(Begun::ClockBehind(behind)),
    };
    let approved = match approvals::needed(db, request)? {
        Ok(approved) => approved,
        Err(begun) => return Ok(begun),
    };
    if let Some(found) = elsewhere {
        let Reservation(id) = found.record.reservation;
        spends::take_back_of(db, id)?;
        db.execute(
            "UPDATE transactions SET policy = ?2, address = ?3 WHERE id = ?1",
            values![id, &request.policy, request.id.address.into_array()],
        )?;
        spends::insert(db, account, &entries, Some(id))?;
        if request.finishing {
            let detail = without_body(with(told(request), &reserved(&found)));
            audit::append(db, &audit::Event::new(request.now, "tried-again", detail))?;
        }
        return Ok(Begun::Pending(reserved(&found)));
    }
    let body = approved.as_ref().unwrap_or(&request.body);
    let nonce = match nonces::choose(db, request, body)? {
        Ok(chosen) => chosen,
        Err(denied) => return Ok(Begun::Denied(denied)),
    };
    let inserted = db.first(
        "INSERT INTO transactions (caller, key, address, idempotency_key, digest, chain_id, nonce, send, body,
                                   policy, value, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) RETURNING id",
        values![
            &request.id.caller,
            &request.id.key,
            request.id.address.into_array(),
            &request.id.idempotency_key,
            request.digest,
            request.chain_id,
            nonce,
            request.send,
            body,
            &request.policy,
            request.value.to_be_bytes::<32>(),
            millis(request.now),
        ],
    )?;
    let id = inserted.ok_or_else(|| LedgerError::Other("a row was not inserted".into()))?.int(0)?;
    spends::insert(db, account, &entries, Some(id))?;
    failpoint("reserving");
    Ok(Begun::Fresh(Reserved { reservation: Reservation(id), nonce, body: approved }))
}

fn reserved(Found { record, .. }: &Found) -> Reserved {
    Reserved { reservation: record.reservation, nonce: record.nonce, body: record.body.clone() }
}

/// Who asks for what, as the trail has it.
fn told(request: &Request) -> Json {
    let RequestId { caller, key, address, idempotency_key } = &request.id;
    json!({
        "caller": caller, "key": key, "address": address.to_checksum(None), "idempotencyKey": idempotency_key,
        "digest": hex::encode(request.digest), "chainId": request.chain_id, "policy": request.policy,
        "transaction": request.body,
    })
}

/// Stores signed bytes. The first win.
pub(super) fn store(
    db: &mut dyn Sql,
    Reservation(id): Reservation,
    signed: &Signed,
    now: SystemTime,
) -> Result<Result<Signed, LedgerError>, LedgerError> {
    let updated = db.first(
        "UPDATE transactions SET raw = ?2, hash = ?3, signature = ?4, signed_at = ?5 WHERE id = ?1 AND raw IS NULL
         RETURNING send",
        values![id, signed.raw.as_slice(), signed.hash.0, signed.signature, millis(now)],
    )?;
    if let Some(row) = updated {
        if row.flag(0)? {
            sends::queue(db, id)?;
        }
        failpoint("storing");
        let detail = json!({ "request": id, "hash": signed.hash.to_string() });
        audit::append(db, &audit::Event::new(now, "signed", detail))?;
        return Ok(Ok(signed.clone()));
    }
    let stored = db.first("SELECT raw, hash, signature FROM transactions WHERE id = ?1", values![id])?;
    let stored = stored.map(|row| self::signed(&row, 0)).transpose()?.flatten();
    Ok(stored.ok_or(LedgerError::NotReserved))
}

/// Deletes a reservation, takes back what it spends, and gives its nonce back.
pub(super) fn release(db: &mut dyn Sql, Reservation(id): Reservation, now: SystemTime) -> Result<(), LedgerError> {
    let deleted = db.first(
        "DELETE FROM transactions WHERE id = ?1 AND raw IS NULL RETURNING address, chain_id, nonce",
        values![id],
    )?;
    let Some(row) = deleted else { return Ok(()) };
    spends::take_back_of(db, id)?;
    if let Some(address) = row.maybe_array::<20>(0)? {
        nonces::give_back(db, address.into(), row.unsigned(1)?, row.unsigned(2)?)?;
    }
    failpoint("releasing");
    audit::append(db, &audit::Event::new(now, "released", json!({ "request": id })))
}

/// What was reserved before this moment and is not signed, and can be signed as it stands; oldest first.
pub(super) fn unfinished(db: &mut dyn Sql, before: SystemTime) -> Result<Vec<Unfinished>, LedgerError> {
    let rows = db.query(
        "SELECT id, caller, key, address, idempotency_key, nonce, body, digest FROM transactions
         WHERE raw IS NULL AND body IS NOT NULL AND address IS NOT NULL AND created_at <= ?1 ORDER BY id",
        values![millis(before)],
    )?;
    rows.iter()
        .map(|row| {
            Ok(Unfinished {
                reserved: Reserved {
                    reservation: Reservation(row.int(0)?),
                    nonce: row.unsigned(5)?,
                    body: row.maybe_text(6)?,
                },
                id: RequestId {
                    caller: row.text(1)?,
                    key: row.text(2)?,
                    address: row.array::<20>(3)?.into(),
                    idempotency_key: row.text(4)?,
                },
                digest: row.array(7)?,
            })
        })
        .collect()
}

/// The callers that have used idempotency keys.
pub(super) fn callers(db: &mut dyn Sql) -> Result<Vec<String>, LedgerError> {
    // From one to the next by the index, however many rows each has.
    let rows = db.query(
        "WITH RECURSIVE known (caller) AS (
             SELECT min(caller) FROM transactions
             UNION ALL SELECT (SELECT min(caller) FROM transactions WHERE caller > known.caller)
             FROM known WHERE known.caller IS NOT NULL)
         SELECT caller FROM known WHERE caller IS NOT NULL",
        &[],
    )?;
    rows.iter().map(|row| row.text(0)).collect()
}
