//! Rate limits and headers, as operators write them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::de::{self};
use serde::{Deserialize, Deserializer};

use crate::units::Rate;

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
