//! A ledger that cannot be written: nothing is signed, and nothing comes out.

use serde_json::json;

use super::{Wallet, assert_problem, listening};
use crate::support::{SOON, run, wait_until};

/// Starts keygate in a mount namespace of its own, with a disk of 8 MiB for the ledger. It goes with the process.
/// Beside it, a loop fills the disk when there is a file `fill`, and empties it when there is none.
const ON_A_SMALL_DISK: &str = r#"
    set -e
    mount -t tmpfs -o size=8m tmpfs ledger
    (
        while :; do
            if [ -e fill ] && [ ! -e full ]; then
                # It says that there is no space left: that is what it is for.
                cat /dev/zero >ledger/filler 2>/dev/null || touch full
            elif [ ! -e fill ] && [ -e full ]; then
                rm ledger/filler full
            fi
            sleep 0.02
        done
    ) &
    exec "$@"
"#;

#[test]
fn a_full_disk_is_named_and_nothing_is_signed() {
    let wallet = Wallet::new();
    let home = &wallet.home;
    std::fs::create_dir(home.path("ledger")).expect("a folder");
    let mut unshare = vec!["--mount", "--propagation", "private"];
    if !rustix::process::getuid().is_root() {
        unshare.extend(["--user", "--map-root-user"]);
    }
    let shell = ["sh", "-c", ON_A_SMALL_DISK, "sh", env!("CARGO_BIN_EXE_keygate"), "signer", "-c", "keygate.toml"];
    let signer = listening(home.spawn(&mut home.command_of("unshare", unshare.into_iter().chain(shell))));
    let payment = |nonce: u32| wallet.payment(&json!({ "nonce": nonce }));
    let first = wallet.signed("payout-0", &payment(0));

    home.write("fill", "");
    wait_until(SOON, "the disk is full", || home.path("full").exists().then_some(()));
    let answers: Vec<_> =
        (1..30).map(|nonce| (nonce, wallet.sign(&format!("payout-{nonce}"), &payment(nonce)))).collect();
    // A page or two may still have fitted the ledger's file; after that, nothing.
    let (last_nonce, last) = answers.last().expect("answers");
    assert_problem(last, 503, "ledger-unavailable");
    assert!(last.header("retry-after").is_some(), "{last:?}");
    assert!(signer.stderr().contains("full"), "{}", signer.stderr());
    let signs = wallet.kms_signs();
    assert_problem(&wallet.sign(&format!("payout-{last_nonce}"), &payment(*last_nonce)), 503, "ledger-unavailable");
    let said = wallet.post("messages", &[], &json!({ "message": "x".repeat(100_000) }));
    assert_problem(&said, 503, "ledger-unavailable");
    assert!(said.json().get("signature").is_none(), "what is not written down is not answered");
    let signs = signs + 1;
    assert_eq!(wallet.kms_signs(), signs, "KMS is not asked before the reservation is on the disk");

    assert_problem(&super::ask(home, "/health", &[]), 503, "ledger-unavailable");

    std::fs::remove_file(home.path("fill")).expect("the file");
    wait_until(SOON, "there is space", || (!home.path("full").exists()).then_some(()));
    assert_eq!(super::ask(home, "/health", &[]).status, 200);
    // It goes on by itself, and knows all that it ever answered.
    assert_eq!(wallet.signed("payout-0", &payment(0)), first);
    for (nonce, answer) in answers {
        let now = wallet.signed(&format!("payout-{nonce}"), &payment(nonce));
        if answer.status == 200 {
            assert_eq!(now, answer.json());
        } else {
            assert_problem(&answer, 503, "ledger-unavailable");
        }
    }
}

#[test]
fn a_ledger_that_cannot_be_opened_is_refused() {
    let wallet = Wallet::new();
    // A folder where the file should be; a file that is no database.
    std::fs::create_dir_all(wallet.home.path("ledger/ledger.db")).expect("a folder");
    for says in ["ledger", "ledger"] {
        let mut signer = wallet.home.start("signer");
        assert_eq!(signer.wait(SOON).code(), Some(1), "{}", signer.logs());
        assert!(signer.stderr().contains(says), "{}", signer.stderr());
        run(wallet.home.command_of("rm", ["-r", "ledger/ledger.db"]).arg("-f"), b"").success();
        wallet.home.write("ledger/ledger.db", "this is no database, and it is longer than a header of one".repeat(100));
    }
}

#[test]
fn a_ledger_that_is_removed_under_it_is_not_written() {
    let wallet = Wallet::new();
    let mut signer = wallet.start();
    let payment = |nonce: u32| wallet.payment(&json!({ "nonce": nonce }));
    let first = wallet.signed("payout-0", &payment(0));
    let (path, away) = (wallet.home.path("ledger/ledger.db"), wallet.home.path("ledger/away.db"));
    std::fs::rename(&path, &away).expect("it is there");
    let signs = wallet.kms_signs();
    for name in ["payout-0", "payout-1"] {
        assert_problem(&wallet.sign(name, &payment(0)), 503, "ledger-unavailable");
    }
    assert_problem(&super::ask(&wallet.home, "/health", &[]), 503, "ledger-unavailable");
    assert_eq!(wallet.kms_signs(), signs);
    assert!(signer.stderr().contains("moved, replaced or removed"), "{}", signer.stderr());
    std::fs::rename(&away, &path).expect("it is there");
    let second = wallet.signed("payout-1", &payment(1));
    signer.kill9();
    let _signer = wallet.start();
    assert_eq!(wallet.signed("payout-0", &payment(0)), first);
    assert_eq!(wallet.signed("payout-1", &payment(1)), second);
}
