//! What somebody else must approve first.

use serde_json::{Value, json};

use super::sending::{PRIVATE_KEY, Sender, balance, nobody, ok, rpc_as};
use super::{JSON, assert_problem};
use crate::support::{Anvil, Keygate, Response, SOON, wait_until};

const SECURITY: &str = "a-token-of-the-security-team";
const AUDIT: &str = "a-token-of-somebody-else";

/// A signer of whose payments above 1000 wei `security` approves, and `payments` may not.
fn sender(anvil: &Anvil) -> (Sender, Keygate) {
    sender_with(anvil, "")
}

/// With these lines in the policy.
fn sender_with(anvil: &Anvil, policy: &str) -> (Sender, Keygate) {
    let more = "max_value = \"1 ether\"
        require_approval = { above = \"1000 wei\", from = [\"security\", \"payments\"] }
        [signer.callers.security]
        token_file = \"secrets/security.token\"
        keys = []
        [signer.callers.audit]
        token_file = \"secrets/audit.token\"
        keys = [\"hot-wallet\"]
        policy = \"payouts\"";
    let sender = Sender::new(&anvil.url, PRIVATE_KEY, "confirmations = 1", &format!("{policy}\n{more}"));
    sender.home.secret("secrets/security.token", SECURITY);
    sender.home.secret("secrets/audit.token", AUDIT);
    anvil.fund(&sender.address);
    let signer = sender.start();
    (sender, signer)
}

#[track_caller]
fn get(sender: &Sender, token: &str, path: &str) -> Response {
    super::ask(&sender.home, path, &["-H", &format!("Authorization: Bearer {token}")])
}

#[track_caller]
fn decide(sender: &Sender, token: &str, approval: &Value, decision: &str, digest: &Value) -> Response {
    let (token, body) = (format!("Authorization: Bearer {token}"), json!({ "decision": decision, "digest": digest }));
    let path = format!("/v1/approvals/{approval}/decision");
    super::ask(&sender.home, &path, &["-H", &token, "-H", JSON, "-d", &body.to_string()])
}

fn listed(sender: &Sender, token: &str) -> Vec<Value> {
    let list = ok(&get(sender, token, "/v1/approvals"));
    list["approvals"].as_array().expect("a list").iter().map(|held| held["approval"].clone()).collect()
}

#[track_caller]
fn held(answer: &Response) -> Value {
    assert_eq!(answer.status, 202, "{}", answer.text());
    let held = answer.json();
    assert_eq!(answer.header("location"), Some(&*format!("/v1/approvals/{}", held["approval"])));
    assert_eq!((&held["state"], &held["rule"]), (&json!("held"), &json!("require_approval")), "{held}");
    held
}

#[test]
fn what_a_second_approves_is_sent_once_it_is_asked_for_again() {
    let anvil = Anvil::start();
    let (sender, mut signer) = sender(&anvil);
    let to = nobody(20);
    // Below the limit nobody is asked.
    assert_eq!(ok(&sender.send("small", &json!({ "to": to, "value": "1000" })))["nonce"], 0);
    let large = json!({ "to": to, "value": "1001" });
    let first = held(&sender.send("large", &large));
    assert_eq!(held(&sender.send("large", &large)), first, "it is one request");
    assert_eq!(held(&sender.get("/v1/keys/hot-wallet/transactions/large")), first);
    let (approval, digest) = (&first["approval"], &first["digest"]);
    // The second identity sees all of it.
    assert_eq!(listed(&sender, SECURITY), std::slice::from_ref(approval));
    let path = format!("/v1/approvals/{approval}");
    let seen = ok(&get(&sender, SECURITY, &path));
    assert_eq!(
        (&seen["caller"], &seen["transaction"]["value"], &seen["digest"]),
        (&json!("payments"), &json!("1001"), digest)
    );
    // Others do not know that it is there; who asks sees it, and approves nothing.
    assert_eq!(listed(&sender, AUDIT), [Value::Null; 0]);
    for answer in [get(&sender, AUDIT, &path), decide(&sender, AUDIT, approval, "approve", digest)] {
        assert_problem(&answer, 404, "not-found");
    }
    assert_problem(&decide(&sender, super::TOKEN, approval, "approve", digest), 403, "not-approver");
    // What is approved is what was seen.
    let other = json!(format!("0x{}", "00".repeat(32)));
    assert_problem(&decide(&sender, SECURITY, approval, "approve", &other), 409, "already-decided");
    assert_problem(&decide(&sender, SECURITY, approval, "perhaps", digest), 400, "invalid-decision");
    assert_eq!(held(&sender.send("large", &large)), first);

    let decided = ok(&decide(&sender, SECURITY, approval, "approve", digest));
    assert_eq!((&decided["state"], &decided["decision"]["by"]), (&json!("decided"), &json!("security")), "{decided}");
    assert_eq!(ok(&decide(&sender, SECURITY, approval, "approve", digest)), decided, "to say it again changes nothing");
    assert_problem(&decide(&sender, SECURITY, approval, "reject", digest), 409, "already-decided");
    assert_eq!(listed(&sender, SECURITY), [Value::Null; 0]);
    signer.kill9();
    let signer = sender.start();
    assert_problem(&sender.send("large", &json!({ "to": to, "value": "1002" })), 409, "idempotency-conflict");
    let sent = ok(&sender.send("large", &large));
    assert_eq!(sent["nonce"], 1, "{}", signer.logs());
    sender.becomes("large", "confirmed");
    assert_eq!(ok(&sender.send("large", &large))["hash"], sent["hash"]);
    assert_eq!(balance(&anvil, &to), 2001);
}

#[test]
fn what_somebody_rejects_is_denied_for_ever() {
    let anvil = Anvil::start();
    let (sender, mut signer) = sender(&anvil);
    let large = json!({ "value": "1001" });
    for (name, by) in [("a", SECURITY), ("b", super::TOKEN)] {
        let first = held(&sender.send(name, &large));
        ok(&decide(&sender, by, &first["approval"], "reject", &first["digest"]));
        let denied = assert_problem(&sender.send(name, &large), 403, "policy-denied");
        assert_eq!(denied["rule"], "require_approval");
    }
    signer.kill9();
    // Not even when it would need no approval any more.
    let config = std::fs::read_to_string(sender.home.path("keygate.toml")).expect("a configuration");
    sender.home.config(&config.replace("1000 wei", "1 ether"));
    let _signer = sender.start();
    assert_problem(&sender.send("a", &large), 403, "policy-denied");
    assert_problem(&sender.send("b", &large), 403, "policy-denied");
    // Nothing was taken for them.
    assert_eq!(ok(&sender.send("c", &json!({ "value": "1" })))["nonce"], 0);
}

#[test]
fn who_may_approve_no_more_does_not() {
    let anvil = Anvil::start();
    let (sender, _signer) = sender(&anvil);
    let first = held(&sender.send("a", &json!({ "value": "1001" })));
    let config = std::fs::read_to_string(sender.home.path("keygate.toml")).expect("a configuration");
    sender.home.config(&config.replace("from = [\"security\", \"payments\"]", "from = [\"audit\", \"security2\"]").replace(
        "[signer.callers.security]",
        "[signer.callers.security2]\ntoken_sha256 = \"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"\n        keys = []\n        [signer.callers.security]",
    ));
    wait_until(SOON, "audit approves instead", || {
        (listed(&sender, AUDIT) == [first["approval"].clone()]).then_some(())
    });
    assert_problem(&decide(&sender, SECURITY, &first["approval"], "approve", &first["digest"]), 404, "not-found");
    ok(&decide(&sender, AUDIT, &first["approval"], "approve", &first["digest"]));
    assert_eq!(ok(&sender.send("a", &json!({ "value": "1001" })))["nonce"], 0);
}

#[test]
fn who_asked_withdraws_and_nobody_approves_it_then() {
    let anvil = Anvil::start();
    let (sender, _signer) = sender(&anvil);
    let large = json!({ "value": "1001" });
    let first = held(&sender.send("a", &large));
    let (approval, digest) = (&first["approval"], &first["digest"]);
    let path = format!("/v1/approvals/{approval}");
    let withdraw = |token: &str| {
        super::ask(&sender.home, &path, &["-X", "DELETE", "-H", &format!("Authorization: Bearer {token}")])
    };
    // Who approves rejects; others do not know that it is there.
    assert_problem(&withdraw(SECURITY), 403, "not-requester");
    assert_problem(&withdraw(AUDIT), 404, "not-found");
    let withdrawn = ok(&withdraw(super::TOKEN));
    assert_eq!(
        (&withdrawn["state"], &withdrawn["decision"]["decision"], &withdrawn["decision"]["by"]),
        (&json!("decided"), &json!("withdrawn"), &json!("payments"))
    );
    assert_eq!(ok(&withdraw(super::TOKEN)), withdrawn, "to say it again changes nothing");
    assert_eq!(listed(&sender, SECURITY), [Value::Null; 0]);
    assert_problem(&decide(&sender, SECURITY, approval, "approve", digest), 409, "already-decided");
    assert_eq!(assert_problem(&sender.send("a", &large), 403, "policy-denied")["rule"], "require_approval");
    assert_eq!(ok(&sender.get("/v1/keys/hot-wallet/transactions/a"))["state"], "withdrawn");
    let trail = sender.home.run(["audit", "export"]).success().to_owned();
    let told = trail.lines().find(|line| line.contains("\"withdrawn\"")).expect("it is in the trail");
    assert!(told.contains("\"by\":\"payments\""), "{told}");
    // It took nothing; what is approved is not withdrawn.
    let second = held(&sender.send("b", &large));
    ok(&decide(&sender, SECURITY, &second["approval"], "approve", &second["digest"]));
    let late = super::ask(
        &sender.home,
        &format!("/v1/approvals/{}", second["approval"]),
        &["-X", "DELETE", "-H", &format!("Authorization: Bearer {}", super::TOKEN)],
    );
    assert_problem(&late, 409, "already-decided");
    assert_eq!(ok(&sender.send("b", &large))["nonce"], 0);
}

#[test]
fn what_nobody_decides_about_in_time_is_expired() {
    let anvil = Anvil::start();
    let (sender, signer) = sender(&anvil);
    let config = std::fs::read_to_string(sender.home.path("keygate.toml")).expect("a configuration");
    sender.home.config(&config.replace("above = \"1000 wei\",", "above = \"1000 wei\", expires_after = \"1s\","));
    wait_until(SOON, "the file is read again", || signer.logs().contains("policy changed").then_some(()));
    let large = json!({ "value": "1001" });
    let first = held(&sender.send("a", &large));
    let path = format!("/v1/approvals/{}", first["approval"]);
    let expired = wait_until(SOON, "it is expired", || {
        let shown = ok(&get(&sender, SECURITY, &path));
        (shown["state"] == "expired").then_some(shown)
    });
    let lasted = expired["expiresAt"].as_i64().expect("a time") - expired["askedAt"].as_i64().expect("a time");
    assert_eq!((lasted, &expired["decision"]), (1000, &Value::Null));
    assert_eq!(listed(&sender, SECURITY), [Value::Null; 0]);
    for decision in ["approve", "reject"] {
        let answer = decide(&sender, SECURITY, &first["approval"], decision, &first["digest"]);
        assert_problem(&answer, 410, "approval-expired");
    }
    let denied = || assert_problem(&sender.send("a", &large), 403, "policy-denied");
    let why = denied()["detail"].as_str().expect("why").to_owned();
    assert!(why.contains("expired"), "{why}");
    // For ever, though it would have longer now, or need none.
    for more in ["above = \"1000 wei\", expires_after = \"30d\",", "above = \"1 ether\","] {
        let changes = signer.logs().matches("policy changed").count();
        sender.home.config(&config.replace("above = \"1000 wei\",", more));
        wait_until(SOON, "the file is read again", || {
            (signer.logs().matches("policy changed").count() > changes).then_some(())
        });
        assert_eq!(denied()["detail"], why);
    }
    assert_eq!(ok(&sender.get("/v1/keys/hot-wallet/transactions/a"))["state"], "expired");
    // Nothing was taken for it.
    assert_eq!(ok(&sender.send("b", &json!({ "value": "1" })))["nonce"], 0);
}

/// An approval is one more that must agree, and not one instead of the others.
#[test]
fn what_was_approved_is_judged_by_the_policy_of_now() {
    let anvil = Anvil::start();
    let (sender, signer) = sender(&anvil);
    let large = json!({ "value": "1001" });
    let first = held(&sender.send("a", &large));
    ok(&decide(&sender, SECURITY, &first["approval"], "approve", &first["digest"]));
    let config = std::fs::read_to_string(sender.home.path("keygate.toml")).expect("a configuration");
    let reload = |config: &str| {
        let changes = signer.logs().matches("policy changed").count();
        sender.home.config(config);
        wait_until(SOON, "the file is read again", || {
            (signer.logs().matches("policy changed").count() > changes).then_some(())
        });
    };
    // The second also without an approval that it would need.
    for (tight, rule) in [
        (config.replace("max_value = \"1 ether\"", "max_value = \"1000 wei\""), "max_value"),
        (
            config.replace("\"1000 wei\"", "\"1 ether\"").replace("max_value = ", "max_fee = \"1 wei\"\nmax_value = "),
            "max_fee",
        ),
        (config.replace("max_value = ", "daily_value = \"1000 wei\"\nmax_value = "), "daily_value"),
    ] {
        reload(&tight);
        assert_eq!(assert_problem(&sender.send("a", &large), 403, "policy-denied")["rule"], rule);
    }
    reload(&config);
    assert_eq!(ok(&sender.send("a", &large))["nonce"], 0);
}

/// What is approved is what is signed, though the chain's fees are others by now.
#[test]
fn clients_are_told_how_to_go_on() {
    let anvil = Anvil::start();
    let (sender, _signer) = sender(&anvil);
    let to = nobody(21);
    let ask = |args: &[&str]| {
        let tx = json!([{ "from": sender.address, "to": to, "value": "0x3e9" }]);
        rpc_as(&sender.home, "eth_sendTransaction", &tx, args)
    };
    let error = ask(&[])["error"].clone();
    let data = &error["data"];
    assert_eq!((&error["code"], &data["rule"]), (&json!(4001), &json!("require_approval")), "{error}");
    let (approval, name) = (&data["approval"], data["idempotencyKey"].as_str().expect("a name"));
    assert!(error["message"].as_str().is_some_and(|why| why.contains(name)), "{error}");
    let seen = ok(&get(&sender, SECURITY, &format!("/v1/approvals/{approval}")));
    ok(&decide(&sender, SECURITY, approval, "approve", &data["digest"]));
    // Fees fall meanwhile.
    anvil.ask("anvil_mine", &json!([30]));
    let sent = ask(&["-H", &format!("Idempotency-Key: {name}")]);
    let hash = sent["result"].as_str().unwrap_or_else(|| panic!("{sent}"));
    wait_until(SOON, "it is paid", || (balance(&anvil, &to) == 1001).then_some(()));
    let mined = anvil.ask("eth_getTransactionByHash", &json!([hash]));
    let hex = |value: &Value| u128::from_str_radix(&value.as_str().expect("hex")[2..], 16).expect("hex").to_string();
    assert_eq!(
        hex(&mined["maxFeePerGas"]),
        seen["transaction"]["maxFeePerGas"].as_str().expect("decimal"),
        "{mined} {seen}"
    );
    // Without the name, it is another request.
    assert_ne!(ask(&[])["error"]["data"]["approval"], *approval);
}

/// Nobody has approved what a replacement may cost, if no policy bounds it.
#[test]
fn a_replacement_is_held_as_a_first_request_is() {
    let anvil = Anvil::with(&["--no-mining"]);
    let (sender, _signer) = sender(&anvil);
    let to = nobody(22);
    let large = json!({ "to": to, "value": "1001" });
    let first = held(&sender.send("a", &large));
    ok(&decide(&sender, SECURITY, &first["approval"], "approve", &first["digest"]));
    assert_eq!(ok(&sender.send("a", &large))["nonce"], 0);
    let speed_up = json!({ "action": "speed-up" });
    let faster = held(&sender.replace("a", "b", &speed_up));
    assert_eq!(held(&sender.replace("a", "b", &speed_up)), faster, "it is one request");
    let seen = ok(&get(&sender, SECURITY, &format!("/v1/approvals/{}", faster["approval"])));
    assert_eq!((&seen["replaces"], &seen["transaction"]["value"]), (&json!(0), &json!("1001")), "{seen}");
    ok(&decide(&sender, SECURITY, &faster["approval"], "approve", &faster["digest"]));
    // What is signed is what was shown, though the chain's fees are others by now.
    anvil.ask("anvil_setNextBlockBaseFeePerGas", &json!(["0x77359400"]));
    let replaced = ok(&sender.replace("a", "b", &speed_up));
    assert_eq!(replaced["nonce"], 0);
    let sent = anvil.ask("eth_getTransactionByHash", &json!([replaced["hash"]]));
    let fee = u128::from_str_radix(&sent["maxFeePerGas"].as_str().expect("hex")[2..], 16).expect("hex");
    assert_eq!(seen["transaction"]["maxFeePerGas"], fee.to_string());
    // To do nothing needs nobody.
    assert_eq!(ok(&sender.replace("b", "c", &json!({ "action": "cancel" })))["nonce"], 0);
    anvil.ask("evm_mine", &json!([]));
    sender.becomes("c", "confirmed");
    assert_eq!(balance(&anvil, &to), 0);
}

#[test]
fn what_was_approved_is_sped_up_within_the_policys_fees() {
    let anvil = Anvil::with(&["--no-mining"]);
    let (sender, _signer) = sender_with(&anvil, "max_fee = \"0.01 ether\"");
    let to = nobody(23);
    let large = json!({ "to": to, "value": "1001" });
    let first = held(&sender.send("a", &large));
    ok(&decide(&sender, SECURITY, &first["approval"], "approve", &first["digest"]));
    assert_eq!(ok(&sender.send("a", &large))["nonce"], 0);
    let speed_up = json!({ "action": "speed-up" });
    assert_eq!(ok(&sender.replace("a", "b", &speed_up))["nonce"], 0);
    assert_eq!(ok(&sender.replace("b", "c", &speed_up))["nonce"], 0);
    let dear = json!({ "action": "speed-up", "maxFeePerGas": "500000000000", "maxPriorityFeePerGas": "500000000000" });
    assert_eq!(assert_problem(&sender.replace("c", "d", &dear), 403, "policy-denied")["rule"], "max_fee");
    anvil.ask("evm_mine", &json!([]));
    sender.becomes("c", "confirmed");
    assert_eq!(balance(&anvil, &to), 1001);
}
