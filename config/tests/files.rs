//! What `check` finds in the files that a configuration names.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use keygate_config::{files, load};

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
    write("one.token", "0123456789abcdef-one\n");
    write("two.token", "0123456789abcdef-two\n");
    write("dev.key", &"01".repeat(32));
    fs::set_permissions(dir.path().join("dev.key"), fs::Permissions::from_mode(0o600)).unwrap();
    dir
}

fn certificate(dir: &Path, name: &str, days: u64) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
    params.not_before = (SystemTime::now() - Duration::from_secs(86_400)).into();
    params.not_after = (SystemTime::now() + Duration::from_secs(86_400 * days)).into();
    fs::write(dir.join(name).with_extension("crt"), params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(dir.join(name).with_extension("key"), key.serialize_pem()).unwrap();
}

/// What is found once `change` has been made to a good folder.
fn found(change: impl Fn(&Path)) -> String {
    let dir = good();
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
    says("dev.key: No such file", &|dir| fs::remove_file(dir.join("dev.key")).unwrap());
    says("dev.key: others may touch it (mode 0644)", &|dir| {
        fs::set_permissions(dir.join("dev.key"), fs::Permissions::from_mode(0o644)).unwrap();
    });
}
