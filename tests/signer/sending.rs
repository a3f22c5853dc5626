//! From a request to the chain: sent, followed, sent again, replaced; and nonces that keygate chooses.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{JSON, RECIPIENT, SQLITE, TOKEN, Wallet, ask, assert_problem, listening, merged};
use crate::support::{
    Anvil, Home, Identity, Keygate, Kms, Liar, Response, SOON, free_port, relay, run, sign_with_ethers, wait_until,
};

/// Whose the key of these tests is.
pub(super) const PRIVATE_KEY: &str = "c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3";
const TRANSACTIONS: &str = "/v1/keys/hot-wallet/transactions";

/// A signer with a node.
pub(super) struct Sender {
    pub(super) home: Home,
    pub(super) address: String,
}

impl Sender {
    /// With a key in a file: these fields of the chain, and these lines in its caller's policy.
    pub(super) fn new(url: &str, private_key: &str, chain: &str, policy: &str) -> Self {
        let address = Identity::of_private_key(&format!("0x{private_key}")).address;
        let home = home("local = { path = \"secrets/hot.key\" }", url, chain, policy);
        home.secret("secrets/hot.key", private_key);
        Self { home, address }
    }

    /// On this chain, where it has 100 ether.
    fn on(anvil: &Anvil, chain: &str, policy: &str) -> Self {
        let sender = Self::new(&anvil.url, PRIVATE_KEY, chain, policy);
        anvil.fund(&sender.address);
        sender
    }

    pub(super) fn start(&self) -> Keygate {
        listening(self.home.start("signer"))
    }

    /// A payment, to be sent.
    #[track_caller]
    pub(super) fn send(&self, name: &str, fields: &Value) -> Response {
        self.post(&format!("{TRANSACTIONS}?send=true"), name, &payment(fields))
    }

    /// One that must be signed.
    #[track_caller]
    fn sent(&self, name: &str, fields: &Value) -> Value {
        ok(&self.send(name, fields))
    }

    #[track_caller]
    pub(super) fn post(&self, path: &str, name: &str, body: &Value) -> Response {
        let (token, name) = (format!("Authorization: Bearer {TOKEN}"), format!("Idempotency-Key: {name}"));
        ask(&self.home, path, &["-H", &token, "-H", &name, "-H", JSON, "-d", &body.to_string()])
    }

    #[track_caller]
    pub(super) fn replace(&self, original: &str, name: &str, body: &Value) -> Response {
        self.post(&format!("{TRANSACTIONS}/{original}/replacements"), name, body)
    }

    #[track_caller]
    pub(super) fn get(&self, path: &str) -> Response {
        ask(&self.home, path, &["-H", &format!("Authorization: Bearer {TOKEN}")])
    }

    /// How far a transaction has come.
    #[track_caller]
    pub(super) fn progress(&self, name: &str) -> Value {
        self.get(&format!("{TRANSACTIONS}/{name}")).json()["send"].clone()
    }

    #[track_caller]
    pub(super) fn wait(&self, name: &str, what: &str, mut is: impl FnMut(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        wait_until(SOON, &format!("{name} is {what}"), || {
            last = self.progress(name);
            is(&last).then(|| last.clone())
        })
    }

    #[track_caller]
    pub(super) fn becomes(&self, name: &str, state: &str) -> Value {
        self.wait(name, state, |progress| progress["state"] == state)
    }

    #[track_caller]
    fn nonces(&self) -> Value {
        let answer = self.get("/v1/keys/hot-wallet/nonces/test");
        ok(&answer)
    }
}

pub(super) fn home(key: &str, url: &str, chain: &str, policy: &str) -> Home {
    super::home(SQLITE, key, ("test", Anvil::ID, &format!("rpc = {url:?}\n{chain}")), policy)
}

pub(super) fn payment(fields: &Value) -> Value {
    let payment = json!({
        "chainId": Anvil::ID, "type": 2, "to": RECIPIENT, "value": "1000000000000000", "gas": 21_000,
        "maxFeePerGas": "20000000000", "maxPriorityFeePerGas": "1000000000",
    });
    merged(payment, fields)
}

#[track_caller]
pub(super) fn ok(answer: &Response) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn count(anvil: &Anvil, address: &str) -> u64 {
    number(&anvil.ask("eth_getTransactionCount", &json!([address, "latest"])))
}

pub(super) fn balance(anvil: &Anvil, address: &str) -> u64 {
    number(&anvil.ask("eth_getBalance", &json!([address, "latest"])))
}

fn number(quantity: &Value) -> u64 {
    u64::from_str_radix(&quantity.as_str().expect("a quantity")[2..], 16).expect("a quantity")
}

/// Nobody's address that nobody else has.
pub(super) fn nobody(n: u64) -> String {
    // All digits, which have no case; far from what is built in.
    format!("0x9{n:039}")
}

#[test]
fn it_is_sent_once_and_followed_until_it_is_final() {
    let anvil = Anvil::with(&["--no-mining"]);
    let sender = Sender::on(&anvil, "confirmations = 3", "");
    let signer = sender.start();
    let to = nobody(1);
    let first = sender.send("a", &json!({ "to": to }));
    assert_eq!(first.header("idempotent-replayed"), None);
    let signed = ok(&first);
    assert_eq!(signed["nonce"], 0);
    // It is in the pool when it is answered.
    let pooled = anvil.ask("eth_getTransactionByHash", &json!([signed["hash"]]));
    assert_eq!(pooled["from"].as_str().map(str::to_lowercase), Some(sender.address.to_lowercase()));
    let progress = sender.progress("a");
    assert_eq!(
        (&progress["state"], &progress["attempts"], &progress["stuck"]),
        (&json!("sent"), &json!(1), &json!(false))
    );
    // The same again is the same.
    let again = sender.send("a", &json!({ "to": to }));
    assert_eq!((again.header("idempotent-replayed"), again.json()), (Some("true"), signed.clone()));
    // To have it signed is another request than to have it sent.
    assert_problem(&sender.post(TRANSACTIONS, "a", &payment(&json!({ "to": to }))), 409, "idempotency-conflict");
    anvil.ask("evm_mine", &json!([]));
    let mined = sender.becomes("a", "mined");
    assert_eq!((&mined["succeeded"], &mined["block"]), (&json!(true), &json!(1)), "{mined}");
    anvil.ask("anvil_mine", &json!([2]));
    sender.becomes("a", "confirmed");
    assert_eq!((balance(&anvil, &to), count(&anvil, &sender.address)), (1_000_000_000_000_000, 1));
    assert_problem(&sender.replace("a", "late", &json!({ "action": "cancel" })), 409, "already-decided");
    assert!(!signer.logs().contains("held up"), "{}", signer.logs());
}

#[test]
fn who_gives_a_nonce_may_do_so() {
    let anvil = Anvil::start();
    let sender = Sender::on(&anvil, "", "");
    let _signer = sender.start();
    let denied = assert_problem(&sender.send("a", &json!({ "nonce": 0 })), 403, "policy-denied");
    assert_eq!(denied["rule"], "allow_nonce");
    assert_eq!(sender.sent("b", &json!({}))["nonce"], 0);
    let config = std::fs::read_to_string(sender.home.path("keygate.toml")).expect("a configuration");
    sender.home.config(&config.replace("[signer.policies.payouts]", "[signer.policies.payouts]\nallow_nonce = true"));
    let given = wait_until(SOON, "the policy is loosened", || {
        let answer = sender.send("c", &json!({ "nonce": 1 }));
        (answer.status == 200).then(|| answer.json())
    });
    assert_eq!((&given["nonce"], &sender.sent("d", &json!({}))["nonce"]), (&json!(1), &json!(2)));
}

/// Whichever way it is asked for: what takes a transaction's nonce replaces it, as the policy allows.
#[test]
fn who_gives_a_nonce_that_a_transaction_has_replaces_it() {
    let anvil = Anvil::with(&["--no-mining"]);
    let limits = "allow_nonce = true\nreplacements = { max = 2, max_fee_bump_percent = 20 }";
    let sender = Sender::on(&anvil, "confirmations = 1", limits);
    let _signer = sender.start();
    let to = nobody(7);
    assert_eq!(sender.sent("a", &json!({ "to": to }))["nonce"], 0);
    // Another payment; and one that is too dear.
    let fees = |fee: &str, tip: &str| json!({ "to": to, "nonce": 0, "maxFeePerGas": fee, "maxPriorityFeePerGas": tip });
    for fields in [json!({ "to": to, "nonce": 0, "value": "2" }), fees("24000000001", "1000000000")] {
        assert_eq!(assert_problem(&sender.send("b", &fields), 403, "policy-denied")["rule"], "replacements");
        let asked = json!({
            "from": sender.address, "to": to, "nonce": "0x0", "value": "0x2", "gas": "0x5208",
            "maxFeePerGas": "0x4a817c800", "maxPriorityFeePerGas": "0x3b9aca00",
        });
        for method in ["eth_signTransaction", "eth_sendTransaction"] {
            let denied = rpc(&sender.home, method, &json!([asked]));
            assert_eq!(denied["error"]["data"]["rule"], "replacements", "{denied}");
        }
    }
    let faster = sender.sent("c", &fees("24000000000", "1200000000"));
    assert_eq!(faster["nonce"], 0);
    let asked = json!([{
        "from": sender.address, "to": to, "nonce": "0x0", "value": "0x38d7ea4c68000", "gas": "0x5208",
        "maxFeePerGas": "0x6553f1000", "maxPriorityFeePerGas": "0x55d4a800",
    }]);
    let fastest = rpc(&sender.home, "eth_sendTransaction", &asked);
    assert!(fastest["result"].is_string(), "{fastest}");
    let denied = rpc(&sender.home, "eth_sendTransaction", &asked);
    assert_eq!(denied["error"]["data"]["rule"], "replacements", "{denied}");
    // As the other way is: it was replaced twice.
    let denied = sender.replace("a", "d", &json!({ "action": "speed-up" }));
    assert_eq!(assert_problem(&denied, 403, "policy-denied")["rule"], "replacements");
    // What nobody has is replaced by nobody.
    assert_eq!(sender.sent("e", &json!({ "to": nobody(8), "nonce": 1 }))["nonce"], 1);
    anvil.ask("evm_mine", &json!([]));
    sender.becomes("e", "confirmed");
    for name in ["a", "c"] {
        sender.becomes(name, "replaced");
    }
    assert_eq!(anvil.ask("eth_getTransactionByHash", &json!([fastest["result"]]))["blockNumber"], "0x1");
    assert_eq!(balance(&anvil, &to), 1_000_000_000_000_000);
}

#[test]
fn a_speed_up_takes_its_place() {
    let anvil = Anvil::with(&["--no-mining"]);
    let sender = Sender::on(&anvil, "confirmations = 1", "replacements = { max = 2 }\ndaily_value = \"0.0015 ether\"");
    let _signer = sender.start();
    let to = nobody(2);
    let first = sender.sent("a", &json!({ "to": to }));
    let speed_up = json!({ "action": "speed-up" });
    let faster = ok(&sender.replace("a", "b", &speed_up));
    assert_eq!(faster["nonce"], 0);
    assert_ne!(faster["hash"], first["hash"]);
    // The pool has it instead.
    assert!(anvil.ask("eth_getTransactionByHash", &json!([first["hash"]])).is_null());
    // And another that the caller prices; but not below what nodes take in its place.
    for (fee, tip) in [("1000000000", "1000000000"), ("90000000000", "1000000000")] {
        let low = json!({ "action": "speed-up", "maxFeePerGas": fee, "maxPriorityFeePerGas": tip });
        let denied = assert_problem(&sender.replace("b", "low", &low), 403, "policy-denied");
        assert_eq!(denied["rule"], "replacements", "{denied}");
    }
    let body = json!({ "action": "speed-up", "maxFeePerGas": "90000000000", "maxPriorityFeePerGas": "9000000000" });
    let fastest = ok(&sender.replace("b", "c", &body));
    let denied = assert_problem(&sender.replace("a", "d", &speed_up), 403, "policy-denied");
    assert_eq!(denied["rule"], "replacements");
    anvil.ask("evm_mine", &json!([]));
    sender.becomes("c", "confirmed");
    for name in ["a", "b"] {
        assert_eq!(sender.becomes(name, "replaced")["replacedBy"], fastest["hash"]);
    }
    // Asked again, it is the first answer, though nothing could be replaced any more.
    let again = sender.replace("a", "b", &speed_up);
    assert_eq!((again.header("idempotent-replayed"), &again.json()["hash"]), (Some("true"), &faster["hash"]));
    let other = sender.replace("a", "b", &json!({ "action": "cancel" }));
    assert_problem(&other, 409, "idempotency-conflict");
    let receipt = anvil.ask("eth_getTransactionReceipt", &json!([fastest["hash"]]));
    assert_eq!((&receipt["status"], balance(&anvil, &to)), (&json!("0x1"), 1_000_000_000_000_000));
    // It counts once.
    assert_eq!(sender.sent("e", &json!({ "value": "500000000000000" }))["nonce"], 1);
}

#[test]
fn a_cancelled_payment_is_not_made() {
    let anvil = Anvil::with(&["--no-mining"]);
    // What limits speed-ups keeps nothing from being cancelled.
    let policy = format!("to = [\"{}\"]\nreplacements = {{ max = 0, max_fee_bump_percent = 0 }}", nobody(3));
    let sender = Sender::on(&anvil, "confirmations = 1", &policy);
    let _signer = sender.start();
    let to = nobody(3);
    sender.sent("a", &json!({ "to": to, "maxFeePerGas": "2000000000", "maxPriorityFeePerGas": "1" }));
    let cancel = ok(&sender.replace("a", "b", &json!({ "action": "cancel" })));
    anvil.ask("evm_mine", &json!([]));
    sender.becomes("b", "confirmed");
    sender.becomes("a", "replaced");
    let mined = anvil.ask("eth_getTransactionByHash", &json!([cancel["hash"]]));
    assert_eq!(mined["to"].as_str().map(str::to_lowercase), Some(sender.address.to_lowercase()));
    assert_eq!((balance(&anvil, &to), count(&anvil, &sender.address)), (0, 1));
    assert_problem(&sender.replace("nothing", "c", &json!({ "action": "cancel" })), 404, "not-found");
    let wrong = assert_problem(&sender.replace("a", "d", &json!({ "action": "undo" })), 400, "invalid-transaction");
    assert_eq!(wrong["field"], "action");
}

#[test]
fn what_the_pool_loses_is_sent_again() {
    let anvil = Anvil::with(&["--no-mining"]);
    let sender = Sender::on(&anvil, "confirmations = 1\nrebroadcast = \"1s\"", "");
    let _signer = sender.start();
    let signed = sender.sent("a", &json!({}));
    anvil.ask("anvil_dropTransaction", &json!([signed["hash"]]));
    assert!(anvil.ask("eth_getTransactionByHash", &json!([signed["hash"]])).is_null());
    sender.wait("a", "sent again", |progress| progress["attempts"] == 2);
    assert!(!anvil.ask("eth_getTransactionByHash", &json!([signed["hash"]])).is_null());
    anvil.ask("evm_mine", &json!([]));
    sender.becomes("a", "confirmed");
}

#[test]
fn what_a_reorganisation_takes_back_is_mined_again() {
    let anvil = Anvil::with(&["--no-mining"]);
    let sender = Sender::on(&anvil, "confirmations = 5\nrebroadcast = \"1s\"", "");
    let _signer = sender.start();
    let before = anvil.ask("evm_snapshot", &json!([]));
    sender.sent("a", &json!({}));
    anvil.ask("evm_mine", &json!([]));
    sender.becomes("a", "mined");
    anvil.ask("evm_revert", &json!([before]));
    anvil.ask("anvil_dropAllTransactions", &json!([]));
    let back = sender.wait("a", "sent again", |progress| progress["state"] == "sent" && progress["attempts"] == 2);
    assert!(back["block"].is_null() && back["succeeded"].is_null(), "{back}");
    anvil.ask("anvil_mine", &json!([5]));
    sender.becomes("a", "confirmed");
    assert_eq!(count(&anvil, &sender.address), 1);
}

#[test]
fn what_no_block_has_for_long_is_stuck_until_one_has() {
    let anvil = Anvil::with(&["--no-mining"]);
    let sender = Sender::on(&anvil, "confirmations = 1\nstuck_after = \"1s\"", "");
    let signer = sender.start();
    sender.sent("a", &json!({}));
    let stuck = sender.wait("a", "stuck", |progress| progress["stuck"] == true);
    assert_eq!(stuck["state"], "sent");
    assert!(signer.stderr().contains("it may be replaced"), "{}", signer.stderr());
    anvil.ask("evm_mine", &json!([]));
    assert_eq!(sender.becomes("a", "confirmed")["stuck"], false);
}

#[test]
fn what_a_node_refuses_is_sent_when_it_can_be() {
    let anvil = Anvil::start();
    let sender = Sender::new(&anvil.url, PRIVATE_KEY, "confirmations = 1\nrebroadcast = \"1s\"", "");
    let _signer = sender.start();
    let to = nobody(4);
    let signed = sender.sent("a", &json!({ "to": to }));
    let queued = sender.progress("a");
    assert_eq!(queued["state"], "queued");
    assert!(queued["note"].as_str().is_some_and(|note| note.to_lowercase().contains("insufficient funds")), "{queued}");
    anvil.fund(&sender.address);
    let sent = sender.becomes("a", "confirmed");
    assert!(sent["note"].is_null(), "{sent}");
    assert_eq!(balance(&anvil, &to), 1_000_000_000_000_000);
    assert_eq!(sender.sent("a", &json!({ "to": to }))["hash"], signed["hash"]);
    assert_eq!(count(&anvil, &sender.address), 1);
}

/// A node that cannot be reached keeps nothing from being signed once its nonces are known.
#[test]
fn what_is_signed_while_the_node_is_away_is_sent_when_it_is_back() {
    let anvil = Anvil::start();
    let hole = free_port();
    let sender = Sender::new(&format!("http://127.0.0.1:{hole}"), PRIVATE_KEY, "confirmations = 1", "");
    anvil.fund(&sender.address);
    let mut signer = sender.start();
    // Nobody here knows which nonce comes next.
    assert_problem(&sender.send("a", &json!({})), 503, "chain-unavailable");
    let to = anvil.url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let the_way = relay(hole, to);
    sender.sent("a", &json!({}));
    sender.becomes("a", "confirmed");
    drop(the_way);
    let away = sender.sent("b", &json!({}));
    assert_eq!((&away["nonce"], &sender.progress("b")["state"]), (&json!(1), &json!("queued")));
    // Neither does a start without its node lose anything.
    signer.kill9();
    let _signer = sender.start();
    assert_eq!(sender.progress("b")["state"], "queued");
    assert_eq!(sender.sent("b", &json!({}))["hash"], away["hash"]);
    let _the_way = relay(hole, to);
    sender.becomes("b", "confirmed");
    assert_eq!(count(&anvil, &sender.address), 2);
}

#[test]
fn a_hundred_at_once_have_a_hundred_nonces() {
    for (chain, args) in [("confirmations = 1", &[][..]), ("confirmations = 1", &["--no-mining"][..])] {
        let anvil = Anvil::with(args);
        let sender = Sender::on(&anvil, chain, "");
        let _signer = sender.start();
        let to = nobody(5);
        let tx = json!({ "from": sender.address, "to": to, "value": "0x1" });
        let hashes: BTreeSet<String> = std::thread::scope(|scope| {
            let asking: Vec<_> =
                (0..100).map(|_| scope.spawn(|| rpc(&sender.home, "eth_sendTransaction", &json!([tx])))).collect();
            let answers = asking.into_iter().map(|thread| thread.join().expect("an answer"));
            answers.map(|answer| answer["result"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()).collect()
        });
        assert_eq!(hashes.len(), 100);
        wait_until(SOON, "all are mined", || {
            if args.contains(&"--no-mining") {
                anvil.ask("evm_mine", &json!([]));
            }
            (count(&anvil, &sender.address) == 100).then_some(())
        });
        assert_eq!(balance(&anvil, &to), 100);
        let nonces = sender.nonces();
        assert_eq!(
            (&nonces["next"], &nonces["gaps"], &nonces["unsigned"]),
            (&json!(100), &json!([]), &json!([])),
            "{nonces}"
        );
    }
}

/// A call of JSON-RPC.
#[track_caller]
pub(super) fn rpc(home: &Home, method: &str, params: &Value) -> Value {
    rpc_as(home, method, params, &[])
}

#[track_caller]
pub(super) fn rpc_as(home: &Home, method: &str, params: &Value, args: &[&str]) -> Value {
    let token = format!("Authorization: Bearer {TOKEN}");
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
    ask(home, "/", &[&["-H", &token, "-H", JSON, "-d", &body], args].concat()).json()
}

#[test]
fn a_call_with_an_idempotency_key_is_one_whatever_it_would_be_filled_with() {
    let (anvil, port) = (Anvil::start(), free_port());
    let sender = Sender::new(&format!("http://127.0.0.1:{port}"), PRIVATE_KEY, "", "");
    anvil.fund(&sender.address);
    let to = anvil.url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let the_way = relay(port, to);
    let _signer = sender.start();
    let tx = json!([{ "from": sender.address, "to": nobody(6), "value": "0x1" }]);
    let named =
        |method: &str, name: &str| rpc_as(&sender.home, method, &tx, &["-H", &format!("Idempotency-Key: {name}")]);
    let first = named("eth_sendTransaction", "a");
    assert!(first["result"].is_string(), "{first}");
    let signed = named("eth_signTransaction", "b");
    assert_eq!(signed["result"]["tx"]["nonce"], "0x1", "{signed}");
    wait_until(SOON, "it is mined", || (count(&anvil, &sender.address) == 1).then_some(()));
    // The chain's fees are others by now.
    anvil.ask("anvil_mine", &json!([30]));
    assert_eq!(named("eth_signTransaction", "b"), signed, "what is answered is what was signed");
    let conflict = named("eth_signTransaction", "a");
    assert_eq!(conflict["error"]["data"]["type"], "urn:keygate:problem:idempotency-conflict", "{conflict}");
    // Nothing could be filled any more.
    drop(the_way);
    assert_eq!(named("eth_sendTransaction", "a"), first);
    assert_eq!(named("eth_signTransaction", "b"), signed);
    assert!(named("eth_sendTransaction", "c")["error"].is_object());
    assert_eq!((count(&anvil, &sender.address), balance(&anvil, &nobody(6))), (1, 1));
}

#[test]
fn what_a_key_refuses_gives_its_nonce_to_the_next() {
    let (anvil, wallet) = (Anvil::with(&["--no-mining"]), Wallet::new());
    let key = format!("kms = {{ key_id = \"{}\", endpoint = \"{}\" }}", wallet.key.arn, Kms::shared().url);
    let sender = Sender { home: home(&key, &anvil.url, "confirmations = 1", ""), address: wallet.address().to_owned() };
    anvil.fund(&sender.address);
    let _signer = sender.start();
    // The first waits for KMS; the second is refused; the third is behind it.
    Kms::shared().slow(&wallet.key, 2.0);
    std::thread::scope(|scope| {
        let before = wallet.kms_signs();
        let first = scope.spawn(|| sender.sent("a", &json!({})));
        wait_until(SOON, "KMS is asked", || (wallet.kms_signs() > before).then_some(()));
        Kms::shared().fault(&wallet.key, "denied", 1);
        assert_problem(&sender.send("b", &json!({})), 502, "key-access-denied");
        assert_eq!(first.join().expect("an answer")["nonce"], 0);
    });
    assert_eq!(sender.nonces()["gaps"], json!([1]));
    assert_eq!(sender.sent("c", &json!({}))["nonce"], 1);
    assert_eq!(sender.sent("b", &json!({}))["nonce"], 2);
    assert_eq!(sender.nonces()["gaps"], json!([]));
    anvil.ask("evm_mine", &json!([]));
    for name in ["a", "b", "c"] {
        sender.becomes(name, "confirmed");
    }
}

/// Somebody else's transaction had a nonce in the pool, and is gone: what was signed since waits behind it.
#[test]
fn a_gap_is_seen_and_filled() {
    let anvil = Anvil::with(&["--no-mining"]);
    let sender = Sender::on(&anvil, "confirmations = 1\nrebroadcast = \"1s\"", "");
    let _signer = sender.start();
    let theirs = outside(&anvil, 0);
    assert_eq!(sender.sent("a", &json!({}))["nonce"], 1);
    let fill =
        |name: &str, nonce: u64| sender.post("/v1/keys/hot-wallet/nonces/test/fill", name, &json!({ "nonce": nonce }));
    assert_eq!(assert_problem(&fill("f", 0), 403, "policy-denied")["rule"], "nonce");
    anvil.ask("anvil_dropTransaction", &json!([theirs]));
    let nonces = sender.nonces();
    assert_eq!(
        (&nonces["latest"], &nonces["gaps"], &nonces["signed"]),
        (&json!(0), &json!([0]), &json!(1)),
        "{nonces}"
    );
    let filled = ok(&fill("g", 0));
    assert_eq!(filled["nonce"], 0);
    assert_eq!(ok(&fill("g", 0))["hash"], filled["hash"]);
    assert_problem(&fill("g", 1), 409, "idempotency-conflict");
    assert_eq!(assert_problem(&fill("h", 0), 403, "policy-denied")["rule"], "nonce");
    wait_until(SOON, "both are mined", || {
        anvil.ask("evm_mine", &json!([]));
        (count(&anvil, &sender.address) == 2).then_some(())
    });
    sender.becomes("g", "confirmed");
    sender.becomes("a", "confirmed");
    assert_eq!(count(&anvil, &sender.address), 2);
}

/// A payment of the same key that keygate knows nothing of: its hash.
fn outside(anvil: &Anvil, nonce: u64) -> Value {
    let tx = payment(
        &json!({ "nonce": nonce, "value": "1", "maxFeePerGas": "0x4a817c800", "maxPriorityFeePerGas": "1000000000" }),
    );
    let job = json!([{ "kind": "transaction", "key": format!("0x{PRIVATE_KEY}"), "of": tx }]);
    let signed = run(&mut sign_with_ethers(), job.to_string().as_bytes()).json();
    anvil.ask("eth_sendRawTransaction", &json!([signed[0]["raw"]]))
}

#[test]
fn who_uses_the_key_elsewhere_is_noticed() {
    let anvil = Anvil::start();
    let sender = Sender::on(&anvil, "confirmations = 1", "");
    let signer = sender.start();
    assert_eq!(sender.sent("a", &json!({}))["nonce"], 0);
    wait_until(SOON, "it is mined", || (count(&anvil, &sender.address) == 1).then_some(()));
    outside(&anvil, 1);
    wait_until(SOON, "it is mined", || (count(&anvil, &sender.address) == 2).then_some(()));
    // What was counted a moment ago is not asked again at once: this one comes too late, which is found out.
    if sender.sent("b", &json!({}))["nonce"] == 1 {
        sender.becomes("b", "replaced");
        assert_eq!(sender.sent("c", &json!({}))["nonce"], 2);
        sender.becomes("c", "confirmed");
    }
    // A new start asks.
    drop(signer);
    let next = count(&anvil, &sender.address);
    outside(&anvil, next);
    wait_until(SOON, "it is mined", || (count(&anvil, &sender.address) == next + 1).then_some(()));
    let _signer = sender.start();
    assert_eq!(sender.sent("d", &json!({}))["nonce"], next + 1);
    sender.becomes("d", "confirmed");
}

/// It is told by which, as it may be paid anew then.
#[test]
fn what_somebody_elses_transaction_replaces_is_told_so() {
    let anvil = Anvil::with(&["--no-mining"]);
    let sender = Sender::on(&anvil, "confirmations = 2", "");
    let _signer = sender.start();
    let signed = sender.sent("a", &json!({}));
    assert!(sender.progress("a")["replacedBy"].is_null());
    anvil.ask("anvil_dropTransaction", &json!([signed["hash"]]));
    let theirs = outside(&anvil, 0);
    anvil.ask("anvil_mine", &json!([2]));
    let replaced = sender.becomes("a", "replaced");
    assert_eq!((&replaced["replacedBy"], &replaced["stuck"]), (&theirs, &json!(false)), "{replaced}");
    assert_eq!(sender.sent("b", &json!({}))["nonce"], 1);
}

/// A node that has mined it, and shows neither it nor its receipt: it is not paid again, as nobody is told that it may be.
#[test]
fn what_a_node_does_not_show_is_never_called_replaced() {
    let anvil = Anvil::start();
    let liar = Liar::before(&anvil.url);
    let chain = "confirmations = 1\nrebroadcast = \"1s\"\nstuck_after = \"1s\"";
    let sender = Sender::new(&liar.url, PRIVATE_KEY, chain, "");
    anvil.fund(&sender.address);
    let signer = sender.start();
    for method in ["eth_getTransactionReceipt", "eth_getTransactionByHash", "eth_getBlockByNumber"] {
        liar.says(method, Value::Null);
    }
    sender.sent("a", &json!({}));
    wait_until(SOON, "it is mined", || (count(&anvil, &sender.address) == 1).then_some(()));
    let stuck = sender.wait("a", "stuck", |progress| progress["stuck"] == true);
    assert_eq!((&stuck["state"], &stuck["attempts"]), (&json!("sent"), &json!(1)), "{stuck}");
    assert!(stuck["note"].as_str().is_some_and(|note| note.contains("its nonce is used")), "{stuck}");
    // Its block has it, though nothing else says so.
    liar.is_honest();
    for method in ["eth_getTransactionReceipt", "eth_getTransactionByHash"] {
        liar.says(method, Value::Null);
    }
    let mined = sender.wait("a", "mined", |progress| progress["state"] != "sent");
    assert_eq!((&mined["state"], &mined["block"], &mined["succeeded"]), (&json!("mined"), &json!(1), &Value::Null));
    liar.is_honest();
    let confirmed = sender.becomes("a", "confirmed");
    assert_eq!((&confirmed["attempts"], &confirmed["replacedBy"]), (&json!(1), &Value::Null), "{confirmed}");

    // Nor is one that waits, when a node counts too many.
    anvil.ask("anvil_setAutomine", &json!([false]));
    sender.sent("b", &json!({}));
    liar.says("eth_getTransactionCount", json!("0x5"));
    liar.says("eth_getTransactionByHash", Value::Null);
    sender.wait("b", "stuck", |progress| progress["note"].as_str().is_some_and(|note| note.contains("is used")));
    liar.is_honest();
    anvil.ask("evm_mine", &json!([]));
    sender.becomes("b", "confirmed");
    assert!(!signer.logs().contains("\"replaced\""), "{}", signer.logs());
}

/// A node counts too many transactions, once: one payment comes too early for good, and no other does.
#[test]
fn a_node_that_was_wrong_jams_nothing() {
    let anvil = Anvil::start();
    let liar = Liar::before(&anvil.url);
    let sender = Sender::new(&liar.url, PRIVATE_KEY, "confirmations = 1", "");
    anvil.fund(&sender.address);
    let signer = sender.start();
    assert_eq!(sender.sent("a", &json!({}))["nonce"], 0);
    sender.becomes("a", "confirmed");
    drop(signer);
    // What is asked for by a start is answered wrongly; and by the next, rightly.
    liar.says("eth_getTransactionCount", json!("0xf4240"));
    let signer = sender.start();
    assert_eq!(sender.sent("early", &json!({}))["nonce"], 1_000_000);
    liar.is_honest();
    drop(signer);
    let signer = sender.start();
    for (name, nonce) in [("b", 1), ("c", 2)] {
        assert_eq!(sender.sent(name, &json!({}))["nonce"], nonce);
        sender.becomes(name, "confirmed");
    }
    let nonces = sender.nonces();
    assert_eq!((&nonces["latest"], &nonces["gaps"][0], &nonces["next"]), (&json!(3), &json!(3), &json!(1_000_001)));
    assert_eq!(sender.progress("early")["state"], "sent");
    // A node that has just begun counts too few: what is used is not chosen.
    outside(&anvil, 3);
    outside(&anvil, 4);
    drop(signer);
    let signer = sender.start();
    assert_eq!(sender.sent("d", &json!({}))["nonce"], 5);
    sender.becomes("d", "confirmed");
    drop(signer);
    liar.says("eth_getTransactionCount", json!("0x0"));
    let _signer = sender.start();
    assert_eq!(sender.sent("e", &json!({}))["nonce"], 6);
}

#[test]
fn what_cannot_be_sent_is_not_signed_to_be_sent() {
    let anvil = Anvil::start();
    let sender = Sender::on(&anvil, "", "");
    let _signer = sender.start();
    let blob = json!({
        "type": 3, "maxFeePerBlobGas": 1, "blobVersionedHashes": [format!("0x01{}", "00".repeat(31))],
    });
    let problem = assert_problem(&sender.send("a", &blob), 400, "bad-request");
    assert!(problem["detail"].as_str().is_some_and(|why| why.contains("blobs")), "{problem}");
    let wrong = sender.post(&format!("{TRANSACTIONS}?send=yes"), "b", &payment(&json!({})));
    assert_problem(&wrong, 400, "bad-request");
    // Nothing was reserved.
    assert_eq!(sender.sent("c", &json!({}))["nonce"], 0);

    // A chain without a node.
    let wallet = Wallet::new();
    let _signer = wallet.start();
    let path = format!("{TRANSACTIONS}?send=true");
    let here = Sender { home: wallet.home.clone(), address: wallet.address().to_owned() };
    assert_problem(&here.post(&path, "a", &wallet.payment(&json!({}))), 400, "bad-request");
    let unnumbered = here.post(TRANSACTIONS, "b", &wallet.payment(&json!({ "nonce": null })));
    assert_eq!(assert_problem(&unnumbered, 400, "invalid-transaction")["field"], "nonce");
    assert_eq!(wallet.kms_signs(), 0);
}
