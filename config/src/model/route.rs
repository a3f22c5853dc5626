//! A route, as operators write it.

use std::fmt;

use schemars::JsonSchema;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::upstream::is_hostname;
use crate::place::At;
use crate::units::Size;

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
