//! What the signer's process may do, as the kernel tells it.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use nix::unistd::User;

use super::{TOKEN, ask, listening};
use crate::support::{Home, Keygate, Kms, SOON};

const NOBODY: &str = "nobody";

/// A line of `/proc/PID/status`.
fn status(pid: u32, name: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {status}")).trim().to_owned()
}

fn kilobytes(pid: u32, name: &str) -> u64 {
    status(pid, name).trim_end_matches(" kB").parse().expect("a number")
}

fn local(lines: &str) -> Home {
    let home = Home::new(&super::keys::local(&format!("allow_local_keys = true\n{lines}")));
    home.secret("secrets/payments.token", TOKEN);
    home.secret("state/dev.key", "11".repeat(32));
    home
}

/// What the log says is in force.
fn confined(signer: &Keygate) -> String {
    let log = signer.stderr();
    log.lines().find(|line| line.contains("confined:")).unwrap_or_else(|| panic!("nothing is said: {log}")).to_owned()
}

#[test]
fn memory_with_a_key_in_it_is_locked_and_there_are_no_new_privileges() {
    assert!(rustix::process::geteuid().is_root(), "tests run as root");
    let home = local("");
    let signer = listening(home.start("signer"));
    let said = confined(&signer);
    assert!(said.contains("memory_locked=true"), "{said}");
    assert!(kilobytes(signer.pid(), "VmLck") > 1000);
    if said.contains("landlock=\"full\"") || said.contains("landlock=\"partial\"") {
        // Every thread of it.
        for task in std::fs::read_dir(format!("/proc/{}/task", signer.pid())).expect("a running process") {
            let task = task.expect("a thread").file_name().into_string().expect("a number");
            assert_eq!(status(task.parse().expect("a number"), "NoNewPrivs"), "1");
        }
    }
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", signer.pid())).expect("a running process");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a limit");
    assert_eq!(core.split_whitespace().skip(4).collect::<Vec<_>>(), ["0", "0", "bytes"]);
}

#[test]
fn files_that_the_start_did_not_name_cannot_be_read() {
    let home = local("");
    let mut signer = listening(home.start("signer"));
    if confined(&signer).contains("landlock=\"none\"") {
        eprintln!("this kernel has no Landlock");
        return;
    }
    // In a folder of its own, outside of this home: root could read it.
    let elsewhere = Home::new("");
    let token = elsewhere.secret("token", TOKEN).display().to_string();
    let config = super::keys::local("allow_local_keys = true");
    home.config(&config.replace("secrets/payments.token", &token));
    signer.wait_until(SOON, "it cannot be read", |s| s.stderr().contains("Permission denied").then_some(()));
    // In the folders that it did name, whatever is there.
    home.config(&config.replace("payments.token", "next.token"));
    home.secret("secrets/next.token", "the-next-token-of-the-payments-service");
    signer.wait_until(SOON, "it is read", |s| s.stderr().contains("reloaded").then_some(()));
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
        // Root lifts the limit before, if it may here.
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", signer.pid())).expect("a running process");
        let lifted = limits.lines().any(|line| line.starts_with("Max locked memory         unlimited"));
        let locked = kilobytes(signer.pid(), "VmLck") > 1000;
        assert_eq!((lifted, !lifted), (locked, signer.stderr().contains("memory is not locked")), "{limits}");
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

#[test]
fn a_process_that_gives_credentials_is_not_held_to_the_signers_files() {
    let kms = Kms::shared();
    let key = kms.create_key();
    let home = Home::new(&format!(
        "[signer]\nlisten = \"unix:state/signer.sock\"\nledger = \"sqlite:state/ledger.db\"\n\
         [signer.keys.hot]\nkms = {{ key_id = \"{}\", endpoint = \"{}\" }}\n",
        key.arn, kms.url
    ));
    // It writes to where the signer may not.
    let elsewhere = Home::new("");
    let credentials = r#"{"Version": 1, "AccessKeyId": "AKIATEST", "SecretAccessKey": "secret"}"#;
    let script = format!("#!/bin/sh\ntouch {}\necho '{credentials}'\n", elsewhere.path("asked").display());
    let script = elsewhere.write("credentials.sh", script);
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("our own file");
    home.write(".aws/config", format!("[default]\ncredential_process = {}\n", script.display()));
    let mut command = home.command(["signer"]);
    command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    let signer = listening(home.spawn(&mut command));
    assert!(signer.stderr().contains("credential_process"), "{}", signer.stderr());
    assert!(elsewhere.path("asked").exists());
}
