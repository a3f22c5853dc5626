//! Who may have what signed. The default is no.

use serde_json::{Value, json};

use super::{JSON, RECIPIENT, TOKEN, Wallet, ask, assert_problem};
use crate::support::Chain;

#[test]
fn strangers_are_refused() {
    let wallet = Wallet::new();
    let _signer = wallet.start();
    let body = wallet.payment(&json!({})).to_string();
    let almost = format!("Authorization: Bearer {TOKEN}x");
    let basic = format!("Authorization: Basic {TOKEN}");
    let right = format!("Authorization: Bearer {TOKEN}");
    let strangers: [&[&str]; 6] = [
        &[],
        &["-H", "Authorization: Bearer"],
        &["-H", "Authorization: Bearer not-a-token-of-anybody"],
        &["-H", &almost],
        &["-H", &basic],
        // Whose is it? Nobody's.
        &["-H", &right, "-H", "Authorization: Bearer not-a-token-of-anybody"],
    ];
    for headers in strangers {
        let args = [&["-H", "Idempotency-Key: 1", "-H", JSON, "-d", &body], headers].concat();
        let answer = ask(&wallet.home, "/v1/keys/hot-wallet/transactions", &args);
        assert_problem(&answer, 401, "unauthenticated");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        assert_problem(&ask(&wallet.home, "/v1/keys", headers), 401, "unauthenticated");
        assert_problem(&ask(&wallet.home, "/v1/keys/hot-wallet/transactions/1", headers), 401, "unauthenticated");
    }
    assert_eq!(wallet.kms_signs(), 0);
}

#[test]
fn a_token_that_anybody_may_read_is_warned_of() {
    let wallet = Wallet::new();
    assert!(!wallet.start().stderr().contains("anybody"));
    wallet.home.write("secrets/payments.token", TOKEN);
    let signer = wallet.start();
    assert!(signer.stderr().contains("payments.token: anybody on this machine may read"), "{}", signer.stderr());
    let check = wallet.home.run(["check"]);
    assert!(check.code == 0 && check.stderr.contains("(mode 0644)"), "{check:?}");
    wallet.signed("1", &wallet.payment(&json!({})));
}

#[test]
fn a_caller_is_known_by_its_user_id() {
    let wallet = Wallet::new();
    let config = std::fs::read_to_string(wallet.home.path("keygate.toml")).expect("a configuration");
    let uid = rustix::process::getuid().as_raw();
    let with_uid = |uid: u32| config.replace("token_file = \"secrets/payments.token\"", &format!("uid = {uid}"));
    let args = |body: &str| ["-H", "Idempotency-Key: 1", "-H", JSON, "-d", body].map(str::to_owned);
    let args = args(&wallet.payment(&json!({})).to_string());
    let args = args.each_ref().map(String::as_str);
    wallet.home.config(&with_uid(uid + 1));
    let signer = wallet.start();
    assert_problem(&ask(&wallet.home, "/v1/keys/hot-wallet/transactions", &args), 401, "unauthenticated");
    drop(signer);
    wallet.home.config(&with_uid(uid));
    let _signer = wallet.start();
    assert_eq!(ask(&wallet.home, "/v1/keys/hot-wallet/transactions", &args).status, 200);
    // Who shows a token is not taken for the user it runs as.
    let wrong = [&["-H", "Authorization: Bearer not-a-token-of-anybody"], &args[..]].concat();
    assert_problem(&ask(&wallet.home, "/v1/keys/hot-wallet/transactions", &wrong), 401, "unauthenticated");
}

#[test]
fn a_caller_without_a_policy_may_have_nothing_signed() {
    let wallet = Wallet::new();
    let config = std::fs::read_to_string(wallet.home.path("keygate.toml")).expect("a configuration");
    wallet.home.config(&config.replace("policy = \"payouts\"", ""));
    let _signer = wallet.start();
    let problem = assert_problem(&wallet.sign("1", &wallet.payment(&json!({}))), 403, "policy-denied");
    assert_eq!(problem["rule"], "policy");
    assert_eq!(wallet.kms_signs(), 0);
}

#[test]
fn a_caller_has_its_own_keys_only() {
    let wallet = Wallet::new();
    let config = std::fs::read_to_string(wallet.home.path("keygate.toml")).expect("a configuration");
    wallet.home.config(&config.replace("keys = [\"hot-wallet\"]", "keys = []"));
    let _signer = wallet.start();
    // A key of somebody else, and none at all, look alike.
    let theirs = assert_problem(&wallet.sign("1", &wallet.payment(&json!({}))), 403, "key-not-allowed");
    let none = super::sign(&wallet.home, "no-such-key", "1", &wallet.payment(&json!({})));
    assert_eq!(assert_problem(&none, 403, "key-not-allowed")["detail"], theirs["detail"]);
    assert_eq!(wallet.kms_signs(), 0);
}

const TOKEN_CONTRACT: &str = "0x5FbDB2315678afecb367f032d93F642f64180aa3";
const STRANGER: &str = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";

/// `transfer(to, 1)`.
fn transfer(to: &str) -> String {
    format!("0xa9059cbb{:0>64}{:0>64}", to.trim_start_matches("0x").to_lowercase(), 1)
}

#[test]
fn every_rule_denies_by_its_name() {
    let policy = format!(
        r#"
        chains = ["hardhat"]
        sign = ["transaction"]
        to = ["{RECIPIENT}", "{TOKEN_CONTRACT}"]
        functions = ["deposit()", "0x4000aea0"]
        max_value = "0.001 ether"
        max_fee = "21000 gwei"
        "#
    );
    let wallet = Wallet::with(&policy);
    let _signer = wallet.start();
    // At every limit at once: allowed.
    let within = json!({ "maxFeePerGas": 1_000_000_000, "maxPriorityFeePerGas": 1 });
    let payment = |fields: &Value| super::merged(wallet.payment(&within), fields);
    let limits = payment(&json!({}));
    wallet.signed("allowed", &limits);
    // Data takes gas.
    let call = |fields: &Value| super::merged(payment(&json!({ "gas": 42_000, "maxFeePerGas": 500_000_000 })), fields);
    let token = json!({ "nonce": 1, "to": TOKEN_CONTRACT, "value": 0, "data": transfer(RECIPIENT) });
    wallet.signed("allowed-token", &call(&token));
    let deposit = json!({ "nonce": 2, "to": TOKEN_CONTRACT, "data": "0xd0e30db0" });
    wallet.signed("allowed-function", &call(&deposit));
    let and_call = |to: &str| format!("{}{:0>64x}{:0>64}", transfer(to).replace("a9059cbb", "4000aea0"), 96, 0);
    let signs = wallet.kms_signs();
    let denied = [
        ("chains", json!({ "chainId": 1 })),
        ("chains", json!({ "chainId": Chain::ID + 1 })),
        ("to", json!({ "to": STRANGER })),
        // The token is listed; who gets it is not.
        ("to", json!({ "to": TOKEN_CONTRACT, "value": 0, "data": transfer(STRANGER) })),
        // A transfer that is cut short, or has an address of more than 20 bytes.
        ("to", json!({ "to": TOKEN_CONTRACT, "value": 0, "data": "0xa9059cbb00" })),
        ("to", json!({ "to": TOKEN_CONTRACT, "value": 0, "data": transfer(RECIPIENT).replacen("bb00", "bb01", 1) })),
        // What cannot be read, and is not named; what is named, and can be read.
        ("functions", json!({ "to": TOKEN_CONTRACT, "value": 0, "data": "0xac9650d8" })),
        ("functions", json!({ "to": RECIPIENT, "data": "0x00" })),
        ("to", json!({ "to": TOKEN_CONTRACT, "value": 0, "data": and_call(STRANGER) })),
        ("max_value", json!({ "value": "1000000000000001" })),
        ("max_fee", json!({ "gas": 21_001 })),
        ("max_fee", json!({ "maxFeePerGas": 1_000_000_001 })),
        ("max_fee", json!({ "gas": "0xffffffffffffffff", "maxFeePerGas": "0xffffffffffffffffffffffffffffffff" })),
        ("allow_contract_creation", json!({ "to": null, "data": "0x00" })),
    ];
    for (rule, fields) in denied {
        let problem = assert_problem(&wallet.sign("denied", &payment(&fields)), 403, "policy-denied");
        assert_eq!(problem["rule"], rule, "{fields}: {problem}");
    }
    assert_eq!(wallet.kms_signs(), signs, "what is denied never reaches KMS");
    // A denial is no use of an idempotency key.
    wallet.signed("denied", &limits);
}

#[test]
fn an_empty_list_of_kinds_signs_nothing() {
    let wallet = Wallet::with("sign = []");
    let _signer = wallet.start();
    let problem = assert_problem(&wallet.sign("1", &wallet.payment(&json!({}))), 403, "policy-denied");
    assert_eq!(problem["rule"], "sign");
}

#[test]
fn a_day_has_its_limit_also_after_a_restart() {
    let wallet = Wallet::with("daily_value = \"1 ether\"");
    let pay = |nonce: u32, wei: &str| {
        wallet.sign(&format!("payout-{nonce}"), &wallet.payment(&json!({ "nonce": nonce, "value": wei })))
    };
    let mut signer = wallet.start();
    assert_eq!(pay(0, "600000000000000000").status, 200);
    assert_eq!(assert_problem(&pay(1, "400000000000000001"), 403, "policy-denied")["rule"], "daily_value");
    // What is answered again is not spent again.
    assert_eq!(pay(0, "600000000000000000").status, 200);
    signer.kill9();
    let _signer = wallet.start();
    assert_eq!(assert_problem(&pay(1, "400000000000000001"), 403, "policy-denied")["rule"], "daily_value");
    assert_eq!(pay(1, "400000000000000000").status, 200);
    assert_eq!(assert_problem(&pay(2, "1"), 403, "policy-denied")["rule"], "daily_value");
    assert_eq!(pay(3, "0").status, 200);
}
