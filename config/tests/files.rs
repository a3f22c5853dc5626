//! What `check` finds in the files that a configuration names.

mod certificate;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::SystemTime;

use keygate_config::{files, load};

use certificate::certificate;

const CONFIG: &str = r#"
[listeners.https]
bind = ["127.0.0.1:8443"]
[listeners.https.tls]
certificates = [{ cert = "a.crt", key = "a.key" }]
[signer]
listen = "unix:s.sock"
ledger = "sqlite:l.db"
allow_local_keys = true
[signer.keys.dev]
local = { path = "dev.key" }
[signer.callers.one]
token_file = "one.token"
keys = []
[signer.callers.two]
token_file = "two.token"
keys = []
"#;

/// A folder where everything is as it should be.
fn good() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    write("keygate.toml", CONFIG);
    certificate(dir.path(), "a", 400);
    write("one.token", "0123456789abcdef0123456789abcdef-one\n");
    write("two.token", "0123456789abcdef0123456789abcdef-two\n");
    write("dev.key", &"01".repeat(32));
    for secret in ["one.token", "two.token", "dev.key"] {
        fs::set_permissions(dir.path().join(secret), fs::Permissions::from_mode(0o600)).unwrap();
    }
    dir
}

/// What is found once `change` has been made to a good folder.
fn found(change: impl Fn(&Path)) -> String {
    found_of(CONFIG, change)
}

/// As [`found`], with another file.
fn found_of(config: &str, change: impl Fn(&Path)) -> String {
    let dir = good();
    fs::write(dir.path().join("keygate.toml"), config).unwrap();
    change(dir.path());
    let loaded = load(&dir.path().join("keygate.toml")).unwrap();
    let later = SystemTime::now();
    files::check(&loaded, later).into_iter().map(|d| format!("{}\n", d.message)).collect()
}

#[test]
fn a_good_folder_is_good() {
    assert_eq!(found(|_| {}), "");
}

#[test]
fn files_of_nodes() {
    let config = format!("{CONFIG}[signer.chains.one]\nid = 1\nrpc_file = \"rpc\"\n");
    let of = |text: &str, mode: u32| {
        found_of(&config, |dir| {
            fs::write(dir.join("rpc"), text).unwrap();
            fs::set_permissions(dir.join("rpc"), fs::Permissions::from_mode(mode)).unwrap();
        })
    };
    assert_eq!(of("https://a.example/s3cret\n", 0o640), "");
    assert!(of("https://a.example/s3cret\n", 0o644).contains("rpc: anybody on this machine may read"));
    for (text, what) in
        [("", "rpc: holds no URL"), ("s3cret", "rpc: expected a URL"), ("ws://s3cret", "rpc: expected a URL")]
    {
        let found = of(text, 0o600);
        assert!(found.contains(what) && !found.contains("s3cret"), "{found}");
    }
    assert!(found_of(&config, |_| {}).contains("rpc: No such file"));
}

#[test]
fn certificates_and_keys() {
    let says = |what: &str, change: &dyn Fn(&Path)| {
        let found = found(change);
        assert!(found.contains(what), "{found} should say {what}");
    };
    says("a.crt: No such file", &|dir| fs::remove_file(dir.join("a.crt")).unwrap());
    says("a.crt: holds no certificate", &|dir| fs::write(dir.join("a.crt"), "").unwrap());
    says("a.key: holds no private key", &|dir| fs::write(dir.join("a.key"), "garbage").unwrap());
    says("is not the key of", &|dir| {
        certificate(dir, "b", 400);
        fs::rename(dir.join("b.key"), dir.join("a.key")).unwrap();
    });
    says("a.crt: not an X.509 certificate", &|dir| {
        fs::write(dir.join("a.crt"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    });
    says("a.crt: expires at", &|dir| certificate(dir, "a", 20));
    says("a.crt: expired at", &|dir| certificate(dir, "a", 0));
}

#[test]
fn tokens_and_local_keys() {
    let says = |what: &str, change: &dyn Fn(&Path)| {
        let found = found(change);
        assert!(found.contains(what) && !found.contains("short") && !found.contains("0123456789"), "{found}");
    };
    says("one.token: a token is at least 16", &|dir| fs::write(dir.join("one.token"), "short").unwrap());
    says("one.token: No such file", &|dir| fs::remove_file(dir.join("one.token")).unwrap());
    says("have the same token", &|dir| {
        fs::copy(dir.join("one.token"), dir.join("two.token")).unwrap();
    });
    says("more than two tokens", &|dir| {
        let lines = ["a", "b", "c"].map(|end| format!("0123456789abcdef0123456789abcdef{end}\n"));
        fs::write(dir.join("one.token"), lines.concat()).unwrap();
    });
    // The next one of the second is the first's, by its hash.
    says("have the same token", &|dir| {
        let hash = keygate_config::TokenHash::of(b"0123456789abcdef0123456789abcdef-one").line();
        fs::write(dir.join("two.token"), format!("0123456789abcdef0123456789abcdef-two\n{hash}\n")).unwrap();
    });
    says("dev.key: No such file", &|dir| fs::remove_file(dir.join("dev.key")).unwrap());
    says("dev.key: others may touch it (mode 0644)", &|dir| {
        fs::set_permissions(dir.join("dev.key"), fs::Permissions::from_mode(0o644)).unwrap();
    });
}

#[test]
fn a_token_that_may_be_guessed_is_a_warning() {
    let found = found(|dir| fs::write(dir.join("one.token"), "0123456789abcdef").unwrap());
    assert!(found.contains("one.token: a token of fewer than 32 characters may be guessed"), "{found}");
}

#[test]
fn the_signers_tls() {
    let tls = "listen = [\"unix:s.sock\", \"https://127.0.0.1:1\"]\n\
               tls = { cert = \"a.crt\", key = \"a.key\", client_ca = \"a.crt\" }";
    let config = CONFIG.replace("listen = \"unix:s.sock\"", tls);
    assert_ne!(config, CONFIG);
    assert_eq!(found_of(&config, |_| {}), "");
    for (from, to, what) in [
        ("client_ca = \"a.crt\"", "client_ca = \"client.pem\"", "client.pem: No such file"),
        ("client_ca = \"a.crt\"", "client_ca = \"dev.key\"", "dev.key: holds no certificate"),
        ("key = \"a.key\", client", "key = \"dev.key\", client", "dev.key: holds no private key"),
        ("listen =", "user = \"no-such-user\"\nlisten =", "this machine has no user \"no-such-user\""),
    ] {
        let found = found_of(&config.replace(from, to), |_| {});
        assert!(found.contains(what), "{found} should say {what}");
    }
}

#[test]
fn tokens_that_others_may_read() {
    let with =
        |mode: u32| found(|dir| fs::set_permissions(dir.join("one.token"), fs::Permissions::from_mode(mode)).unwrap());
    for mode in [0o644, 0o604, 0o602] {
        let said = with(mode);
        assert!(said.contains("one.token: anybody") && said.contains(&format!("(mode {mode:04o})")), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    for mode in [0o640, 0o660, 0o400] {
        assert_eq!(with(mode), "", "{mode:o}");
    }
}

#[test]
fn folders_logs_sockets_and_ledgers() {
    let says = |more: &str, what: &str, change: &dyn Fn(&Path)| {
        let found = found_of(&format!("{more}\n{CONFIG}"), change);
        assert!(found.contains(what), "{more}: {found} should say {what}");
        assert_eq!(found.lines().count(), 1, "{more}: {found}");
    };
    let none = |_: &Path| {};
    let file =
        |name: &'static str| move |dir: &Path| fs::write(dir.join(name), "not a folder, not a database").unwrap();
    let folder = |name: &'static str| move |dir: &Path| fs::create_dir(dir.join(name)).unwrap();
    // The default admin socket is in the folder, too.
    let elsewhere = "[admin]\nlisten = \"unix:admin.sock\"\n";
    let process = format!("{elsewhere}[process]\nstate_dir = \"state/deeper\"");
    says(elsewhere, "process.state_dir: ", &file("state"));
    says(elsewhere, "state: there is a file that is no folder", &file("state"));
    says(&process, "process.state_dir: ", &file("state"));
    let link = |dir: &Path| std::os::unix::fs::symlink("nowhere", dir.join("state")).unwrap();
    says(elsewhere, "state: a link that leads nowhere", &link);
    let log = "[access_log]\npath = \"log/access.log\"";
    says(log, "log: there is no such folder", &none);
    says(log, "access.log: is a folder", &|dir| fs::create_dir_all(dir.join("log/access.log")).unwrap());
    says(log, "access_log.path: ", &file("log"));
    says(elsewhere, "admin.sock: there is a file that is no socket", &file("admin.sock"));
    says("", "s.sock: there is a file that is no socket", &file("s.sock"));
    says("", "l.db: not a regular file", &folder("l.db"));
    says("", "l.db: is no SQLite database", &file("l.db"));
    // Not even for root.
    let ledger = |path: &str| format!("[signer]\nlisten = \"unix:s.sock\"\nledger = \"sqlite:{path}\"\n");
    let nowhere = found_of(&ledger("/proc/x/l.db"), none);
    assert!(nowhere.contains("/proc: ") && nowhere.lines().count() == 1, "{nowhere}");
    says("[listeners.far]\nbind = [\"192.0.2.1:1\"]", "192.0.2.1:1 cannot be bound on this machine", &none);
    // What a gateway and a signer that run already have made is no fault.
    let made = |dir: &Path| {
        for (name, content) in [("log/access.log", ""), ("l.db", "SQLite format 3\0..."), ("state/lock", "")] {
            let path = dir.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        drop(std::os::unix::net::UnixListener::bind(dir.join("s.sock")).unwrap());
        drop(std::os::unix::net::UnixListener::bind(dir.join("state/admin.sock")).unwrap());
    };
    assert_eq!(found_of(&format!("{log}\n{CONFIG}"), made), "");
}

#[test]
fn pipes_and_devices_are_not_waited_for() {
    let fifo = |path: &Path| {
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    };
    let says = |name: &'static str, config: &str, what: &str| {
        let found = found_of(config, |dir| {
            let _ = fs::remove_file(dir.join(name));
            fifo(&dir.join(name));
        });
        assert!(found.contains(&format!("{name}: {what}")), "{name}: {found}");
    };
    let log = |path: &str| format!("[access_log]\npath = \"{path}\"\n{CONFIG}");
    for name in ["a.crt", "a.key", "one.token", "dev.key", "l.db"] {
        says(name, CONFIG, "not a regular file");
    }
    says("access.log", &log("access.log"), "neither a file nor a character device");
    for device in ["/dev/null", "/dev/full"] {
        assert_eq!(found_of(&log(device), |_| {}), "", "{device}");
    }
    let endless = found_of(&CONFIG.replace("one.token", "/dev/zero"), |_| {});
    assert_eq!(endless, "/dev/zero: not a regular file\n");
}

#[test]
fn a_log_may_be_in_the_state_folder_that_the_start_makes() {
    for (state, log) in [("state", "state/access.log"), ("state/deeper", "state/access.log"), ("a/../b", "./b/log")] {
        let config = format!("[process]\nstate_dir = \"{state}\"\n[access_log]\npath = \"{log}\"\n{CONFIG}");
        assert_eq!(found_of(&config, |_| {}), "", "{state} {log}");
    }
    let config = format!("[access_log]\npath = \"state/log/access.log\"\n{CONFIG}");
    assert!(found_of(&config, |_| {}).contains("state/log: there is no such folder"));
}

#[test]
fn every_file_is_there_for_one_thing() {
    let admin = "[admin]\nlisten = \"127.0.0.1:9901\"\ntoken_file = \"admin.token\"\n";
    let refused = |more: &str, config: &str, change: &dyn Fn(&Path)| {
        let dir = good();
        fs::write(dir.path().join("keygate.toml"), format!("{more}\n{config}")).unwrap();
        change(dir.path());
        let found = load(&dir.path().join("keygate.toml")).map_or_else(|found| found.to_string(), |_| String::new());
        // Warnings are none of this.
        found.split("; ").filter(|said| said.contains(" file, ")).map(|said| format!("{said}\n")).collect::<String>()
    };
    let none = |_: &Path| {};
    let log = |path: &str| format!("[access_log]\npath = \"{path}\"\n");
    let says = |found: String, one: &str, other: &str, place: &str| {
        assert!(found.contains(one) && found.contains(other), "{found} should name {one} and {other}");
        assert!(found.contains(place) && found.lines().count() == 1, "{place}: {found}");
    };
    for (path, is) in [
        ("l.db", "signer.ledger"),
        ("state/../l.db", "signer.ledger"),
        ("l.db.lock", "the lock of signer.ledger"),
        ("l.db-wal", "the log of signer.ledger"),
        ("s.sock.lock", "the lock of signer.listen"),
        ("keygate.toml", "this file"),
        ("state/weights.json", "the kept weights of process.state_dir"),
        ("./state//lock", "the lock of process.state_dir"),
        ("state", "process.state_dir"),
        ("a.crt", "a certificate of listener \"https\""),
        ("a.key", "a key of listener \"https\""),
        ("one.token", "the token of signer.callers.one"),
        ("dev.key", "signer.keys.dev"),
        ("admin.token", "admin.token_file"),
    ] {
        let place = if path.starts_with("l.db") { "keygate.toml:14:10" } else { "" };
        says(refused(&format!("{}{admin}", log(path)), CONFIG, &none), "access_log.path", is, place);
    }
    // Under another name: links to what is there, and to what is not there yet.
    let link = |from: &'static str, to: &'static str| {
        move |dir: &Path| {
            std::os::unix::fs::symlink(from, dir.join(to)).unwrap();
        }
    };
    says(refused(&log("b.log"), CONFIG, &link("l.db", "b.log")), "access_log.path", "signer.ledger", "");
    says(refused(&log("b.log"), CONFIG, &link("a.key", "b.log")), "access_log.path", "a key of", "");
    says(refused(&log("other/l.db"), CONFIG, &link(".", "other")), "access_log.path", "signer.ledger", "");
    let hard = |dir: &Path| fs::hard_link(dir.join("a.crt"), dir.join("b.log")).unwrap();
    says(refused(&log("b.log"), CONFIG, &hard), "access_log.path", "a certificate of", "");
    assert_eq!(refused(&log("b.log"), CONFIG, &link("b.log", "b.log")), "", "a loop is found by who opens it");
    // The signer's own, and the gateway's.
    let config = |from: &str, to: &str| {
        assert!(CONFIG.contains(from));
        CONFIG.replace(from, to)
    };
    let listens = |path: &str| config("unix:s.sock", &format!("unix:{path}"));
    says(refused("", &listens("l.db"), &none), "signer.ledger", "signer.listen", "keygate.toml:9:10");
    says(refused("", &listens("l.db.lock"), &none), "the lock of signer.ledger", "signer.listen", "keygate.toml:9:10");
    says(refused("", &listens("state/a/../admin.sock"), &none), "signer.listen", "admin.listen", "keygate.toml:8:10");
    says(refused("", &config("sqlite:l.db", "sqlite:dev.key"), &none), "signer.ledger", "signer.keys.dev", "");
    says(
        refused("", &config("sqlite:l.db", "sqlite:s.sock/l.db"), &none),
        "signer.ledger is below signer.listen",
        "which is a file",
        "",
    );
    let two = config("\"unix:s.sock\"", "[\"unix:a\", \"unix:b/../a\"]");
    says(refused("", &two, &none), "signer.listen and signer.listen", "", "keygate.toml:8:10");
    // What is only read may be read twice, and a signer alone has no state folder.
    let shared = config(r#""a.key" }"#, r#""a.key" }, { cert = "./a.crt", key = "a.key" }"#);
    assert_eq!(refused("", &shared, &none), "");
    assert_eq!(refused("", "[signer]\nlisten = \"unix:state/lock\"\nledger = \"sqlite:l.db\"\n", &none), "");
}

#[test]
fn what_may_not_be_written() {
    // Root may write anywhere.
    if rustix::process::geteuid().is_root() {
        return;
    }
    let read_only = |name: &'static str| {
        move |dir: &Path| {
            fs::create_dir_all(dir.join(name)).unwrap();
            fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o500)).unwrap();
        }
    };
    assert!(found(read_only("state")).contains("state: Permission denied"));
    let log = format!("[access_log]\npath = \"log/access.log\"\n{CONFIG}");
    assert!(found_of(&log, read_only("log")).contains("log: Permission denied"));
}

#[test]
fn a_file_without_anything_to_run() {
    let nothing = "nothing to run: neither [listeners] nor [signer]\n";
    assert_eq!(found_of("", |_| {}), nothing);
    assert_eq!(found_of("[process]\nworkers = 2\n", |_| {}), nothing);
    // A gateway's folders are nothing to a signer alone.
    let signer = "[signer]\nlisten = \"unix:s.sock\"\nledger = \"sqlite:l.db\"\n";
    assert_eq!(found_of(signer, |dir| fs::write(dir.join("state"), "").unwrap()), "");
}
