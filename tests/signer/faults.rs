//! A KMS that throttles, fails, hangs, lies or is not there.

use serde_json::{Value, json};

use super::{Wallet, assert_problem};
use crate::support::{Chain, Kms, SOON, verify_with_ethers};

#[test]
fn throttling_is_waited_out() {
    let wallet = Wallet::new();
    let _signer = wallet.start();
    Kms::shared().fault(&wallet.key, "throttle", 2);
    wallet.signed("1", &wallet.payment(&json!({})));
    assert_eq!(wallet.kms_signs(), 3);
    // As is a failure of KMS itself, and a connection that breaks off.
    for (nonce, mode) in ["error", "unavailable", "reset"].into_iter().enumerate() {
        let before = wallet.kms_signs();
        Kms::shared().fault(&wallet.key, mode, 1);
        wallet.signed(mode, &wallet.payment(&json!({ "nonce": nonce + 1 })));
        assert_eq!(wallet.kms_signs() - before, 2, "{mode}");
    }
}

#[test]
fn a_connection_that_always_breaks_off_is_named() {
    let wallet = Wallet::new();
    let _signer = wallet.start();
    Kms::shared().fault(&wallet.key, "reset", 1000);
    assert_problem(&wallet.sign("1", &wallet.payment(&json!({}))), 502, "key-unreachable");
    Kms::shared().fault(&wallet.key, "none", 0);
    wallet.signed("1", &wallet.payment(&json!({})));
}

#[test]
fn signals_that_are_a_gateways_too_do_not_end_it() {
    use rustix::process::{Pid, Signal, kill_process};
    let wallet = Wallet::new();
    let mut signer = wallet.start();
    let pid = Pid::from_raw(signer.pid().try_into().expect("a pid")).expect("a process");
    for (signal, said) in [(Signal::HUP, "reloaded"), (Signal::USR1, "no log to open again")] {
        kill_process(pid, signal).expect("a running process");
        signer.wait_until(SOON, "it says so", |signer| signer.stderr().contains(said).then_some(()));
    }
    wallet.signed("1", &wallet.payment(&json!({})));
}

#[test]
fn throttling_without_end_is_named() {
    let wallet = Wallet::new();
    let _signer = wallet.start();
    Kms::shared().fault(&wallet.key, "throttle", 1000);
    let answer = wallet.sign("1", &wallet.payment(&json!({})));
    assert_problem(&answer, 503, "key-throttled");
    assert!(
        answer.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok_and(|s| s > 0)),
        "{answer:?}"
    );
    assert!(wallet.kms_signs() > 2, "it was tried again");
    assert!(answer.seconds < 15.0, "{}", answer.seconds);
    Kms::shared().fault(&wallet.key, "none", 0);
    wallet.signed("1", &wallet.payment(&json!({})));
}

#[test]
fn a_kms_that_hangs_is_given_up_at_the_deadline() {
    let wallet = Wallet::of(Kms::shared(), "timeout = \"1s\"", "");
    let _signer = wallet.start();
    Kms::shared().fault(&wallet.key, "hang", 1000);
    let answer = wallet.sign("1", &wallet.payment(&json!({})));
    assert_problem(&answer, 504, "key-timed-out");
    assert!((0.9..6.0).contains(&answer.seconds), "{}", answer.seconds);
    Kms::shared().fault(&wallet.key, "none", 0);
    wallet.signed("1", &wallet.payment(&json!({})));
}

#[test]
fn a_refusal_of_kms_is_named_and_not_tried_again() {
    let wallet = Wallet::new();
    let signer = wallet.start();
    let refusals = [
        ("denied", "key-access-denied", "AccessDeniedException"),
        ("disabled", "key-unusable", "DisabledException"),
        ("pending-deletion", "key-unusable", "KMSInvalidStateException"),
    ];
    for (mode, kind, says) in refusals {
        let before = wallet.kms_signs();
        Kms::shared().fault(&wallet.key, mode, 1);
        let problem = assert_problem(&wallet.sign("1", &wallet.payment(&json!({}))), 502, kind);
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(says)), "{problem}");
        assert!(signer.stderr().contains(says), "{}", signer.stderr());
        assert_eq!(wallet.kms_signs() - before, 1, "{mode}");
    }
    wallet.signed("1", &wallet.payment(&json!({})));
}

/// The one thing a signer is for: nothing that is not this key's signature of this transaction comes out.
#[test]
fn a_wrong_signature_reaches_nobody() {
    let wallet = Wallet::new();
    let _signer = wallet.start();
    for mode in ["wrong-signature", "not-der", "trailing-bytes", "zero", "empty"] {
        Kms::shared().fault(&wallet.key, mode, 1);
        let answer = wallet.sign("1", &wallet.payment(&json!({})));
        assert_problem(&answer, 502, "key-bad-answer");
    }
    // It was not stored either.
    let signed = wallet.signed("1", &wallet.payment(&json!({})));
    assert_eq!(verify_with_ethers(signed["raw"].as_str().expect("raw"))["from"], wallet.address());
}

#[test]
fn a_kms_that_is_gone_is_named() {
    let kms = Kms::start();
    let wallet = Wallet::of(&kms, "timeout = \"2s\"", "");
    let signer = wallet.start();
    wallet.signed("1", &wallet.payment(&json!({})));
    drop(kms);
    let answer = wallet.sign("2", &wallet.payment(&json!({ "nonce": 1 })));
    assert_problem(&answer, 502, "key-unreachable");
    assert!(answer.seconds < 6.0, "{}", answer.seconds);
    assert!(signer.stderr().contains("reached"), "{}", signer.stderr());
    // What is in the ledger needs no KMS.
    wallet.signed("1", &wallet.payment(&json!({})));
}

/// What the client no longer waits for is finished, and there when it asks again.
#[test]
fn a_client_that_goes_away_loses_nothing() {
    let wallet = Wallet::new();
    let _signer = wallet.start();
    Kms::shared().slow(&wallet.key, 0.5);
    let socket = wallet.home.path("state/signer.sock").display().to_string();
    let (token, body) = (format!("Authorization: Bearer {}", super::TOKEN), wallet.payment(&json!({})).to_string());
    let url = "http://signer/v1/keys/hot-wallet/transactions";
    let args =
        ["--unix-socket", &socket, "-m", "0.2", "-H", &token, "-H", "Idempotency-Key: 1", "-H", super::JSON, "-d"];
    let gone = crate::support::try_curl(args.into_iter().chain([&*body, url])).expect_err("curl gives up");
    assert_eq!(gone.code, 28);
    let path = "/v1/keys/hot-wallet/transactions/1";
    let found: Value = crate::support::wait_until(SOON, "it is signed", || {
        let found = super::ask(&wallet.home, path, &["-H", &token]).json();
        (found["state"] == "signed").then_some(found)
    });
    assert_eq!(found["raw"], wallet.signed("1", &wallet.payment(&json!({})))["raw"]);
    assert_eq!(wallet.kms_signs(), 1);
    Chain::shared().fund(wallet.address());
    Chain::shared().send(found["raw"].as_str().expect("raw")).expect("the chain takes it");
}
