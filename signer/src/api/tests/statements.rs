//! Messages, typed data, authorizations and blobs.

use alloy_primitives::B256;
use k256::ecdsa::{RecoveryId, VerifyingKey};

use super::*;

const STRANGER: &str = "0x9999999999999999999999999999999999999999";

/// Kind, digest, content and signature.
type SaidRow = (String, [u8; 32], Vec<u8>, [u8; 65]);

/// More for the policy of the callers.
async fn with_policy(more: &str) -> Running {
    let dir = tempfile::tempdir().unwrap();
    local_keys(dir.path());
    let more = format!("{LOCAL}\n[signer.policies.more]\n{more}\n");
    let mut config = config(dir.path(), &more);
    for caller in ["payments", "other"] {
        config.callers.get_mut(caller).unwrap().value.policy.as_mut().unwrap().value = "more".into();
    }
    let signer = Signer::start(&config).await.unwrap();
    serve(dir, signer)
}

impl Running {
    async fn post(&self, what: &str, body: &Value) -> Reply {
        let bearer = format!("Bearer {TOKEN}");
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        self.send(request(Method::POST, &format!("/v1/keys/hot/{what}"), &headers, &body.to_string())).await
    }

    async fn address(&self) -> String {
        self.get("/v1/keys").await.body["keys"][0]["address"].as_str().unwrap().to_owned()
    }

    /// What the ledger says was signed.
    fn said(&self) -> Vec<SaidRow> {
        let db = rusqlite::Connection::open(self.dir.path().join("run/ledger.db")).unwrap();
        let mut select = db.prepare("SELECT kind, digest, content, signature FROM statements ORDER BY id").unwrap();
        let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    }
}

fn bytes(hex: &Value) -> Vec<u8> {
    hex::decode(hex.as_str().unwrap().trim_start_matches("0x")).unwrap()
}

/// Whose signature it is.
fn signer_of(digest: &Value, signature: &[u8]) -> String {
    let rs = k256::ecdsa::Signature::from_slice(&signature[..64]).unwrap();
    let parity = RecoveryId::from_byte(signature[64] - 27).unwrap();
    let key = VerifyingKey::recover_from_prehash(&bytes(digest), &rs, parity).unwrap();
    crate::key::PublicKey::from_sec1(&key.to_sec1_bytes()).unwrap().address().to_string()
}

fn permit(spender: &str) -> Value {
    let fields = ["address owner", "address spender", "uint256 value", "uint256 nonce", "uint256 deadline"];
    let fields = fields.map(|field| field.split_once(' ').unwrap());
    json!({"types": {"Permit": fields.map(|(kind, name)| json!({"name": name, "type": kind}))}, "primaryType": "Permit",
           "domain": {"name": "USD", "chainId": 137, "verifyingContract": TO},
           "message": {"owner": TO, "spender": spender, "value": "1", "nonce": 0, "deadline": "0xff"}})
}

#[tokio::test]
async fn what_is_said_is_signed_and_kept() {
    let running = with_policy(&format!(
        "to = [\"{TO}\"]\nsign = [\"message\", \"typed-data\", \"authorization\"]\ndelegates = [\"{TO}\"]"
    ))
    .await;
    let address = running.address().await;
    let message = running.post("messages", &json!({"message": "hello"})).await;
    let data = running.post("typed-data", &permit(TO)).await;
    for reply in [&message, &data] {
        assert_eq!((reply.status, &reply.body["address"]), (StatusCode::OK, &json!(address)), "{reply:?}");
        let fields: Vec<_> = reply.body.as_object().unwrap().keys().collect();
        assert_eq!(fields, ["address", "digest", "signature"]);
        let signature = bytes(&reply.body["signature"]);
        assert!(signature[64] == 27 || signature[64] == 28);
        assert_eq!(signer_of(&reply.body["digest"], &signature), address);
    }
    let hello = "0x50b2c43fd39106bafbba0da34fc430e1f91e3c96ea2acee2bc34119f92b37750";
    assert_eq!(message.body["digest"], hello);

    let authorization = running.post("authorizations", &json!({"chainId": 137, "address": TO, "nonce": 7})).await;
    assert_eq!(authorization.status, 200, "{authorization:?}");
    assert_eq!((&authorization.body["nonce"], &authorization.body["authority"]), (&json!(7), &json!(address)));
    let (r, s) = (bytes(&authorization.body["r"]), bytes(&authorization.body["s"]));
    let parity = u8::try_from(authorization.body["yParity"].as_u64().unwrap()).unwrap();
    let signature = [r, s, vec![27 + parity]].concat();
    assert_eq!(signer_of(&authorization.body["digest"], &signature), address);

    let said = running.said();
    let kinds: Vec<_> = said.iter().map(|(kind, ..)| kind.as_str()).collect();
    assert_eq!(kinds, ["message", "typed-data", "authorization"]);
    assert_eq!(said[0].2, b"hello");
    assert_eq!(serde_json::from_slice::<Value>(&said[1].2).unwrap(), permit(TO));
    for ((_, digest, _, signature), reply) in said.iter().zip([&message, &data]) {
        assert_eq!(
            (digest.as_slice(), signature.as_slice()),
            (&bytes(&reply.body["digest"])[..], &bytes(&reply.body["signature"])[..])
        );
    }
    let metrics = running.get("/metrics").await.body;
    for what in ["message", "typed-data", "authorization"] {
        let line = format!("keygate_signer_signatures_total{{what=\"{what}\"}} 1");
        assert!(metrics.as_str().unwrap().contains(&line), "{line} {metrics}");
    }
    running.stop().await;
}

#[tokio::test]
async fn what_the_policy_does_not_allow_is_not_said() {
    let running = with_local_key().await;
    for (what, body, rule) in [
        // There is a list of recipients, and no word about messages.
        ("messages", json!({"message": "hello"}), "sign"),
        ("typed-data", permit(STRANGER), "to"),
        ("authorizations", json!({"chainId": 137, "address": TO, "nonce": 0}), "delegates"),
    ] {
        let reply = running.post(what, &body).await;
        is_problem(&reply, 403, "policy-denied");
        assert_eq!(reply.body["rule"], rule);
    }
    assert_eq!(running.post("typed-data", &permit(TO)).await.status, 200);
    let nobody = [("authorization", "Bearer another-long-enough-token"), ("content-type", "application/json")];
    let reply = running.send(request(Method::POST, "/v1/keys/hot/messages", &nobody, r#"{"message":""}"#)).await;
    is_problem(&reply, 403, "policy-denied");
    assert_eq!(reply.body["rule"], "policy");
    is_problem(&running.send(request(Method::POST, "/v1/keys/hot/messages", &[], "{}")).await, 401, "unauthenticated");
    assert_eq!(running.said().len(), 1);
    running.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_what_is_said_is_said() {
    let running = with_policy("").await;
    for (what, body, kind, field) in [
        ("messages", json!({"digest": B256::ZERO.to_string()}), "invalid-message", Some("digest")),
        ("typed-data", json!({"types": {}}), "invalid-typed-data", Some("domain")),
        ("authorizations", json!({"chainId": 0}), "invalid-authorization", Some("chainId")),
        ("messages", json!([]), "invalid-message", None),
    ] {
        let reply = running.post(what, &body).await;
        is_problem(&reply, 400, kind);
        assert_eq!(reply.body.get("field").and_then(Value::as_str), field);
    }
    let long = json!({"message": "x".repeat(128 * 1024)});
    is_problem(&running.post("messages", &long).await, 413, "body-too-large");
    is_problem(&running.get("/v1/keys/hot/messages").await, 405, "method-not-allowed");
    let reply = running.send(post_with("cold", &[], &json!({"message": ""}))).await;
    is_problem(&reply, 403, "key-not-allowed");
    // A policy without a list lets messages be signed.
    assert_eq!(running.post("messages", &json!({"message": "hello"})).await.status, 200);
    running.stop().await;
}

/// A transaction with a blob: its hash is of an empty blob, and nothing looks at the proof.
fn with_blob(byte: u8) -> Value {
    let mut tx = tx(0);
    tx["type"] = json!(3);
    tx["maxFeePerBlobGas"] = json!(1);
    tx["blobVersionedHashes"] = json!(["0x010657f37554c781402a22917dee2f75def7ab966d7b770905398eba3c444014"]);
    tx["blobs"] = json!([format!("0x{}", format!("{byte:02x}").repeat(131_072))]);
    tx["commitments"] = json!([format!("0xc0{}", "00".repeat(47))]);
    tx["proofs"] = tx["commitments"].clone();
    tx
}

#[tokio::test]
async fn blobs_go_with_every_answer_and_not_into_the_ledger() {
    let running = with_local_key().await;
    let first = running.sign("blob", &with_blob(0)).await;
    assert_eq!(first.status, 200, "{:?}", first.body["detail"]);
    assert!(first.body["raw"].as_str().unwrap().len() > 2 * 131_072);
    let again = running.sign("blob", &with_blob(0)).await;
    assert_eq!((&again.body, &again.headers["idempotent-replayed"]), (&first.body, &"true".parse().unwrap()));
    is_problem(&running.sign("blob", &with_blob(1)).await, 409, "idempotency-conflict");
    let mut bare = with_blob(0);
    for field in ["blobs", "commitments", "proofs"] {
        bare.as_object_mut().unwrap().remove(field);
    }
    is_problem(&running.sign("blob", &bare).await, 409, "idempotency-conflict");
    let stored = running.get("/v1/keys/hot/transactions/blob").await;
    assert_eq!(stored.body["hash"], first.body["hash"]);
    let raw = stored.body["raw"].as_str().unwrap();
    assert!(raw.starts_with("0x03") && raw.len() < 1000, "{raw}");
    assert_eq!(*alloy_primitives::keccak256(bytes(&stored.body["raw"])), bytes(&stored.body["hash"])[..]);
    // Without blobs there is no room for more.
    let mut large = with_blob(0);
    large["type"] = json!(2);
    is_problem(&running.sign("large", &large).await, 400, "invalid-transaction");
    let mut large = with_blob(0);
    large["data"] = json!(format!("0x{}", "00".repeat(100_000)));
    is_problem(&running.sign("large", &large).await, 413, "body-too-large");
    let mut large = tx(0);
    large["data"] = json!(format!("0x{}", "00".repeat(100_000)));
    is_problem(&running.sign("large", &large).await, 413, "body-too-large");
    large["data"] = json!(format!("0x{}", "00".repeat(1 << 20)));
    is_problem(&running.sign("large", &large).await, 413, "body-too-large");
    running.stop().await;
}

#[tokio::test]
async fn so_many_large_bodies_are_read_at_once() {
    use tokio::io::AsyncWriteExt;
    let running = with_local_key().await;
    let mut slow = Vec::new();
    for _ in 0..crate::api::LARGE {
        let mut stream = UnixStream::connect(running.socket()).await.unwrap();
        let head = format!(
            "POST /v1/keys/hot/transactions HTTP/1.1\r\nhost: signer\r\nauthorization: Bearer {TOKEN}\r\n\
             content-type: application/json\r\nidempotency-key: a\r\ncontent-length: 2000000\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // More than a socket holds: most of it is read by then.
        stream.write_all(&[b' '; 1_000_000]).await.unwrap();
        slow.push(stream);
    }
    let mut large = tx(1);
    large["data"] = json!(format!("0x{}", "00".repeat(100_000)));
    let busy = running.sign("large", &large).await;
    is_problem(&busy, 503, "busy");
    assert_eq!(busy.headers["retry-after"], "1");
    assert_eq!(running.sign("small", &tx(1)).await.status, 200, "what is not large needs no such place");
    drop(slow);
    let freed = async {
        while running.sign("large", &large).await.status != 413 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), freed).await.expect("the places are free again");
    running.stop().await;
}
