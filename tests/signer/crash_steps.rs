//! The signer is killed at every step between a request and its payment. Whoever asks again, and whether or not: the
//! chain has one payment, or none that nobody was told of.

use std::collections::BTreeSet;

use keygate_signer::ledger::Trail;
use serde_json::{Value, json};

use super::sending::{Sender, balance, nobody, ok};
use super::{JSON, TOKEN, Wallet, assert_problem};
use crate::support::{Anvil, CurlFailure, Keygate, Kms, Response, SOON, try_curl, wait_until};

/// Where the process dies, first when it is asked, and then each time it is started again; and whether the request is
/// reserved by then.
const CASES: &[(&[&str], bool)] = &[
    (&["admitted"], false),
    (&["before-begin"], false),
    // Reserved, and not committed.
    (&["reserving"], false),
    (&["begun"], true),
    (&["before-key"], true),
    (&["key-signed"], true),
    // Stored, and not committed.
    (&["storing"], true),
    (&["stored"], true),
    (&["sending"], true),
    // The node has it, and nobody has written that down.
    (&["sent"], true),
    (&["before-answer"], true),
    (&["following"], true),
    // What was left is finished by the next start, which dies as well.
    (&["begun", "finishing"], true),
    (&["begun", "key-signed", "storing"], true),
    (&["begun", "finished"], true),
    (&["stored", "sending", "sent", "following"], true),
];

const AMOUNT: u64 = 1_000_000;

#[test]
fn killed_at_every_step_it_pays_once() {
    let anvil = Anvil::start();
    let cases: Vec<_> = CASES.iter().flat_map(|case| [(case, true), (case, false)]).enumerate().collect();
    let halves = cases.chunks(cases.len().div_ceil(4));
    std::thread::scope(|scope| {
        for half in halves {
            scope.spawn(|| {
                half.iter().for_each(|(n, ((deaths, reserved), again))| case(&anvil, *n, deaths, *reserved, *again))
            });
        }
    });
}

/// KMS refuses, and the signer dies while it gives back what was reserved: it is reserved still, and is signed.
#[test]
fn killed_while_it_lets_go_it_pays_once() {
    let (anvil, wallet) = (Anvil::start(), Wallet::new());
    let key = format!("kms = {{ key_id = \"{}\", endpoint = \"{}\" }}", wallet.key.arn, Kms::shared().url);
    let home = super::sending::home(&key, &anvil.url, "confirmations = 1", "");
    let sender = Sender { home, address: wallet.address().to_owned() };
    anvil.fund(&sender.address);
    let to = nobody(2000);
    let body = json!({ "to": to, "value": AMOUNT.to_string() });
    let mut signer = super::listening(dying(&sender, "releasing"));
    Kms::shared().fault(&wallet.key, "denied", 1);
    assert!(asked(&sender, &body).is_err());
    died(&mut signer, "releasing");
    let _signer = sender.start();
    sender.becomes("payout", "confirmed");
    assert_eq!(ok(&sender.send("payout", &body))["nonce"], 0);
    assert_eq!(ok(&sender.send("next", &body))["nonce"], 1);
    sender.becomes("next", "confirmed");
    assert_eq!(balance(&anvil, &to), 2 * AMOUNT);
}

/// Started after a crash, it finishes what was left; who asks for the same meanwhile, ten times at once, has the same.
#[test]
fn who_asks_while_a_start_finishes_has_the_same_payment() {
    let (anvil, wallet) = (Anvil::start(), Wallet::new());
    let key = format!("kms = {{ key_id = \"{}\", endpoint = \"{}\" }}", wallet.key.arn, Kms::shared().url);
    let home = super::sending::home(&key, &anvil.url, "confirmations = 1", "");
    let sender = Sender { home, address: wallet.address().to_owned() };
    anvil.fund(&sender.address);
    let to = nobody(2001);
    let body = json!({ "to": to, "value": AMOUNT.to_string() });
    let mut signer = super::listening(dying(&sender, "begun"));
    assert!(asked(&sender, &body).is_err());
    died(&mut signer, "begun");
    Kms::shared().slow(&wallet.key, 0.5);
    let _signer = sender.start();
    let hashes: BTreeSet<String> = std::thread::scope(|scope| {
        let asking: Vec<_> =
            (0..10).map(|_| scope.spawn(|| ok(&sender.send("payout", &body))["hash"].to_string())).collect();
        asking.into_iter().map(|thread| thread.join().expect("an answer")).collect()
    });
    assert_eq!(hashes.len(), 1);
    let confirmed = sender.becomes("payout", "confirmed");
    assert_eq!((&confirmed["succeeded"], balance(&anvil, &to)), (&json!(true), AMOUNT));
    assert_eq!(ok(&sender.send("next", &body))["nonce"], 1);
}

fn case(anvil: &Anvil, n: usize, deaths: &[&str], reserved: bool, again: bool) {
    let what = format!("{deaths:?}, {}", if again { "asked again" } else { "not asked again" });
    let (key, to) = (format!("{:064x}", 0xd1d1_0000 + n), nobody(1000 + n as u64));
    let limit = format!("daily_value = \"{} wei\"", 2 * AMOUNT);
    let sender = Sender::new(&anvil.url, &key, "confirmations = 1\nrebroadcast = \"1s\"", &limit);
    anvil.fund(&sender.address);
    let body = json!({ "to": to, "value": AMOUNT.to_string() });

    let mut signer = dying(&sender, deaths[0]);
    wait_until(SOON, "the signer listens", || {
        std::os::unix::net::UnixStream::connect(sender.home.path("state/signer.sock")).ok()
    });
    match asked(&sender, &body) {
        Err(failure) => assert!([52, 56].contains(&failure.code), "{what}: {failure:?}"),
        Ok(answer) => assert!(deaths[0] == "following" && answer.status == 200, "{what}: {}", answer.text()),
    }
    died(&mut signer, &what);
    for death in &deaths[1..] {
        died(&mut dying(&sender, death), &what);
    }

    let mut signer = sender.start();
    if again {
        let first = ok(&sender.send("payout", &body));
        assert_eq!(first["nonce"], 0, "{what}");
        assert_eq!(ok(&sender.send("payout", &body))["hash"], first["hash"], "{what}");
    }
    let paid = again || reserved;
    if paid {
        sender.becomes("payout", "confirmed");
    } else {
        assert_eq!(sender.get("/v1/keys/hot-wallet/transactions/payout").status, 404, "{what}");
    }
    // It counts once: there is room for one more of it, or two. They have the next nonces.
    let paid = u64::from(paid);
    for nonce in paid..2 {
        let name = nonce.to_string();
        assert_eq!(ok(&sender.send(&name, &body))["nonce"], nonce, "{what}");
        sender.becomes(&name, "confirmed");
    }
    assert_eq!(assert_problem(&sender.send("more", &body), 403, "policy-denied")["rule"], "daily_value", "{what}");
    let count = anvil.ask("eth_getTransactionCount", &json!([sender.address, "pending"]));
    assert_eq!((count, balance(anvil, &to)), (json!("0x2"), 2 * AMOUNT), "{what}");
    let nonces: Value = ok(&sender.get("/v1/keys/hot-wallet/nonces/test"));
    assert_eq!((&nonces["next"], &nonces["gaps"], &nonces["unsigned"]), (&json!(2), &json!([]), &json!([])), "{what}");

    signer.sigterm();
    assert!(signer.wait(SOON).success(), "{what}: {}", signer.logs());
    let ledger = keygate_config::Ledger::Sqlite(sender.home.path("ledger/ledger.db"));
    let verified = Trail::open(&ledger).expect("a ledger").verify(None);
    assert!(verified.is_ok(), "{what}: {verified:?}");
}

/// A signer that ends itself there.
fn dying(sender: &Sender, failpoint: &str) -> Keygate {
    sender.home.clone().env("KEYGATE_FAILPOINT", failpoint).start("signer")
}

#[track_caller]
fn died(signer: &mut Keygate, what: &str) {
    let status = signer.wait(SOON);
    assert_eq!(status.code(), None, "{what}: {}", signer.logs());
}

fn asked(sender: &Sender, body: &Value) -> Result<Response, CurlFailure> {
    let (socket, body) = (sender.home.path("state/signer.sock"), super::sending::payment(body).to_string());
    let (socket, token) = (socket.display().to_string(), format!("Authorization: Bearer {TOKEN}"));
    let url = "http://signer/v1/keys/hot-wallet/transactions?send=true";
    try_curl(["--unix-socket", &socket, "-H", &token, "-H", "Idempotency-Key: payout", "-H", JSON, "-d", &body, url])
}
