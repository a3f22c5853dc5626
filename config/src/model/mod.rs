//! The gateway's part of the file, as operators write it.

mod listener;
mod route;
mod rules;
mod upstream;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer};

use crate::place::At;
use crate::signer::Signer;
use crate::units::Period;
pub use listener::*;
pub use route::*;
pub use rules::*;
pub use upstream::*;

/// The whole file.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The process.
    #[serde(default)]
    pub process: Process,
    /// Where the gateway is administered.
    #[serde(default)]
    pub admin: Admin,
    /// One line a request.
    #[serde(default)]
    pub access_log: AccessLog,
    /// Where clients connect, by name.
    #[serde(default)]
    pub listeners: BTreeMap<String, At<Listener>>,
    /// Groups of servers that answer alike, by name.
    #[serde(default)]
    pub upstreams: BTreeMap<String, At<Upstream>>,
    /// Limits that routes refer to, by name.
    #[serde(default)]
    pub rate_limits: BTreeMap<String, At<RateLimit>>,
    /// Response headers that routes refer to, by name.
    #[serde(default)]
    pub security_headers: BTreeMap<String, At<SecurityHeaders>>,
    /// Which requests go where. The most specific route wins, wherever it stands in the file.
    #[serde(default)]
    pub routes: Vec<At<Route>>,
    /// The signing core.
    pub signer: Option<Signer>,
}

/// The process.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Process {
    /// Threads that serve requests: a number, or "auto" for one a core.
    pub workers: Workers,
    /// What must outlive a restart (live weights, the ledger, sockets) is kept here.
    pub state_dir: PathBuf,
    /// After SIGTERM, requests in flight may take this long to end.
    pub drain_timeout: Period,
}

impl Default for Process {
    fn default() -> Self {
        Self { workers: Workers::Auto, state_dir: "state".into(), drain_timeout: Period(Duration::from_secs(30)) }
    }
}

/// How many threads serve requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// One a core.
    Auto,
    /// So many.
    Count(u16),
}

impl<'de> Deserialize<'de> for Workers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl Visitor<'_> for Visit {
            type Value = Workers;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"auto\" or a number from 1 to 1024")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Workers, E> {
                if text == "auto" { Ok(Workers::Auto) } else { Err(E::invalid_value(de::Unexpected::Str(text), &self)) }
            }
            fn visit_i64<E: de::Error>(self, n: i64) -> Result<Workers, E> {
                match u16::try_from(n) {
                    Ok(count @ 1..=1024) => Ok(Workers::Count(count)),
                    _ => Err(E::invalid_value(de::Unexpected::Signed(n), &self)),
                }
            }
        }
        deserializer.deserialize_any(Visit)
    }
}

impl JsonSchema for Workers {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Workers".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "anyOf": [{ "const": "auto" }, { "type": "integer", "minimum": 1, "maximum": 1024 }] })
    }
}

/// A place to listen at: `unix:PATH`, or an IP address and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket.
    Unix(PathBuf),
    /// TCP.
    Tcp(SocketAddr),
}

impl std::str::FromStr for Address {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("unix:") {
            Some("") => Err("\"unix:\" needs a path"),
            Some(path) if path.contains('\0') => Err("a path has no NUL"),
            Some(path) => Ok(Self::Unix(path.into())),
            None => text.parse().map(Self::Tcp).map_err(|_| "expected \"unix:PATH\" or \"IP:PORT\""),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(addr) => addr.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|why| de::Error::custom(format!("{why}, found {text:?}")))
    }
}

impl JsonSchema for Address {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Address".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "description": "unix:PATH or IP:PORT" })
    }
}

/// Where the gateway is administered.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// `unix:PATH` (mode 0600: the gateway's own user), or `IP:PORT` with a `token_file`.
    pub listen: At<Address>,
    /// A file with the bearer token that TCP callers must show; for TCP only.
    pub token_file: Option<At<PathBuf>>,
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: At { span: 0..0, value: Address::Unix("state/admin.sock".into()) }, token_file: None }
    }
}

/// One line a request.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AccessLog {
    /// "stdout", "off", or a file, which SIGUSR1 opens again.
    pub path: At<String>,
    /// How a line looks.
    pub format: LogFormat,
}

impl Default for AccessLog {
    fn default() -> Self {
        Self { path: At { span: 0..0, value: "stdout".into() }, format: LogFormat::Json }
    }
}

impl AccessLog {
    /// The file, when it is one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self.path.as_str() {
            "stdout" | "off" => None,
            path => Some(path.as_ref()),
        }
    }
}

/// How an access log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
}

impl Admin {
    pub(crate) fn resolve_paths(&mut self, base: &Path) {
        if let Address::Unix(path) = &mut self.listen.value {
            *path = base.join(&*path);
        }
        if let Some(path) = &mut self.token_file {
            path.value = base.join(&path.value);
        }
    }
}

impl Config {
    /// Makes every path absolute, against the file's own folder.
    pub(crate) fn resolve_paths(&mut self, base: &Path) {
        let resolve = |path: &mut PathBuf| *path = base.join(&*path);
        resolve(&mut self.process.state_dir);
        self.admin.resolve_paths(base);
        if let Some(path) = self.access_log.file() {
            self.access_log.path.value = base.join(path).to_string_lossy().into_owned();
        }
        for listener in self.listeners.values_mut() {
            for certificate in listener.value.tls.iter_mut().flat_map(|tls| &mut tls.certificates) {
                resolve(&mut certificate.value.cert);
                resolve(&mut certificate.value.key);
            }
        }
        for tls in self.upstreams.values_mut().filter_map(|upstream| upstream.value.tls.as_mut()) {
            tls.resolve_paths(base);
        }
        if let Some(signer) = &mut self.signer {
            signer.resolve_paths(base);
        }
    }
}
