//! The audit trail, read by who is not the signer: exported, and checked against what the ledger holds.

use std::io;

use alloy_primitives::{B256, keccak256};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value as Json};

use super::audit::{self, Broken, Head, Kept, Verifier};
use super::db::postgres::{self, Postgres};
use super::db::sqlite::Sqlite;
use super::db::{Database, Sql, values};
use super::statements::content_digest;
use super::{LedgerError, OpenError};

/// Entries that are read at once.
const PAGE: u64 = 1000;

/// A ledger's audit trail, to be read while a signer may be writing it.
pub struct Trail {
    database: Box<dyn Database>,
}

/// A trail in which everything is as it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole {
    /// Its end, to be kept elsewhere.
    pub head: Head,
    /// Signed transactions that it tells of.
    pub transactions: u64,
    /// What else was signed, as it tells.
    pub statements: u64,
    /// Requests that were refused or held, as it tells;
    pub refused: u64,
    /// those of them that it tells of in sums.
    pub summed: u64,
}

/// An entry in an export: one line each.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    seq: u64,
    /// `0x` and 64 hex digits.
    hash: B256,
    /// As it is kept and was hashed, byte by byte.
    #[serde(borrow)]
    entry: &'a RawValue,
}

/// Why a trail is not as it must be, or could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Something was changed.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// The ledger does not answer.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A line is no entry of an export.
    #[error("line {0} is no entry of an export")]
    Line(u64),
    /// The export cannot be read or written.
    #[error("{0}")]
    Io(String),
}

impl From<io::Error> for VerifyError {
    fn from(error: io::Error) -> Self {
        Self::Io(error.to_string())
    }
}

impl Trail {
    /// Opens the ledger that the file names, to read it. Blocks; not within an asynchronous runtime.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(config: &keygate_config::Ledger) -> Result<Self, OpenError> {
        let database: Box<dyn Database> = match config {
            keygate_config::Ledger::Sqlite(path) => {
                let at = |error| OpenError { at: path.display().to_string(), error };
                Box::new(Sqlite::open_to_read(path).map_err(at)?)
            }
            keygate_config::Ledger::Postgres(server) => {
                let at = |error| OpenError { at: server.to_string(), error };
                let (config, tls) = postgres::configured(server).map_err(at)?;
                Box::new(Postgres::open_to_read(config, tls).map_err(at)?)
            }
        };
        Ok(Self { database })
    }

    /// Writes every entry from number `from` on, in order, as a line of JSON; how many.
    ///
    /// # Errors
    /// [`VerifyError`].
    pub fn export(&mut self, from: u64, mut to: impl io::Write) -> Result<u64, VerifyError> {
        let mut count = 0;
        self.each(from.saturating_sub(1), |Kept { seq, entry, hash }| {
            let entry = serde_json::from_str(entry).map_err(|_| Broken::Number(*seq))?;
            let line = serde_json::to_string(&Line { seq: *seq, hash: *hash, entry });
            writeln!(to, "{}", line.map_err(|error| VerifyError::Io(error.to_string()))?)?;
            count += 1;
            Ok::<_, VerifyError>(())
        })?;
        to.flush()?;
        Ok(count)
    }

    /// Hands on every entry behind number `after`, in order.
    ///
    /// # Errors
    /// [`LedgerError`], or what `each` fails with.
    pub fn each<E: From<LedgerError>>(
        &mut self,
        mut after: u64,
        mut each: impl FnMut(&Kept) -> Result<(), E>,
    ) -> Result<(), E> {
        loop {
            let page = self.page(after)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.seq;
            page.iter().try_for_each(&mut each)?;
        }
    }

    /// Follows the whole trail, and sees that what it says was signed is what the ledger holds, and the other way
    /// round. `expected` is a head that was kept elsewhere.
    ///
    /// # Errors
    /// [`VerifyError`].
    pub fn verify(&mut self, expected: Option<Head>) -> Result<Whole, VerifyError> {
        let mut verifier = Verifier::new(expected);
        let mut count = Count::default();
        let mut after = 0;
        loop {
            // What is signed meanwhile is behind the last page, and is not looked at.
            let page = self.page(after)?;
            let Some(last) = page.last() else { break };
            after = last.seq;
            for kept in &page {
                let entry = verifier.next(kept)?;
                count.refused.add(&entry);
                self.signed(kept.seq, &entry, &mut count)?;
            }
        }
        let head = verifier.end()?;
        self.nothing_else(&count, head)?;
        Ok(count.whole(head))
    }

    fn page(&mut self, after: u64) -> Result<Vec<Kept>, LedgerError> {
        self.read(|db| audit::page(db, after, PAGE))
    }

    fn read<T>(&mut self, mut work: impl FnMut(&mut dyn Sql) -> Result<T, LedgerError>) -> Result<T, LedgerError> {
        let mut read = None;
        self.database.transact(true, &mut |db| {
            read = Some(work(db)?);
            Ok(())
        })?;
        read.ok_or(LedgerError::Closed)
    }

    /// Sees that the ledger holds what an entry says was signed.
    fn signed(&mut self, seq: u64, entry: &Map<String, Json>, count: &mut Count) -> Result<(), VerifyError> {
        let text = |name: &str| entry.get(name).and_then(Json::as_str).unwrap_or_default().to_owned();
        let number = |name: &str| entry.get(name).and_then(Json::as_i64);
        match (text("what").as_str(), number("request"), number("statement")) {
            ("began", ..) => {
                count.before = (number("transactions").unwrap_or(0), number("statements").unwrap_or(0));
            }
            ("signed", Some(id), _) => {
                match id > count.before.0 {
                    true => count.transactions += 1,
                    false => count.older += 1,
                }
                let hash = text("hash");
                let held = self.read(|db| transaction(db, id))?;
                if held.map(|hash| hash.to_string()).as_ref() != Some(&hash) {
                    return Err(Broken::Vanished { seq, what: hash }.into());
                }
            }
            ("signed", None, Some(id)) => {
                count.statements += 1;
                let (digest, content) = (text("digest"), text("content"));
                if self.read(|db| statement(db, id))? != Some((digest.clone(), content)) {
                    return Err(Broken::Vanished { seq, what: digest }.into());
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Sees that the ledger holds nothing that was signed and that the trail does not have. Each entry has its own
    /// row, so that numbers tell.
    fn nothing_else(&mut self, count: &Count, head: Head) -> Result<(), VerifyError> {
        let found = self.read(|db| {
            // A signer may have gone on meanwhile.
            if audit::head(db)? != head {
                return Ok(None);
            }
            let mut rows = |sql, after: i64| {
                db.first(sql, values![after])?.map(|row| row.int(0)).transpose().map(Option::unwrap_or_default)
            };
            let transactions =
                rows("SELECT count(*) FROM transactions WHERE raw IS NOT NULL AND id > ?1", count.before.0)?;
            let statements = rows("SELECT count(*) FROM statements WHERE id > ?1", count.before.1)?;
            Ok(Some((transactions, statements)))
        })?;
        let Some((transactions, statements)) = found else { return Ok(()) };
        let more = |held: i64, told: i64, what: &str| match held.saturating_sub(told) {
            1.. => Err(Broken::Unaudited(format!("{} of {held} {what}", held - told))),
            _ => Ok(()),
        };
        more(transactions, count.transactions, "signed transactions")?;
        more(statements, count.statements, "signed statements")?;
        Ok(())
    }
}

/// What a trail says was signed.
#[derive(Default)]
struct Count {
    /// The last transaction and statement from before there was a trail.
    before: (i64, i64),
    /// Those that were reserved since then.
    transactions: i64,
    /// Those that were reserved before, and signed since.
    older: i64,
    statements: i64,
    refused: Refused,
}

/// Requests that were refused or held: each by itself, and in sums.
#[derive(Default, Clone, Copy)]
struct Refused {
    singly: u64,
    summed: u64,
}

impl Refused {
    fn add(&mut self, entry: &Map<String, Json>) {
        match entry.get("what").and_then(Json::as_str) {
            Some("denied" | "conflict" | "held" | "clock-behind") => self.singly += 1,
            Some("refused") => {
                let count = entry.get("count").and_then(Json::as_u64).unwrap_or(0);
                self.summed = self.summed.saturating_add(count);
            }
            _ => {}
        }
    }

    fn all(self) -> u64 {
        self.singly.saturating_add(self.summed)
    }
}

impl Count {
    fn whole(&self, head: Head) -> Whole {
        let transactions = (self.transactions + self.older).cast_unsigned();
        let (statements, refused) = (self.statements.cast_unsigned(), self.refused);
        Whole { head, transactions, statements, refused: refused.all(), summed: refused.summed }
    }
}

/// Follows a whole trail in an export, without a ledger. `expected` is a head that was kept elsewhere.
///
/// # Errors
/// [`VerifyError`].
pub fn verify_export(export: impl io::BufRead, expected: Option<Head>) -> Result<Whole, VerifyError> {
    let mut verifier = Verifier::new(expected);
    let (mut transactions, mut statements, mut refused) = (0, 0, Refused::default());
    for (number, line) in (1..).zip(export.lines()) {
        let line = line?;
        let Line { seq, hash, entry } = serde_json::from_str(&line).map_err(|_| VerifyError::Line(number))?;
        let entry = verifier.next(&Kept { seq, entry: entry.get().to_owned(), hash })?;
        if entry.get("what").and_then(Json::as_str) == Some("signed") {
            transactions += u64::from(entry.contains_key("request"));
            statements += u64::from(entry.contains_key("statement"));
        }
        refused.add(&entry);
    }
    let head = verifier.end()?;
    Ok(Whole { head, transactions, statements, refused: refused.all(), summed: refused.summed })
}

/// The hash of the bytes that the ledger holds.
fn transaction(db: &mut dyn Sql, id: i64) -> Result<Option<B256>, LedgerError> {
    let row = db.first("SELECT raw FROM transactions WHERE id = ?1", values![id])?;
    Ok(row.map(|row| row.maybe_bytes(0).map(|raw| raw.map(keccak256))).transpose()?.flatten())
}

/// The digest, and that of the content.
fn statement(db: &mut dyn Sql, id: i64) -> Result<Option<(String, String)>, LedgerError> {
    let row = db.first("SELECT digest, content FROM statements WHERE id = ?1", values![id])?;
    row.map(|row| {
        let content = row.maybe_bytes(1)?.unwrap_or_default();
        Ok((hex::encode(row.array::<32>(0)?), content_digest(content)))
    })
    .transpose()
}
