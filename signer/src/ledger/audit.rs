//! The audit trail: every request, verdict and signature, each entry chained to the one before it by SHA-256.
//!
//! An entry is a JSON object, kept and hashed as it was written: `hash = SHA-256(the previous hash || entry)`, where the
//! first has 32 zeros before it. An entry cannot be changed, taken out or put in without changing every hash that
//! follows; and who keeps a head (number and hash) elsewhere sees when the whole was written anew, or cut short.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use alloy_primitives::B256;
use serde_json::{Map, Value as Json, json};
use sha2::{Digest, Sha256};

use super::db::{Sql, values};
use super::{LedgerError, millis};

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The moment.
    pub at: SystemTime,
    /// What, in a word: `signed`, `denied`, and so on.
    pub what: &'static str,
    /// More of it, as members of the entry. Identities, never secrets.
    pub detail: Map<String, Json>,
}

/// The last entry of the trail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// How many entries there are.
    pub seq: u64,
    /// The last one's hash.
    pub hash: B256,
}

/// Number and hash, with a colon between.
impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.hash)
    }
}

impl FromStr for Head {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected SEQ:HASH, such as the log and `keygate audit verify` have it";
        let (seq, hash) = text.split_once(':').ok_or(EXPECTED)?;
        match (seq.parse(), hash.parse()) {
            (Ok(seq), Ok(hash)) if seq > 0 => Ok(Self { seq, hash }),
            _ => Err(EXPECTED),
        }
    }
}

/// An entry, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its number; the first is 1.
    pub seq: u64,
    /// The JSON object.
    pub entry: String,
    /// The hash of everything so far.
    pub hash: B256,
}

/// What is wrong with a trail.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// An entry is missing, or there is one too many.
    #[error("entry {expected} is missing: number {found} follows")]
    Gap {
        /// The number that should come.
        expected: u64,
        /// The one that does.
        found: u64,
    },
    /// An entry's hash is not that of what it says and of what was before it.
    #[error("entry {0} is not what was written: its hash is another")]
    Hash(u64),
    /// An entry is no JSON object with its own number.
    #[error("entry {0} does not say that it is entry {0}")]
    Number(u64),
    /// What was signed is not in the trail.
    #[error("{0} is in the ledger, and the trail does not have it")]
    Unaudited(String),
    /// What the trail says was signed is not in the ledger.
    #[error("entry {seq} says that {what} was signed, and the ledger does not have it")]
    Vanished {
        /// The entry.
        seq: u64,
        /// Its hash.
        what: String,
    },
    /// A head that was kept elsewhere is not in the trail.
    #[error("the head {0}, which was kept elsewhere, is not in it: the trail was written anew, or cut short")]
    Head(Head),
}

impl Event {
    /// An event with the members of a JSON object.
    #[must_use]
    pub fn new(at: SystemTime, what: &'static str, detail: Json) -> Self {
        let Json::Object(detail) = detail else { unreachable!("a detail is an object") };
        Self { at, what, detail }
    }
}

/// Begins a trail, in a ledger that may hold what was signed before there were any.
pub(super) fn begin(db: &mut dyn Sql) -> Result<(), LedgerError> {
    let mut last = |table| match db.first(table, &[])? {
        Some(row) => row.int(0),
        None => Ok(0),
    };
    let transactions = last("SELECT COALESCE(max(id), 0) FROM transactions")?;
    let statements = last("SELECT COALESCE(max(id), 0) FROM statements")?;
    let detail = json!({ "transactions": transactions, "statements": statements });
    append(db, &Event::new(SystemTime::now(), "began", detail))
}

/// Writes an entry behind the last.
pub(super) fn append(db: &mut dyn Sql, event: &Event) -> Result<(), LedgerError> {
    let head = head(db)?;
    let seq = head.seq + 1;
    let mut entry = Map::new();
    entry.insert("seq".into(), seq.into());
    entry.insert("at".into(), millis(event.at).into());
    entry.insert("what".into(), event.what.into());
    entry.extend(event.detail.clone());
    let entry = Json::Object(entry).to_string();
    let hash = chained(head.hash, &entry);
    db.execute("INSERT INTO audit (seq, entry, hash) VALUES (?1, ?2, ?3)", values![seq, &entry, hash.0])?;
    Ok(())
}

/// The last entry.
pub(super) fn head(db: &mut dyn Sql) -> Result<Head, LedgerError> {
    match db.first("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1", &[])? {
        Some(row) => Ok(Head { seq: row.unsigned(0)?, hash: row.array(1)?.into() }),
        None => Ok(Head { seq: 0, hash: B256::ZERO }),
    }
}

/// So many entries behind `after`, in order.
pub(super) fn page(db: &mut dyn Sql, after: u64, most: u64) -> Result<Vec<Kept>, LedgerError> {
    let rows =
        db.query("SELECT seq, entry, hash FROM audit WHERE seq > ?1 ORDER BY seq LIMIT ?2", values![after, most])?;
    rows.iter().map(|row| Ok(Kept { seq: row.unsigned(0)?, entry: row.text(1)?, hash: row.array(2)?.into() })).collect()
}

fn chained(before: B256, entry: &str) -> B256 {
    B256::from(<[u8; 32]>::from(Sha256::new().chain_update(before).chain_update(entry).finalize()))
}

/// Follows a trail from its first entry on.
#[derive(Debug)]
pub struct Verifier {
    head: Head,
    expected: Option<Head>,
}

impl Verifier {
    /// From the beginning; `expected` is a head that was kept elsewhere.
    #[must_use]
    pub fn new(expected: Option<Head>) -> Self {
        Self { head: Head { seq: 0, hash: B256::ZERO }, expected }
    }

    /// Takes the next entry, and answers what it says.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn next(&mut self, kept: &Kept) -> Result<Map<String, Json>, Broken> {
        let seq = self.head.seq + 1;
        if kept.seq != seq {
            return Err(Broken::Gap { expected: seq, found: kept.seq });
        }
        if chained(self.head.hash, &kept.entry) != kept.hash {
            return Err(Broken::Hash(seq));
        }
        let entry: Map<String, Json> = serde_json::from_str(&kept.entry).map_err(|_| Broken::Number(seq))?;
        if entry.get("seq").and_then(Json::as_u64) != Some(seq) {
            return Err(Broken::Number(seq));
        }
        self.head = Head { seq, hash: kept.hash };
        match self.expected {
            Some(expected) if expected.seq == seq && expected.hash != kept.hash => Err(Broken::Head(expected)),
            _ => Ok(entry),
        }
    }

    /// The trail has ended.
    ///
    /// # Errors
    /// [`Broken::Head`] when it ends before the head that was kept elsewhere.
    pub fn end(self) -> Result<Head, Broken> {
        match self.expected {
            Some(expected) if expected.seq > self.head.seq => Err(Broken::Head(expected)),
            _ => Ok(self.head),
        }
    }
}
