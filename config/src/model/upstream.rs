//! An upstream, as operators write it.

use std::net::SocketAddr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::de::{self};
use serde::{Deserialize, Deserializer, Serialize};

use crate::place::At;
use crate::units::Period;
use crate::upstream_tls::UpstreamTls;

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
