//! What must never be printed, at any level.

use serde_json::json;

use super::{TOKEN, Wallet, ask};
use crate::support::{Kms, SECRET_ACCESS_KEY, SOON};

#[test]
fn neither_tokens_nor_credentials_are_printed_at_the_chattiest_level() {
    let mut wallet = Wallet::new();
    wallet.home = wallet.home.env("KEYGATE_LOG", "trace");
    let mut signer = wallet.start();
    let data = "0xfeedfacecafebeef";
    let payment = wallet.payment(&json!({ "data": data, "gas": 50_000 }));
    wallet.signed("payout-1", &payment);
    wallet.sign("payout-1", &payment);
    wallet.sign("payout-1", &wallet.payment(&json!({})));
    ask(&wallet.home, "/v1/keys", &["-H", "Authorization: Bearer a-wrong-token-that-is-a-secret-too"]);
    Kms::shared().fault(&wallet.key, "denied", 1);
    wallet.sign("payout-2", &wallet.payment(&json!({ "nonce": 1 })));
    signer.sigterm();
    signer.wait(SOON);
    let logs = signer.logs();
    assert!(logs.contains("payout-1"), "it does log: {logs}");
    for secret in [TOKEN, "a-wrong-token-that-is-a-secret-too", SECRET_ACCESS_KEY] {
        assert!(!logs.contains(secret), "{secret} is printed: {}", line_with(&logs, secret));
    }
    // Nor does the ledger keep tokens.
    for entry in std::fs::read_dir(wallet.home.path("ledger")).expect("a folder") {
        let bytes = std::fs::read(entry.expect("an entry").path()).expect("a file");
        assert!(!String::from_utf8_lossy(&bytes).contains(TOKEN));
    }
}

#[test]
fn a_local_key_is_not_printed_at_the_chattiest_level() {
    let private_key = "8f2a559490be9b5b1b3c4f1f4b8e4f3b2a1c0d9e8f7a6b5c4d3e2f1a0b9c8d7e";
    let home = crate::support::Home::new(&super::keys::local("allow_local_keys = true")).env("KEYGATE_LOG", "trace");
    home.secret("state/dev.key", private_key);
    home.secret("secrets/payments.token", TOKEN);
    let mut signer = super::listening(home.start("signer"));
    let payment = json!({
        "chainId": 31337, "type": 0, "nonce": 0, "to": super::RECIPIENT, "value": 1, "gas": 21_000, "gasPrice": 1,
    });
    assert_eq!(super::sign(&home, "dev", "1", &payment).status, 200);
    let keys = home.run(["keys"]);
    signer.sigterm();
    signer.wait(SOON);
    for text in [signer.logs(), keys.output()] {
        assert!(!text.to_lowercase().contains(&private_key[..16]), "{}", line_with(&text, &private_key[..16]));
    }
}

fn line_with<'a>(text: &'a str, word: &str) -> &'a str {
    text.lines().find(|line| line.contains(word)).unwrap_or_default()
}
