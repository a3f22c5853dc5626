//! A ledger in PostgreSQL: several signers may share it.
//!
//! What writes holds one advisory lock until it is committed, so that signers take turns, group by group: no two see the
//! same allowance, nonce, or end of the audit trail. The server drops the lock with the connection, however that ends.

use std::collections::HashMap;
use std::error::Error;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use keygate_config::files::system_authorities;
use postgres::config::{Host, SslMode};
use postgres::types::private::BytesMut;
use postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use postgres::{Client, IsolationLevel, Statement, Transaction};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{Database, Row, Sql, Value};
use crate::client_tls::client_tls;
use crate::ledger::schema::postgres::MIGRATIONS;
use crate::ledger::{LedgerError, audit};

/// Key of the advisory lock: "kgl1".
const LOCK: i64 = 0x6b67_6c31;
/// Connecting within a data centre takes milliseconds.
const CONNECT: Duration = Duration::from_secs(5);
/// What a connection must not take longer than; the lock may have to wait for other signers' groups.
const SETTINGS: &str = "SET lock_timeout = '5s'; SET statement_timeout = '10s';
    SET idle_in_transaction_session_timeout = '10s'; SET client_min_messages = 'warning'";

/// A database, whether there is a connection to it or not.
pub(in crate::ledger) struct Postgres {
    config: postgres::Config,
    tls: MakeRustlsConnect,
    connection: Option<Connection>,
}

struct Connection {
    client: Client,
    /// By their text.
    statements: HashMap<&'static str, Statement>,
}

impl Postgres {
    /// Connects, and brings the database to the newest version.
    pub(in crate::ledger) fn open(config: postgres::Config, tls: MakeRustlsConnect) -> Result<Self, LedgerError> {
        let mut database = Self::new(config, tls);
        migrate(&mut database.connected()?.client)?;
        Ok(database)
    }

    /// Connects, and sees that the database is of the newest version.
    pub(in crate::ledger) fn open_to_read(
        config: postgres::Config,
        tls: MakeRustlsConnect,
    ) -> Result<Self, LedgerError> {
        let mut database = Self::new(config, tls);
        let mut transaction = database.connected()?.client.transaction()?;
        let found = version(&mut transaction)?;
        transaction.rollback()?;
        match found {
            Some(version) if version == MIGRATIONS.len() => Ok(database),
            Some(version) => Err(unknown(version)),
            None => Err(LedgerError::Missing),
        }
    }

    fn new(mut config: postgres::Config, tls: MakeRustlsConnect) -> Self {
        config.connect_timeout(CONNECT).tcp_user_timeout(CONNECT * 2).application_name("keygate signer");
        // A server that vanished while its answer was waited for.
        config.keepalives(true).keepalives_idle(CONNECT).keepalives_interval(CONNECT).keepalives_retries(2);
        Self { config, tls, connection: None }
    }

    /// The connection; another one, if it has gone.
    fn connected(&mut self) -> Result<&mut Connection, LedgerError> {
        if self.connection.as_ref().is_some_and(|connection| connection.client.is_closed()) {
            self.connection = None;
        }
        match &mut self.connection {
            Some(connection) => Ok(connection),
            none => {
                let client = connect(&self.config, &self.tls)?;
                Ok(none.insert(Connection { client, statements: HashMap::new() }))
            }
        }
    }

    /// What fails may have been done, if it failed in the commit.
    fn attempt(&mut self, reads: bool, work: &mut Work<'_>) -> Result<(), LedgerError> {
        let Connection { client, statements } = self.connected()?;
        let transaction = client.build_transaction();
        let mut transaction = if reads {
            // One state of the whole.
            transaction.isolation_level(IsolationLevel::RepeatableRead).read_only(true).start()?
        } else {
            // Each statement sees what was committed before it. With more than that it would see what was committed before
            // the lock was waited for, and signers would take no turns.
            let mut transaction = transaction.isolation_level(IsolationLevel::ReadCommitted).start()?;
            transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK])?;
            transaction
        };
        work(&mut Open { transaction: &mut transaction, statements })?;
        Ok(transaction.commit()?)
    }
}

type Work<'a> = dyn FnMut(&mut dyn Sql) -> Result<(), LedgerError> + 'a;

impl Database for Postgres {
    fn reader(&self) -> Result<Box<dyn Database>, LedgerError> {
        let mut reader = Self::new(self.config.clone(), self.tls.clone());
        reader.connected()?;
        Ok(Box::new(reader))
    }

    fn transact(&mut self, reads: bool, work: &mut Work<'_>) -> Result<(), LedgerError> {
        let mut begun = false;
        let mut done = self.attempt(reads, &mut |db| {
            begun = true;
            work(db)
        });
        // A connection is known to have gone when it is used: as nothing was done on it, on another it may be.
        if !begun && matches!(done, Err(LedgerError::Away(_))) {
            self.connection = None;
            done = self.attempt(reads, work);
        }
        // A server that became another's standby: there may be one by now that takes what is written.
        if matches!(done, Err(LedgerError::Away(_) | LedgerError::ReadOnly)) {
            self.connection = None;
        }
        done
    }
}

/// Connects to a server that keeps what it commits.
fn connect(config: &postgres::Config, tls: &MakeRustlsConnect) -> Result<Client, LedgerError> {
    let mut client = config.connect(tls.clone()).map_err(|error| match error.code() {
        Some(_) => LedgerError::Refused(said(&error)),
        None => LedgerError::Away(said(&error)),
    })?;
    client.batch_execute(SETTINGS)?;
    let mut shown = |setting: &str| client.query_one(setting, &[]).map(|row| row.get::<_, String>(0));
    if shown("SHOW fsync")? == "off" {
        return Err(LedgerError::Unusable("the server has fsync = off, and loses what it commits".into()));
    }
    let encoding = shown("SHOW server_encoding")?;
    if encoding != "UTF8" {
        return Err(LedgerError::Unusable(format!("the database's encoding is {encoding}: make one with UTF8")));
    }
    // A commit that is answered is on the disk, whatever the server's default is.
    if shown("SHOW synchronous_commit")? == "off" {
        client.batch_execute("SET synchronous_commit = on")?;
    }
    Ok(client)
}

/// The version of the ledger in a database, if there is one.
fn version(transaction: &mut Transaction<'_>) -> Result<Option<usize>, LedgerError> {
    let there: bool = transaction.query_one("SELECT to_regclass('keygate_ledger') IS NOT NULL", &[])?.get(0);
    if !there {
        return Ok(None);
    }
    let version: Option<i64> = transaction.query_one("SELECT max(version) FROM keygate_ledger", &[])?.get(0);
    Ok(version.map(|version| usize::try_from(version).unwrap_or(usize::MAX)))
}

/// Brings the database to the newest version. Where that is done, nothing is written, and the signer's role need not be
/// one that makes tables.
fn migrate(client: &mut Client) -> Result<(), LedgerError> {
    let mut transaction = client.build_transaction().isolation_level(IsolationLevel::ReadCommitted).start()?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK])?;
    // Until it is committed: a ledger with many transactions takes its time.
    transaction.batch_execute("SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0")?;
    let found = version(&mut transaction)?;
    if found.is_none() {
        transaction.batch_execute("CREATE TABLE keygate_ledger (version BIGINT NOT NULL)")?;
    }
    let done = found.unwrap_or(0);
    let missing = MIGRATIONS.get(done..).ok_or_else(|| unknown(done))?;
    for migration in missing {
        transaction.batch_execute(migration)?;
    }
    if done == 0 {
        audit::begin(&mut Open { transaction: &mut transaction, statements: &mut HashMap::new() })?;
    }
    if !missing.is_empty() {
        let newest = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
        transaction.execute("INSERT INTO keygate_ledger (version) VALUES ($1)", &[&newest])?;
    }
    Ok(transaction.commit()?)
}

fn unknown(version: usize) -> LedgerError {
    LedgerError::Unusable(format!("it has version {version}, and this keygate knows {}", MIGRATIONS.len()))
}

struct Open<'a, 'b> {
    transaction: &'a mut Transaction<'b>,
    statements: &'a mut HashMap<&'static str, Statement>,
}

impl Open<'_, '_> {
    fn prepared(&mut self, sql: &'static str) -> Result<Statement, LedgerError> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.transaction.prepare(&sql.replace('?', "$"))?;
        self.statements.insert(sql, statement.clone());
        Ok(statement)
    }
}

impl Sql for Open<'_, '_> {
    fn query(&mut self, sql: &'static str, values: &[Value]) -> Result<Vec<Row>, LedgerError> {
        let statement = self.prepared(sql)?;
        let rows = self.transaction.query(&statement, &parameters(values))?;
        let row = |row: &postgres::Row| {
            Ok(Row((0..row.len()).map(|column| row.try_get(column)).collect::<Result<_, postgres::Error>>()?))
        };
        rows.iter().map(row).collect()
    }

    fn execute(&mut self, sql: &'static str, values: &[Value]) -> Result<u64, LedgerError> {
        let statement = self.prepared(sql)?;
        Ok(self.transaction.execute(&statement, &parameters(values))?)
    }
}

fn parameters(values: &[Value]) -> Vec<&(dyn ToSql + Sync)> {
    values.iter().map(|value| value as &(dyn ToSql + Sync)).collect()
}

impl ToSql for Value {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Int(value) => value.to_sql_checked(kind, out),
            Self::Text(value) => value.to_sql_checked(kind, out),
            Self::Bytes(value) => value.to_sql_checked(kind, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Value {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(match *kind {
            Type::INT8 => Self::Int(i64::from_sql(kind, raw)?),
            Type::BYTEA => Self::Bytes(raw.to_vec()),
            _ => Self::Text(String::from_sql(kind, raw)?),
        })
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self::Null)
    }

    fn accepts(kind: &Type) -> bool {
        matches!(*kind, Type::INT8 | Type::BYTEA | Type::TEXT)
    }
}

impl From<postgres::Error> for LedgerError {
    fn from(error: postgres::Error) -> Self {
        let Some(code) = error.code() else {
            let io = error.source().is_some_and(|cause| cause.is::<std::io::Error>());
            let said = said(&error);
            return if io || error.is_closed() { Self::Away(said) } else { Self::Other(said) };
        };
        match code.code() {
            "53100" => Self::Full,
            "25006" => Self::ReadOnly,
            // A lock, or a statement, took too long.
            "55P03" | "57014" => Self::Locked,
            // The connection has ended: shut down, crashed, starting, idle for too long, or cut.
            code if code.starts_with("57P") || code.starts_with("08") || code == "25P03" => Self::Away(said(&error)),
            _ => Self::Other(said(&error)),
        }
    }
}

/// An error and its causes, in a line.
fn said(error: &postgres::Error) -> String {
    match (error.as_db_error(), error.source()) {
        (Some(error), _) => format!("{}: {}", error.code().code(), error.message()),
        (None, Some(cause)) => format!("{error}: {cause}"),
        (None, None) => error.to_string(),
    }
}

/// How to connect to the server that the file names.
pub(in crate::ledger) fn configured(
    server: &keygate_config::Postgres,
) -> Result<(postgres::Config, MakeRustlsConnect), LedgerError> {
    // What is wrong with the text may quote a password.
    let unusable = |why: &str| LedgerError::Unusable(why.to_owned());
    let mut config: postgres::Config = server.url.parse().map_err(|_| unusable("its url is not one of PostgreSQL"))?;
    if let Some(path) = &server.password_file {
        let password = keygate_config::files::load_password(path).map_err(LedgerError::Unusable)?;
        config.password(password);
    }
    let is_local = |host: &Host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => name == "localhost" || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback()),
    };
    // An address, where there is one, is what is connected to.
    let local = config.get_hostaddrs().iter().all(IpAddr::is_loopback) && config.get_hosts().iter().all(is_local);
    match config.get_ssl_mode() {
        SslMode::Disable if !local => return Err(unusable("sslmode=disable is for a server on this machine only")),
        _ if !local || server.ca.is_some() => drop(config.ssl_mode(SslMode::Require)),
        // What does not leave the machine needs none, and servers often have a certificate that nobody has signed.
        SslMode::Prefer => drop(config.ssl_mode(SslMode::Disable)),
        _ => {}
    }
    Ok((config, MakeRustlsConnect::new(tls(server.ca.as_deref())?)))
}

/// TLS to a server whose certificate the system's authorities have signed, or these.
fn tls(ca: Option<&Path>) -> Result<ClientConfig, LedgerError> {
    let unusable = |error: &dyn std::fmt::Display| LedgerError::Unusable(format!("TLS to its server: {error}"));
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unusable(&error))? {
                roots.add(certificate.map_err(|error| unusable(&error))?).map_err(|error| unusable(&error))?;
            }
        }
        // A server on this machine needs none.
        None => drop(roots.add_parsable_certificates(system_authorities().unwrap_or_default())),
    }
    client_tls(roots).map_err(|error| unusable(&error))
}
