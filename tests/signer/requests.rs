//! Requests that are not exactly right are refused, and the refusal names the field.

use serde_json::{Value, json};

use super::{JSON, TOKEN, Wallet, ask, assert_problem};
use crate::support::Response;

fn post(wallet: &Wallet, body: &str, more: &[&str]) -> Response {
    let token = format!("Authorization: Bearer {TOKEN}");
    let args = [&["-H", &token, "-H", "Idempotency-Key: 1", "-d", body], more].concat();
    ask(&wallet.home, "/v1/keys/hot-wallet/transactions", &args)
}

#[test]
fn a_wrong_field_is_named() {
    let wallet = Wallet::new();
    let _signer = wallet.start();
    let checksum = "0x70997970C51812dc3A010C7d01b50e0d17dc79c8";
    let wrong = [
        ("chainId", json!({ "chainId": null })),
        ("chainId", json!({ "chainId": 0 })),
        ("type", json!({ "type": null })),
        ("type", json!({ "type": 5 })),
        ("maxFeePerBlobGas", json!({ "type": 3 })),
        ("authorizationList", json!({ "type": 4 })),
        ("authorizationList", json!({ "authorizationList": [] })),
        ("nonce", json!({ "nonce": -1 })),
        ("nonce", json!({ "nonce": 1.5 })),
        ("nonce", json!({ "nonce": true })),
        ("gas", json!({ "gas": null })),
        ("gas", json!({ "gas": "" })),
        ("gas", json!({ "gas": "0x" })),
        ("gas", json!({ "gas": "0x05" })),
        ("gas", json!({ "gas": "010" })),
        ("gas", json!({ "gas": "0b11" })),
        ("gas", json!({ "gas": "1_0" })),
        ("gas", json!({ "gas": " 1" })),
        ("gas", json!({ "gas": "18446744073709551616" })),
        ("gas", json!({ "gas": 9_007_199_254_740_993u64 })),
        ("value", json!({ "value": "1e18" })),
        ("value", json!({ "value": format!("0x1{}", "0".repeat(64)) })),
        ("to", json!({ "to": "0x1234" })),
        ("to", json!({ "to": checksum })),
        ("to", json!({ "to": "vitalik.eth" })),
        ("data", json!({ "data": "0xabc" })),
        ("data", json!({ "data": "abcd" })),
        ("data", json!({ "to": null })),
        ("gasPrice", json!({ "gasPrice": 1 })),
        ("maxFeePerGas", json!({ "maxFeePerGas": null })),
        ("maxFeePerGas", json!({ "type": 1, "gasPrice": 1 })),
        ("maxPriorityFeePerGas", json!({ "maxPriorityFeePerGas": "0x2540be401" })),
        ("accessList", json!({ "accessList": {} })),
        ("accessList[0].storageKeys", json!({ "accessList": [{ "address": super::RECIPIENT }] })),
        (
            "accessList[0].storageKeys[0]",
            json!({ "accessList": [{ "address": super::RECIPIENT, "storageKeys": ["0x01"] }] }),
        ),
        (
            "accessList[0].more",
            json!({ "accessList": [{ "address": super::RECIPIENT, "storageKeys": [], "more": 1 }] }),
        ),
        // A slip that another reader would not see.
        ("gaslimit", json!({ "gaslimit": 1 })),
        ("from", json!({ "from": super::RECIPIENT })),
    ];
    for (field, fields) in wrong {
        let answer = post(&wallet, &wallet.payment(&fields).to_string(), &["-H", JSON]);
        let problem = assert_problem(&answer, 400, "invalid-transaction");
        assert_eq!(problem["field"], field, "{fields}: {problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.starts_with(field)), "{problem}");
    }
    assert_eq!(wallet.kms_signs(), 0);
}

#[test]
fn a_wrong_body_is_refused_whole() {
    let wallet = Wallet::new();
    let _signer = wallet.start();
    let good = wallet.payment(&json!({})).to_string();
    let twice = good.replacen("\"gas\":21000", "\"gas\":21000,\"gas\":21001", 1);
    assert_ne!(twice, good);
    let escaped = good.replacen("\"gas\":21000", "\"gas\":21000,\"g\\u0061s\":21001", 1);
    let two = format!("{good}{good}");
    for body in ["", "{", "null", "[]", "\"\"", "7", &good[..good.len() - 1], &two, &"[".repeat(10_000)] {
        assert_problem(&post(&wallet, body, &["-H", JSON]), 400, "invalid-transaction");
    }
    for body in [twice, escaped] {
        assert_eq!(assert_problem(&post(&wallet, &body, &["-H", JSON]), 400, "invalid-transaction")["field"], "gas");
    }
    assert_problem(&post(&wallet, &good, &["-H", "Content-Type: text/plain"]), 415, "unsupported-media-type");
    assert_problem(&post(&wallet, &good, &["-H", JSON, "-H", "Content-Encoding: gzip"]), 415, "unsupported-media-type");
    let large = wallet.home.write("large.json", format!("{{\"data\":\"0x{}\"}}", "00".repeat(100_000)));
    let large = format!("@{}", large.display());
    assert_problem(&post(&wallet, &large, &["-H", JSON]), 413, "body-too-large");
    assert_eq!(wallet.kms_signs(), 0);
    assert_eq!(post(&wallet, &good, &["-H", "content-type: application/json; charset=utf-8"]).status, 200);
}

#[test]
fn other_paths_and_methods_are_refused() {
    let wallet = Wallet::new();
    let _signer = wallet.start();
    assert_problem(&ask(&wallet.home, "/v1/nothing", &[]), 404, "not-found");
    assert_problem(&ask(&wallet.home, "/v1/keys", &["-X", "DELETE"]), 405, "method-not-allowed");
    let health: Value = ask(&wallet.home, "/health", &[]).json();
    assert_eq!(health["status"], "ok");
    let metrics = ask(&wallet.home, "/metrics", &[]);
    assert_eq!(metrics.status, 200);
    assert!(metrics.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")), "{metrics:?}");
}
