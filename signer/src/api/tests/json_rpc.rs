//! JSON-RPC, without a node.

use super::*;

impl Running {
    async fn ask(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let bearer = format!("Bearer {TOKEN}");
        let mut all = vec![("content-type", "application/json")];
        if !headers.iter().any(|(name, _)| *name == "authorization") {
            all.push(("authorization", &bearer));
        }
        all.extend(headers);
        self.send(request(Method::POST, path, &all, body)).await
    }

    async fn call(&self, method: &str, params: Value) -> Value {
        let body = json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params });
        let reply = self.ask("/", &[], &body.to_string()).await;
        assert_eq!((reply.status.as_u16(), &reply.body["id"], &reply.body["jsonrpc"]), (200, &json!(7), &json!("2.0")));
        reply.body
    }

    async fn result(&self, method: &str, params: Value) -> Value {
        let mut body = self.call(method, params).await;
        assert!(body.get("error").is_none(), "{body}");
        body["result"].take()
    }

    /// Code, and the rule or the field.
    async fn fault(&self, method: &str, params: Value) -> (i64, String) {
        let body = self.call(method, params).await;
        assert!(body.get("result").is_none(), "{body}");
        let data = &body["error"]["data"];
        let what = data["rule"].as_str().or(data["field"].as_str()).unwrap_or_default();
        (body["error"]["code"].as_i64().unwrap(), what.to_owned())
    }
}

/// As clients write it.
fn tx(from: &Value, fields: &Value) -> Value {
    let mut tx = json!({"from": from, "chainId": "0x89", "type": "0x2", "nonce": "0x7", "to": TO, "value": "0x5", "gas": "0x5208",
                        "maxFeePerGas": "0x10", "maxPriorityFeePerGas": "0x10"});
    for (name, value) in fields.as_object().unwrap() {
        tx[name] = value.clone();
    }
    tx
}

async fn with(policy: &str) -> (Running, Value) {
    let dir = tempfile::tempdir().unwrap();
    local_keys(dir.path());
    let mut config = config(dir.path(), &format!("{LOCAL}\n[signer.policies.more]\n{policy}\n"));
    config.callers.get_mut("payments").unwrap().value.policy.as_mut().unwrap().value = "more".into();
    let signer = Signer::start(&config).await.unwrap();
    let running = serve(dir, signer);
    let from = running.result("eth_accounts", json!([])).await[0].clone();
    (running, from)
}

#[tokio::test]
async fn what_needs_no_key() {
    let signer = with_local_key().await;
    let accounts = signer.result("eth_accounts", json!([])).await;
    assert_eq!(accounts, json!([signer.get("/v1/keys").await.body["keys"][0]["address"]]));
    assert_eq!(signer.result("eth_chainId", json!([])).await, "0x89");
    assert_eq!(signer.result("net_version", json!([])).await, "137");
    assert!(signer.result("web3_clientVersion", json!([])).await.as_str().unwrap().starts_with("keygate/"));
    for (method, code) in [
        ("eth_sign", 4200),
        ("eth_signTypedData", 4200),
        ("eth_signTypedData_v3", 4200),
        ("eth_sendRawTransaction", 4200),
        ("debug_traceTransaction", -32601),
        ("admin_peers", -32601),
        ("eth_newFilter", -32601),
        ("", -32601),
        // No node to ask.
        ("eth_call", -32601),
    ] {
        assert_eq!(signer.fault(method, json!([])).await.0, code, "{method}");
    }
    signer.stop().await;
}

#[tokio::test]
async fn what_http_and_json_rpc_have_to_say() {
    let signer = with_local_key().await;
    let call = |id: &str, method: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}"}}"#);
    let accounts = call("1", "eth_accounts");
    // HTTP's own.
    let stranger = [("authorization", "Bearer a-token-that-nobody-has")];
    let reply = signer.ask("/", &stranger, &accounts).await;
    assert_eq!(
        (reply.status.as_u16(), &reply.body["error"]["code"], &reply.body["id"]),
        (401, &json!(4100), &Value::Null)
    );
    assert_eq!(
        (&reply.headers["content-type"], &reply.headers["www-authenticate"]),
        (&"application/json".parse().unwrap(), &"Bearer".parse().unwrap())
    );
    let reply =
        signer.send(request(Method::POST, "/", &[("authorization", &format!("Bearer {TOKEN}"))], &accounts)).await;
    assert_eq!((reply.status.as_u16(), &reply.body["error"]["code"]), (415, &json!(-32600)));
    assert_eq!(signer.ask("/", &[], &" ".repeat(3 << 20)).await.status, 413);
    // JSON-RPC's.
    for (body, code) in [("{", -32700), ("[]", -32600), ("{}", -32600)] {
        let reply = signer.ask("/", &[], body).await;
        assert_eq!(
            (reply.status.as_u16(), &reply.body["error"]["code"], &reply.body["id"]),
            (200, &json!(code), &Value::Null)
        );
    }
    // Notifications have no answer.
    let note = r#"{"jsonrpc":"2.0","method":"eth_accounts"}"#;
    for body in [note.to_owned(), format!("[{note},{note}]")] {
        let reply = signer.ask("/", &[], &body).await;
        assert_eq!((reply.status.as_u16(), reply.body), (204, json!("")));
    }
    // Batches, with ids as they came.
    let batch = format!("[{accounts},{note},7,{},{}]", call("\"b\"", "eth_chainId"), call("null", "nothing"));
    let body = signer.ask("/", &[], &batch).await.body;
    let ids: Vec<_> = body.as_array().unwrap().iter().map(|reply| reply["id"].clone()).collect();
    assert_eq!(ids, [json!(1), Value::Null, json!("b"), Value::Null]);
    assert_eq!((&body[1]["error"]["code"], &body[3]["error"]["code"]), (&json!(-32600), &json!(-32601)));
    // Chains by path.
    assert_eq!(signer.ask("/chains/polygon", &[], &call("1", "eth_chainId")).await.body["result"], "0x89");
    assert_eq!(signer.ask("/chains/moon", &[], &call("1", "eth_chainId")).await.body["error"]["code"], -32001);
    assert_eq!(signer.ask("/chains/moon", &[], &accounts).await.body["error"], Value::Null);
    signer.stop().await;
}

#[tokio::test]
async fn transactions_are_signed_as_over_rest() {
    let (signer, from) = with("max_value = \"1000 wei\"").await;
    let signed = signer.result("eth_signTransaction", json!([tx(&from, &json!({}))])).await;
    let fields = &signed["tx"];
    assert_eq!((&fields["nonce"], &fields["input"], &fields["accessList"]), (&json!("0x7"), &json!("0x"), &json!([])));
    let mut rest = tx(&from, &json!({}));
    rest.as_object_mut().unwrap().remove("from");
    let rest = signer.sign("rest", &rest).await.body;
    let unsigned = |raw: &Value| raw.as_str().unwrap()[..40].to_owned();
    assert_eq!(unsigned(&signed["raw"]), unsigned(&rest["raw"]));
    assert_eq!(fields["yParity"], fields["v"]);
    // What follows from the rest need not be said.
    let short = json!({"from": from, "nonce": "0x8", "to": TO, "gas": "0x5208", "gasPrice": "0x10", "data": null});
    let signed = signer.result("eth_signTransaction", json!([short])).await;
    assert_eq!(
        (&signed["tx"]["type"], &signed["tx"]["chainId"], &signed["tx"]["value"]),
        (&json!("0x0"), &json!("0x89"), &json!("0x0"))
    );
    assert!(["0x135", "0x136"].contains(&signed["tx"]["v"].as_str().unwrap()), "{signed}");

    let with = |fields: Value| json!([tx(&from, &fields)]);
    for (params, code, what) in [
        (with(json!({"value": "0x3e9"})), 4001, "max_value"),
        (with(json!({"chainId": "0x1"})), 4001, "chains"),
        (with(json!({"from": TO})), 4100, ""),
        (with(json!({"from": null})), -32602, "from"),
        (with(json!({"value": "5"})), -32602, "value"),
        (with(json!({"value": 5})), -32602, "value"),
        (with(json!({"nonce": null})), -32602, "nonce"),
        (with(json!({"nonce": "0x07"})), -32602, "nonce"),
        (with(json!({"gas": null})), -32602, "gas"),
        (with(json!({"gasLimit": "0x5208"})), -32602, "gasLimit"),
        (with(json!({"gasPrice": "0x1"})), -32602, "gasPrice"),
        (with(json!({"maxFeePerGas": null})), -32602, "maxFeePerGas"),
        (with(json!({"maxFeePerGas": null, "maxPriorityFeePerGas": null, "type": null})), -32602, "type"),
        (with(json!({"data": "0x01", "input": "0x02"})), -32602, "input"),
        (with(json!({"input": "0x1"})), -32602, "input"),
        (with(json!({"accessList": [{"address": TO, "storageKeys": [], "more": 1.5}]})), -32602, "accessList[0].more"),
        (json!([]), -32602, ""),
        (json!({}), -32602, ""),
        (json!(["0x"]), -32602, ""),
        (json!([tx(&from, &json!({})), "latest"]), -32602, ""),
    ] {
        assert_eq!(signer.fault("eth_signTransaction", params.clone()).await, (code, what.to_owned()), "{params}");
    }
    // One field twice is in no tree of serde's.
    let twice = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"eth_signTransaction","params":[{{"from":{from},"from":{from}}}]}}"#
    );
    assert_eq!(signer.ask("/", &[], &twice).await.body["error"]["data"]["field"], "from");
    signer.stop().await;
}

#[tokio::test]
async fn a_name_is_for_one_transaction() {
    let (signer, from) = with("").await;
    let call = |nonce: &str| json!({"jsonrpc": "2.0", "id": nonce, "method": "eth_signTransaction", "params": [tx(&from, &json!({"nonce": nonce}))]});
    let name = [("idempotency-key", "one")];
    let first = signer.ask("/", &name, &call("0x1").to_string()).await.body;
    assert!(first["result"]["raw"].is_string(), "{first}");
    assert_eq!(signer.ask("/", &name, &call("0x1").to_string()).await.body, first);
    assert_eq!(
        signer.ask("/", &name, &call("0x2").to_string()).await.body["error"]["data"]["type"],
        "urn:keygate:problem:idempotency-conflict"
    );
    // The same over REST.
    assert_eq!(signer.get("/v1/keys/hot/transactions/one").await.body["raw"], first["result"]["raw"]);
    let several = json!([call("0x1"), call("0x2")]).to_string();
    let refused = signer.ask("/", &name, &several).await.body;
    assert_eq!((&refused[0]["error"]["code"], &refused[1]["error"]["code"]), (&json!(-32600), &json!(-32600)));
    let each = signer.ask("/", &[], &several).await.body;
    assert!(each[0]["result"]["raw"].is_string() && each[1]["result"]["raw"].is_string(), "{each}");
    assert_eq!(signer.ask("/", &[("idempotency-key", "")], &several).await.body["error"]["code"], -32600);
    signer.stop().await;
}

/// Whoever asks for what is not theirs, or under a name that is taken, is told of, however they ask.
#[tokio::test]
async fn what_is_refused_before_it_is_judged_is_in_the_audit_trail() {
    let (signer, from) = with("").await;
    let call = |from: &Value, nonce: &str| json!({"jsonrpc": "2.0", "id": 1, "method": "eth_signTransaction", "params": [tx(from, &json!({"nonce": nonce}))]});
    let ask = async |call: Value| signer.ask("/", &[("idempotency-key", "one")], &call.to_string()).await.body;
    assert!(ask(call(&from, "0x1")).await["result"].is_object());
    assert!(ask(call(&from, "0x2")).await["error"].is_object());
    is_problem(&signer.sign("one", &super::tx(1)).await, 409, "idempotency-conflict");
    assert!(ask(call(&json!(super::TO), "0x1")).await["error"].is_object());
    let none = signer.send(post_with("none", &[("idempotency-key", "one")], &super::tx(1))).await;
    is_problem(&none, 403, "key-not-allowed");

    let dir = signer.stop().await;
    let ledger = keygate_config::Ledger::Sqlite(dir.path().join("run/ledger.db"));
    let mut told = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let each = |kept: &crate::ledger::audit::Kept| {
                let entry: Value = serde_json::from_str(&kept.entry).unwrap();
                let field = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
                let what = field("what");
                if ["conflict", "key-not-allowed"].contains(&&*what) {
                    told.push([what, field("caller"), field("key"), field("idempotencyKey"), field("method")]);
                }
                Ok::<_, crate::ledger::LedgerError>(())
            };
            crate::ledger::Trail::open(&ledger).unwrap().each(0, each).unwrap();
        });
    });
    let expected = [
        ["conflict", "payments", "hot", "one", ""],
        ["conflict", "payments", "hot", "one", ""],
        ["key-not-allowed", "payments", "", "", "eth_signTransaction"],
        ["key-not-allowed", "payments", "none", "", ""],
    ];
    assert_eq!(told, expected);
}

#[tokio::test]
async fn messages_and_typed_data() {
    let (signer, from) = with("").await;
    // RFC 6979: a local key signs the same alike.
    let hello = signer.result("personal_sign", json!(["0x68656c6c6f", from])).await;
    assert_eq!(hello.as_str().unwrap().len(), 132);
    let lower = from.as_str().unwrap().to_lowercase();
    assert_eq!(signer.result("personal_sign", json!([lower, "0x68656c6c6f"])).await, hello);
    assert_eq!(signer.result("personal_sign", json!(["0x68656c6c6f", lower, "password"])).await, hello);
    // An address may be what is signed: then the second is who signs.
    let of_address = signer.result("personal_sign", json!([TO, from])).await;
    assert_eq!(signer.result("personal_sign", json!([from, TO])).await, of_address);
    for (params, code, what) in [
        (json!(["hello", from]), -32602, "params[0]"),
        (json!([from, "hello"]), -32602, "params[1]"),
        (json!(["0x68656c6c6f", TO]), 4100, ""),
        (json!(["0x68656c6c6f", "0x00"]), -32602, ""),
        (json!(["0x68656c6c6f"]), -32602, ""),
        (json!([1, from]), -32602, "params[0]"),
    ] {
        assert_eq!(signer.fault("personal_sign", params.clone()).await, (code, what.to_owned()), "{params}");
    }
    let data = json!({
        "types": { "Mail": [{ "name": "body", "type": "string" }] }, "primaryType": "Mail",
        "domain": { "chainId": "0x89" }, "message": { "body": "hi" },
    });
    let object = signer.result("eth_signTypedData_v4", json!([from, data])).await;
    assert_eq!(signer.result("eth_signTypedData_v4", json!([from, data.to_string()])).await, object);
    let foreign = merge(&data, "domain", json!({ "chainId": "0x1" }));
    for (params, code, what) in [
        (json!([from, foreign]), 4001, "chains"),
        (json!([TO, data]), 4100, ""),
        (json!([from, merge(&data, "message", json!({}))]), -32602, "message.body"),
        (json!([from, "{"]), -32602, ""),
        (json!([from, 7]), -32602, ""),
        (json!([data, from]), -32602, "params[0]"),
    ] {
        assert_eq!(signer.fault("eth_signTypedData_v4", params.clone()).await, (code, what.to_owned()), "{params}");
    }
    signer.stop().await;
}

fn merge(base: &Value, field: &str, value: Value) -> Value {
    let mut base = base.clone();
    base[field] = value;
    base
}

#[tokio::test]
async fn a_caller_without_a_policy_learns_no_chain() {
    let signer = with_local_key().await;
    let nobody = [("authorization", "Bearer another-long-enough-token")];
    for (method, code) in [("eth_chainId", -32001), ("eth_call", 4100)] {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": [] }).to_string();
        assert_eq!(signer.ask("/", &nobody, &body).await.body["error"]["code"], code);
        assert_eq!(signer.ask("/chains/polygon", &nobody, &body).await.body["error"]["code"], code);
    }
    signer.stop().await;
}

#[tokio::test]
async fn of_several_chains_one_is_named() {
    let dir = tempfile::tempdir().unwrap();
    local_keys(dir.path());
    let mut config = config(dir.path(), LOCAL);
    let mut bsc = config.chains["polygon"].clone();
    bsc.value.id = 56;
    config.chains.insert("bsc".to_owned(), bsc);
    let running = serve(dir, Signer::start(&config).await.unwrap());
    assert_eq!(running.fault("eth_chainId", json!([])).await.0, -32602);
    let chain = r#"{"jsonrpc":"2.0","id":1,"method":"eth_chainId"}"#;
    assert_eq!(running.ask("/chains/bsc", &[], chain).await.body["result"], "0x38");
    // A transaction names its own; it and the path must agree.
    let from = running.result("eth_accounts", json!([])).await[0].clone();
    assert!(running.result("eth_signTransaction", json!([tx(&from, &json!({}))])).await["raw"].is_string());
    assert_eq!(running.fault("eth_signTransaction", json!([tx(&from, &json!({"chainId": null}))])).await.0, -32602);
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "eth_signTransaction", "params": [tx(&from, &json!({}))]})
        .to_string();
    assert_eq!(running.ask("/chains/bsc", &[], &body).await.body["error"]["data"]["field"], "chainId");
    running.stop().await;
}
