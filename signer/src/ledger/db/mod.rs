//! The databases that a ledger may be in: SQLite, and PostgreSQL.
//!
//! SQL is written once, for both: parameters are `?1`, `?2` and so on, and what they do differently is in their schemas.

mod checkpoints;
pub(super) mod postgres;
pub(super) mod sqlite;

use super::LedgerError;

/// A database that is open.
pub(super) trait Database: Send {
    /// Another connection to it, to read from while this one writes.
    fn reader(&self) -> Result<Box<dyn Database>, LedgerError>;

    /// Runs `work` in one transaction, and commits it durably. What fails leaves nothing behind. Work that `reads` only
    /// waits for nobody.
    fn transact(
        &mut self,
        reads: bool,
        work: &mut dyn FnMut(&mut dyn Sql) -> Result<(), LedgerError>,
    ) -> Result<(), LedgerError>;

    /// Does what is to be done now and then, while nobody waits for an answer.
    fn tidy(&mut self) {}
}

impl Database for Box<dyn Database> {
    fn reader(&self) -> Result<Box<dyn Database>, LedgerError> {
        (**self).reader()
    }

    fn transact(
        &mut self,
        reads: bool,
        work: &mut dyn FnMut(&mut dyn Sql) -> Result<(), LedgerError>,
    ) -> Result<(), LedgerError> {
        (**self).transact(reads, work)
    }

    fn tidy(&mut self) {
        (**self).tidy();
    }
}

/// A transaction that is open.
pub(super) trait Sql {
    /// The rows that a statement answers.
    fn query(&mut self, sql: &'static str, values: &[Value]) -> Result<Vec<Row>, LedgerError>;

    /// Runs a statement; how many rows it changed.
    fn execute(&mut self, sql: &'static str, values: &[Value]) -> Result<u64, LedgerError>;

    /// The first row, if there is one.
    fn first(&mut self, sql: &'static str, values: &[Value]) -> Result<Option<Row>, LedgerError> {
        Ok(self.query(sql, values)?.into_iter().next())
    }
}

/// A parameter, or a column of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    Int(i64),
    Text(String),
    Bytes(Vec<u8>),
}

/// A row that was read.
#[derive(Debug, Clone)]
pub(super) struct Row(pub(super) Vec<Value>);

/// Parameters, each of what [`Value`] can be made from.
macro_rules! values {
    ($($value:expr),* $(,)?) => { &[$($crate::ledger::db::Value::from($value)),*] };
}
pub(super) use values;

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

/// 64 bits are kept, in a column of 64 bits with a sign.
impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Int(value.cast_signed())
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Int(value.into())
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<&String> for Value {
    fn from(value: &String) -> Self {
        Self::Text(value.clone())
    }
}

impl From<&[u8]> for Value {
    fn from(value: &[u8]) -> Self {
        Self::Bytes(value.to_vec())
    }
}

impl<const N: usize> From<[u8; N]> for Value {
    fn from(value: [u8; N]) -> Self {
        Self::Bytes(value.to_vec())
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl Row {
    pub(super) fn int(&self, column: usize) -> Result<i64, LedgerError> {
        self.maybe_int(column)?.ok_or_else(|| Self::other(column))
    }

    pub(super) fn maybe_int(&self, column: usize) -> Result<Option<i64>, LedgerError> {
        match self.0.get(column) {
            Some(Value::Int(value)) => Ok(Some(*value)),
            Some(Value::Null) => Ok(None),
            _ => Err(Self::other(column)),
        }
    }

    /// 64 bits, of a column of 64 bits with a sign.
    pub(super) fn unsigned(&self, column: usize) -> Result<u64, LedgerError> {
        Ok(self.int(column)?.cast_unsigned())
    }

    pub(super) fn flag(&self, column: usize) -> Result<bool, LedgerError> {
        Ok(self.int(column)? != 0)
    }

    pub(super) fn text(&self, column: usize) -> Result<String, LedgerError> {
        self.maybe_text(column)?.ok_or_else(|| Self::other(column))
    }

    pub(super) fn maybe_text(&self, column: usize) -> Result<Option<String>, LedgerError> {
        match self.0.get(column) {
            Some(Value::Text(value)) => Ok(Some(value.clone())),
            Some(Value::Null) => Ok(None),
            _ => Err(Self::other(column)),
        }
    }

    pub(super) fn maybe_bytes(&self, column: usize) -> Result<Option<&[u8]>, LedgerError> {
        match self.0.get(column) {
            Some(Value::Bytes(value)) => Ok(Some(value)),
            Some(Value::Null) => Ok(None),
            _ => Err(Self::other(column)),
        }
    }

    /// So many bytes.
    pub(super) fn array<const N: usize>(&self, column: usize) -> Result<[u8; N], LedgerError> {
        self.maybe_array(column)?.ok_or_else(|| Self::other(column))
    }

    pub(super) fn maybe_array<const N: usize>(&self, column: usize) -> Result<Option<[u8; N]>, LedgerError> {
        self.maybe_bytes(column)?.map(|bytes| bytes.try_into().map_err(|_| Self::other(column))).transpose()
    }

    fn other(column: usize) -> LedgerError {
        LedgerError::Unusable(format!("a row has something else in column {column}: it was changed by hand"))
    }
}
