//! `keygate status` and `keygate reload` where the file has a signer and no gateway.

use super::{TOKEN, listening};
use crate::support::{Home, SOON, free_port};

fn local() -> (Home, String) {
    let config = super::keys::local("allow_local_keys = true");
    let home = Home::new(&config);
    home.secret("secrets/payments.token", TOKEN);
    home.secret("state/dev.key", "11".repeat(32));
    (home, config)
}

#[test]
fn status_shows_the_signer_and_its_keys() {
    let (home, _) = local();
    let failed = home.run(["status"]);
    assert!(failed.code == 1 && failed.stderr.contains("no signer answers at unix:"), "{failed:?}");
    let signer = listening(home.start("signer"));
    let shown = home.run(["status"]).success().to_owned();
    assert!(shown.contains("healthy") && shown.contains(&format!("pid {}", signer.pid())), "{shown}");
    assert!(shown.lines().any(|line| line.starts_with("dev ") && line.ends_with("yes")), "{shown}");
    let json: serde_json::Value = home.run(["status", "--json"]).json();
    assert_eq!((&json["healthy"], &json["keys"]["dev"]["ready"]), (&true.into(), &true.into()), "{json}");
    // That is asked above all when the file is broken.
    let broken = std::fs::read_to_string(home.path("keygate.toml")).expect("a file") + "\n[nonsense]\n";
    home.config(&broken);
    home.run(["status"]).success();
    // Without its ledger it is not well, and the command says so to scripts.
    std::fs::remove_file(home.path("state/ledger.db")).expect("the ledger");
    let failed = home.run(["status"]);
    assert!(failed.code == 1 && failed.stdout.contains("NOT HEALTHY"), "{failed:?}");
}

#[test]
fn what_anybody_may_change_and_what_is_new_is_said() {
    let (home, _) = local();
    assert!(!home.run(["check"]).success().contains("anybody"));
    let file = home.path("keygate.toml");
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o666)).expect("its mode");
    let checked = home.run(["check"]);
    let says = checked.stderr.contains("anybody on this machine may change this file (mode 0666)");
    assert!(checked.code == 0 && says, "{checked:?}");
    for (times, says) in [(1, "the ledger is new"), (2, "the audit trail goes on")] {
        let mut signer = listening(home.start("signer"));
        assert!(signer.stderr().contains(says), "start {times}: {}", signer.stderr());
        signer.sigterm();
        assert!(signer.wait(SOON).success());
    }
}

#[test]
fn a_reload_is_over_when_the_command_is() {
    let (home, config) = local();
    let mut signer = listening(home.start("signer"));
    // Nothing has changed, and nothing tells of a change: it is the command that has it reload.
    home.run(["reload"]).success();
    assert_eq!(signer.stderr().matches("reloaded").count(), 1);
    home.config(&config.replace("policy = \"all\"", "policy = \"none\""));
    let failed = home.run(["reload"]);
    assert!(failed.code == 1 && failed.stderr.contains("keygate.toml:"), "{failed:?}");
    // It is well for the file, and not for the signer.
    home.config(&config.replace("payments.token", "missing.token"));
    let failed = home.run(["reload"]);
    assert!(failed.code == 1 && failed.stderr.contains("not reloaded"), "{failed:?}");
    signer.wait_until(SOON, "the log says why", |s| s.stderr().contains("missing.token").then_some(()));
}

#[test]
fn on_tcp_it_is_said_what_to_do() {
    let port = free_port();
    let (home, config) = local();
    home.config(&config.replace("unix:state/signer.sock", &format!("http://127.0.0.1:{port}")));
    let mut signer = home.start("signer");
    signer.wait_until(SOON, "it listens", |_| std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    let shown = home.run(["status"]).success().to_owned();
    assert!(shown.contains("healthy"), "{shown}");
    let failed = home.run(["reload"]);
    assert!(failed.code == 1 && failed.stderr.contains("SIGHUP"), "{failed:?}");
}
