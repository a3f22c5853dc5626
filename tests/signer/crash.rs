//! The signer dies, or is told to stop, in the middle of a request. Nobody is paid twice.

use serde_json::json;

use super::{JSON, TOKEN, Wallet, ask};
use crate::support::{Chain, Kms, SOON, try_curl, wait_until};

/// A request in flight, as a thread: what curl got.
fn in_flight<'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    wallet: &'scope Wallet,
) -> std::thread::ScopedJoinHandle<'scope, Result<crate::support::Response, crate::support::CurlFailure>> {
    let (socket, body) = (wallet.home.path("state/signer.sock"), wallet.payment(&json!({})).to_string());
    let before = wallet.kms_signs();
    let thread = scope.spawn(move || {
        try_curl([
            "--unix-socket",
            &socket.display().to_string(),
            "-H",
            &format!("Authorization: Bearer {TOKEN}"),
            "-H",
            "Idempotency-Key: payout-1",
            "-H",
            JSON,
            "-d",
            &body,
            "http://signer/v1/keys/hot-wallet/transactions",
        ])
    });
    wait_until(SOON, "KMS is asked to sign", || (wallet.kms_signs() > before).then_some(()));
    thread
}

#[test]
fn killed_while_kms_signs_then_asked_again_pays_once() {
    let (wallet, chain) = (Wallet::with("daily_value = \"0.0015 ether\""), Chain::shared());
    chain.fund(wallet.address());
    let mut signer = wallet.start();
    // KMS signs, and its answer is on the way when the signer dies.
    Kms::shared().slow(&wallet.key, 20.0);
    std::thread::scope(|scope| {
        let asking = in_flight(scope, &wallet);
        signer.kill9();
        let failure = asking.join().expect("a thread").expect_err("nobody answers");
        assert!([52, 56].contains(&failure.code), "{failure:?}");
    });

    let _signer = wallet.start();
    let token = format!("Authorization: Bearer {TOKEN}");
    // The next start signs it, with its nonce, whoever asks.
    let finished = wait_until(SOON, "what was reserved is signed", || {
        let found = ask(&wallet.home, "/v1/keys/hot-wallet/transactions/payout-1", &["-H", &token]).json();
        (found["state"] == "signed").then_some(found)
    });
    assert_eq!(finished["nonce"], 0);
    // Its money is spent.
    let other = wallet.sign("payout-2", &wallet.payment(&json!({ "nonce": 1 })));
    assert_eq!(super::assert_problem(&other, 403, "policy-denied")["rule"], "daily_value");
    // And under the same name, another payment cannot slip in.
    let changed = wallet.sign("payout-1", &wallet.payment(&json!({ "nonce": 1 })));
    super::assert_problem(&changed, 409, "idempotency-conflict");

    let signed = wallet.signed("payout-1", &wallet.payment(&json!({})));
    assert_eq!(signed["hash"], finished["hash"]);
    let again = wallet.signed("payout-1", &wallet.payment(&json!({})));
    assert_eq!(again, signed);
    let raw = signed["raw"].as_str().expect("raw");
    let hash = chain.send(raw).expect("the chain takes it");
    assert_eq!(chain.receipt(&hash)["status"], "0x1");
    assert!(chain.send(raw).is_err(), "the chain takes it once");
    assert_eq!(chain.nonce(wallet.address()), 1);
}

#[test]
fn told_to_stop_it_finishes_what_is_in_flight() {
    let wallet = Wallet::new();
    let mut signer = wallet.start();
    Kms::shared().slow(&wallet.key, 0.7);
    let answer = std::thread::scope(|scope| {
        let asking = in_flight(scope, &wallet);
        signer.sigterm();
        asking.join().expect("a thread").expect("an answer")
    });
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(signer.wait(SOON).success(), "{}", signer.logs());
    assert!(!wallet.home.path("state/signer.sock").exists(), "it takes its socket away");
    let _signer = wallet.start();
    assert_eq!(wallet.signed("payout-1", &wallet.payment(&json!({}))), answer.json());
    assert_eq!(wallet.kms_signs(), 1);
}

#[test]
fn one_signer_has_the_socket_and_the_ledger() {
    let wallet = Wallet::new();
    let _signer = wallet.start();
    let mut second = wallet.home.start("signer");
    assert_eq!(second.wait(SOON).code(), Some(1), "{}", second.logs());
    assert!(second.stderr().contains("signer.sock: something listens there already"), "{}", second.stderr());
    // The first has not noticed.
    wallet.signed("1", &wallet.payment(&json!({})));
}
