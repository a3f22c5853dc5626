//! Keys at start: the right one, or none. And `keygate keys`.

use serde_json::{Value, json};

use super::{Wallet, listening};
use crate::support::{Home, Identity, Kms, SOON, free_port};

/// A configuration with one local key, `dev`, and these lines in `[signer]`.
pub(super) fn local(lines: &str) -> String {
    format!(
        r#"
        [signer]
        listen = "unix:state/signer.sock"
        ledger = "sqlite:state/ledger.db"
        {lines}
        [signer.keys.dev]
        local = {{ path = "state/dev.key" }}
        [signer.chains.hardhat]
        id = 31337
        [signer.policies.all]
        [signer.callers.payments]
        token_file = "secrets/payments.token"
        keys = ["dev"]
        policy = "all"
        "#
    )
}

/// A configuration with one key in KMS, and nobody who may use it.
fn kms_key(endpoint: &str, key_id: &str, more: &str) -> Home {
    Home::new(&format!(
        r#"
        [signer]
        listen = "unix:state/signer.sock"
        ledger = "sqlite:state/ledger.db"
        [signer.keys.hot-wallet]
        kms = {{ key_id = "{key_id}", endpoint = "{endpoint}", timeout = "2s" }}
        {more}
        "#
    ))
}

/// The signer must not start, and say why: every one of `words`. Nor does `keygate keys` print anything.
#[track_caller]
fn assert_refused(home: &Home, words: &[&str]) {
    let socket = home.path("state/signer.sock");
    // A signer that was killed has left it.
    let _ = std::fs::remove_file(&socket);
    let mut signer = home.start("signer");
    assert_eq!(signer.wait(SOON).code(), Some(1), "{}", signer.logs());
    assert!(!socket.exists());
    let keys = home.run(["keys"]);
    assert_eq!((keys.code, keys.stdout.as_str()), (1, ""), "{keys:?}");
    for word in words {
        assert!(signer.stderr().contains(word), "{word} is not in: {}", signer.stderr());
        assert!(keys.stderr.contains(word), "{word} is not in: {}", keys.stderr);
    }
}

#[test]
fn a_pinned_address_must_be_the_keys() {
    let kms = Kms::shared();
    let (key, other) = (kms.create_key(), kms.create_key());
    let (right, wrong) = (kms.identity(&key).address, kms.identity(&other).address);
    let home = kms_key(&kms.url, &key.arn, &format!("address = \"{wrong}\""));
    assert_refused(&home, &["hot-wallet", &right, &wrong]);
    // In any case that EIP-55 allows; by id as well as by ARN.
    for (id, address) in [(&key.arn, right.clone()), (&key.id, right.to_lowercase())] {
        let home = kms_key(&kms.url, id, &format!("address = \"{address}\""));
        listening(home.start("signer"));
    }
}

#[test]
fn a_key_of_another_kind_is_refused() {
    let kms = Kms::shared();
    for (spec, usage, says) in [
        ("RSA_2048", "SIGN_VERIFY", "RSA_2048"),
        ("RSA_2048", "ENCRYPT_DECRYPT", "RSA_2048"),
        ("ECC_NIST_P256", "SIGN_VERIFY", "ECC_NIST_P256"),
        ("SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT", "hot-wallet"),
    ] {
        let key = kms.create_key_as(spec, usage);
        assert_refused(&kms_key(&kms.url, &key.arn, ""), &["hot-wallet", says]);
    }
}

#[test]
fn a_key_that_kms_does_not_give_is_refused() {
    let kms = Kms::shared();
    let unknown = "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000";
    assert_refused(&kms_key(&kms.url, unknown, ""), &["hot-wallet", "NotFoundException"]);
    let key = kms.create_key();
    kms.order(&json!({ "mode": "denied", "key": key.id, "action": "GetPublicKey", "count": 100 }));
    assert_refused(&kms_key(&kms.url, &key.arn, ""), &["hot-wallet", "AccessDenied"]);
    kms.order(&json!({ "mode": "hang", "key": key.id, "action": "GetPublicKey", "count": 100 }));
    assert_refused(&kms_key(&kms.url, &key.arn, ""), &["hot-wallet", "2s"]);
    let nobody = format!("http://127.0.0.1:{}", free_port());
    assert_refused(&kms_key(&nobody, &key.arn, ""), &["hot-wallet", "reached"]);
}

#[test]
fn a_local_key_needs_leave_and_a_private_file() {
    let private_key = "0123456789012345678901234567890123456789012345678901234567890123";
    let home = Home::new(&local(""));
    home.secret("state/dev.key", private_key);
    home.secret("secrets/payments.token", super::TOKEN);
    assert_refused(&home, &["dev", "allow_local_keys"]);
    home.config(&local("allow_local_keys = false"));
    assert_refused(&home, &["dev", "allow_local_keys"]);
    home.config(&local("allow_local_keys = true"));
    listening(home.start("signer"));
    // Written as any editor would.
    home.write("state/dev.key", private_key);
    assert_refused(&home, &["dev.key", "0644"]);
    home.secret("state/dev.key", "no key at all");
    assert_refused(&home, &["dev.key"]);
    std::fs::remove_file(home.path("state/dev.key")).expect("the key");
    assert_refused(&home, &["dev.key"]);
}

#[test]
fn keys_prints_what_ethers_derives() {
    let wallet = Wallet::new();
    let Identity { address, public_key, .. } = &wallet.identity;
    let text = wallet.home.run(["keys", "-c", "keygate.toml"]);
    let bare = public_key.trim_start_matches("0x");
    for word in ["hot-wallet", "kms", address, bare] {
        assert!(text.success().contains(word), "{word} is not in {}", text.stdout);
    }
    let json = wallet.home.run(["keys", "--json"]).json();
    let key = json.get(0).or_else(|| json["keys"].get(0)).expect("a key");
    assert_eq!((&key["name"], &key["kind"], &key["address"]), (&json!("hot-wallet"), &json!("kms"), &json!(address)));
    let printed = ["public_key", "publicKey"].iter().find_map(|name| key[*name].as_str()).expect("a public key");
    assert_eq!(printed.trim_start_matches("0x"), bare);

    // The API says the same, to those who may use the key.
    let _signer = wallet.start();
    let token = format!("Authorization: Bearer {}", super::TOKEN);
    let listed: Value = super::ask(&wallet.home, "/v1/keys", &["-H", &token]).json();
    assert_eq!(listed["keys"][0]["address"], *address);
    assert_eq!(listed["keys"][0]["publicKey"], *public_key);
}
