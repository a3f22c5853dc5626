//! Everything that is signed besides plain transactions: blobs, delegations, messages, typed data, authorizations.

use serde_json::{Value, json};

use super::{JSON, RECIPIENT, TOKEN, Wallet, ask, assert_problem, merged};
use crate::support::{Chain, Response, run, sign_with_ethers, verify_with_eth_account, verify_with_ethers};

const TOKEN_CONTRACT: &str = "0x5FbDB2315678afecb367f032d93F642f64180aa3";
const STRANGER: &str = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";
/// Of an empty blob, whose commitment and proof are the point at infinity.
const VERSIONED_HASH: &str = "0x010657f37554c781402a22917dee2f75def7ab966d7b770905398eba3c444014";

impl Wallet {
    /// POST to `/v1/keys/hot-wallet/{what}`, of a body that is too long for an argument.
    #[track_caller]
    pub(super) fn post(&self, what: &str, headers: &[&str], body: &Value) -> Response {
        let file = self.home.write("body.json", body.to_string());
        let (token, body) = (format!("Authorization: Bearer {TOKEN}"), format!("@{}", file.display()));
        let args = [&["-H", &token, "-H", JSON, "--data-binary", &body], headers].concat();
        ask(&self.home, &format!("/v1/keys/hot-wallet/{what}"), &args)
    }

    /// What is no transaction, and must be signed.
    #[track_caller]
    fn said(&self, what: &str, body: &Value) -> Value {
        let answer = self.post(what, &[], body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }
}

fn infinity() -> String {
    format!("0xc0{}", "00".repeat(47))
}

/// Of type 3, with an empty blob, and so many proofs of it.
fn with_blob(wallet: &Wallet, fields: &Value, proofs: usize) -> Value {
    let blob = format!("0x{}", "00".repeat(131_072));
    let blobs = json!({
        "type": 3, "maxFeePerBlobGas": 1_000_000_000, "blobVersionedHashes": [VERSIONED_HASH],
        "blobs": [blob], "commitments": [infinity()], "proofs": vec![infinity(); proofs],
    });
    merged(wallet.payment(&blobs), fields)
}

#[test]
fn blobs_are_signed_checked_and_mined() {
    let (wallet, chain) = (Wallet::new(), Chain::shared());
    let _signer = wallet.start();
    chain.fund(wallet.address());
    // With a proof of each blob (EIP-4844), or of each of its 128 cells (EIP-7594).
    for (nonce, proofs) in [(0, 1), (1, 128)] {
        let body = with_blob(&wallet, &json!({ "nonce": nonce }), proofs);
        let key = format!("Idempotency-Key: blob-{nonce}");
        let answer = wallet.post("transactions", &["-H", &key], &body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let signed = answer.json();
        let raw = wallet.home.write("raw", signed["raw"].as_str().expect("raw"));
        let seen = verify_with_ethers(&format!("@{}", raw.display()));
        assert_eq!((&seen["from"], &seen["hash"]), (&signed["from"], &signed["hash"]), "{seen}");
        assert_eq!((&seen["type"], &seen["blobVersionedHashes"]), (&json!(3), &json!([VERSIONED_HASH])), "{seen}");
        assert_eq!((&seen["blobs"], &seen["maxFeePerBlobGas"]), (&json!([infinity()]), &json!("1000000000")), "{seen}");
        // Without the blobs, which the ledger does not keep, it is the same transaction.
        let token = format!("Authorization: Bearer {TOKEN}");
        let path = format!("/v1/keys/hot-wallet/transactions/blob-{nonce}");
        let stored = ask(&wallet.home, &path, &["-H", &token]).json();
        assert_eq!(stored["hash"], signed["hash"]);
        for seen in
            [verify_with_ethers, verify_with_eth_account].map(|verify| verify(stored["raw"].as_str().expect("raw")))
        {
            assert_eq!((&seen["from"], &seen["hash"]), (&signed["from"], &signed["hash"]), "{seen}");
        }
        let again = wallet.post("transactions", &["-H", &key], &body);
        assert_eq!((again.header("idempotent-replayed"), &again.body), (Some("true"), &answer.body));
        if proofs == 1 {
            let hash = chain.send_file(&raw).expect("the chain takes it");
            assert_eq!(hash, signed["hash"]);
            let receipt = chain.receipt(&hash);
            assert_eq!((&receipt["status"], &receipt["type"]), (&json!("0x1"), &json!("0x3")), "{receipt}");
        }
    }
    assert_eq!(wallet.kms_signs(), 2);
    // Other blobs under a name that is taken.
    let other = with_blob(&wallet, &json!({ "nonce": 0 }), 128);
    let answer = wallet.post("transactions", &["-H", "Idempotency-Key: blob-0"], &other);
    assert_problem(&answer, 409, "idempotency-conflict");
    let wrong = with_blob(&wallet, &json!({ "commitments": [format!("0xc1{}", "00".repeat(47))] }), 1);
    let answer = wallet.post("transactions", &["-H", "Idempotency-Key: blob-2"], &wrong);
    assert_eq!(assert_problem(&answer, 400, "invalid-transaction")["field"], "blobVersionedHashes[0]");
}

#[test]
fn an_account_is_delegated_and_the_delegation_mined() {
    let wallet = Wallet::with(&format!("delegates = [\"{TOKEN_CONTRACT}\"]"));
    let chain = Chain::shared();
    let _signer = wallet.start();
    chain.fund(wallet.address());
    // By the sender itself, whose nonce the transaction has taken by then; and by somebody else.
    let own = wallet.said("authorizations", &json!({ "chainId": Chain::ID, "address": TOKEN_CONTRACT, "nonce": 1 }));
    assert_eq!(own["authority"], wallet.address());
    let key = format!("0x{}", "11".repeat(32));
    let theirs = json!({ "chainId": "0", "address": TOKEN_CONTRACT, "nonce": "0" });
    let signed = run(
        &mut sign_with_ethers(),
        json!([{ "kind": "authorization", "key": key, "of": theirs }]).to_string().as_bytes(),
    )
    .json();
    let signature = signed[0]["signature"].as_str().expect("a signature");
    let parity = u8::from(signature.ends_with("1c"));
    let parts = json!({ "yParity": parity, "r": signature[..66], "s": format!("0x{}", &signature[66..130]) });
    let of_own = merged(own.clone(), &json!({ "digest": null, "authority": null }));
    let list = json!([of_own, merged(theirs, &parts)]);
    let transaction = wallet.payment(&json!({ "type": 4, "gas": 200_000, "authorizationList": list }));
    let signed = wallet.signed("delegate", &transaction);
    let raw = signed["raw"].as_str().expect("raw");
    for seen in [verify_with_ethers(raw), verify_with_eth_account(raw)] {
        assert_eq!((&seen["from"], &seen["hash"]), (&signed["from"], &signed["hash"]), "{seen}");
        assert_eq!(seen["type"], 4, "{seen}");
    }
    let hash = chain.send(raw).expect("the chain takes it");
    assert_eq!((&json!(hash), &chain.receipt(&hash)["status"]), (&signed["hash"], &json!("0x1")));
    // EIP-7702: the code of a delegated account is 0xef0100 and the delegate.
    let code = format!("0xef0100{}", TOKEN_CONTRACT.trim_start_matches("0x").to_lowercase());
    let theirs = crate::support::Identity::of_private_key(&key).address;
    for account in [wallet.address(), &theirs] {
        assert_eq!(chain.rpc("eth_getCode", &json!([account, "latest"])), Ok(json!(code)), "{account}");
    }
    // No other delegate, whoever lets it, and no chain that nobody named.
    let other = json!({ "chainId": Chain::ID, "address": STRANGER, "nonce": 1 });
    assert_eq!(assert_problem(&wallet.post("authorizations", &[], &other), 403, "policy-denied")["rule"], "delegates");
    let everywhere = merged(other, &json!({ "chainId": 0 }));
    let problem = assert_problem(&wallet.post("authorizations", &[], &everywhere), 400, "invalid-authorization");
    assert_eq!(problem["field"], "chainId");
    let forged = merged(of_own, &json!({ "s": format!("0x{}", "ff".repeat(32)) }));
    let transaction = merged(transaction, &json!({ "authorizationList": [forged] }));
    let problem = assert_problem(&wallet.sign("forged", &transaction), 400, "invalid-transaction");
    assert_eq!(problem["field"], "authorizationList[0].s");
    assert_eq!(wallet.kms_signs(), 2);
}

#[test]
fn a_delegate_that_nobody_named_gets_nothing() {
    let wallet = Wallet::new();
    let _signer = wallet.start();
    let body = json!({ "chainId": Chain::ID, "address": TOKEN_CONTRACT, "nonce": 1 });
    let problem = assert_problem(&wallet.post("authorizations", &[], &body), 403, "policy-denied");
    assert_eq!((&problem["rule"], wallet.kms_signs()), (&json!("delegates"), 0));
}

fn permit(spender: &str, domain: &Value) -> Value {
    let field = |kind: &str, name: &str| json!({ "name": name, "type": kind });
    let domain = merged(
        json!({ "name": "USD Coin", "version": "2", "chainId": Chain::ID, "verifyingContract": TOKEN_CONTRACT }),
        domain,
    );
    let message = json!({
        "owner": RECIPIENT, "spender": spender, "value": "1000000", "nonce": 0, "deadline": 1_900_000_000,
    });
    json!({
        "types": {
            "Permit": [field("address", "owner"), field("address", "spender"), field("uint256", "value"),
                       field("uint256", "nonce"), field("uint256", "deadline")],
        },
        "primaryType": "Permit", "domain": domain,
        "message": message,
    })
}

/// Who signed: ethers recovers it from the digest that it makes itself, and so does a chain.
#[track_caller]
fn is_signed(wallet: &Wallet, kind: &str, body: &Value) {
    let said = wallet.said(kind, body);
    assert_eq!(said["address"], wallet.address());
    let job = json!([{ "kind": "recover", "key": format!("0x{}", "11".repeat(32)),
                       "of": { "kind": kind.trim_end_matches('s'), "of": body, "signature": said["signature"] } }]);
    let seen = run(&mut sign_with_ethers(), job.to_string().as_bytes()).json();
    assert_eq!(seen[0], json!({ "digest": said["digest"], "address": wallet.address() }), "{body}");
    // As do contracts: ecrecover is at address 1, and takes digest, v, r and s.
    let (digest, signature) = (said["digest"].as_str().expect("hex"), said["signature"].as_str().expect("hex"));
    let data = format!("{digest}{:0>64}{}", &signature[130..], &signature[2..130]);
    let call = json!({ "to": format!("0x{:040x}", 1), "data": data });
    let recovered = Chain::shared().rpc("eth_call", &json!([call, "latest"])).expect("an answer");
    assert_eq!(recovered, format!("0x{:0>64}", wallet.address()[2..].to_lowercase()));
}

#[test]
fn messages_and_permits_are_what_ethers_makes_of_them() {
    let policy = format!("to = [\"{TOKEN_CONTRACT}\", \"{RECIPIENT}\"]\nsign = [\"message\", \"typed-data\"]");
    let wallet = Wallet::with(&policy);
    let _signer = wallet.start();
    is_signed(&wallet, "messages", &json!({ "message": "sign in to nova \u{1f980}" }));
    is_signed(&wallet, "messages", &json!({ "message": format!("0x{}", "ab".repeat(32)), "encoding": "hex" }));
    is_signed(&wallet, "typed-data", &permit(RECIPIENT, &json!({})));
    let signs = wallet.kms_signs();
    for (rule, body) in [
        ("to", permit(STRANGER, &json!({}))),
        ("to", permit(RECIPIENT, &json!({ "verifyingContract": STRANGER }))),
        ("chains", permit(RECIPIENT, &json!({ "chainId": 1 }))),
        ("chains", permit(RECIPIENT, &json!({ "chainId": null }))),
        ("verifying_contracts", permit(RECIPIENT, &json!({ "verifyingContract": null }))),
    ] {
        let problem = assert_problem(&wallet.post("typed-data", &[], &body), 403, "policy-denied");
        assert_eq!(problem["rule"], rule, "{body}: {problem}");
    }
    let mut misspelt = permit(RECIPIENT, &json!({}));
    misspelt["message"]["Value"] = misspelt["message"]["value"].take();
    let problem = assert_problem(&wallet.post("typed-data", &[], &misspelt), 400, "invalid-typed-data");
    assert_eq!(problem["field"], "message.Value");
    let digest = json!({ "digest": format!("0x{}", "ab".repeat(32)) });
    assert_eq!(assert_problem(&wallet.post("messages", &[], &digest), 400, "invalid-message")["field"], "digest");
    // Transactions are not among what this policy signs.
    let problem = assert_problem(&wallet.sign("1", &wallet.payment(&json!({}))), 403, "policy-denied");
    assert_eq!((&problem["rule"], wallet.kms_signs()), (&json!("sign"), signs));
}

/// A policy with a list of recipients signs no message that it does not name, and KMS' failures have their names.
#[test]
fn messages_fail_as_transactions_do() {
    let wallet = Wallet::with(&format!("to = [\"{RECIPIENT}\"]"));
    let signer = wallet.start();
    let hello = json!({ "message": "hello" });
    assert_eq!(assert_problem(&wallet.post("messages", &[], &hello), 403, "policy-denied")["rule"], "sign");
    drop(signer);
    let wallet = Wallet::new();
    let signer = wallet.start();
    crate::support::Kms::shared().fault(&wallet.key, "denied", 1);
    assert_problem(&wallet.post("messages", &[], &hello), 502, "key-access-denied");
    crate::support::Kms::shared().fault(&wallet.key, "wrong-signature", 1);
    assert_problem(&wallet.post("messages", &[], &hello), 502, "key-bad-answer");
    is_signed(&wallet, "messages", &hello);
    assert!(!signer.logs().contains("hello"), "what is signed is not for the log: {}", signer.logs());
}
