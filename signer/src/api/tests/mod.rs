//! Over a real socket: a client speaks HTTP to a signer that serves in a directory of its own.

mod adversary;
mod faults;
mod following;
mod json_rpc;
mod keys;
mod left;
mod live;
pub(crate) mod node;
mod openapi;
mod requests;
mod start;
mod statements;

use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::key::fake_kms::{FakeKms, Turn};
use crate::{Signer, StartError, create_local_key};

const TOKEN: &str = "a-token-that-is-long-enough";
const TO: &str = "0x1111111111111111111111111111111111111111";

/// A signer that serves in a directory of its own.
struct Running {
    dir: tempfile::TempDir,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

#[derive(Debug, Clone, PartialEq)]
struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

fn config(dir: &Path, more: &str) -> keygate_config::Signer {
    for (file, token) in [("payments", TOKEN), ("nobody", "another-long-enough-token"), ("other", "a-third-long-token")]
    {
        std::fs::write(dir.join(file), format!("{token}\n")).unwrap();
    }
    let text = format!(
        r#"
        [signer]
        listen = "unix:run/s.sock"
        ledger = "sqlite:run/ledger.db"
        allow_local_keys = true
        [signer.chains]
        polygon = {{ id = 137 }}
        [signer.policies.payouts]
        to = ["{TO}"]
        max_value = "1000 wei"
        daily_value = "2000 wei"
        max_fee = "1 gwei"
        [signer.callers]
        payments = {{ token_file = "payments", keys = ["hot"], policy = "payouts" }}
        other = {{ token_file = "other", keys = ["hot"], policy = "payouts" }}
        nobody = {{ token_file = "nobody", keys = ["hot"] }}
        {more}
        "#
    );
    let source = keygate_config::Source { path: dir.join("keygate.toml"), text };
    keygate_config::parse(source).unwrap().config.signer.unwrap()
}

const LOCAL: &str =
    "[signer.keys.hot]\nlocal = { path = \"dev.key\" }\n[signer.keys.cold]\nlocal = { path = \"cold.key\" }";

/// Makes the keys of [`LOCAL`]; answers the address of `hot`.
fn local_keys(dir: &Path) -> crate::Address {
    create_local_key(&dir.join("cold.key")).unwrap();
    create_local_key(&dir.join("dev.key")).unwrap()
}

fn serve(dir: tempfile::TempDir, signer: Signer) -> Running {
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(signer.serve(async { drop(stopped.await) }));
    Running { dir, stop, serving }
}

async fn with_local_key() -> Running {
    let dir = tempfile::tempdir().unwrap();
    local_keys(dir.path());
    let signer = Signer::start(&config(dir.path(), LOCAL)).await.unwrap();
    serve(dir, signer)
}

async fn with_kms(timeout: Duration) -> (Running, Arc<FakeKms>) {
    let kms = FakeKms::start().await;
    let dir = tempfile::tempdir().unwrap();
    // The file names a key, which is then taken from the KMS above: that one's credentials are not the environment's.
    let config = config(dir.path(), LOCAL);
    let key = Arc::new(kms.key(timeout).await.unwrap());
    let signer = Signer::with_keys(&config, [("hot".to_owned(), key)].into()).unwrap();
    (serve(dir, signer), kms)
}

impl Running {
    fn socket(&self) -> PathBuf {
        self.dir.path().join("run/s.sock")
    }

    async fn stop(self) -> tempfile::TempDir {
        self.stop.send(()).unwrap();
        self.serving.await.unwrap();
        self.dir
    }

    fn send(&self, request: Request<Full<Bytes>>) -> impl Future<Output = Reply> + Send + 'static {
        send(self.socket(), request)
    }

    fn sign(&self, name: &str, tx: &Value) -> impl Future<Output = Reply> + Send + 'static {
        self.send(post(name, tx))
    }

    fn get(&self, path: &str) -> impl Future<Output = Reply> + Send + 'static {
        self.send(request(Method::GET, path, &[("authorization", &format!("Bearer {TOKEN}"))], ""))
    }
}

async fn send(socket: PathBuf, request: Request<Full<Bytes>>) -> Reply {
    let stream = UnixStream::connect(socket).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let body = serde_json::from_slice(&body).unwrap_or_else(|_| json!(String::from_utf8_lossy(&body)));
    Reply { status: parts.status, headers: parts.headers, body }
}

fn request(method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(path).header("host", "signer");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(Bytes::from(body.to_owned()))).unwrap()
}

fn post(name: &str, tx: &Value) -> Request<Full<Bytes>> {
    post_with("hot", &[("idempotency-key", name)], tx)
}

fn post_with(key: &str, headers: &[(&str, &str)], tx: &Value) -> Request<Full<Bytes>> {
    let bearer = format!("Bearer {TOKEN}");
    let mut all = vec![("content-type", "application/json")];
    if !headers.iter().any(|(name, _)| *name == "authorization") {
        all.push(("authorization", &bearer));
    }
    all.extend(headers);
    request(Method::POST, &format!("/v1/keys/{key}/transactions"), &all, &tx.to_string())
}

fn tx(value: u64) -> Value {
    json!({"chainId": 137, "type": 2, "nonce": 7, "to": TO, "value": value, "gas": 21000, "maxFeePerGas": "0x10",
           "maxPriorityFeePerGas": "16"})
}

/// A problem as RFC 9457 writes it, of this status and kind.
#[track_caller]
fn is_problem(reply: &Reply, status: u16, kind: &str) {
    assert_eq!(reply.status, status, "{reply:?}");
    assert_eq!(reply.headers["content-type"], "application/problem+json");
    assert_eq!(reply.body["type"], format!("urn:keygate:problem:{kind}"), "{reply:?}");
    assert_eq!(reply.body["status"], status);
    assert!(reply.body["title"].is_string() && reply.body["detail"].is_string());
    let id: uuid::Uuid = reply.body["request_id"].as_str().unwrap().parse().unwrap();
    assert_eq!(id.get_version_num(), 7);
    assert_eq!(reply.headers["x-request-id"], id.to_string());
}
