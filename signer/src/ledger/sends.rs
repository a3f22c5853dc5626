//! What is to be sent to the chain, and what became of it.

use std::time::SystemTime;

use alloy_primitives::{Address, B256};
use serde_json::json;

use super::db::{Row, Sql, values};
use super::types::{RequestId, Reservation, Signed};
use super::{LedgerError, audit, nonces, requests};

/// A transaction that was signed to be sent, and how far it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sending {
    /// Its place in the ledger.
    pub reservation: Reservation,
    /// Its name.
    pub id: RequestId,
    /// Chain id.
    pub chain_id: u64,
    /// Its nonce.
    pub nonce: u64,
    /// What is sent.
    pub signed: Signed,
    /// How far it has come.
    pub progress: Progress,
}

/// How far a transaction has come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// The step.
    pub state: State,
    /// How often it was sent.
    pub attempts: u32,
    /// When it was first sent, in milliseconds since 1970.
    pub first_sent_at: Option<i64>,
    /// When it was last sent.
    pub last_sent_at: Option<i64>,
    /// The number of the block that has it.
    pub block: Option<u64>,
    /// Whether it did what it should, by its receipt.
    pub succeeded: Option<bool>,
    /// What the chain last said against it; or that it is stuck.
    pub note: Option<String>,
    /// The hash of the transaction that has its nonce, for good.
    pub replaced_by: Option<B256>,
}

/// A step on the way to the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// Signed, and not sent yet.
    #[default]
    Queued,
    /// Sent, and in no block.
    Sent,
    /// In a block that may still go.
    Mined,
    /// In a block, for good. The end.
    Confirmed,
    /// Another transaction has its nonce, for good. The end.
    Replaced,
}

impl State {
    /// As the API and the ledger call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Sent => "sent",
            Self::Mined => "mined",
            Self::Confirmed => "confirmed",
            Self::Replaced => "replaced",
        }
    }

    pub(super) fn named(name: &str) -> Result<Self, LedgerError> {
        [Self::Queued, Self::Sent, Self::Mined, Self::Confirmed, Self::Replaced]
            .into_iter()
            .find(|state| state.name() == name)
            .ok_or_else(|| LedgerError::Unusable(format!("a transaction is {name:?}, which is no state")))
    }

    /// Whether there is nothing more to do.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Confirmed | Self::Replaced)
    }
}

/// A transaction is signed, and is to be sent.
pub(super) fn queue(db: &mut dyn Sql, id: i64) -> Result<(), LedgerError> {
    let insert = "INSERT INTO sends (request, state) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
    db.execute(insert, values![id, State::Queued.name()])?;
    Ok(())
}

/// Those that are on their way on a chain, in the order of their nonces.
pub(super) fn under_way(db: &mut dyn Sql, chain_id: u64) -> Result<Vec<Sending>, LedgerError> {
    let rows = db.query(
        "SELECT t.id, t.caller, t.key, t.address, t.idempotency_key, t.chain_id, t.nonce, t.raw, t.hash, t.signature,
                s.state, s.attempts, s.first_sent_at, s.last_sent_at, s.block, s.succeeded, s.note,
                s.replaced_by
         FROM sends s JOIN transactions t ON t.id = s.request
         WHERE s.state IN ('queued', 'sent', 'mined') AND t.chain_id = ?1 ORDER BY t.address, t.nonce, t.id",
        values![chain_id],
    )?;
    rows.iter()
        .map(|row| {
            let address: Address = row.array::<20>(3)?.into();
            let signed = requests::signed(row, 7)?;
            Ok(Sending {
                reservation: Reservation(row.int(0)?),
                id: RequestId { caller: row.text(1)?, key: row.text(2)?, address, idempotency_key: row.text(4)? },
                chain_id: row.unsigned(5)?,
                nonce: row.unsigned(6)?,
                signed: signed.ok_or_else(|| LedgerError::Unusable("what is sent is not signed".into()))?,
                progress: progress(row, 10)?,
            })
        })
        .collect()
}

/// How far a transaction has come; nothing, if it is not to be sent.
pub(super) fn find(db: &mut dyn Sql, Reservation(id): Reservation) -> Result<Option<Progress>, LedgerError> {
    let row = db.first(
        "SELECT state, attempts, first_sent_at, last_sent_at, block, succeeded, note, replaced_by
         FROM sends WHERE request = ?1",
        values![id],
    )?;
    row.map(|row| progress(&row, 0)).transpose()
}

/// The hash of the transaction with this nonce that is confirmed, if one is.
pub(super) fn confirmed(
    db: &mut dyn Sql,
    address: Address,
    chain_id: u64,
    nonce: u64,
) -> Result<Option<B256>, LedgerError> {
    let row = db.first(
        "SELECT t.hash FROM transactions t JOIN sends s ON s.request = t.id
         WHERE t.address = ?1 AND t.chain_id = ?2 AND t.nonce = ?3 AND s.state = 'confirmed'",
        values![address.into_array(), chain_id, nonce],
    )?;
    row.map(|row| Ok(row.array::<32>(0)?.into())).transpose()
}

/// Writes down how far a transaction has come that was this far `before`; nothing, if it is elsewhere by now.
pub(super) fn update(
    db: &mut dyn Sql,
    Reservation(id): Reservation,
    before: &Progress,
    progress: &Progress,
    now: SystemTime,
) -> Result<(), LedgerError> {
    let Some(there) = find(db, Reservation(id))? else { return Err(LedgerError::NotReserved) };
    if there != *before {
        return Ok(());
    }
    db.execute(
        "UPDATE sends SET state = ?2, attempts = ?3, first_sent_at = ?4, last_sent_at = ?5, block = ?6,
                          succeeded = ?7, note = ?8, replaced_by = ?9 WHERE request = ?1",
        values![
            id,
            progress.state.name(),
            i64::from(progress.attempts),
            progress.first_sent_at,
            progress.last_sent_at,
            progress.block,
            progress.succeeded,
            // A node's words, which PostgreSQL would not have with a zero.
            progress.note.as_ref().map(|note| note.replace('\0', "")).as_deref(),
            progress.replaced_by.map(|hash| hash.0),
        ],
    )?;
    if progress.state.is_final() && !before.state.is_final() {
        nonces::settle(db, Reservation(id))?;
    }
    if before.state != progress.state {
        let mut detail = json!({ "request": id, "block": progress.block, "succeeded": progress.succeeded });
        if let Some(hash) = progress.replaced_by {
            detail["replacedBy"] = hash.to_string().into();
        }
        audit::append(db, &audit::Event::new(now, progress.state.name(), detail))?;
    }
    Ok(())
}

fn progress(row: &Row, first: usize) -> Result<Progress, LedgerError> {
    Ok(Progress {
        state: State::named(&row.text(first)?)?,
        attempts: u32::try_from(row.int(first + 1)?).unwrap_or(u32::MAX),
        first_sent_at: row.maybe_int(first + 2)?,
        last_sent_at: row.maybe_int(first + 3)?,
        block: row.maybe_int(first + 4)?.map(i64::cast_unsigned),
        succeeded: row.maybe_int(first + 5)?.map(|succeeded| succeeded != 0),
        note: row.maybe_text(first + 6)?,
        replaced_by: row.maybe_array::<32>(first + 7)?.map(Into::into),
    })
}
