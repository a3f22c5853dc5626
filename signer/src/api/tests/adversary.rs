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
