//! Where a test's ledger is: in SQLite or in PostgreSQL, which must not make a difference.

use keygate_config::Ledger as Config;
use proptest::prelude::*;

use super::postgres::{Database, PostgresServer};
use super::*;

pub(super) enum Place {
    Sqlite(tempfile::TempDir),
    Postgres(Database),
}

/// A kind of them.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Sqlite,
    Postgres,
}

impl Kind {
    /// Either, for properties: SQLite mostly, as a database is made for every case.
    pub(super) fn any() -> impl Strategy<Value = Self> {
        prop_oneof![3 => Just(Self::Sqlite), 1 => Just(Self::Postgres)]
    }

    pub(super) fn place(self) -> Place {
        match self {
            Self::Sqlite => Place::Sqlite(tempfile::tempdir().unwrap()),
            Self::Postgres => Place::Postgres(PostgresServer::shared().database()),
        }
    }
}

impl Place {
    pub(super) fn config(&self) -> Config {
        match self {
            Self::Sqlite(dir) => Config::Sqlite(dir.path().join("ledger.db")),
            Self::Postgres(database) => {
                Config::Postgres(keygate_config::Postgres { url: database.url(), password_file: None, ca: None })
            }
        }
    }

    pub(super) fn open(&self) -> Open {
        self.with(&[])
    }

    pub(super) fn with(&self, keys: &[(&str, Address)]) -> Open {
        let keys = keys.iter().map(|(name, address)| ((*name).to_owned(), *address)).collect();
        let Opened { ledger, running, callers, .. } = Ledger::open_configured(&self.config(), &keys).unwrap();
        Open { ledger, running, callers }
    }

    /// The same once more, as it is now: nobody has it open.
    pub(super) fn copy(&self) -> Self {
        match self {
            Self::Sqlite(dir) => {
                let copy = tempfile::tempdir().unwrap();
                std::fs::copy(dir.path().join("ledger.db"), copy.path().join("ledger.db")).unwrap();
                Self::Sqlite(copy)
            }
            Self::Postgres(database) => Self::Postgres(PostgresServer::shared().copy(database)),
        }
    }

    /// SQL by hand: what it answers, if it is one statement that answers something.
    pub(super) fn hand(&self, sql: &str) -> Result<String, String> {
        match self {
            Self::Sqlite(dir) => {
                let db = rusqlite::Connection::open(dir.path().join("ledger.db")).unwrap();
                if !sql.starts_with("SELECT") {
                    return db.execute_batch(sql).map(|()| String::new()).map_err(|error| error.to_string());
                }
                let mut statement = db.prepare(sql).unwrap();
                let text = |row: &rusqlite::Row<'_>| row.get::<_, rusqlite::types::Value>(0);
                let rows = statement.query_map([], text).unwrap().map(|value| match value.unwrap() {
                    rusqlite::types::Value::Integer(number) => number.to_string(),
                    rusqlite::types::Value::Text(text) => text,
                    other => panic!("{other:?}"),
                });
                Ok(rows.collect::<Vec<_>>().join("\n"))
            }
            Self::Postgres(database) => database.sql(sql),
        }
    }

    /// Makes the tables of the version before this one.
    pub(super) fn before(&self) {
        match self {
            Self::Sqlite(dir) => {
                let db = rusqlite::Connection::open(dir.path().join("ledger.db")).unwrap();
                schema::sqlite::older(&db, usize::try_from(NEWEST).unwrap() - 1);
            }
            Self::Postgres(database) => {
                let (_, before) = schema::postgres::MIGRATIONS.split_last().unwrap();
                let version = before.len();
                for sql in before {
                    database.sql(sql).unwrap();
                }
                database.sql("CREATE TABLE keygate_ledger (version BIGINT NOT NULL)").unwrap();
                database.sql(&format!("INSERT INTO keygate_ledger (version) VALUES ({version})")).unwrap();
            }
        }
    }

    /// Takes away what keeps a hand from changing what was signed.
    pub(super) fn unguarded(&self) {
        let sql = match self {
            Self::Sqlite(_) => {
                "DROP TRIGGER audit_for_ever; DROP TRIGGER audit_is_kept; DROP TRIGGER signed_for_ever;
                 DROP TRIGGER signed_is_kept; DROP TRIGGER said_for_ever; DROP TRIGGER said_is_kept;"
            }
            Self::Postgres(_) => {
                "ALTER TABLE audit DISABLE TRIGGER USER; ALTER TABLE transactions DISABLE TRIGGER USER;
                 ALTER TABLE statements DISABLE TRIGGER USER;
                 CREATE FUNCTION zeroblob(INT) RETURNS BYTEA LANGUAGE SQL AS $$ SELECT decode(repeat('00', $1), 'hex') $$"
            }
        };
        self.hand(sql).unwrap();
    }
}

/// Tests of both: each is an asynchronous function of the place.
macro_rules! on_both {
    ($($test:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(super::Kind::Sqlite.place()).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(super::Kind::Postgres.place()).await;
            })*
        }
    };
}
pub(super) use on_both;
