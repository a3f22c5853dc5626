//! The stub of `benches/kms` is a KMS: what it answers is what moto answers, and the signer takes one for the other.

use keygate_kms_stub::Options;
use serde_json::{Value, json};

use super::{Wallet, assert_problem};
use crate::support::{Kms, KmsKey, verify_with_ethers};

const ZEROS: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

fn sign(key: &str, fields: &Value) -> String {
    let call = json!({ "KeyId": key, "Message": ZEROS, "MessageType": "DIGEST", "SigningAlgorithm": "ECDSA_SHA_256" });
    super::merged(call, fields).to_string()
}

/// Every call, to both: whatever moto says, the stub says as well, in the same words and kinds of values.
#[test]
fn it_answers_as_moto_does() {
    let (moto, stub) = (Kms::shared(), Kms::stub(Options::default()));
    let keys = [moto, &stub].map(|kms| (kms, kms.create_key()));
    let unknown = "00000000-0000-0000-0000-000000000000";
    let [of_id, of_arn]: [fn(&KmsKey) -> &String; 2] = [|key| &key.id, |key| &key.arn];
    let key_id = |key: &str| json!({ "KeyId": key }).to_string();
    type Call = Box<dyn Fn(&KmsKey) -> String>;
    let calls: [(&str, Call); 14] = [
        ("CreateKey", Box::new(|_| json!({ "KeySpec": "ECC_SECG_P256K1", "KeyUsage": "SIGN_VERIFY" }).to_string())),
        ("CreateKey", Box::new(|_| json!({ "KeySpec": "NONE", "KeyUsage": "SIGN_VERIFY" }).to_string())),
        ("DescribeKey", Box::new(move |key| key_id(of_id(key)))),
        ("DescribeKey", Box::new(move |_| key_id(unknown))),
        ("GetPublicKey", Box::new(move |key| key_id(of_id(key)))),
        ("GetPublicKey", Box::new(move |key| key_id(of_arn(key)))),
        ("GetPublicKey", Box::new(move |_| key_id(unknown))),
        ("Sign", Box::new(move |key| sign(of_id(key), &json!({})))),
        ("Sign", Box::new(move |key| sign(of_arn(key), &json!({ "MessageType": "RAW" })))),
        ("Sign", Box::new(move |key| sign(of_arn(key), &json!({ "MessageType": null, "Message": "YQ==" })))),
        ("Sign", Box::new(move |_| sign(unknown, &json!({})))),
        ("Sign", Box::new(move |key| sign(&key.arn.replace(&key.id, unknown), &json!({})))),
        ("Sign", Box::new(move |key| sign(of_arn(key), &json!({ "SigningAlgorithm": "ECDSA_SHA_384" })))),
        ("Sign", Box::new(move |key| sign(of_arn(key), &json!({ "Message": "" })))),
    ];
    for (action, call) in calls {
        let [theirs, ours] = keys.each_ref().map(|(kms, key)| kms.try_call(action, &call(key)));
        let what = format!("{action}: {} {}", theirs.text(), ours.text());
        assert_eq!(theirs.status, ours.status, "{what}");
        // moto does without; AWS does not.
        assert_eq!(ours.header("content-type"), Some("application/x-amz-json-1.1"), "{what}");
        assert!([&theirs, &ours].iter().all(|answer| answer.header("x-amzn-requestid").is_some()), "{what}");
        agree(&theirs.json(), &ours.json(), &what);
    }
}

/// What differs from key to key, from one signature to the next, and in how an error is put.
const OWN: [&str; 7] = ["KeyId", "Arn", "CreationDate", "PublicKey", "Signature", "message", "KeyMetadata"];

/// That whatever they say is said by us too: the same value, or one of the same kind.
fn agree(theirs: &Value, ours: &Value, what: &str) {
    for (name, theirs) in theirs.as_object().expect("an object").iter().filter(|(_, value)| !value.is_null()) {
        let ours = &ours[name];
        assert_eq!(std::mem::discriminant(theirs), std::mem::discriminant(ours), "{name} of {what}");
        assert!(OWN.contains(&name.as_str()) || theirs == ours, "{name} of {what}");
        if theirs.is_object() {
            agree(theirs, ours, what);
        }
    }
}

/// What moto takes, or fails at, as AWS does not.
#[test]
fn it_is_stricter_than_moto() {
    let stub = Kms::stub(Options::default());
    let key = stub.create_key().arn;
    for (action, body, code) in [
        ("Sign", sign(&key, &json!({ "Message": "AA==" })), "ValidationException"),
        ("Sign", sign(&key, &json!({ "MessageType": "OTHER" })), "ValidationException"),
        ("Sign", sign(&key, &json!({ "SigningAlgorithm": null })), "ValidationException"),
        ("Sign", sign(&key, &json!({ "Message": "?" })), "SerializationException"),
        ("Sign", "nonsense".into(), "ValidationException"),
        ("Encrypt", "{}".into(), "UnknownOperationException"),
    ] {
        let answer = stub.try_call(action, &body);
        assert_eq!((answer.status, &answer.json()["__type"]), (400, &json!(code)), "{body}");
    }
}

#[test]
fn the_signer_signs_with_it() {
    for deterministic in [false, true] {
        let stub = Kms::stub(Options { deterministic, ..Options::default() });
        let wallet = Wallet::of(&stub, "timeout = \"10s\"", "");
        let _signer = wallet.start();
        // About half of the signatures have a high S.
        for nonce in 0..8 {
            let answer = wallet.signed(&format!("payout-{nonce}"), &wallet.payment(&json!({ "nonce": nonce })));
            let seen = verify_with_ethers(answer["raw"].as_str().expect("raw"));
            assert_eq!(seen["from"], wallet.address());
        }
        assert_eq!(stub.calls(&wallet.key, "Sign"), 8);
    }
}

/// Its faults: those that are tried again, and those that must not reach a caller.
#[test]
fn it_fails_as_ordered() {
    let stub = Kms::stub(Options::default());
    let wallet = Wallet::of(&stub, "timeout = \"10s\"", "");
    let _signer = wallet.start();
    let again = ["throttle", "error", "unavailable", "reset", "cut"].map(|mode| (mode, None));
    let bad = ["wrong-signature", "other-digest", "not-der", "trailing-bytes", "zero", "empty"];
    let named = [("disabled", "key-unusable"), ("pending-deletion", "key-unusable"), ("denied", "key-access-denied")];
    let bad = bad.map(|mode| (mode, Some((502, "key-bad-answer")))).into_iter();
    let named = named.map(|(mode, kind)| (mode, Some((502, kind))));
    for (nonce, (mode, problem)) in again.into_iter().chain(bad).chain(named).enumerate() {
        let before = stub.calls(&wallet.key, "Sign");
        stub.fault(&wallet.key, mode, 1);
        let answer = wallet.sign(mode, &wallet.payment(&json!({ "nonce": nonce })));
        let calls = stub.calls(&wallet.key, "Sign") - before;
        match problem {
            None => assert_eq!((answer.status, calls), (200, 2), "{mode}: {}", answer.text()),
            Some((status, kind)) => {
                assert_problem(&answer, status, kind);
                assert_eq!(calls, 1, "{mode}");
            }
        }
    }
    // A fault that it does not know is no order.
    let order = json!({ "mode": "none-such" }).to_string();
    assert_eq!(crate::support::curl(["-d", &order, &format!("{}/_faults", stub.url)]).status, 400);
}
