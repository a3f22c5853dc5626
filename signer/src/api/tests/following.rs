//! What is on its way, by nodes that are wrong about it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::*;

/// A node of chain 8453 whose head is block 100, that has not seen a transaction, but for what `answer` says of a method
/// and its parameters: an answer or, as an error, an HTTP status.
async fn node(answer: impl Fn(&str, &Value) -> Option<Result<Value, u16>> + Clone + Send + Sync + 'static) -> String {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    let serve = axum::routing::post(async move |body: String| {
        let asked: Value = serde_json::from_str(&body).unwrap();
        let method = asked["method"].as_str().unwrap();
        let said = answer(method, &asked["params"]).unwrap_or_else(|| {
            Ok(match method {
                "eth_chainId" => json!("0x2105"),
                "eth_blockNumber" => json!("0x64"),
                "eth_getTransactionCount" | "eth_sendRawTransaction" => json!("0x0"),
                _ => Value::Null,
            })
        });
        match said {
            Ok(said) => Ok(axum::Json(json!({ "jsonrpc": "2.0", "id": asked["id"], "result": said }))),
            Err(status) => Err(axum::http::StatusCode::from_u16(status).unwrap()),
        }
    });
    tokio::spawn(async { axum::serve(socket, axum::Router::new().route("/", serve)).await });
    url
}

/// A signer whose caller `payments` may send on chain 8453, by this node.
async fn with(node: &str, chain: &str) -> Running {
    let dir = tempfile::tempdir().unwrap();
    local_keys(dir.path());
    let base = format!("[signer.chains.base]\nid = 8453\nrpc = \"{node}\"\n{chain}");
    let policy = "[signer.policies.more]\nchains = [\"base\"]";
    let mut config = config(dir.path(), &format!("{LOCAL}\n{base}\n{policy}\n"));
    config.callers.get_mut("payments").unwrap().value.policy.as_mut().unwrap().value = "more".into();
    serve(dir, Signer::start(&config).await.unwrap())
}

impl Running {
    /// Has a transaction signed and sent under this idempotency key; its hash.
    async fn sends(&self, name: &str) -> Value {
        let tx = json!({ "type": 2, "chainId": 8453, "to": TO, "value": "1", "gas": "21000", "maxFeePerGas": "16",
                         "maxPriorityFeePerGas": "16" });
        let bearer = format!("Bearer {TOKEN}");
        let headers = [("authorization", &*bearer), ("content-type", "application/json"), ("idempotency-key", name)];
        let path = "/v1/keys/hot/transactions?send=true";
        let sent = self.send(request(Method::POST, path, &headers, &tx.to_string())).await;
        assert_eq!(sent.status, 200, "{}", sent.body);
        sent.body["hash"].clone()
    }

    /// How far a transaction has come, once it is as it must be.
    async fn comes_to(&self, name: &str, as_it_must: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let send = self.get(&format!("/v1/keys/hot/transactions/{name}")).await.body["send"].clone();
            if as_it_must(&send) {
                return send;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "{name}: {send}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A payee decides how long a receipt is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_receipt_is_read_and_what_is_said_of_one_holds_up_no_other() {
    let hashes: Arc<Mutex<Vec<Value>>> = Arc::default();
    let known = Arc::clone(&hashes);
    let url = node(move |method, params| {
        let index = known.lock().unwrap().iter().position(|hash| *hash == params[0]);
        match (method, index) {
            ("eth_getTransactionByHash", _) => Some(Ok(json!({}))),
            // Too long, and refused over HTTP.
            ("eth_getTransactionReceipt", Some(0)) => Some(Ok("a".repeat(65 << 20).into())),
            ("eth_getTransactionReceipt", Some(1)) => Some(Err(413)),
            ("eth_getTransactionReceipt", Some(index)) => Some(Ok(json!({
                "transactionHash": params[0], "blockNumber": "0x32", "status": "0x1",
                "logs": "a".repeat(if index == 2 { 5 << 20 } else { 0 }),
            }))),
            _ => None,
        }
    })
    .await;
    let signer = with(&url, "").await;
    for name in ["a", "b", "c", "d"] {
        let hash = signer.sends(name).await;
        hashes.lock().unwrap().push(hash);
    }
    for name in ["c", "d"] {
        signer.comes_to(name, |send| send["state"] == "confirmed").await;
    }
    for name in ["a", "b"] {
        signer.comes_to(name, |send| send["state"] == "sent").await;
    }
    signer.stop().await;
}

/// Who is told that a transaction is replaced may pay again: no node can make that up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_block_replaces_nothing() {
    let (address, asked): (Arc<Mutex<Value>>, Arc<AtomicBool>) = Default::default();
    let (whose, shown) = (Arc::clone(&address), Arc::clone(&asked));
    let url = node(move |method, params| match method {
        // The nonce was used, and for good, by block 50.
        "eth_getTransactionCount" => Some(Ok(match params[1].as_str().unwrap() {
            "pending" => json!("0x0"),
            "latest" => json!("0x1"),
            block if u64::from_str_radix(&block[2..], 16).unwrap() >= 50 => json!("0x1"),
            _ => json!("0x0"),
        })),
        "eth_getBlockByNumber" if params[1] == true => {
            shown.store(true, Ordering::Relaxed);
            Some(Ok(json!({ "transactions": [{
                "hash": format!("0x{}", "de".repeat(32)), "from": *whose.lock().unwrap(), "nonce": "0x0", "type": "0x0",
                "chainId": "0x2105", "gas": "0x5208", "gasPrice": "0x7", "to": TO, "value": "0x1", "input": "0x",
                "v": "0x4265", "r": format!("0x{}", "12".repeat(32)), "s": format!("0x{}", "34".repeat(32)),
            }] })))
        }
        _ => None,
    })
    .await;
    let signer = with(&url, "rebroadcast = \"1s\"\nstuck_after = \"2s\"").await;
    *address.lock().unwrap() = signer.get("/v1/keys").await.body["keys"][0]["address"].clone();
    signer.sends("a").await;
    // What can be seen does not say by what its nonce is used.
    let send = signer.comes_to("a", |send| send["stuck"] == true).await;
    assert_eq!((&send["state"], &send["replacedBy"]), (&json!("sent"), &Value::Null), "{send}");
    assert!(asked.load(Ordering::Relaxed) && send["note"].as_str().unwrap().contains("may be mined"), "{send}");
    signer.stop().await;
}

/// What takes its place is mined, and not final yet: nothing is wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_being_replaced_raises_no_alarm() {
    let mined: Arc<Mutex<Value>> = Arc::default();
    let by = Arc::clone(&mined);
    let url = node(move |method, params| {
        let by = by.lock().unwrap();
        match method {
            "eth_getTransactionCount" if !by.is_null() && params[1] == "latest" => Some(Ok(json!("0x1"))),
            "eth_getTransactionByHash" if by.is_null() || *by == params[0] => Some(Ok(json!({}))),
            "eth_getTransactionReceipt" if *by == params[0] => {
                Some(Ok(json!({ "transactionHash": params[0], "blockNumber": "0x64", "status": "0x1" })))
            }
            "eth_getBlockByNumber" => {
                Some(Ok(json!({ "number": "0x64", "gasLimit": "0x1c9c380", "baseFeePerGas": "0x7" })))
            }
            "eth_maxPriorityFeePerGas" => Some(Ok(json!("0x1"))),
            _ => None,
        }
    })
    .await;
    let signer = with(&url, "confirmations = 10\nrebroadcast = \"1s\"\nstuck_after = \"1s\"").await;
    signer.sends("a").await;
    signer.comes_to("a", |send| send["stuck"] == true).await;
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("authorization", &*bearer), ("content-type", "application/json"), ("idempotency-key", "b")];
    let path = "/v1/keys/hot/transactions/a/replacements";
    let faster = signer.send(request(Method::POST, path, &headers, &json!({ "action": "speed-up" }).to_string())).await;
    assert_eq!(faster.status, 200, "{}", faster.body);
    *mined.lock().unwrap() = faster.body["hash"].clone();
    signer.comes_to("b", |send| send["state"] == "mined").await;
    let send = signer.comes_to("a", |send| send["stuck"] == false).await;
    assert_eq!((&send["state"], &send["note"]), (&json!("sent"), &Value::Null), "{send}");
    signer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_node_has_taken_says_why() {
    let dead: Arc<AtomicBool> = Arc::default();
    let (is_dead, used) = (Arc::clone(&dead), Arc::<AtomicBool>::default());
    let is_used = Arc::clone(&used);
    let url = node(move |method, params| match method {
        _ if is_dead.load(Ordering::Relaxed) => Some(Err(503)),
        "eth_sendRawTransaction" => Some(Err(502)),
        "eth_getTransactionCount" if params[1] != "pending" && is_used.load(Ordering::Relaxed) => {
            Some(Ok(json!("0x7")))
        }
        _ => None,
    })
    .await;
    let signer = with(&url, "").await;
    signer.sends("a").await;
    let send = signer.comes_to("a", |send| !send["note"].is_null()).await;
    assert_eq!((&send["state"], &send["firstSentAt"]), (&json!("queued"), &Value::Null), "{send}");
    assert_eq!(send["note"], "the node answered with HTTP status 502");
    // The ledger knows the nonce; and no node answers at all.
    dead.store(true, Ordering::Relaxed);
    signer.sends("b").await;
    let send = signer.comes_to("b", |send| !send["note"].is_null()).await;
    assert_eq!(send["note"], "the node answered with HTTP status 503");
    let metrics = signer.get("/metrics").await.body;
    let failed = metrics
        .as_str()
        .unwrap()
        .lines()
        .find(|line| line.starts_with("keygate_signer_node_errors_total{chain=\"base\"}"));
    assert!(failed.is_some_and(|line| !line.ends_with(" 0")), "{failed:?}");
    // Another has its nonce: no node will take it.
    dead.store(false, Ordering::Relaxed);
    used.store(true, Ordering::Relaxed);
    let send = signer.comes_to("a", |send| send["state"] == "sent").await;
    assert!(send["note"].as_str().unwrap().starts_with("its nonce is used"), "{send}");
    signer.stop().await;
}
