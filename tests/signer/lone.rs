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
