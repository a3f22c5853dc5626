//! A client of JSON-RPC 2.0 over HTTP, for a chain that several nodes may be asked about.
//!
//! Nodes are tried in the order of the file; one that failed is tried last for a while. A node is asked for its chain's
//! id first, and again after each failure: one of another chain is never asked anything else.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use alloy_primitives::Address;
use axum::http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use keygate_config::RpcUrl;
use parking_lot::Mutex;
use rustls::RootCertStore;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::client_tls::client_tls;

/// A connection to a node must be there within this time, TLS not counted.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A node must have answered within this time, connecting included.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that are not used are closed after this time.
const IDLE: Duration = Duration::from_secs(60);
/// A node that failed is tried after all others for this time.
const COOL: Duration = Duration::from_secs(10);
/// The longest answer of a node that is read, in bytes, but for what others can make long.
pub const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// The longest receipt and the longest block that are read, in bytes: whoever is called decides how much is logged, and
/// 60 million gas pay for as much.
const MAX_LONG_ANSWER: usize = 64 * 1024 * 1024;
/// So much of a node's message is passed on, in characters.
const MAX_MESSAGE: usize = 300;
/// So much of a node's error data is passed on, in bytes: what a contract reverted with.
const MAX_DATA: usize = 16 * 1024;
/// EIP-1474: so many requests that the node answers no more. Others may.
pub(super) const LIMIT_EXCEEDED: i64 = -32005;

/// Connections to nodes.
#[derive(Clone)]
pub struct Client(hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl Client {
    /// A client that trusts the system's authorities, where `tls` is needed.
    ///
    /// # Errors
    /// When this machine trusts no authority.
    pub fn new(tls: bool) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        if tls {
            roots.add_parsable_certificates(keygate_config::files::system_authorities()?);
        }
        let config = client_tls(roots).map_err(|error| error.to_string())?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        tcp.set_nodelay(true);
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().wrap_connector(tcp);
        let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(connector);
        Ok(Self(client))
    }
}

/// The nodes of a chain.
pub struct Rpc {
    chain_id: u64,
    nodes: Vec<Node>,
    client: Client,
    /// The last request's id.
    last_id: AtomicU64,
    /// Answers that nodes owe, since somebody counted them.
    failures: AtomicU64,
    /// How many transactions an address has, as these nodes have said, and when.
    pub(crate) counts: Mutex<HashMap<Address, (u64, Instant)>>,
}

#[derive(Debug)]
struct Node {
    url: RpcUrl,
    /// Whether it said that it is of the chain, since it failed last.
    verified: AtomicBool,
    failed_at: Mutex<Option<Instant>>,
}

/// Why nodes did not answer what was asked: what the last of them said.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// No connection, or one that broke off.
    #[error("the node cannot be reached: {0}")]
    Unreachable(String),
    /// No answer in time.
    #[error("the node did not answer within {} seconds", TIMEOUT.as_secs())]
    TimedOut,
    /// An HTTP status that says no.
    #[error("the node answered with HTTP status {0}")]
    Status(u16),
    /// An answer that is none.
    #[error("the node's answer is not understood: {0}")]
    BadAnswer(&'static str),
    /// An answer that is too long.
    #[error("the node's answer is longer than {0} bytes")]
    TooLong(usize),
    /// A node of another chain.
    #[error("the node is of chain {found}, and not of chain {expected}: it is not used; see `rpc` in the file")]
    WrongChain {
        /// The id in the file.
        expected: u64,
        /// The node's.
        found: u64,
    },
    /// The node understood, and says no.
    #[error("the node says: {0}")]
    Refused(NodeError),
}

/// An error as a node answers it; bounded, and without URLs, which may hold its API key.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message} (code {code})")]
pub struct NodeError {
    /// As in JSON-RPC.
    pub code: i64,
    /// What it says.
    pub message: String,
    /// What goes with it: what a contract reverted with, most often.
    pub data: Option<Box<RawValue>>,
}

#[derive(Serialize)]
struct Question<'a, P: ?Sized> {
    jsonrpc: &'static str,
    id: u64,
    method: &'a str,
    params: &'a P,
}

#[derive(Deserialize)]
struct Answer {
    id: Option<u64>,
    /// Also null: that is how nodes say that there is no such thing.
    #[serde(default, deserialize_with = "present")]
    result: Option<Box<RawValue>>,
    error: Option<AnswerError>,
}

#[derive(Deserialize)]
struct AnswerError {
    code: i64,
    #[serde(default)]
    message: String,
    data: Option<Box<RawValue>>,
}

fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

impl Rpc {
    /// The nodes at these URLs, for the chain of this id.
    #[must_use]
    pub fn new(chain_id: u64, urls: Vec<RpcUrl>, client: Client) -> Self {
        let node = |url| Node { url, verified: AtomicBool::new(false), failed_at: Mutex::new(None) };
        let nodes = urls.into_iter().map(node).collect();
        Self {
            chain_id,
            nodes,
            client,
            last_id: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            counts: Mutex::default(),
        }
    }

    /// The id of the chain that they are of.
    pub(super) fn chain_id(&self) -> u64 {
        self.chain_id
    }

    /// Whether these are its nodes, in this order.
    pub(super) fn is_at(&self, urls: &[RpcUrl]) -> bool {
        self.nodes.iter().map(|node| &node.url).eq(urls)
    }

    /// Asks the first node that can say.
    ///
    /// A node's refusal is an answer, and no other node is asked; whatever else is wrong with one, the next is.
    ///
    /// # Errors
    /// [`RpcError`] of the node that was asked last.
    pub async fn call<P: Serialize + ?Sized>(&self, method: &str, params: &P) -> Result<Box<RawValue>, RpcError> {
        self.call_up_to(MAX_ANSWER, method, params).await
    }

    /// As [`Self::call`], for receipts and whole blocks. To be asked one after the other: an answer is held in memory.
    pub(super) async fn call_long<P: Serialize + ?Sized>(
        &self,
        method: &str,
        params: &P,
    ) -> Result<Box<RawValue>, RpcError> {
        self.call_up_to(MAX_LONG_ANSWER, method, params).await
    }

    async fn call_up_to<P: Serialize + ?Sized>(
        &self,
        longest: usize,
        method: &str,
        params: &P,
    ) -> Result<Box<RawValue>, RpcError> {
        let now = Instant::now();
        let cooling = |node: &&Node| node.failed_at.lock().is_some_and(|at| now < at + COOL);
        let mut order: Vec<&Node> = self.nodes.iter().collect();
        order.sort_by_key(cooling);
        let mut last = RpcError::BadAnswer("there is no node");
        for node in order {
            match self.ask(node, longest, method, params).await {
                Ok(result) => {
                    *node.failed_at.lock() = None;
                    return Ok(result);
                }
                Err(RpcError::Refused(error)) if error.code != LIMIT_EXCEEDED => return Err(RpcError::Refused(error)),
                Err(error) => {
                    self.failed(node, method, &error);
                    last = error;
                }
            }
        }
        Err(last)
    }

    async fn ask<P: Serialize + ?Sized>(
        &self,
        node: &Node,
        longest: usize,
        method: &str,
        params: &P,
    ) -> Result<Box<RawValue>, RpcError> {
        if !node.verified.load(Ordering::Relaxed) {
            self.verify(node).await?;
        }
        self.post(node, longest, method, params).await
    }

    async fn verify(&self, node: &Node) -> Result<(), RpcError> {
        let found = match self.post(node, MAX_ANSWER, "eth_chainId", &[(); 0]).await {
            Ok(found) => super::node::quantity(&found),
            Err(RpcError::Refused(_)) => None,
            Err(error) => return Err(error),
        };
        let found = found.ok_or(RpcError::BadAnswer("it does not say which chain it is of"))?;
        if found != self.chain_id {
            return Err(RpcError::WrongChain { expected: self.chain_id, found });
        }
        node.verified.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn failed(&self, node: &Node, method: &str, error: &RpcError) {
        tracing::warn!(chain_id = self.chain_id, node = ?node.url, method, %error, "a node did not answer");
        self.failures.fetch_add(1, Ordering::Relaxed);
        *node.failed_at.lock() = Some(Instant::now());
        node.verified.store(false, Ordering::Relaxed);
    }

    /// Asks each node which chain it is of; answers what each has said, in their order. What is wrong is logged as well.
    pub(crate) async fn survey(&self) -> Vec<(String, Result<(), RpcError>)> {
        let mut found = Vec::new();
        for node in &self.nodes {
            let verified = self.verify(node).await;
            if let Err(error) = &verified {
                self.failed(node, "eth_chainId", error);
            }
            found.push((node.url.authority().to_owned(), verified));
        }
        found
    }

    /// Its nodes, as they may be told: hosts with their ports.
    pub(crate) fn nodes(&self) -> Vec<&str> {
        self.nodes.iter().map(|node| node.url.authority()).collect()
    }

    /// How often a node has failed, since this was asked last.
    pub(crate) fn take_failures(&self) -> u64 {
        self.failures.swap(0, Ordering::Relaxed)
    }

    async fn post<P: Serialize + ?Sized>(
        &self,
        node: &Node,
        longest: usize,
        method: &str,
        params: &P,
    ) -> Result<Box<RawValue>, RpcError> {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let question = serde_json::to_vec(&Question { jsonrpc: "2.0", id, method, params })
            .map_err(|_| RpcError::BadAnswer("the question cannot be written"))?;
        let request = Request::post(node.url.uri())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(question.into()))
            .map_err(|_| RpcError::BadAnswer("the question cannot be written"))?;
        let asking = async {
            let response = self.client.0.request(request).await.map_err(|error| unreachable(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), longest).collect().await;
            let body = body.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
                Some(_) => RpcError::TooLong(longest),
                None => unreachable(error.as_ref()),
            })?;
            Ok::<_, RpcError>((status, body.to_bytes()))
        };
        let (status, body) = tokio::time::timeout(TIMEOUT, asking).await.map_err(|_| RpcError::TimedOut)??;
        // Some nodes say with 400 as well that a method is not as it must be.
        if status == StatusCode::OK || status == StatusCode::BAD_REQUEST {
            read(&body, id).map_err(|error| match error {
                RpcError::BadAnswer(_) if !status.is_success() => RpcError::Status(status.as_u16()),
                error => error,
            })
        } else {
            Err(RpcError::Status(status.as_u16()))
        }
    }
}

/// Reads the answer to the question `id`.
fn read(body: &[u8], id: u64) -> Result<Box<RawValue>, RpcError> {
    let answer: Answer = serde_json::from_slice(body).map_err(|_| RpcError::BadAnswer("it is no JSON-RPC"))?;
    // Errors come without an id where a node did not read as far.
    if answer.id != Some(id) && !(answer.id.is_none() && answer.error.is_some()) {
        return Err(RpcError::BadAnswer("it answers another question"));
    }
    match (answer.result, answer.error) {
        (_, Some(error)) => Err(RpcError::Refused(NodeError {
            code: error.code,
            message: shown(&error.message),
            data: error.data.filter(|data| data.get().len() <= MAX_DATA && !data.get().contains("://")),
        })),
        (Some(result), None) => Ok(result),
        (None, None) => Err(RpcError::BadAnswer("it has no result")),
    }
}

/// What a client of HTTP says, and why: its own words tell no more than that it failed.
fn unreachable(error: &(dyn Error + 'static)) -> RpcError {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        said = format!("{said}: {error}");
        cause = error.source();
    }
    RpcError::Unreachable(shown(&said))
}

/// Somebody else's text as it is passed on: bounded, in one line, without URLs.
fn shown(text: &str) -> String {
    let mut out = String::new();
    for word in
        text.split_inclusive(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '(' | ')' | '<' | '>' | ','))
    {
        match word.split_once("://") {
            Some(_) => out.push_str("[URL] "),
            None => out.extend(word.chars().map(|c| if c.is_control() { ' ' } else { c })),
        }
        if out.len() > 4 * MAX_MESSAGE {
            break;
        }
    }
    out.chars().take(MAX_MESSAGE).collect::<String>().trim_end().to_owned()
}

impl fmt::Debug for Rpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rpc").field("chain_id", &self.chain_id).field("nodes", &self.nodes).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "rpc_tests.rs"]
mod tests;
