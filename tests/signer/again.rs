//! The same request again: what was signed first is what is answered for ever.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{JSON, TOKEN, Wallet, ask, assert_problem};
use crate::support::{Kms, SOON};

#[test]
fn a_replay_answers_the_first_bytes_for_ever() {
    let wallet = Wallet::new();
    let payment = wallet.payment(&json!({}));
    let mut signer = wallet.start();
    let first = wallet.sign("payout-1", &payment);
    assert_eq!((first.status, first.header("idempotent-replayed")), (200, None));
    let again = wallet.sign("payout-1", &payment);
    assert_eq!((again.status, again.header("idempotent-replayed")), (200, Some("true")));
    assert_eq!(again.body, first.body);
    // The same transaction in other words: values count, not how they are written.
    let words = json!({ "nonce": "0x0", "gas": "21000", "value": "0x38d7ea4c68000", "data": "0x", "accessList": [] });
    assert_eq!(wallet.sign("payout-1", &wallet.payment(&words)).body, first.body);

    signer.sigterm();
    assert!(signer.wait(SOON).success(), "{}", signer.logs());
    signer = wallet.start();
    assert_eq!(wallet.sign("payout-1", &payment).body, first.body);
    signer.kill9();
    let _signer = wallet.start();
    assert_eq!(wallet.sign("payout-1", &payment).body, first.body);
    assert_eq!(wallet.kms_signs(), 1);
    // Under another name it is another payment, and another signature.
    let other = wallet.sign("payout-2", &payment);
    assert_eq!((other.status, wallet.kms_signs()), (200, 2));
    assert_ne!(other.json()["raw"], first.json()["raw"]);
}

#[test]
fn an_idempotency_key_names_one_body() {
    let wallet = Wallet::new();
    let _signer = wallet.start();
    let first = wallet.signed("payout-1", &wallet.payment(&json!({})));
    for other in [json!({ "value": 1 }), json!({ "nonce": 1 }), json!({ "data": "0x00" }), json!({ "gas": 21_001 })] {
        assert_problem(&wallet.sign("payout-1", &wallet.payment(&other)), 409, "idempotency-conflict");
    }
    assert_eq!(wallet.signed("payout-1", &wallet.payment(&json!({}))), first);
    assert_eq!(wallet.kms_signs(), 1);
}

#[test]
fn an_idempotency_key_is_required() {
    let wallet = Wallet::new();
    let _signer = wallet.start();
    let body = wallet.payment(&json!({})).to_string();
    let token = format!("Authorization: Bearer {TOKEN}");
    let long = format!("Idempotency-Key: {}", "x".repeat(256));
    let wrong: [&[&str]; 5] = [
        &[],
        &["-H", "Idempotency-Key;"],
        &["-H", "Idempotency-Key: two words"],
        &["-H", "Idempotency-Key: a", "-H", "Idempotency-Key: b"],
        &["-H", &long],
    ];
    for headers in wrong {
        let args = [&["-H", &token, "-H", JSON, "-d", &body], headers].concat();
        let answer = ask(&wallet.home, "/v1/keys/hot-wallet/transactions", &args);
        let problem = assert_problem(&answer, 400, "bad-request");
        assert!(problem["detail"].as_str().is_some_and(|text| text.contains("Idempotency-Key")), "{problem}");
    }
    assert_eq!(wallet.kms_signs(), 0);
}

/// Ten at once, while KMS takes its time: one signature.
#[test]
fn simultaneous_requests_share_one_signature() {
    let wallet = Wallet::new();
    let _signer = wallet.start();
    Kms::shared().slow(&wallet.key, 0.3);
    let payment = wallet.payment(&json!({}));
    let raws: BTreeSet<_> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..10).map(|_| scope.spawn(|| wallet.signed("payout-1", &payment))).collect();
        asking.into_iter().map(|thread| thread.join().expect("an answer")["raw"].to_string()).collect()
    });
    assert_eq!((raws.len(), wallet.kms_signs()), (1, 1));
}

/// A caller is its name: renamed, it is told to the log that its idempotency keys are forgotten.
#[test]
fn a_caller_that_the_file_has_no_more_is_named_at_start() {
    let wallet = Wallet::new();
    let mut signer = wallet.start();
    wallet.signed("payout-1", &wallet.payment(&json!({})));
    assert!(!signer.stderr().contains("does not name"), "{}", signer.stderr());
    signer.sigterm();
    assert!(signer.wait(SOON).success(), "{}", signer.logs());
    let config = std::fs::read_to_string(wallet.home.path("keygate.toml")).expect("a configuration");
    wallet.home.config(&config.replace("callers.payments]", "callers.payouts]"));
    let signer = wallet.start();
    assert!(signer.stderr().contains("caller=\"payments\""), "{}", signer.stderr());
}

#[test]
fn what_was_signed_can_be_looked_up() {
    let wallet = Wallet::new();
    let _signer = wallet.start();
    let signed = wallet.signed("payout-1", &wallet.payment(&json!({})));
    let token = format!("Authorization: Bearer {TOKEN}");
    let look = |key: &str| ask(&wallet.home, &format!("/v1/keys/hot-wallet/transactions/{key}"), &["-H", &token]);
    let found: Value = look("payout-1").json();
    assert_eq!((&found["state"], &found["raw"], &found["hash"]), (&json!("signed"), &signed["raw"], &signed["hash"]));
    assert_problem(&look("payout-2"), 404, "not-found");
    Kms::shared().fault(&wallet.key, "error", 100);
    assert_eq!(wallet.sign("payout-3", &wallet.payment(&json!({ "nonce": 1 }))).status, 502);
    let pending = look("payout-3").json();
    assert_eq!((&pending["state"], &pending["nonce"], pending.get("raw")), (&json!("pending"), &json!(1), None));
}
