//! Nodes that are asked over JSON-RPC, and what may be asked of them.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use http::Uri;
use http::uri::Authority;
use schemars::JsonSchema;
use serde::de;
use serde::{Deserialize, Deserializer};

use super::OneOrMany;
use crate::place::At;

/// A node's URL. It may hold an API key: nothing prints more of it than its scheme, host and port.
#[derive(Clone, PartialEq, Eq)]
pub struct RpcUrl(Uri);

impl RpcUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong with it, without any of it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "expected a URL such as \"https://node.example/key\"";
        let uri: Uri = text.parse().map_err(|_| EXPECTED)?;
        let authority = uri.authority().ok_or(EXPECTED)?;
        if !matches!(uri.scheme_str(), Some("https" | "http")) {
            return Err("expected a URL that begins with https://, or with http:// on this machine");
        }
        if authority.as_str().contains('@') || text.contains('#') {
            return Err("a node's URL has no user, password or fragment: an API key goes in its path or query");
        }
        Ok(Self(uri))
    }

    /// All of it, to ask the node; not to print.
    #[must_use]
    pub fn uri(&self) -> &Uri {
        &self.0
    }

    /// Its host, with its port if it names one: what may be printed.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.0.authority().map_or("", Authority::as_str)
    }

    /// Whether others on the way can read what is asked and change what is answered.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        let host = self.0.host().unwrap_or_default().trim_matches(['[', ']']);
        let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        self.0.scheme_str() == Some("http") && !loopback
    }
}

impl fmt::Debug for RpcUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}/...", self.0.scheme_str().unwrap_or_default(), self.authority())
    }
}

impl<'de> Deserialize<'de> for OneOrMany<At<RpcUrl>> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let found = At::<toml::Value>::deserialize(deserializer)?;
        let url = |text: Option<&str>| -> Result<At<RpcUrl>, D::Error> {
            let text = text.ok_or_else(|| de::Error::custom("expected a URL, or a list of them"))?;
            Ok(At { span: found.span.clone(), value: RpcUrl::parse(text).map_err(de::Error::custom)? })
        };
        match &found.value {
            toml::Value::Array(list) => {
                list.iter().map(|one| url(one.as_str())).collect::<Result<_, _>>().map(Self::Many)
            }
            one => url(one.as_str()).map(Self::One),
        }
    }
}

impl JsonSchema for RpcUrl {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RpcUrl".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^https?://.+" })
    }
}

/// Reads a file of nodes' URLs, one a line, in the order they are tried.
///
/// # Errors
/// One line that names the file; never its content.
pub fn load_rpc(path: &Path) -> Result<Vec<RpcUrl>, String> {
    let at = |why: &dyn fmt::Display| format!("{}: {why}", path.display());
    let text = crate::files::read(path).map_err(|error| at(&error))?;
    let text = String::from_utf8_lossy(&text);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let urls: Vec<_> = lines.map(RpcUrl::parse).collect::<Result<_, _>>().map_err(|why| at(&why))?;
    if urls.is_empty() { Err(at(&"holds no URL")) } else { Ok(urls) }
}

/// A method that reads, of those that are passed on to a chain's node.
///
/// What sends, signs, administers, debugs or keeps something in the node (filters, subscriptions) is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadMethod(&'static str);

impl ReadMethod {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        READ_METHODS.iter().copied().map(Self)
    }

    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|method| method.0 == name)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.0
    }
}

impl<'de> Deserialize<'de> for ReadMethod {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::named(&name).ok_or_else(|| de::Error::unknown_variant(&name, READ_METHODS))
    }
}

impl JsonSchema for ReadMethod {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ReadMethod".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "enum": READ_METHODS })
    }
}

const READ_METHODS: &[&str] = &[
    "eth_blobBaseFee",
    "eth_blockNumber",
    "eth_call",
    "eth_createAccessList",
    "eth_estimateGas",
    "eth_feeHistory",
    "eth_gasPrice",
    "eth_getBalance",
    "eth_getBlockByHash",
    "eth_getBlockByNumber",
    "eth_getBlockReceipts",
    "eth_getBlockTransactionCountByHash",
    "eth_getBlockTransactionCountByNumber",
    "eth_getCode",
    "eth_getLogs",
    "eth_getProof",
    "eth_getRawTransactionByHash",
    "eth_getStorageAt",
    "eth_getTransactionByBlockHashAndIndex",
    "eth_getTransactionByBlockNumberAndIndex",
    "eth_getTransactionByHash",
    "eth_getTransactionCount",
    "eth_getTransactionReceipt",
    "eth_getUncleByBlockHashAndIndex",
    "eth_getUncleByBlockNumberAndIndex",
    "eth_getUncleCountByBlockHash",
    "eth_getUncleCountByBlockNumber",
    "eth_maxPriorityFeePerGas",
    "eth_protocolVersion",
    "eth_simulateV1",
    "eth_syncing",
    "net_listening",
    "net_peerCount",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_what_they_show() {
        let key = "https://polygon.node.example:8443/v2/s3cret?k=s3cret";
        let url = RpcUrl::parse(key).unwrap();
        assert_eq!(url.uri(), key);
        assert_eq!(format!("{url:?}"), "https://polygon.node.example:8443/...");
        for (text, exposed) in [
            ("http://127.0.0.1:8545", false),
            ("http://localhost:8545/", false),
            ("http://[::1]:8545", false),
            ("https://10.0.0.1", false),
            ("http://10.0.0.1", true),
            ("http://localhost.example", true),
        ] {
            assert_eq!(RpcUrl::parse(text).unwrap().is_exposed(), exposed, "{text}");
        }
        for bad in [
            "",
            "node.example",
            "/s3cret",
            "ws://s3cret.example",
            "https://s3cret@host/",
            "https://a/#s3cret",
            "https://a b",
        ] {
            let why = RpcUrl::parse(bad).unwrap_err();
            assert!(!why.contains("s3cret"), "{why}");
        }
    }

    #[test]
    fn what_reads_is_named() {
        assert_eq!(ReadMethod::named("eth_call").map(ReadMethod::name), Some("eth_call"));
        for other in
            ["eth_sendRawTransaction", "eth_sign", "debug_traceCall", "admin_peers", "eth_newFilter", "ETH_CALL", ""]
        {
            assert_eq!(ReadMethod::named(other), None, "{other}");
        }
        assert!(READ_METHODS.is_sorted());
    }

    #[test]
    fn a_file_has_a_url_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let load = |text: &str| {
            let path = dir.path().join("rpc");
            std::fs::write(&path, text).unwrap();
            load_rpc(&path)
        };
        assert_eq!(load("\n https://a.example/s3cret \nhttps://b.example\n").unwrap().len(), 2);
        for bad in ["", "\n\n", "https://a.example\ns3cret"] {
            assert!(!load(bad).unwrap_err().contains("s3cret"), "{bad}");
        }
    }
}
