//! A listener, as operators write it.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::de::{self};
use serde::{Deserialize, Deserializer};

use crate::place::At;
use crate::units::{ByteRate, Period, Size};

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
