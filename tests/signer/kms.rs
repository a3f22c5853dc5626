//! A key in two regions, one of which fails.

use serde_json::{Value, json};

use super::{SQLITE, Wallet, ask, assert_problem, home, listening};
use crate::support::{Chain, Kms, KmsKey, SOON};

const SECOND: &str = "eu-west-1";

/// A wallet whose key is in `us-east-1` and [`SECOND`].
fn wallet(fields: &str) -> Wallet {
    let kms = Kms::shared();
    let key = kms.create_multi_region_key(SECOND);
    let identity = kms.identity(&key);
    let lines = format!(
        "kms = {{ key_id = {:?}, regions = [\"us-east-1\", {SECOND:?}], endpoints = [{:?}, {:?}], {fields} }}\naddress = {:?}",
        key.arn, kms.url, kms.url, identity.address
    );
    let home = home(SQLITE, &lines, ("hardhat", Chain::ID, ""), "");
    Wallet { home, key, identity }
}

fn fail(key: &KmsKey, region: &str, action: &str, mode: &str) {
    let fault = json!({ "mode": mode, "key": key.id, "region": region, "action": action, "count": 1000 });
    Kms::shared().order(&fault);
}

fn signs(wallet: &Wallet) -> [u64; 2] {
    ["us-east-1", SECOND].map(|region| Kms::shared().calls_in(region, &wallet.key, "Sign"))
}

#[test]
fn the_second_region_signs_while_the_first_fails_and_the_chain_takes_it() {
    let (wallet, chain) = (wallet(""), Chain::shared());
    let _signer = wallet.start();
    chain.fund(wallet.address());
    for (nonce, mode) in ["none", "throttle", "error", "reset", "unavailable"].into_iter().enumerate() {
        fail(&wallet.key, "us-east-1", "Sign", mode);
        let signed = wallet.signed(mode, &wallet.payment(&json!({ "nonce": nonce })));
        let hash = chain.send(signed["raw"].as_str().expect("raw")).expect("the chain takes it");
        assert_eq!(signed["hash"], hash);
        assert_eq!(signs(&wallet), [nonce as u64 + 1, nonce as u64], "{mode}");
    }
    let health: Value = ask(&wallet.home, "/health", &[]).json();
    assert_eq!(health, json!({ "status": "ok", "keys": { "hot-wallet": { "ready": true } } }));
    // A refusal is not asked for elsewhere.
    fail(&wallet.key, "us-east-1", "Sign", "disabled");
    assert_problem(&wallet.sign("6", &wallet.payment(&json!({ "nonce": 6 }))), 502, "key-unusable");
    assert_eq!(signs(&wallet), [6, 4]);
}

#[test]
fn a_region_that_is_away_at_start_is_a_warning() {
    let wallet = wallet("timeout = \"2s\"");
    fail(&wallet.key, "us-east-1", "GetPublicKey", "reset");
    let mut signer = listening(wallet.home.start("signer"));
    assert!(signer.stderr().contains("us-east-1"), "{}", signer.stderr());
    wallet.signed("1", &wallet.payment(&json!({})));
    assert_eq!(signs(&wallet), [0, 1], "it was not verified there");
    fail(&wallet.key, "us-east-1", "GetPublicKey", "none");
    wallet.signed("2", &wallet.payment(&json!({ "nonce": 1 })));
    assert_eq!(signs(&wallet), [1, 1]);
    signer.sigterm();
    assert!(signer.wait(SOON).success());
}

#[test]
fn with_all_regions_gone_callers_are_told_when_to_come_back() {
    let wallet = wallet("timeout = \"2s\"");
    let _signer = wallet.start();
    for region in ["us-east-1", SECOND] {
        fail(&wallet.key, region, "Sign", "reset");
    }
    let mut answers = (0..100).map(|_| wallet.sign("1", &wallet.payment(&json!({}))));
    let answer = answers.find(|answer| answer.status == 503).expect("a breaker that opens");
    assert_problem(&answer, 503, "key-unavailable");
    assert_eq!(answer.header("retry-after"), Some("1"));
    let health = ask(&wallet.home, "/health", &[]);
    assert_eq!(assert_problem(&health, 503, "key-not-ready")["keys"]["hot-wallet"]["ready"], false);
    let status = wallet.home.run(["status"]);
    let shown = &status.stdout;
    assert!(status.code == 1 && shown.contains("NOT HEALTHY: key \"hot-wallet\""), "{status:?}");
    assert!(shown.lines().any(|line| line.starts_with("hot-wallet ") && line.ends_with("NO")), "{shown}");
    for region in ["us-east-1", SECOND] {
        fail(&wallet.key, region, "Sign", "none");
    }
    crate::support::wait_until(SOON, "it signs again", || {
        (wallet.sign("1", &wallet.payment(&json!({}))).status == 200).then_some(())
    });
    assert_eq!(ask(&wallet.home, "/health", &[]).status, 200);
}
