//! TLS at a listener: versions, certificates by SNI, ALPN, resumption, key exchange.

use std::process::Command;

use rustls::NamedGroup;

use super::client::tls_config;
use super::{Client, Edge, Simple, TLS, tls_home};
use crate::support::{Ca, Finished, Origin, Pem, curl, openssl, run};

/// `openssl s_client` with these arguments: it asks for "/", and ends when the gateway closes.
pub fn s_client<const N: usize>(edge: &Edge, args: [&str; N]) -> Finished {
    let to = format!("127.0.0.1:{}", edge.https);
    let ca = edge.home.path("ca.pem").display().to_string();
    let always = ["s_client", "-connect", &to, "-CAfile", &ca, "-ign_eof"];
    let request = b"GET / HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n";
    openssl(always.into_iter().chain(args), request)
}

/// Whether this is the certificate that the gateway showed to `s_client`.
pub fn showed(done: &Finished, pem: &Pem) -> bool {
    done.stdout.contains(pem.cert.replace('\r', "").trim())
}

#[test]
fn both_versions_are_spoken_and_the_chain_verifies() {
    let (origin, home) = (Origin::start("blue"), tls_home(&Ca::new(), &["example.com"]));
    let edge = Simple { servers: &[origin.server()], rest: TLS, ..Simple::default() }.start_in(&home);
    for (flag, version) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let done = s_client(&edge, [flag, "-verify_hostname", "example.com", "-servername", "example.com"]);
        let text = done.success();
        assert!(text.contains(&format!("New, {version}, Cipher is")), "{text}");
        assert!(text.contains("Verify return code: 0 (ok)"), "{text}");
        assert!(text.contains("HTTP/1.1 200"), "{text}");
        edge.counts("keygate_tls_handshakes_total", &[("version", version), ("kind", "full")], 1.0);
    }
    for flag in ["-tls1", "-tls1_1"] {
        let done = s_client(&edge, [flag, "-cipher", "DEFAULT@SECLEVEL=0"]);
        assert!(done.code != 0 && done.output().contains(" alert "), "{}", done.output());
    }
}

#[test]
fn a_certificate_is_chosen_by_name() {
    let ca = Ca::new();
    let home = tls_home(&ca, &["default.test"]);
    let mut certificates = Vec::new();
    for (file, names) in [
        ("exact", ["api.example.com", "www.example.com"]),
        ("wildcard", ["*.example.com", "*.example.com"]),
        ("deep", ["*.deep.example.com", "*.deep.example.com"]),
    ] {
        let leaf = ca.leaf(&names);
        home.write(&format!("tls/{file}.crt"), &leaf.cert);
        home.secret(&format!("tls/{file}.key"), &leaf.key);
        certificates.push(leaf);
    }
    let default = Pem { cert: std::fs::read_to_string(home.path("tls/site.crt")).expect("a file"), key: String::new() };
    let tls = r#"
[listeners.https]
bind = ["127.0.0.1:$HTTPS"]
tls.certificates = [
  { cert = "tls/site.crt", key = "tls/site.key" },
  { cert = "tls/wildcard.crt", key = "tls/wildcard.key" },
  { cert = "tls/exact.crt", key = "tls/exact.key" },
  { cert = "tls/deep.crt", key = "tls/deep.key" },
]"#;
    let origin = Origin::start("blue");
    let edge = Simple { servers: &[origin.server()], rest: tls, ..Simple::default() }.start_in(&home);
    let [exact, wildcard, deep] = certificates.as_slice() else { unreachable!("three") };
    for (name, certificate) in [
        ("api.example.com", exact),
        ("API.Example.COM", exact),
        ("www.example.com", exact),
        ("other.example.com", wildcard),
        ("x.deep.example.com", deep),
        // A wildcard is one label.
        ("a.b.example.com", &default),
        ("example.com", &default),
        ("elsewhere.test", &default),
    ] {
        assert!(showed(&s_client(&edge, ["-servername", name]), certificate), "{name}");
    }
    assert!(showed(&s_client(&edge, ["-noservername"]), &default), "no name");
}

#[test]
fn alpn_offers_both_protocols() {
    let (origin, home) = (Origin::start("blue"), tls_home(&Ca::new(), &["example.com"]));
    let edge = Simple { servers: &[origin.server()], rest: TLS, ..Simple::default() }.start_in(&home);
    for (offered, chosen) in [
        ("h2,http/1.1", "ALPN protocol: h2"),
        ("http/1.1,h2", "ALPN protocol: h2"),
        ("http/1.1", "ALPN protocol: http/1.1"),
    ] {
        let done = s_client(&edge, ["-alpn", offered]);
        assert!(done.stdout.contains(chosen), "{offered}: {}", done.output());
    }
    assert!(s_client(&edge, []).stdout.contains("No ALPN negotiated"));
    for (flag, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let answer = edge.curl_tls("example.com", "/", [flag]);
        assert_eq!((answer.status, answer.version.as_str()), (200, version));
        assert_eq!(answer.header("x-origin"), Some("blue"));
    }
}

#[test]
fn sessions_resume_in_both_versions_and_after_a_reload() {
    let (origin, home) = (Origin::start("blue"), tls_home(&Ca::new(), &["example.com"]));
    let simple = Simple { servers: &[origin.server()], rest: TLS, ..Simple::default() };
    let edge = simple.start_in(&home);
    for (flag, version) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let session = home.path(format!("{version}.session")).display().to_string();
        let first = s_client(&edge, [flag, "-sess_out", &session]);
        assert!(first.success().contains(&format!("New, {version}")), "{}", first.stdout);
        let reused = format!("Reused, {version}");
        let again = s_client(&edge, [flag, "-sess_in", &session]);
        assert!(again.success().contains(&reused), "{}", again.stdout);
        assert!(again.stdout.contains("HTTP/1.1 200"), "{}", again.stdout);

        edge.config(&format!("{}\n# {version}\n", simple.toml()));
        home.run(["reload"]).success();
        let after = s_client(&edge, [flag, "-sess_in", &session]);
        assert!(after.success().contains(&reused), "{}", after.stdout);
        let resumed = edge.metric("keygate_tls_handshakes_total", &[("version", version), ("kind", "resumed")]);
        assert_eq!(resumed, Some(2.0));
    }
}

#[test]
fn a_session_of_another_gateway_is_not_resumed() {
    let (origin, home) = (Origin::start("blue"), tls_home(&Ca::new(), &["example.com"]));
    let simple = Simple { servers: &[origin.server()], rest: TLS, ..Simple::default() };
    let mut edge = simple.start_in(&home);
    let session = home.path("session").display().to_string();
    s_client(&edge, ["-sess_out", &session]).success();
    edge.keygate.kill9();
    edge.start_again();
    let after = s_client(&edge, ["-sess_in", &session]);
    assert!(after.success().contains("New, TLSv1.3"), "keys live in memory only: {}", after.stdout);
}

#[test]
fn key_exchange_is_post_quantum_with_who_can() {
    let ca = Ca::new();
    let (origin, home) = (Origin::start("blue"), tls_home(&ca, &["example.com"]));
    let edge = Simple { servers: &[origin.server()], rest: TLS, ..Simple::default() }.start_in(&home);
    let mut client = Client::connect_tls(edge.https, "example.com", &tls_config(&ca, &["http/1.1"]));
    let group = client.session().negotiated_key_exchange_group().map(rustls::crypto::SupportedKxGroup::name);
    assert_eq!(group, Some(NamedGroup::X25519MLKEM768));
    assert_eq!(client.get("/").status, 200);
    // OpenSSL 3.0 cannot: it gets the classical half.
    let done = s_client(&edge, []);
    assert!(done.success().contains("Server Temp Key: X25519"), "{}", done.stdout);
}

#[test]
fn the_lowest_version_can_be_raised() {
    let (origin, home) = (Origin::start("blue"), tls_home(&Ca::new(), &["example.com"]));
    let tls = format!("{TLS}tls.min_version = \"1.3\"\n");
    let edge = Simple { servers: &[origin.server()], rest: &tls, ..Simple::default() }.start_in(&home);
    let refused = s_client(&edge, ["-tls1_2"]);
    assert!(refused.code != 0 && refused.output().contains("alert protocol version"), "{}", refused.output());
    assert_eq!(edge.try_curl_tls("example.com", "/", ["--tls-max", "1.2"]).expect_err("no TLS 1.2").code, 35);
    assert!(s_client(&edge, ["-tls1_3"]).success().contains("HTTP/1.1 200"));
    edge.counts("keygate_tls_handshake_failures_total", &[("reason", "protocol")], 2.0);
}

#[test]
fn plain_http_to_a_tls_listener_is_no_request() {
    let (origin, home) = (Origin::start("blue"), tls_home(&Ca::new(), &["example.com"]));
    let edge = Simple { servers: &[origin.server()], rest: TLS, ..Simple::default() }.start_in(&home);
    let done = run(Command::new("curl").args(["-q", "-sS", &format!("http://127.0.0.1:{}/", edge.https)]), b"");
    assert_ne!(done.code, 0, "{}", done.output());
    assert_eq!(origin.hits(), 0);
    assert_eq!(curl([edge.url("/")]).status, 200, "the gateway goes on");
}
