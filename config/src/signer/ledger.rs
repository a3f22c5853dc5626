//! Where what was signed is written down.

use std::fmt;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};

use crate::Diagnostic;
use crate::place::At;

/// Where the ledger is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ledger {
    /// A SQLite database at this path: one signer has it.
    Sqlite(PathBuf),
    /// A PostgreSQL database: several signers share it.
    Postgres(Postgres),
}

/// Where it is: nothing of how it is opened.
impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => path.display().fmt(f),
            Self::Postgres(server) => server.fmt(f),
        }
    }
}

/// A PostgreSQL database.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Postgres {
    /// `postgres://USER@HOST/DATABASE`.
    pub url: String,
    /// A file with the user's password, in its first line.
    pub password_file: Option<PathBuf>,
    /// The authorities that may have signed the server's certificate, as PEM; left out, the system's.
    pub ca: Option<PathBuf>,
}

impl Postgres {
    /// `user:password@host`, and what follows.
    fn parts(&self) -> Option<(Option<&str>, &str)> {
        let rest = SCHEMES.iter().find_map(|scheme| self.url.strip_prefix(scheme))?;
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        Some(match authority.rfind('@') {
            Some(at) => (Some(&rest[..at]), &rest[at + 1..]),
            None => (None, rest),
        })
    }
}

const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];

/// Where it is, without who asks, and without what may be a password.
impl fmt::Display for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.parts().map_or("", |(_, place)| place);
        write!(f, "postgres://{}", place.split('?').next().unwrap_or_default())
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'de> Deserialize<'de> for Ledger {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let found = toml::Value::deserialize(deserializer)?;
        let toml::Value::String(text) = found else {
            return found.try_into().map(Self::Postgres).map_err(|error| de::Error::custom(error.message()));
        };
        match text.strip_prefix("sqlite:") {
            Some(path) if !path.is_empty() => Ok(Self::Sqlite(path.into())),
            _ if SCHEMES.iter().any(|scheme| text.starts_with(scheme)) => {
                Ok(Self::Postgres(Postgres { url: text, password_file: None, ca: None }))
            }
            // What it is may be a password's neighbour.
            _ => Err(de::Error::custom("expected \"sqlite:PATH\" or \"postgres://USER@HOST/DATABASE\"")),
        }
    }
}

impl JsonSchema for Ledger {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Ledger".into()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let server = generator.subschema_for::<Postgres>();
        schemars::json_schema!({
            "anyOf": [{ "type": "string", "pattern": "^(sqlite:.+|postgres(ql)?://.+)$" }, server]
        })
    }
}

pub(super) fn validate(ledger: &At<Ledger>, found: &mut Vec<Diagnostic>) {
    let Ledger::Postgres(server) = &ledger.value else { return };
    let Some((user, _)) = server.parts() else {
        found.push(
            Diagnostic::error("the ledger's url is not one of PostgreSQL")
                .at(&ledger.span)
                .help("write it as \"postgres://USER@HOST/DATABASE\""),
        );
        return;
    };
    if user.is_some_and(|user| user.contains(':')) || server.url.contains("password=") {
        found.push(
            Diagnostic::warning("the ledger's password is in this file")
                .at(&ledger.span)
                .help("keep it in a file of its own: ledger = { url = \"postgres://USER@HOST/DATABASE\", password_file = \"...\" }"),
        );
    }
}
