//! A ledger in PostgreSQL: several signers may share it.
//!
//! What writes holds one advisory lock until it is committed, so that signers take turns, group by group: no two see the
//! same allowance, nonce, or end of the audit trail. The server drops the lock with the connection, however that ends.

use std::collections::HashMap;
use std::error::Error;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use postgres::config::{Host, SslMode};
use postgres::error::SqlState;
use postgres::types::private::BytesMut;
use postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use postgres::{Client, Statement, Transaction};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{Database, Row, Sql, Value};
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
        let client = &mut database.connected()?.client;
        let version: Option<i64> = client.query_one("SELECT max(version) FROM keygate_ledger", &[])?.get(0);
        match version.and_then(|version| usize::try_from(version).ok()) {
            Some(version) if version == MIGRATIONS.len() => Ok(database),
            version => Err(unknown(version.unwrap_or(0))),
        }
    }

    fn new(mut config: postgres::Config, tls: MakeRustlsConnect) -> Self {
        config.connect_timeout(CONNECT).tcp_user_timeout(CONNECT * 2).application_name("keygate signer");
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
                let mut client = self.config.connect(self.tls.clone())?;
                client.batch_execute(SETTINGS)?;
                // A commit that is answered is on the disk, whatever the server's default is.
                let commit: String = client.query_one("SHOW synchronous_commit", &[])?.get(0);
                if commit == "off" {
                    client.batch_execute("SET synchronous_commit = on")?;
                }
                let durable: String = client.query_one("SHOW fsync", &[])?.get(0);
                if durable == "off" {
                    return Err(LedgerError::Unusable("the server has fsync = off, and loses what it commits".into()));
                }
                Ok(none.insert(Connection { client, statements: HashMap::new() }))
            }
        }
    }
}

impl Database for Postgres {
    fn reader(&self) -> Result<Box<dyn Database>, LedgerError> {
        let mut reader = Self::new(self.config.clone(), self.tls.clone());
        reader.connected()?;
        Ok(Box::new(reader))
    }

    fn transact(
        &mut self,
        reads: bool,
        work: &mut dyn FnMut(&mut dyn Sql) -> Result<(), LedgerError>,
    ) -> Result<(), LedgerError> {
        let Connection { client, statements } = self.connected()?;
        let mut transaction = client.transaction()?;
        if !reads {
            transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK])?;
        }
        work(&mut Open { transaction: &mut transaction, statements })?;
        Ok(transaction.commit()?)
    }
}

fn migrate(client: &mut Client) -> Result<(), LedgerError> {
    let mut transaction = client.transaction()?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK])?;
    transaction.batch_execute("CREATE TABLE IF NOT EXISTS keygate_ledger (version BIGINT NOT NULL)")?;
    let version: Option<i64> = transaction.query_one("SELECT max(version) FROM keygate_ledger", &[])?.get(0);
    let done = usize::try_from(version.unwrap_or(0)).unwrap_or(usize::MAX);
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
            // Nothing of how to connect is in it.
            return Self::Away(said(&error));
        };
        match *code {
            SqlState::DISK_FULL => Self::Full,
            SqlState::READ_ONLY_SQL_TRANSACTION => Self::ReadOnly,
            SqlState::LOCK_NOT_AVAILABLE | SqlState::QUERY_CANCELED => Self::Locked,
            SqlState::ADMIN_SHUTDOWN | SqlState::CRASH_SHUTDOWN | SqlState::CANNOT_CONNECT_NOW => {
                Self::Away(said(&error))
            }
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
    if !config.get_hosts().iter().all(is_local) {
        match config.get_ssl_mode() {
            SslMode::Disable => return Err(unusable("sslmode=disable is for a server on this machine only")),
            _ => drop(config.ssl_mode(SslMode::Require)),
        }
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
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(config.map_err(|error| unusable(&error))?.with_root_certificates(roots).with_no_client_auth())
}
