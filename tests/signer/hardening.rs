//! What the signer's process may do, as the kernel tells it.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use nix::unistd::User;

use super::{TOKEN, ask, listening};
use crate::support::{Home, SOON};

const NOBODY: &str = "nobody";

/// A line of `/proc/PID/status`.
fn status(pid: u32, name: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {status}")).trim().to_owned()
}

fn local(lines: &str) -> Home {
    let home = Home::new(&super::keys::local(&format!("allow_local_keys = true\n{lines}")));
    home.secret("secrets/payments.token", TOKEN);
    home.secret("state/dev.key", "11".repeat(32));
    home
}

/// Lets this user have all of the folder.
fn give(path: &Path, user: &User) {
    chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("tests run as root");
    if path.is_dir() {
        for entry in std::fs::read_dir(path).expect("a folder") {
            give(&entry.expect("an entry").path(), user);
        }
    }
}

fn nobody() -> User {
    User::from_name(NOBODY).expect("users can be looked up").expect("every system has it")
}

#[test]
fn root_is_given_up_once_the_sockets_are_bound() {
    let home = local(&format!("user = \"{NOBODY}\""));
    let nobody = nobody();
    give(&home.path(""), &nobody);
    for command in ["signer", "run"] {
        let mut signer = listening(home.start(command));
        let ids = [nobody.uid.to_string(), nobody.gid.to_string()];
        for (name, id) in ["Uid", "Gid"].into_iter().zip(&ids) {
            let all = status(signer.pid(), name);
            assert!(all.split_whitespace().all(|one| one == id), "{name}: {all}");
        }
        assert!(status(signer.pid(), "CapEff").chars().all(|c| c == '0'));
        assert!(!status(signer.pid(), "Groups").split(' ').any(|group| group == "0"));
        // The kernel gives what may not be dumped to root.
        assert_eq!(std::fs::metadata(format!("/proc/{}/environ", signer.pid())).expect("it runs").uid(), 0);
        let socket = std::fs::metadata(home.path("state/signer.sock")).expect("a socket");
        assert_eq!((socket.uid(), socket.permissions().mode() & 0o777), (nobody.uid.as_raw(), 0o660));
        assert_eq!(ask(&home, "/v1/keys", &["-H", &format!("Authorization: Bearer {TOKEN}")]).status, 200);
        signer.sigterm();
        assert_eq!(signer.wait(SOON).code(), Some(0), "{}", signer.logs());
        assert!(!home.path("state/signer.sock").exists(), "it may take its socket away");
    }
}

#[test]
fn what_the_user_cannot_have_is_refused_at_the_start() {
    let home = local(&format!("user = \"{NOBODY}\""));
    give(&home.path(""), &nobody());
    // The ledger's folder, root's.
    chown(home.path("state"), Some(0), Some(0)).expect("tests run as root");
    let mut signer = home.start("signer");
    assert_eq!(signer.wait(SOON).code(), Some(1), "{}", signer.logs());
    assert!(signer.stderr().contains("ledger.db"), "{}", signer.stderr());

    let unknown = local("user = \"no-such-user-here\"");
    for command in ["check", "signer"] {
        let refused = unknown.run([command]);
        assert!(refused.code == 1 && refused.stderr.contains("no user \"no-such-user-here\""), "{refused:?}");
    }
}
