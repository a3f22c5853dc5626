//! A ledger in SQLite: in a file of its own, which one process has.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::Address;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OpenFlags, Statement, ToSql, TransactionBehavior, params_from_iter};

use super::checkpoints::Checkpoints;
use super::{Database, Row, Sql, Value};
use crate::ledger::files::Files;
use crate::ledger::{LedgerError, schema};

/// Statements that are kept compiled: more than there are.
const STATEMENTS: usize = 128;

/// An open database, and its files.
#[derive(Debug)]
pub(in crate::ledger) struct Sqlite {
    /// Ends before the connection is closed: the last to close leaves the database in one file.
    checkpoints: Checkpoints,
    pub(in crate::ledger) connection: Connection,
    /// Let go after the connection is closed.
    files: Arc<Files>,
}

impl Sqlite {
    /// Opens or makes the database, takes hold of it, and brings it to the newest version.
    pub(in crate::ledger) fn open(path: &Path, keys: &BTreeMap<String, Address>) -> Result<Self, LedgerError> {
        let mut files = Files::hold(path)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(Duration::from_secs(2))?;
        let journal: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
        if journal != "wal" {
            return Err(LedgerError::Unusable(format!(
                "its file system takes no write-ahead log (journal mode {journal})"
            )));
        }
        // The commit of a reservation or of signed bytes survives a loss of power.
        connection.pragma_update(None, "synchronous", "FULL")?;
        // A confined signer may write no temporary files.
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        schema::sqlite::migrate(&mut connection, keys)?;
        let checkpoints = Checkpoints::start(&connection, path)?;
        files.opened()?;
        Ok(Self { checkpoints, connection, files: Arc::new(files) })
    }

    /// Opens a database that is there, to read it, while another process may have it.
    pub(in crate::ledger) fn open_to_read(path: &Path) -> Result<ReadOnly, LedgerError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(Duration::from_secs(2))?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        schema::sqlite::is_newest(&connection)?;
        Ok(ReadOnly { connection, files: None })
    }
}

impl Database for Sqlite {
    fn reader(&self) -> Result<Box<dyn Database>, LedgerError> {
        let mut reader = Self::open_to_read(self.files.path())?;
        reader.files = Some(Arc::clone(&self.files));
        Ok(Box::new(reader))
    }

    fn transact(
        &mut self,
        reads: bool,
        work: &mut dyn FnMut(&mut dyn Sql) -> Result<(), LedgerError>,
    ) -> Result<(), LedgerError> {
        self.files.check()?;
        // What only reads asks for no lock, and works on a full disk too.
        let behavior = if reads { TransactionBehavior::Deferred } else { TransactionBehavior::Immediate };
        let transaction = self.connection.transaction_with_behavior(behavior)?;
        work(&mut Open(&transaction))?;
        transaction.commit()?;
        // Again: what was committed to a file that has gone is not durable.
        self.files.check()
    }

    fn tidy(&mut self) {
        self.checkpoints.committed(&self.connection);
    }
}

/// A database that is only read.
pub(in crate::ledger) struct ReadOnly {
    connection: Connection,
    /// Those of the signer that writes it, where it is this one.
    files: Option<Arc<Files>>,
}

impl Database for ReadOnly {
    fn reader(&self) -> Result<Box<dyn Database>, LedgerError> {
        Err(LedgerError::ReadOnly)
    }

    fn transact(
        &mut self,
        _: bool,
        work: &mut dyn FnMut(&mut dyn Sql) -> Result<(), LedgerError>,
    ) -> Result<(), LedgerError> {
        self.files.as_ref().map_or(Ok(()), |files| files.check())?;
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
        work(&mut Open(&transaction))
    }
}

/// A connection with a transaction.
pub(in crate::ledger) struct Open<'a>(pub(in crate::ledger) &'a Connection);

impl Sql for Open<'_> {
    fn query(&mut self, sql: &'static str, values: &[Value]) -> Result<Vec<Row>, LedgerError> {
        let mut statement = self.0.prepare_cached(sql)?;
        let mut rows = bound(&mut statement, values)?;
        let mut read = Vec::new();
        while let Some(row) = rows.next()? {
            let columns = row.as_ref().column_count();
            let column = |column| {
                Ok(match row.get_ref(column)? {
                    ValueRef::Null => Value::Null,
                    ValueRef::Integer(value) => Value::Int(value),
                    ValueRef::Text(value) => Value::Text(String::from_utf8_lossy(value).into_owned()),
                    ValueRef::Blob(value) => Value::Bytes(value.to_vec()),
                    // There are none: every table is STRICT.
                    ValueRef::Real(_) => return Err(LedgerError::Unusable("a column is no whole number".into())),
                })
            };
            read.push(Row((0..columns).map(column).collect::<Result<_, LedgerError>>()?));
        }
        Ok(read)
    }

    fn execute(&mut self, sql: &'static str, values: &[Value]) -> Result<u64, LedgerError> {
        let mut statement = self.0.prepare_cached(sql)?;
        Ok(statement.execute(params_from_iter(values))? as u64)
    }
}

fn bound<'a>(statement: &'a mut Statement<'_>, values: &[Value]) -> rusqlite::Result<rusqlite::Rows<'a>> {
    statement.query(params_from_iter(values))
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(value) => ValueRef::Integer(*value),
            Self::Text(value) => ValueRef::Text(value.as_bytes()),
            Self::Bytes(value) => ValueRef::Blob(value),
        }))
    }
}
