//! What callers with a tight policy try, and nodes that lie.

use super::node::Node;
use super::*;

/// A signer whose caller `payments` has this policy, on `polygon`, which has no node, and `base`, which has one.
async fn with(policy: &str) -> (Running, Node) {
    let (dir, node) = (tempfile::tempdir().unwrap(), Node::start(8453).await);
    local_keys(dir.path());
    let base = format!("[signer.chains.base]\nid = 8453\nrpc = \"{}\"", node.url);
    let mut config = config(dir.path(), &format!("{LOCAL}\n{base}\n[signer.policies.more]\n{policy}\n"));
    config.callers.get_mut("payments").unwrap().value.policy.as_mut().unwrap().value = "more".into();
    let signer = Signer::start(&config).await.unwrap();
    (serve(dir, signer), node)
}

const APPROVAL: &str = "require_approval = { above = \"100 wei\", from = [\"other\"] }";
const OTHER: &str = "Bearer a-third-long-token";

impl Running {
    /// JSON-RPC's `method` with one transaction, under an idempotency key.
    async fn asks(&self, chain: &str, method: &str, name: &str, tx: &Value) -> Value {
        let address = self.get("/v1/keys").await.body["keys"][0]["address"].clone();
        let mut tx = tx.clone();
        tx["from"] = address;
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": [tx] }).to_string();
        let bearer = format!("Bearer {TOKEN}");
        let headers = [("authorization", &*bearer), ("content-type", "application/json"), ("idempotency-key", name)];
        self.send(request(Method::POST, &format!("/chains/{chain}"), &headers, &body)).await.body
    }

    async fn as_other(&self, method: Method, path: &str, body: &Value) -> Value {
        let headers = [("authorization", OTHER), ("content-type", "application/json")];
        self.send(request(method, path, &headers, &body.to_string())).await.body
    }

    /// Has the only request that is held approved; answers it as the approver has seen it.
    async fn approve(&self) -> Value {
        let list = self.as_other(Method::GET, "/v1/approvals", &json!(null)).await;
        let [held] = list["approvals"].as_array().unwrap().as_slice() else { panic!("{list}") };
        let decision = json!({ "decision": "approve", "digest": held["digest"] });
        let decided =
            self.as_other(Method::POST, &format!("/v1/approvals/{}/decision", held["approval"]), &decision).await;
        assert_eq!(decided["state"], "decided", "{decided}");
        held.clone()
    }
}

fn complete(value: &str) -> Value {
    json!({ "type": "0x2", "nonce": "0x7", "to": TO, "value": value, "gas": "0x5208", "maxFeePerGas": "0x10",
            "maxPriorityFeePerGas": "0x10" })
}

#[tokio::test]
async fn what_was_approved_for_one_chain_is_not_signed_for_another() {
    let (signer, _node) = with(&format!("{APPROVAL}\nallow_nonce = true")).await;
    let tx = complete("0x1000");
    assert!(signer.asks("polygon", "eth_signTransaction", "a", &tx).await["error"].is_object());
    assert_eq!(signer.approve().await["transaction"]["chainId"], "137");
    let elsewhere = signer.asks("base", "eth_signTransaction", "a", &tx).await;
    assert!(elsewhere["error"].is_object(), "{elsewhere}");
    let signed = signer.asks("polygon", "eth_signTransaction", "a", &tx).await;
    assert_eq!(signed["result"]["tx"]["chainId"], "0x89", "{signed}");
    // Nor is what was answered for one the answer for another.
    let elsewhere = signer.asks("base", "eth_signTransaction", "a", &tx).await;
    assert!(elsewhere["error"].is_object(), "{elsewhere}");
    signer.stop().await;
}

/// A request that leaves its fees to keygate.
fn unpriced(value: &str) -> Value {
    json!({ "to": TO, "value": value })
}

#[tokio::test]
async fn what_was_approved_is_what_is_signed_to_the_last_fee() {
    let (signer, node) = with(APPROVAL).await;
    assert!(signer.asks("base", "eth_signTransaction", "a", &unpriced("0x1000")).await["error"].is_object());
    let approved = signer.approve().await["transaction"].clone();
    assert_eq!(approved["maxFeePerGas"], "15");
    // What gas costs now, or is said to, nobody has approved.
    node.says_block(1_000_000_000_000_000);
    let signed = signer.asks("base", "eth_signTransaction", "a", &unpriced("0x1000")).await;
    assert_eq!(signed["result"]["tx"]["maxFeePerGas"], "0xf", "{signed}");
    signer.stop().await;
}

#[tokio::test]
async fn what_was_signed_is_answered_again_whatever_the_nodes_say_now() {
    let (signer, node) = with("").await;
    let one = signer.asks("base", "eth_sendTransaction", "a", &unpriced("0x1")).await;
    let (id, _) = (one["result"].as_str().unwrap(), node.refuses("eth_estimateGas"));
    assert_eq!(signer.asks("base", "eth_sendTransaction", "a", &unpriced("0x1")).await["result"], id);
    // Other requests are others.
    for (tx, name) in [(unpriced("0x2"), "a"), (unpriced("0x1"), "b")] {
        assert!(signer.asks("base", "eth_sendTransaction", name, &tx).await["error"].is_object(), "{name}");
    }
    signer.stop().await;
}

#[tokio::test]
async fn a_denied_caller_has_no_node_asked() {
    let policy = format!("to = [\"{TO}\"]\nmax_value = \"10 wei\"\nmax_priority_fee_per_gas = \"5 wei\"");
    let (signer, node) = with(&policy).await;
    let elsewhere = "0x2222222222222222222222222222222222222222";
    for (fields, rule) in [
        (json!({ "to": elsewhere }), "to"),
        (json!({ "data": "0x12345678" }), "functions"),
        (json!({ "value": "0xb" }), "max_value"),
        (json!({ "to": null, "data": "0x00" }), "allow_contract_creation"),
        (json!({ "nonce": "0x0" }), "allow_nonce"),
        (json!({ "maxPriorityFeePerGas": "0x6" }), "max_priority_fee_per_gas"),
        (json!({ "type": "0x2", "gas": "0x5208", "to": elsewhere }), "to"),
        (json!({ "accessList": [], "to": elsewhere }), "to"),
    ] {
        let mut tx = unpriced("0x1");
        for (name, value) in fields.as_object().unwrap() {
            tx[name] = value.clone();
        }
        for method in ["eth_signTransaction", "eth_sendTransaction"] {
            let denied = signer.asks("base", method, method, &tx).await;
            assert_eq!(denied["error"]["data"]["rule"], rule, "{fields}: {denied}");
        }
    }
    for wrong in [json!({ "to": TO, "value": "1" }), json!({ "to": TO, "gasPrice": "0x1", "maxFeePerGas": "0x1" })] {
        assert_eq!(signer.asks("base", "eth_sendTransaction", "a", &wrong).await["error"]["code"], -32602);
    }
    assert_eq!(node.asked(), 0);
    let metrics = signer.get("/metrics").await.body;
    for counted in ["{outcome=\"denied\"} 16", "{outcome=\"invalid-json-rpc\"} 2"] {
        let line = format!("keygate_signer_requests_total{counted}");
        assert!(metrics.as_str().unwrap().lines().any(|found| found == line), "{line}");
    }
    // Others are filled.
    assert!(signer.asks("base", "eth_signTransaction", "a", &unpriced("0x1")).await["result"].is_object());
    assert!(node.asked() > 0);
    signer.stop().await;
}

#[tokio::test]
async fn a_name_is_looked_up_once_before_it_is_filled_and_once_when_its_turn_has_come() {
    let (signer, _node) = with("").await;
    let lookups = async || {
        let metrics = signer.get("/metrics").await.body;
        let name = "keygate_signer_ledger_seconds_count{operation=\"lookup\"} ";
        let line = metrics.as_str().unwrap().lines().find_map(|line| line.strip_prefix(name));
        line.map_or(0, |count| count.parse::<u64>().unwrap())
    };
    assert!(signer.asks("base", "eth_signTransaction", "a", &unpriced("0x1")).await["result"].is_object());
    assert_eq!(lookups().await, 2);
    assert!(signer.asks("base", "eth_signTransaction", "a", &unpriced("0x1")).await["result"].is_object());
    assert_eq!(lookups().await, 3);
    signer.stop().await;
}

#[tokio::test]
async fn a_replacement_is_answered_again() {
    let (signer, _node) = with("replacements = { max = 1 }").await;
    signer.asks("base", "eth_sendTransaction", "a", &unpriced("0x1")).await;
    let replace = |name: &str| {
        let bearer = format!("Bearer {TOKEN}");
        let headers = [("authorization", &*bearer), ("content-type", "application/json"), ("idempotency-key", name)];
        let path = "/v1/keys/hot/transactions/a/replacements";
        signer.send(request(Method::POST, path, &headers, r#"{"action":"speed-up"}"#))
    };
    let first = replace("b").await;
    assert_eq!(first.status, 200, "{first:?}");
    let again = replace("b").await;
    assert_eq!((again.status, &again.body["hash"]), (StatusCode::OK, &first.body["hash"]), "{again:?}");
    is_problem(&replace("c").await, 403, "policy-denied");
    signer.stop().await;
}

#[tokio::test]
async fn a_replacement_that_was_not_signed_is_signed_when_it_is_asked_for_again() {
    let (dir, node, kms) = (tempfile::tempdir().unwrap(), Node::start(8453).await, FakeKms::start().await);
    let base = format!("[signer.chains.base]\nid = 8453\nrpc = \"{}\"", node.url);
    let policy = "[signer.policies.more]\nreplacements = { max = 1 }";
    let mut config = config(dir.path(), &format!("{LOCAL}\n{base}\n{policy}\n"));
    config.callers.get_mut("payments").unwrap().value.policy.as_mut().unwrap().value = "more".into();
    let key = Arc::new(kms.key(Duration::from_secs(20)).await.unwrap());
    let signer = serve(dir, Signer::with_keys(&config, [("hot".to_owned(), key)].into()).unwrap());
    signer.asks("base", "eth_sendTransaction", "a", &unpriced("0x1")).await;
    let bearer = format!("Bearer {TOKEN}");
    let replace = |name: &str| {
        let headers = [("authorization", &*bearer), ("content-type", "application/json"), ("idempotency-key", name)];
        let path = "/v1/keys/hot/transactions/a/replacements";
        signer.send(request(Method::POST, path, &headers, r#"{"action":"speed-up"}"#))
    };
    // Nobody knows whether the key has signed: it stays reserved.
    kms.plan([Turn::OtherKey]);
    is_problem(&replace("b").await, 502, "key-bad-answer");
    assert_eq!(signer.get("/v1/keys/hot/transactions/b").await.body["state"], "pending");
    is_problem(&replace("c").await, 403, "policy-denied");
    // It is the one replacement that there may be, whatever nodes say by now.
    node.refuses("eth_getBlockByNumber");
    let again = replace("b").await;
    assert_eq!((again.status, &again.body["nonce"]), (StatusCode::OK, &json!(0)), "{again:?}");
    signer.stop().await;
}

#[tokio::test]
async fn a_node_that_lies_of_nonces_stops_nothing() {
    let (signer, node) = with("").await;
    for count in ["0xffffffffffffffff", "0xfffffffffffffffe", "0x8000000000000000"] {
        node.says("eth_getTransactionCount", json!(count));
        let refused = signer.asks("base", "eth_signTransaction", count, &unpriced("0x1")).await;
        assert!(refused["error"].is_object(), "{refused}");
    }
    node.says("eth_getTransactionCount", json!("0x5"));
    let signed = signer.asks("base", "eth_signTransaction", "a", &unpriced("0x1")).await;
    assert_eq!(signed["result"]["tx"]["nonce"], "0x5", "{signed}");
    signer.stop().await;
}

#[tokio::test]
async fn what_nodes_ask_for_gas_is_not_paid_whatever_it_is() {
    for (policy, signs) in [("", false), ("max_fee = \"30 ether\"", true), ("max_fee = \"20 ether\"", false)] {
        let (signer, node) = with(policy).await;
        // 21000 gas, at twice this and the tip.
        node.says_block(500_000_000_000_000);
        let answer = signer.asks("base", "eth_signTransaction", "a", &unpriced("0x1")).await;
        assert_eq!(answer["result"].is_object(), signs, "{policy}: {answer}");
        if !signs {
            assert_eq!(answer["error"]["data"]["rule"], "max_fee", "{answer}");
        }
        // What callers name themselves is theirs, and the policy's.
        let mut own = unpriced("0x1");
        (own["gas"], own["gasPrice"]) = (json!("0x5208"), json!("0x38d7ea4c68000"));
        let answer = signer.asks("base", "eth_signTransaction", "b", &own).await;
        assert_eq!(answer["result"].is_object(), !policy.contains("20"), "{policy}: {answer}");
        signer.stop().await;
    }
}

#[tokio::test]
async fn what_no_block_would_have_takes_no_nonce() {
    let (signer, node) = with("").await;
    let asks = async |gas: Option<&str>, data: &str, name: &str| {
        let mut tx = unpriced("0x1");
        tx["data"] = json!(data);
        if let Some(gas) = gas {
            tx["gas"] = json!(gas);
        }
        signer.asks("base", "eth_signTransaction", name, &tx).await
    };
    // By the caller, or by a node.
    node.says("eth_estimateGas", json!("0x1"));
    for (gas, data, least) in
        [(Some("0x5207"), "0x", "21000"), (Some("0x5217"), "0x01", "21016"), (None, "0x", "21000")]
    {
        let refused = asks(gas, data, "a").await;
        assert_eq!(refused["error"]["data"]["field"], "gas", "{refused}");
        assert!(refused["error"]["message"].as_str().unwrap().contains(least), "{refused}");
    }
    // Without `rpc`, too.
    let mut tx = complete("0x1");
    tx["gas"] = json!("0x5207");
    let refused = signer.asks("polygon", "eth_signTransaction", "a", &tx).await;
    assert_eq!(refused["error"]["data"]["field"], "gas", "{refused}");
    let signed = asks(Some("0x5218"), "0x01", "a").await;
    assert_eq!(signed["result"]["tx"]["nonce"], "0x0", "{signed}");
    signer.stop().await;
}

#[tokio::test]
async fn what_is_signed_and_not_sent_is_shown() {
    let (signer, node) = with("").await;
    signer.asks("base", "eth_signTransaction", "a", &unpriced("0x1")).await;
    signer.asks("base", "eth_sendTransaction", "b", &unpriced("0x1")).await;
    let nonces = signer.get("/v1/keys/hot/nonces/base").await.body;
    assert_eq!((&nonces["unsent"], &nonces["next"]), (&json!([0]), &json!(2)), "{nonces}");
    let metrics = signer.get("/metrics").await;
    let line = "keygate_signer_nonces_unsent{chain=\"base\",key=\"hot\"} 1";
    assert!(metrics.body.as_str().unwrap_or_default().contains(line), "{metrics:?}");
    node.says("eth_getTransactionCount", json!("0x1"));
    assert_eq!(signer.get("/v1/keys/hot/nonces/base").await.body["unsent"], json!([]));
    signer.stop().await;
}
