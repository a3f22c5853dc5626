//! What a policy says, asked of the signer and of `keygate signer check-policy`.

use serde_json::{Value, json};

use super::{RECIPIENT, Wallet, assert_problem};
use crate::support::{Chain, Finished, Home};

#[test]
fn a_caller_has_so_much_signed_and_is_told_when_to_come_back() {
    let wallet = Wallet::with("rate = \"2/h\"\nmax_value = \"1 ether\"\nmax_fee = \"1 ether\"");
    let _signer = wallet.start();
    let pay = |nonce: u32| wallet.sign(&nonce.to_string(), &wallet.payment(&json!({ "nonce": nonce })));
    assert_eq!(pay(0).status, 200);
    // What was signed before is answered, and what is denied for another reason is no signature.
    assert_eq!(pay(0).status, 200);
    let much = wallet.payment(&json!({ "nonce": 9, "value": "1000000000000000001" }));
    assert_eq!(assert_problem(&wallet.sign("9", &much), 403, "policy-denied")["rule"], "max_value");
    assert_eq!(pay(1).status, 200);
    let answer = pay(2);
    assert_eq!(assert_problem(&answer, 429, "rate-limited")["rule"], "rate");
    let seconds: u64 = answer.header("retry-after").and_then(|value| value.parse().ok()).expect("Retry-After");
    assert!((1700..=1801).contains(&seconds), "{seconds}");
    assert_eq!(pay(1).status, 200);
    assert_eq!(wallet.kms_signs(), 2);
}

/// A configuration with one caller, whose key is asked by nobody, and a policy.
fn home() -> Home {
    Home::new(&format!(
        r#"
        [signer]
        listen = "unix:state/signer.sock"
        ledger = "sqlite:ledger/ledger.db"
        [signer.keys.hot-wallet]
        kms = {{ key_id = "1234abcd-12ab-34cd-56ef-1234567890ab", endpoint = "http://127.0.0.1:1" }}
        [signer.keys.other]
        kms = {{ key_id = "2234abcd-12ab-34cd-56ef-1234567890ab", endpoint = "http://127.0.0.1:1" }}
        [signer.chains.hardhat]
        id = {}
        [signer.callers.payments]
        token_file = "secrets/payments.token"
        keys = ["hot-wallet"]
        policy = "payouts"
        [signer.callers.security]
        token_file = "secrets/security.token"
        keys = []
        [signer.policies.payouts]
        to = ["{RECIPIENT}", "{TOKEN_CONTRACT}"]
        daily_value = "10 wei"
        max_fee = "1 ether"
        hours = ["Mon-Fri 08:00-18:00"]
        rate = "10/m"
        require_approval = {{ above = "5 wei", from = ["security", "payments"] }}
        tokens.usd = {{ address = "{TOKEN_CONTRACT}", decimals = 6, max_amount = "2.5" }}
        "#,
        Chain::ID
    ))
}

const TOKEN_CONTRACT: &str = "0x5FbDB2315678afecb367f032d93F642f64180aa3";
const FRIDAY: &str = "2026-11-20T12:00:00Z";

fn payment(value: u64, to: &str, data: &str) -> Value {
    json!({ "chainId": Chain::ID, "type": 2, "nonce": 0, "to": to, "value": value, "gas": 21_000, "data": data,
            "maxFeePerGas": 1, "maxPriorityFeePerGas": 1 })
}

/// `transfer(RECIPIENT, amount)`.
fn transfer(amount: u64) -> String {
    format!("0xa9059cbb{:0>64}{amount:0>64x}", RECIPIENT.trim_start_matches("0x").to_lowercase())
}

/// What was printed as JSON, whatever the exit code.
fn verdict(said: &Finished) -> Value {
    serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"))
}

#[test]
fn a_request_is_judged_by_the_file_alone() {
    let home = home();
    let ask = |request: &Value, more: &[&str]| -> Finished {
        home.write("request.json", request.to_string());
        let args = ["signer", "check-policy", "--caller", "payments", "--key", "hot-wallet", "request.json"];
        home.run([&args[..], more].concat())
    };
    let at = |request: &Value, more: &[&str]| ask(request, &[&["--at", FRIDAY], more].concat());
    let said = at(&payment(5, RECIPIENT, "0x"), &[]);
    assert_eq!(said.code, 0, "{said:?}");
    for wanted in
        ["allowed by policy \"payouts\"", "counts 5 wei", "daily_value: at most 10 in 1day", "rate: at most 10 in 1m"]
    {
        assert!(said.stdout.contains(wanted), "{wanted}: {}", said.stdout);
    }
    // Held: and who asked does not approve.
    let held = at(&payment(6, RECIPIENT, "0x"), &["--json"]);
    assert_eq!((held.code, &verdict(&held)["approval"]["from"]), (0, &json!(["security"])), "{held:?}");
    let token = at(&payment(0, TOKEN_CONTRACT, &transfer(2_500_000)), &["--json"]);
    assert_eq!(verdict(&token)["spends"], json!([{ "asset": TOKEN_CONTRACT, "amount": "2500000", "windows": [] }]));
    for (request, when, rule) in [
        (payment(0, TOKEN_CONTRACT, &transfer(2_500_001)), FRIDAY, "tokens"),
        (payment(0, TOKEN_CONTRACT, "0xac9650d8"), FRIDAY, "functions"),
        (payment(1, RECIPIENT, "0x"), "2026-11-20T18:00:00Z", "hours"),
        (payment(1, RECIPIENT, "0x"), "2026-11-21T12:00:00Z", "hours"),
    ] {
        let denied = ask(&request, &["--at", when, "--json"]);
        assert_eq!((denied.code, &verdict(&denied)["rule"]), (1, &json!(rule)), "{denied:?}");
        let text = ask(&request, &["--at", when]);
        assert!(text.code == 1 && text.stdout.contains(&format!("denied by policy \"payouts\": {rule}: ")), "{text:?}");
    }
    let message = at(&json!({ "message": "hello" }), &["--kind", "message", "--json"]);
    assert_eq!((message.code, &verdict(&message)["rule"]), (1, &json!("sign")), "{message:?}");
}

#[test]
fn what_is_no_request_has_no_verdict() {
    let home = home();
    home.write("good.json", payment(1, RECIPIENT, "0x").to_string());
    home.write("bad.json", "{}");
    let ask = |caller: &str, key: &str, more: &[&str]| {
        home.run([&["signer", "check-policy", "--caller", caller, "--key", key], more].concat())
    };
    let (caller, key) = ("payments", "hot-wallet");
    for (said, why) in [
        (ask("nobody", key, &["good.json"]), "no caller \"nobody\""),
        (ask(caller, "none", &["good.json"]), "no key \"none\""),
        (ask(caller, key, &["bad.json"]), "the request is not valid"),
        (ask(caller, key, &["missing.json"]), "missing.json: "),
        (ask(caller, key, &["good.json", "--at", "noon"]), "--at"),
        (ask(caller, key, &["good.json", "--kind", "digest"]), "--kind"),
        (ask(caller, key, &["-c", "missing.toml", "good.json"]), "missing.toml"),
        (ask(caller, key, &[]), "REQUEST"),
    ] {
        assert!(said.code == 2 && said.stderr.contains(why), "{why}: {said:?}");
    }
    // Another's key, and no policy.
    let theirs = ask(caller, "other", &["good.json", "--json"]);
    assert_eq!((theirs.code, &verdict(&theirs)["rule"]), (1, &json!("keys")), "{theirs:?}");
    assert_eq!(ask("security", "other", &["good.json"]).code, 1);
}
