//! TLS to servers, as operators write it.

use std::fmt;
use std::path::{Path, PathBuf};

use rustls::pki_types::ServerName;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};

use crate::Diagnostic;
use crate::model::{Server, TlsVersion, Upstream, is_hostname};
use crate::place::At;

/// TLS to an upstream's servers. Their certificates are always verified.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamTls {
    /// The authorities that servers' certificates must come from, as a PEM file; left out, those the system trusts.
    pub ca: Option<At<PathBuf>>,
    /// The name that servers' certificates must have, and that is sent as SNI; an IP address is not sent. Left out,
    /// each server's host.
    pub server_name: Option<At<TlsName>>,
    /// The chain shown to servers that ask for a certificate, leaf first; with `key`.
    pub cert: Option<At<PathBuf>>,
    /// That certificate's private key; with `cert`.
    pub key: Option<At<PathBuf>>,
    /// The lowest version spoken.
    pub min_version: TlsVersion,
}

impl UpstreamTls {
    /// The files it names.
    pub fn files(&self) -> impl Iterator<Item = &At<PathBuf>> {
        self.ca.iter().chain(&self.cert).chain(&self.key)
    }

    /// The name that a server's certificate must have; `None` when its host is none.
    #[must_use]
    pub fn name(&self, server: &Server) -> Option<TlsName> {
        match &self.server_name {
            Some(name) => Some(name.value.clone()),
            None => TlsName::new(server.host()),
        }
    }

    /// What is wrong with it, as the TLS of this upstream.
    pub(crate) fn validate(&self, name: &str, upstream: &Upstream, found: &mut Vec<Diagnostic>) {
        let alone = match (&self.cert, &self.key) {
            (Some(cert), None) => Some((cert, "key")),
            (None, Some(key)) => Some((key, "cert")),
            _ => None,
        };
        if let Some((alone, missing)) = alone {
            found.push(
                Diagnostic::error(format!("upstream {name:?}: tls.cert and tls.key go together"))
                    .at(&alone.span)
                    .label(format!("there is no {missing} beside it")),
            );
        }
        for server in upstream.servers.iter().filter(|server| self.name(server).is_none()) {
            found.push(
                Diagnostic::error(format!("no certificate can be for {:?}", server.host()))
                    .at(&server.span)
                    .help("name what the server's certificate is for as tls.server_name"),
            );
        }
    }

    pub(crate) fn resolve_paths(&mut self, base: &Path) {
        for path in [&mut self.ca, &mut self.cert, &mut self.key].into_iter().flatten() {
            path.value = base.join(&path.value);
        }
    }
}

/// What a certificate can be for: a host name, or an IP address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, JsonSchema)]
#[schemars(transparent)]
pub struct TlsName(#[schemars(with = "String")] ServerName<'static>);

impl TlsName {
    fn new(text: &str) -> Option<Self> {
        // A name as clients send it has no dot at its end.
        let named = |name: &ServerName<'_>| matches!(name, ServerName::IpAddress(_)) || is_hostname(text);
        ServerName::try_from(text).ok().filter(named).map(|name| Self(name.to_owned()))
    }

    /// For rustls.
    #[must_use]
    pub fn get(&self) -> &ServerName<'static> {
        &self.0
    }
}

impl fmt::Display for TlsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_str())
    }
}

impl<'de> Deserialize<'de> for TlsName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).ok_or_else(|| {
            de::Error::custom(format!("expected a host name or an IP address, without a port, found {text:?}"))
        })
    }
}
