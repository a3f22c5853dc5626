//! The gateway's part of the file, as operators write it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::place::At;
use crate::signer::Signer;
use crate::units::{ByteRate, Period, Rate, Size};
use crate::upstream_tls::UpstreamTls;

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

/// Where clients connect.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// IP addresses and ports. `[::]:443` is IPv6 only; name `0.0.0.0:443` beside it for both.
    pub bind: Vec<At<SocketAddr>>,
    /// TLS is terminated here. Without it, the listener speaks plain HTTP.
    pub tls: Option<Tls>,
    /// Answer every request with a redirect instead of routing it.
    pub redirect: Option<Redirect>,
    /// Proxies in front of this listener, whose forwarding headers are believed: networks or addresses.
    #[serde(default, deserialize_with = "networks")]
    #[schemars(with = "Vec<String>")]
    pub trusted_proxies: Vec<IpNet>,
    /// Response headers for answers that no route gives its own: redirects, refusals, routes that name none.
    pub security_headers: Option<At<String>>,
    /// How long a client may take.
    #[serde(default)]
    pub timeouts: ListenerTimeouts,
    /// How much a client may send.
    #[serde(default)]
    pub limits: ListenerLimits,
}

/// A bare address is a network of one, as in nginx's `set_real_ip_from`.
fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let network = |text: String| {
        text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| {
            de::Error::custom(format!("expected an IP address, or a network as in \"10.0.0.0/8\", found {text:?}"))
        })
    };
    Vec::<String>::deserialize(deserializer)?.into_iter().map(network).collect()
}

/// Where a redirecting listener sends its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Redirect {
    /// 301 to `https://host/uri`.
    Https,
}

/// TLS at a listener.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The lowest version spoken.
    #[serde(default)]
    pub min_version: TlsVersion,
    /// Chosen by SNI: exact names before wildcards. The first is the default when no name matches.
    pub certificates: Vec<At<Certificate>>,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
pub enum TlsVersion {
    /// RFC 5246.
    #[default]
    #[serde(rename = "1.2")]
    V1_2,
    /// RFC 8446.
    #[serde(rename = "1.3")]
    V1_3,
}

/// A certificate chain and its key, as PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// The chain, leaf first.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// How long a client may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ListenerTimeouts {
    /// The TLS handshake, whole.
    pub handshake: Period,
    /// A request's head, whole: from its first byte to its last.
    pub request_head: Period,
    /// The longest pause in a request's body.
    pub request_body: Period,
    /// The longest a response may wait for the client to take more of it.
    pub send: Period,
    /// A connection without a request.
    pub idle: Period,
}

impl Default for ListenerTimeouts {
    fn default() -> Self {
        let seconds = |n| Period(Duration::from_secs(n));
        Self {
            handshake: seconds(10),
            request_head: seconds(10),
            request_body: seconds(30),
            send: seconds(60),
            idle: seconds(75),
        }
    }
}

/// How much a client may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ListenerLimits {
    /// A request's head, in bytes; more is answered 431.
    pub head_size: Size,
    /// Header lines of a request; more is answered 431.
    pub header_count: u16,
    /// A request's body, in bytes; more is answered 413. Routes may say otherwise.
    pub body_size: Size,
    /// A request's body arrives this fast at least, on average; a slower one is answered 408. It has as long as it may
    /// pause on top, and the bound ends where the answer begins. "0B/s" is no bound.
    pub body_min_rate: ByteRate,
    /// Connections at a time; more wait in the kernel's queue.
    pub connections: u32,
    /// Requests by one connection, which then ends, so that clients spread anew; left out, there is no bound.
    pub connection_requests: Option<u32>,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        Self {
            head_size: Size(32 << 10),
            header_count: 100,
            body_size: Size(1 << 20),
            body_min_rate: ByteRate(256),
            connections: 16_384,
            connection_requests: None,
        }
    }
}

/// A group of servers that answer alike.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// `HOST:PORT` each; taken in turn, and one that refuses connections is left out for a while.
    pub servers: Vec<At<Server>>,
    /// TLS is spoken to the servers; an empty table is enough. Without it, plain HTTP is.
    pub tls: Option<UpstreamTls>,
    /// What is spoken with its servers.
    #[serde(default)]
    pub protocol: UpstreamProtocol,
    /// How long a server may take.
    #[serde(default)]
    pub timeouts: UpstreamTimeouts,
    /// Requests in flight to this upstream at a time; more are answered 503.
    pub max_in_flight: Option<u32>,
}

/// What is spoken with servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2, over TLS or with prior knowledge (RFC 9113, 3.3): for services that speak nothing else, as gRPC's.
    Http2,
}

/// How long a server may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamTimeouts {
    /// To accept a connection.
    pub connect: Period,
    /// To begin its response, and between two parts of it. After an upgrade, how long both may be silent.
    pub first_byte: Period,
    /// To take more of a request.
    pub send: Period,
    /// A pooled connection without a request.
    pub idle: Period,
}

impl Default for UpstreamTimeouts {
    fn default() -> Self {
        let seconds = |n| Period(Duration::from_secs(n));
        Self { connect: seconds(5), first_byte: seconds(60), send: seconds(60), idle: seconds(60) }
    }
}

/// A server's host (a name or an IP address; IPv6 in brackets) and port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[schemars(transparent)]
pub struct Server(String);

impl Server {
    /// As the file writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address, when the host is an IP address.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.0.parse().ok()
    }

    /// The name or the IP address, without the port and the brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        let host = self.0.rsplit_once(':').map_or(&*self.0, |(host, _)| host);
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }
}

impl<'de> Deserialize<'de> for Server {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let valid = text.parse::<SocketAddr>().is_ok_and(|address| address.port() > 0)
            || text
                .rsplit_once(':')
                .is_some_and(|(host, port)| is_hostname(host) && port.parse::<u16>().is_ok_and(|port| port > 0));
        if valid { Ok(Self(text)) } else { Err(de::Error::custom(format!("expected \"HOST:PORT\", found {text:?}"))) }
    }
}

/// RFC 952 and 1123, with the underscore that container networks use.
pub(crate) fn is_hostname(host: &str) -> bool {
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    !host.is_empty() && host.len() <= 253 && host.split('.').all(label)
}

/// A limit on how often something may be asked.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// What is counted apart.
    pub key: RateKey,
    /// The rate that is sustained.
    pub rate: Rate,
    /// How many requests may come at once beyond one, as nginx's `burst=N nodelay`.
    /// Left out, the rate's own count may come at once.
    pub burst: Option<u32>,
    /// How many keys are remembered, at most 16777216; beyond it, those idle longest are forgotten.
    #[serde(default = "default_max_keys")]
    pub max_keys: u32,
}

fn default_max_keys() -> u32 {
    131_072
}

/// What a rate limit counts apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RateKey {
    /// The client's address; IPv6 by its /64.
    ClientIp,
    /// A request header's value; a request without it counts under its client's address.
    Header(String),
    /// Nothing: all requests of a route count together.
    Route,
}

impl<'de> Deserialize<'de> for RateKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "client-ip" => Ok(Self::ClientIp),
            "route" => Ok(Self::Route),
            other => match other.strip_prefix("header:") {
                Some(name) if is_header_name(name) => Ok(Self::Header(name.to_ascii_lowercase())),
                _ => Err(de::Error::custom(format!(
                    "expected \"client-ip\", \"route\" or \"header:NAME\", found {text:?}"
                ))),
            },
        }
    }
}

impl JsonSchema for RateKey {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RateKey".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^(client-ip|route|header:.+)$" })
    }
}

/// RFC 9110, section 5.1: a token.
pub(crate) fn is_header_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Headers that every answer carries.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecurityHeaders {
    /// A set to begin with.
    pub preset: Option<Preset>,
    /// Headers set on every answer, over the preset's and the upstream's.
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    /// Headers taken off every answer; left out, `server` and `x-powered-by`.
    #[serde(default = "default_removed")]
    pub remove: Vec<String>,
    /// What every cookie must carry.
    pub cookies: Option<Cookies>,
}

fn default_removed() -> Vec<String> {
    vec!["server".into(), "x-powered-by".into()]
}

/// A set of security headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// For pages: everything a new site should send today.
    Strict,
    /// For APIs: nothing of an answer may be rendered, framed or sniffed.
    Api,
    /// What nginx configurations have carried for years: the five of many a hardening guide.
    Legacy,
}

/// What every cookie must carry: added where it is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cookies {
    /// `Secure`.
    #[serde(default)]
    pub secure: bool,
    /// `HttpOnly`.
    #[serde(default)]
    pub http_only: bool,
    /// `SameSite`, where the cookie says none.
    pub same_site: Option<SameSite>,
}

/// A cookie's `SameSite`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SameSite {
    /// Never sent across sites.
    Strict,
    /// Sent when a link is followed.
    Lax,
    /// Always sent; needs `Secure`.
    None,
}

/// Which requests go where.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Unique; in metrics, logs and commands.
    pub name: At<String>,
    /// Host names, exact or `*.example.com` (any depth below). None: any host.
    #[serde(default)]
    pub hosts: Vec<At<HostPattern>>,
    /// Which paths.
    #[serde(default)]
    pub path: At<PathPattern>,
    /// Names of limits; all must agree.
    #[serde(default)]
    pub rate_limits: Vec<At<String>>,
    /// A name of `security_headers`; left out, the listener's.
    pub security_headers: Option<At<String>>,
    /// A request's body, in bytes; left out, the listener's.
    pub body_size: Option<Size>,
    /// Who answers, in which shares: at most 64.
    pub backends: Vec<At<Backend>>,
}

/// A share of a route's requests.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// A name of `upstreams`.
    pub upstream: At<String>,
    /// This backend's share, of the sum of the route's weights. At most 10000.
    #[serde(default = "default_weight")]
    pub weight: u32,
}

fn default_weight() -> u32 {
    1
}

/// Host names a route answers to, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    /// This name.
    Exact(String),
    /// Any name that ends in a dot and this one.
    Wildcard(String),
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard(name) => write!(f, "*.{name}"),
        }
    }
}

impl<'de> Deserialize<'de> for HostPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let lower = text.to_ascii_lowercase();
        // As clients write it: an IPv6 address has one spelling, and brackets around it in `Host` only.
        let ip = lower.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&lower);
        if let Ok(ip) = ip.parse::<std::net::IpAddr>()
            && (ip.is_ipv6() || !lower.starts_with('['))
        {
            return Ok(Self::Exact(ip.to_string()));
        }
        match lower.strip_prefix("*.") {
            Some(name) if is_hostname(name) => Ok(Self::Wildcard(name.to_owned())),
            None if is_hostname(&lower) => Ok(Self::Exact(lower)),
            _ => Err(de::Error::custom(format!("expected a host name or \"*.NAME\" without a port, found {text:?}"))),
        }
    }
}

impl JsonSchema for HostPattern {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "HostPattern".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "description": "a host name, or *.NAME" })
    }
}

/// Which paths a route answers to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PathPattern {
    /// This path, and all below it: "/api" is "/api" and "/api/x", not "/apis".
    Prefix(String),
    /// This path.
    Exact(String),
    /// Paths in which this regular expression is found.
    Regex(String),
}

/// "/api/" and "/api" are the same prefix. "/api//" is left for validation to refuse.
fn segments(path: &str) -> &str {
    match path.strip_suffix('/') {
        Some(trimmed) if !trimmed.is_empty() && !trimmed.ends_with('/') => trimmed,
        _ => path,
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(path) => f.write_str(path),
            Self::Exact(path) => write!(f, "= {path}"),
            Self::Regex(regex) => write!(f, "~ {regex}"),
        }
    }
}

impl Default for PathPattern {
    fn default() -> Self {
        Self::Prefix("/".into())
    }
}

impl Default for At<PathPattern> {
    fn default() -> Self {
        Self { span: 0..0, value: PathPattern::default() }
    }
}

impl<'de> Deserialize<'de> for PathPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = PathPattern;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path prefix, { exact = \"/path\" } or { regex = \"^/...\" }")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<PathPattern, E> {
                Ok(PathPattern::Prefix(segments(text).to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PathPattern, A::Error> {
                let pattern = match map.next_key::<String>()?.as_deref() {
                    Some("exact") => PathPattern::Exact(map.next_value()?),
                    Some("regex") => PathPattern::Regex(map.next_value()?),
                    Some(other) => return Err(de::Error::unknown_field(other, &["exact", "regex"])),
                    None => return Err(de::Error::custom("expected { exact = ... } or { regex = ... }")),
                };
                match map.next_key::<String>()? {
                    None => Ok(pattern),
                    Some(_) => Err(de::Error::custom("expected one of exact and regex, found more")),
                }
            }
        }
        deserializer.deserialize_any(Visit)
    }
}

impl JsonSchema for PathPattern {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PathPattern".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let one = |name: &str| {
            schemars::json_schema!({
                "type": "object", "properties": { name: { "type": "string" } },
                "required": [name], "additionalProperties": false
            })
        };
        schemars::json_schema!({ "anyOf": [{ "type": "string" }, one("exact"), one("regex")] })
    }
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
