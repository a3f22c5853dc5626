//! What `keygate check` says of certificates, and what a start makes of them.

use super::{Simple, TLS, tls_home};
use crate::support::{Ca, Home, SOON};

/// A file that would serve, were its certificate any good.
fn with_certificate(break_it: impl FnOnce(&Ca, &Home)) -> Home {
    let ca = Ca::new();
    let home = tls_home(&ca, &["example.com"]);
    let toml = Simple { servers: &["127.0.0.1:9".to_owned()], rest: TLS, ..Simple::default() }.toml();
    home.config(&toml.replace("$HTTPS", "0").replace("$HTTP", "0"));
    break_it(&ca, &home);
    home
}

/// `check` fails and says this, with the place of the certificate in the file.
#[track_caller]
fn check_says(home: &Home, what: &str) {
    let checked = home.run(["check"]);
    assert_eq!(checked.code, 1, "{}", checked.output());
    assert!(checked.stderr.contains(what), "{}", checked.stderr);
    let toml = std::fs::read_to_string(home.path("keygate.toml")).expect("a file");
    let (n, line) = toml.lines().enumerate().find(|(_, line)| line.contains("site.crt")).expect("a certificate");
    let column = line.find("{ cert").expect("a table") + 1;
    assert!(checked.stderr.contains(&format!("keygate.toml:{}:{column}", n + 1)), "{}", checked.stderr);
    assert!(checked.stderr.contains(line), "the line is quoted: {}", checked.stderr);
}

#[test]
fn a_good_certificate_passes() {
    let home = with_certificate(|_, _| ());
    assert_eq!(home.run(["check"]).success(), "keygate.toml: ok\n");
}

#[test]
fn a_key_of_another_certificate() {
    let home = with_certificate(|ca, home| drop(home.secret("tls/site.key", ca.leaf(&["example.com"]).key)));
    check_says(&home, "tls/site.key: is not the key of");
    let started = home.run(["gateway"]);
    assert_eq!(started.code, 1);
    assert!(started.stderr.contains("tls/site.key: is not the key of"), "{}", started.stderr);
}

#[test]
fn an_expired_one_and_one_that_is_not_valid_yet() {
    let write = |home: &Home, leaf: &crate::support::Pem| {
        home.write("tls/site.crt", &leaf.cert);
        home.secret("tls/site.key", &leaf.key);
    };
    let expired = with_certificate(|ca, home| write(home, &ca.expired(&["example.com"])));
    check_says(&expired, "tls/site.crt: expired at 2021-01-01T00:00:00Z");
    // A start serves it all the same: some clients look past it, and none could look at nothing.
    let mut serving = expired.start("gateway");
    serving.wait_until(SOON, "it serves", |p| p.stderr().contains("listening").then_some(()));
    assert!(serving.stderr().contains("tls/site.crt: expired at 2021-01-01T00:00:00Z"), "{}", serving.stderr());
    let early = with_certificate(|ca, home| write(home, &ca.not_yet_valid(&["example.com"])));
    check_says(&early, "tls/site.crt: is not valid before 2100-01-01T00:00:00Z");
}

#[test]
fn files_that_hold_something_else() {
    check_says(&with_certificate(|_, home| drop(home.write("tls/site.crt", "garbage"))), "tls/site.crt: ");
    let truncated = |_: &Ca, home: &Home| {
        let pem = std::fs::read_to_string(home.path("tls/site.crt")).expect("a file");
        home.write("tls/site.crt", &pem[..pem.len() / 2]);
    };
    check_says(&with_certificate(truncated), "tls/site.crt: ");
    let no_x509 = "-----BEGIN CERTIFICATE-----\nZ2FyYmFnZQ==\n-----END CERTIFICATE-----\n";
    check_says(&with_certificate(|_, home| drop(home.write("tls/site.crt", no_x509))), "tls/site.crt: not an X.509");
    check_says(
        &with_certificate(|_, home| drop(home.secret("tls/site.key", ""))),
        "tls/site.key: holds no private key",
    );
    let removed = |_: &Ca, home: &Home| std::fs::remove_file(home.path("tls/site.crt")).expect("a file");
    check_says(&with_certificate(removed), "tls/site.crt: ");
}
