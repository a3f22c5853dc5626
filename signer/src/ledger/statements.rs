//! What is signed and is no transaction: counted before it is signed, written down before it is answered.

use serde_json::json;
use sha2::{Digest, Sha256};

use super::db::{Sql, values};
use super::spends::{self, Account, Refused};
use super::types::{Exposed, Exposure, Statement};
use super::{LedgerError, audit, millis};

/// Counts what somebody will be able to take by a signature.
pub(super) fn expose(db: &mut dyn Sql, exposure: &Exposure) -> Result<Exposed, LedgerError> {
    let Exposure { policy, address, chain_id, spends, now } = exposure;
    let account = Account { policy, address: *address, chain_id: *chain_id };
    Ok(match spends::judge(db, account, spends, *now)? {
        Ok(entries) => Exposed::Counted(spends::insert(db, account, &entries, None)?),
        Err(Refused::Denied(denied)) => Exposed::Denied(denied),
        Err(Refused::ClockBehind(behind)) => Exposed::ClockBehind(behind),
    })
}

/// Writes down what was signed.
pub(super) fn record(db: &mut dyn Sql, statement: &Statement) -> Result<(), LedgerError> {
    let inserted = db.first(
        "INSERT INTO statements (caller, key, address, policy, kind, digest, content, signature, signed_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) RETURNING id",
        values![
            &statement.caller,
            &statement.key,
            statement.address.into_array(),
            &statement.policy,
            statement.kind,
            statement.digest.0,
            statement.content.as_slice(),
            statement.signature,
            millis(statement.now),
        ],
    )?;
    let id = inserted.map(|row| row.int(0)).transpose()?;
    let detail = json!({
        "statement": id, "caller": statement.caller, "key": statement.key,
        "address": statement.address.to_checksum(None), "policy": statement.policy, "kind": statement.kind,
        "digest": hex::encode(statement.digest), "content": content_digest(&statement.content),
    });
    audit::append(db, &audit::Event::new(statement.now, "signed", detail))
}

/// What tells one content from another, in the trail.
pub(super) fn content_digest(content: &[u8]) -> String {
    hex::encode(Sha256::digest(content))
}
