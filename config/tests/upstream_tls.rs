//! TLS to servers: what the file may say, and what `check` finds in the files it names.

mod certificate;

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use keygate_config::{Loaded, Server, TlsVersion, files, load};

use certificate::certificate;

const CONFIG: &str = r#"[listeners.http]
bind = ["127.0.0.1:8080"]
[upstreams.core]
servers = ["core.internal:3000", "[::1]:3000", "127.0.0.1:3000"]
[upstreams.core.tls]
ca = "ca.pem"
cert = "a.crt"
key = "a.key"
[[routes]]
name = "all"
backends = [{ upstream = "core" }]
"#;

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    certificate(dir.path(), "a", 400);
    certificate(dir.path(), "b", 400);
    fs::copy(dir.path().join("b.crt"), dir.path().join("ca.pem")).unwrap();
    dir
}

fn loaded(dir: &Path, config: &str) -> Result<Loaded, String> {
    fs::write(dir.join("keygate.toml"), config).unwrap();
    load(&dir.join("keygate.toml")).map_err(|found| found.to_string())
}

/// `line:column: message` of what is found, once `change` has been made to a good folder.
fn found(config: &str, change: impl Fn(&Path)) -> String {
    let dir = folder();
    change(dir.path());
    let path = dir.path().display().to_string();
    match loaded(dir.path(), config) {
        Err(found) => found,
        Ok(loaded) => {
            let found = files::check(&loaded, SystemTime::now());
            keygate_config::Diagnostics::new(loaded.source, found).to_string()
        }
    }
    .replace(&path, "")
}

#[test]
fn a_good_one_is_good() {
    assert_eq!(found(CONFIG, |_| {}), "");
    for tls in ["tls = {}", "tls.ca = \"ca.pem\"", "tls = { min_version = \"1.3\", server_name = \"::1\" }"] {
        let (before, rest) = CONFIG.split_once("[upstreams.core.tls]").unwrap();
        let (_, routes) = rest.split_once("[[routes]]").unwrap();
        let config = format!("{before}{tls}\n[[routes]]{routes}");
        let found = found(&config, |_| {});
        // This machine may trust nobody.
        assert!(found.is_empty() || found.contains("this machine trusts no authority"), "{tls}: {found}");
    }
}

#[test]
fn what_it_says_is_what_is_used() {
    let dir = folder();
    let names = |config: &str| {
        let loaded = loaded(dir.path(), config).unwrap();
        let upstream = &loaded.config.upstreams["core"];
        let tls = upstream.tls.clone().unwrap();
        let name = |server: &Server| tls.name(server).unwrap().to_string();
        upstream.servers.iter().map(|server| name(server)).collect::<Vec<_>>()
    };
    assert_eq!(names(CONFIG), ["core.internal", "::1", "127.0.0.1"]);
    let named = CONFIG.replace("ca = ", "server_name = \"vault.internal\"\nca = ");
    assert_eq!(names(&named), ["vault.internal"; 3]);
    let tls = loaded(dir.path(), CONFIG).unwrap().config.upstreams["core"].tls.clone().unwrap();
    assert_eq!(tls.files().map(|file| file.value.clone()).collect::<Vec<_>>(), {
        ["ca.pem", "a.crt", "a.key"].map(|file| dir.path().join(file))
    });
    assert_eq!(tls.min_version, TlsVersion::V1_2);
}

#[test]
fn what_is_wrong_with_it_has_its_place() {
    for (from, to, says) in [
        ("ca = ", "cafile = ", "keygate.toml:6:1: unknown field `cafile`"),
        ("ca = ", "verify = false\nca = ", "keygate.toml:6:1: unknown field `verify`"),
        (
            "key = \"a.key\"",
            "",
            "keygate.toml:7:8: upstream \"core\": tls.cert and tls.key go together (there is no key",
        ),
        (
            "cert = \"a.crt\"",
            "",
            "keygate.toml:8:7: upstream \"core\": tls.cert and tls.key go together (there is no cert",
        ),
        ("ca = ", "min_version = \"1.1\"\nca = ", "keygate.toml:6:15: unknown variant `1.1`"),
        ("ca = ", "server_name = \"a.test:443\"\nca = ", "keygate.toml:6:15: expected a host name or an IP address"),
        ("ca = ", "server_name = \"https://a\"\nca = ", "keygate.toml:6:15: expected a host name or an IP address"),
        ("ca = ", "server_name = \"\"\nca = ", "keygate.toml:6:15: expected a host name or an IP address"),
        ("ca = ", "server_name = \"a.test.\"\nca = ", "keygate.toml:6:15: expected a host name or an IP address"),
        ("core.internal:3000", "core.1:3000", "keygate.toml:4:12: no certificate can be for \"core.1\""),
    ] {
        assert!(CONFIG.contains(from));
        let found = found(&CONFIG.replacen(from, to, 1), |_| {});
        assert!(found.contains(says), "{to}: {found} should say {says}");
    }
    // A name given makes the server's own one of no account.
    let named = CONFIG.replace("core.internal:3000", "core.1:3000").replace("ca = ", "server_name = \"a.test\"\nca = ");
    assert_eq!(found(&named, |_| {}), "");
}

#[test]
fn its_files_are_looked_at() {
    let says = |what: &str, change: &dyn Fn(&Path)| {
        let found = found(CONFIG, change);
        assert!(found.contains(what) && !found.contains("PRIVATE KEY"), "{found} should say {what}");
        assert!(!found.contains("; "), "one finding: {found}");
    };
    let write = |name: &'static str, text: &'static str| move |dir: &Path| fs::write(dir.join(name), text).unwrap();
    let no_x509 = "-----BEGIN CERTIFICATE-----\nZ2FyYmFnZQ==\n-----END CERTIFICATE-----\n";
    says("keygate.toml:6:6: /ca.pem: No such file", &|dir| fs::remove_file(dir.join("ca.pem")).unwrap());
    says("keygate.toml:6:6: /ca.pem: holds no certificate", &write("ca.pem", ""));
    says("keygate.toml:6:6: /ca.pem: holds no certificate", &|dir| {
        fs::copy(dir.join("a.key"), dir.join("ca.pem")).unwrap();
    });
    says("keygate.toml:6:6: /ca.pem: ", &write("ca.pem", no_x509));
    says("keygate.toml:6:6: /ca.pem: ", &write("ca.pem", "-----BEGIN CERTIFICATE-----\nZ2Fy"));
    says("keygate.toml:7:8: /a.crt: No such file", &|dir| fs::remove_file(dir.join("a.crt")).unwrap());
    says("keygate.toml:7:8: /a.crt: not an X.509 certificate", &write("a.crt", no_x509));
    says("keygate.toml:7:8: /a.key: holds no private key", &write("a.key", "garbage"));
    says("keygate.toml:7:8: /a.key: is not the key of /a.crt", &|dir| {
        fs::copy(dir.join("b.key"), dir.join("a.key")).unwrap();
    });
    says("keygate.toml:7:8: /a.crt: expired at", &|dir| certificate(dir, "a", 0));
    says("keygate.toml:7:8: /a.crt: expires at", &|dir| certificate(dir, "a", 20));
}

#[test]
fn its_files_are_not_written() {
    for file in ["ca.pem", "a.crt", "a.key"] {
        let found = found(&format!("[access_log]\npath = \"{file}\"\n{CONFIG}"), |_| {});
        assert!(found.contains("access_log.path and a TLS file of upstream \"core\" are the same file"), "{found}");
    }
}
