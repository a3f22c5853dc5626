//! `keygate signer`: a transaction's way from a caller to the chain, and everything that must stop it.

mod again;
mod approvals;
mod audit;
mod callers;
mod chain;
mod clients;
mod crash;
mod crash_steps;
mod delegated;
mod disk;
mod doctor;
mod example;
mod faults;
mod hardening;
mod keys;
mod kinds;
mod kms;
mod kms_stub;
mod listeners;
mod lone;
mod nodes;
mod openapi;
mod policies;
mod postgres;
mod postgres_faults;
mod reload;
mod requests;
mod secrets;
mod sending;
mod setup;
mod sign;

use serde_json::{Value, json};

use crate::support::{Chain, Home, Identity, Keygate, Kms, KmsKey, Response, SOON, curl};

/// The caller's token in all these tests.
const TOKEN: &str = "a-token-of-the-payments-service";

/// A key in KMS, and a folder with a configuration that lets the caller `payments` use it for everything.
struct Wallet {
    home: Home,
    key: KmsKey,
    identity: Identity,
}

impl Wallet {
    fn new() -> Self {
        Self::with("")
    }

    /// With more lines in the table `[signer.policies.payouts]`.
    fn with(policy: &str) -> Self {
        Self::of(Kms::shared(), "timeout = \"10s\"", policy)
    }

    /// With a key in this KMS, and more fields in `kms = { ... }`.
    fn of(kms: &Kms, key_fields: &str, policy: &str) -> Self {
        let key = kms.create_key();
        let identity = kms.identity(&key);
        let address = &identity.address;
        let key_lines = format!(
            "kms = {{ key_id = {:?}, endpoint = {:?}, {key_fields} }}\naddress = {address:?}",
            key.arn, kms.url
        );
        let home = home(SQLITE, &key_lines, ("hardhat", Chain::ID, ""), policy);
        Self { home, key, identity }
    }

    /// `keygate signer`, listening.
    #[track_caller]
    fn start(&self) -> Keygate {
        listening(self.home.start("signer"))
    }

    fn address(&self) -> &str {
        &self.identity.address
    }

    /// A transaction of type 2 that any chain takes, with these fields instead.
    fn payment(&self, fields: &Value) -> Value {
        let payment = json!({
            "chainId": Chain::ID, "type": 2, "nonce": 0, "to": RECIPIENT, "value": "1000000000000000",
            "gas": 21_000, "maxFeePerGas": "0x2540be400", "maxPriorityFeePerGas": "1000000000",
        });
        merged(payment, fields)
    }

    /// Asks for a signature, under an idempotency key.
    #[track_caller]
    fn sign(&self, idempotency_key: &str, transaction: &Value) -> Response {
        sign(&self.home, "hot-wallet", idempotency_key, transaction)
    }

    /// Asks for a signature that must be given.
    #[track_caller]
    fn signed(&self, idempotency_key: &str, transaction: &Value) -> Value {
        let answer = self.sign(idempotency_key, transaction);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// How often KMS was asked for a signature.
    fn kms_signs(&self) -> u64 {
        Kms::shared().calls(&self.key, "Sign")
    }
}

const SQLITE: &str = "\"sqlite:ledger/ledger.db\"";

/// A folder with a configuration: this ledger; one key, `hot-wallet`, with these lines; a chain of this name and id, with
/// these lines; and the caller `payments`, who may use the key under the policy `payouts`, with these lines.
fn home(ledger: &str, key: &str, (chain, id, nodes): (&str, u64, &str), policy: &str) -> Home {
    let local = key.starts_with("local");
    let home = Home::new(&format!(
        r#"
        [signer]
        listen = "unix:state/signer.sock"
        ledger = {ledger}
        allow_local_keys = {local}
        [signer.keys.hot-wallet]
        {key}
        [signer.chains.{chain}]
        id = {id}
        {nodes}
        [signer.callers.payments]
        token_file = "secrets/payments.token"
        keys = ["hot-wallet"]
        policy = "payouts"
        [signer.policies.payouts]
        {policy}
        "#
    ));
    home.secret("secrets/payments.token", TOKEN);
    home
}

/// Nobody's.
const RECIPIENT: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";

/// `base` with `fields` instead; null takes a field out.
fn merged(mut base: Value, fields: &Value) -> Value {
    for (name, value) in fields.as_object().expect("an object") {
        if value.is_null() {
            base.as_object_mut().expect("an object").remove(name);
        } else {
            base[name] = value.clone();
        }
    }
    base
}

/// Waits until a signer takes connections.
#[track_caller]
fn listening(mut signer: Keygate) -> Keygate {
    let socket = signer.home.path("state/signer.sock");
    signer.wait_until(SOON, "the signer listens", |_| std::os::unix::net::UnixStream::connect(&socket).ok());
    signer
}

/// POST to a key's transactions, as the caller `payments`.
#[track_caller]
fn sign(home: &Home, key: &str, idempotency_key: &str, transaction: &Value) -> Response {
    let token = format!("Authorization: Bearer {TOKEN}");
    let idempotency_key = format!("Idempotency-Key: {idempotency_key}");
    let path = format!("/v1/keys/{key}/transactions");
    ask(home, &path, &["-H", &token, "-H", &idempotency_key, "-H", JSON, "-d", &transaction.to_string()])
}

const JSON: &str = "Content-Type: application/json";

/// curl, to the signer's socket.
#[track_caller]
fn ask(home: &Home, path: &str, args: &[&str]) -> Response {
    let socket = home.path("state/signer.sock").display().to_string();
    curl(["--unix-socket", &socket, &format!("http://signer{path}")].iter().chain(args))
}

/// An answer must be a problem of this status and type, complete as RFC 9457 and DESIGN.md want it.
#[track_caller]
fn assert_problem(answer: &Response, status: u16, kind: &str) -> Value {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let problem = answer.json();
    assert_eq!(problem["type"], format!("urn:keygate:problem:{kind}"), "{problem}");
    assert_eq!(problem["status"], status, "{problem}");
    for field in ["title", "detail", "request_id"] {
        assert!(problem[field].as_str().is_some_and(|text| !text.is_empty()), "{field} of {problem}");
    }
    for field in ["raw", "hash", "r", "s"] {
        assert!(problem.get(field).is_none(), "{problem}");
    }
    assert!(!answer.text().contains(TOKEN), "{problem}");
    problem
}
