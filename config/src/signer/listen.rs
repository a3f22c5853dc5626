//! Where callers connect.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};

use super::{OneOrMany, Signer};
use crate::place::At;
use crate::{Certificate, Diagnostic};

/// A place where the signer listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignerAddress {
    /// A Unix socket: callers are known by token or user id.
    Unix(PathBuf),
    /// TLS: callers are known by token or certificate.
    Https(SocketAddr),
    /// Plain HTTP, on loopback alone: callers are known by token.
    Http(SocketAddr),
}

impl SignerAddress {
    /// The TCP address, if it is one.
    #[must_use]
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Unix(_) => None,
            Self::Https(address) | Self::Http(address) => Some(*address),
        }
    }

    /// With its path, if it has one, in this folder.
    pub(crate) fn resolved(self, base: &Path) -> Self {
        match self {
            Self::Unix(path) => Self::Unix(base.join(path)),
            tcp => tcp,
        }
    }
}

impl FromStr for SignerAddress {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WANTED: &str = "expected \"unix:PATH\", \"https://IP:PORT\" or \"http://IP:PORT\"";
        let tcp = |text: &str| text.parse::<SocketAddr>().map_err(|_| WANTED);
        if let Some(path) = text.strip_prefix("unix:") {
            match path {
                "" => Err("\"unix:\" needs a path"),
                path if path.contains('\0') => Err("a path has no NUL"),
                path => Ok(Self::Unix(path.into())),
            }
        } else if let Some(address) = text.strip_prefix("https://") {
            tcp(address).map(Self::Https)
        } else if let Some(address) = text.strip_prefix("http://") {
            tcp(address).map(Self::Http)
        } else {
            Err(WANTED)
        }
    }
}

impl fmt::Display for SignerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Https(address) => write!(f, "https://{address}"),
            Self::Http(address) => write!(f, "http://{address}"),
        }
    }
}

impl JsonSchema for SignerAddress {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SignerAddress".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^(unix:.+|https?://.+:[0-9]+)$" })
    }
}

impl<'de> Deserialize<'de> for OneOrMany<At<SignerAddress>> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Serde's own untagged enums lose the place in the file.
        let found = At::<toml::Value>::deserialize(deserializer)?;
        let address = |text: &str| -> Result<At<SignerAddress>, D::Error> {
            let value = text.parse().map_err(|why| de::Error::custom(format!("{why}, found {text:?}")))?;
            Ok(At { span: found.span.clone(), value })
        };
        match &found.value {
            toml::Value::String(text) => Ok(Self::One(address(text)?)),
            toml::Value::Array(list) if list.is_empty() => {
                Err(de::Error::custom("the signer listens nowhere: expected an address, as \"unix:PATH\", or more"))
            }
            toml::Value::Array(list) => list
                .iter()
                .map(|item| item.as_str().ok_or_else(|| de::Error::custom("expected strings")).and_then(address))
                .collect::<Result<_, _>>()
                .map(Self::Many),
            _ => Err(de::Error::custom("expected an address, as \"unix:PATH\", or a list of them")),
        }
    }
}

/// TLS at the signer's `https://` listeners: versions 1.2 and 1.3.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignerTls {
    /// The chain that callers are shown, leaf first, as a PEM file.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities that callers' certificates must come from, as a PEM file. Callers must have one, unless some
    /// caller has a token. Left out, none is asked for.
    pub client_ca: Option<PathBuf>,
}

impl SignerTls {
    /// The certificate and its key.
    #[must_use]
    pub fn certificate(&self) -> Certificate {
        Certificate { cert: self.cert.clone(), key: self.key.clone() }
    }

    /// The files it names.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        [&self.cert, &self.key].into_iter().chain(&self.client_ca).map(PathBuf::as_path)
    }

    pub(super) fn resolve_paths(&mut self, base: &Path) {
        for path in [&mut self.cert, &mut self.key].into_iter().chain(&mut self.client_ca) {
            *path = base.join(&*path);
        }
    }
}

/// Whether tokens may cross this address in the clear: only where they leave the machine at no time.
#[must_use]
pub fn may_be_plain(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

pub(super) fn validate(signer: &Signer, found: &mut Vec<Diagnostic>) {
    for listen in signer.listen.as_slice() {
        match &listen.value {
            SignerAddress::Http(address) if !may_be_plain(*address) => found.push(
                Diagnostic::error(format!("{address}: tokens would cross the network in the clear"))
                    .at(&listen.span)
                    .help("use https:// with [signer] tls, or http:// on 127.0.0.1 or [::1] only"),
            ),
            SignerAddress::Https(_) if signer.tls.is_none() => found.push(
                Diagnostic::error("an https:// listener needs a certificate")
                    .at(&listen.span)
                    .help("set tls = { cert = \"...\", key = \"...\", client_ca = \"...\" } under [signer]"),
            ),
            _ => {}
        }
        if listen.tcp().is_some_and(|address| address.port() == 0) {
            found.push(Diagnostic::error("a listener of the signer needs a port that can be found").at(&listen.span));
        }
    }
    if let Some(tls) = signer.tls.as_ref().filter(|_| !signer.has_https()) {
        found.push(
            Diagnostic::error("[signer] tls is for https:// listeners, and there is none")
                .at(&tls.span)
                .help("add \"https://IP:PORT\" to listen, or leave tls out"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_they_are_written() {
        for text in ["unix:/run/s.sock", "https://10.0.0.5:9443", "http://127.0.0.1:9545", "http://[::1]:9545"] {
            assert_eq!(text.parse::<SignerAddress>().unwrap().to_string(), text);
        }
        for text in ["", "unix:", "127.0.0.1:1", "https://host:1", "http://127.0.0.1", "http://127.0.0.1:1/", "tcp://"]
        {
            assert!(text.parse::<SignerAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_loopback_may_be_plain() {
        for (address, plain) in [
            ("127.0.0.1:1", true),
            ("127.9.9.9:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
            ("10.0.0.1:1", false),
        ] {
            assert_eq!(may_be_plain(address.parse().unwrap()), plain, "{address}");
        }
    }
}
