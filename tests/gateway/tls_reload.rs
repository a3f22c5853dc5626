//! Certificates that change while the gateway serves.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::client::{WhenDropped, tls_config};
use super::{Client, Edge, Simple, TLS, tls_home};
use crate::support::{Ca, Home, Origin, Pem, SOON, wait_until};

fn replace(home: &Home, leaf: &Pem) {
    home.write("tls/site.crt", &leaf.cert);
    home.secret("tls/site.key", &leaf.key);
}

/// The certificate that a new connection is shown.
fn shown(edge: &Edge, ca: &Ca) -> CertificateDer<'static> {
    let client = Client::connect_tls(edge.https, "example.com", &tls_config(ca, &["http/1.1"]));
    client.session().peer_certificates().expect("a certificate")[0].clone()
}

fn der(leaf: &Pem) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(leaf.cert.as_bytes()).expect("a certificate")
}

#[test]
fn a_replaced_file_is_served_to_new_connections_and_old_ones_go_on() {
    let ca = Ca::new();
    let (origin, home) = (Origin::start("blue"), tls_home(&ca, &["example.com"]));
    let edge = Simple { servers: &[origin.server()], rest: TLS, ..Simple::default() }.start_in(&home);
    let mut before = Client::connect_tls(edge.https, "example.com", &tls_config(&ca, &["http/1.1"]));
    assert_eq!(before.get("/").status, 200);
    let old = before.session().peer_certificates().expect("a certificate")[0].clone();

    let leaf = ca.leaf(&["example.com"]);
    assert_ne!(old, der(&leaf));
    replace(&home, &leaf);
    wait_until(SOON, "the new certificate is shown", || (shown(&edge, &ca) == der(&leaf)).then_some(()));
    assert_eq!(before.get("/").status, 200, "a connection from before goes on");
    // What the admin API and the metric say is what is served.
    let listed = home.run(["certs", "--json"]).json();
    assert_eq!(listed[0]["names"], serde_json::json!(["example.com"]));
    assert!(edge.metric("keygate_certificate_expiry_timestamp_seconds", &[("listener", "https")]).is_some());
}

#[test]
fn certificates_are_swapped_under_load() {
    let ca = Ca::new();
    let (origin, home) = (Origin::start("blue"), tls_home(&ca, &["example.com"]));
    let edge = Simple { servers: &[origin.server()], rest: TLS, ..Simple::default() }.start_in(&home);
    let (done, served) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let _done = WhenDropped(&done);
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    // A full handshake, and three requests.
                    let mut client = Client::connect_tls(edge.https, "example.com", &tls_config(&ca, &["http/1.1"]));
                    for _ in 0..3 {
                        assert_eq!(client.get("/").status, 200);
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        // One connection lives through all of it.
        let mut old = Client::connect_tls(edge.https, "example.com", &tls_config(&ca, &["http/1.1"]));
        for n in 0..4 {
            let leaf = ca.leaf(&["example.com"]);
            replace(&home, &leaf);
            wait_until(SOON, "the new certificate is shown", || (shown(&edge, &ca) == der(&leaf)).then_some(()));
            let so_far = served.load(Ordering::Relaxed);
            wait_until(SOON, "the load goes on", || (served.load(Ordering::Relaxed) > so_far + 10).then_some(()));
            assert_eq!(old.get(&format!("/{n}")).status, 200);
        }
    });
    assert!(edge.metric("keygate_reloads_total", &[("result", "ok")]) >= Some(4.0));
    let failed = edge.metric("keygate_tls_handshake_failures_total", &[]);
    assert!(matches!(failed, None | Some(0.0)), "{failed:?}");
}

#[test]
fn a_bad_certificate_changes_nothing() {
    let ca = Ca::new();
    let (origin, home) = (Origin::start("blue"), tls_home(&ca, &["example.com"]));
    let edge = Simple { servers: &[origin.server()], rest: TLS, ..Simple::default() }.start_in(&home);
    let before = shown(&edge, &ca);
    let generation = edge.status()["generation"].clone();
    let leaf = ca.leaf(&["example.com"]);

    // Another key; then no certificate at all. The watcher sees each of them, and so does the operator.
    home.secret("tls/site.key", &leaf.key);
    edge.wait_reloads("error", 1.0);
    let refused = home.run(["reload"]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("tls/site.key: is not the key of"), "{}", refused.stderr);
    home.write("tls/site.crt", "garbage");
    edge.wait_reloads("error", 3.0);
    let status = edge.status();
    assert_eq!((&status["last_reload"]["ok"], &status["generation"]), (&false.into(), &generation));
    assert!(status["last_reload"]["error"].as_str().expect("why").contains("tls/site.crt"), "{status}");
    assert_eq!(shown(&edge, &ca), before);
    assert_eq!(edge.curl_tls("example.com", "/", []).status, 200);

    replace(&home, &leaf);
    wait_until(SOON, "the mended certificate is shown", || (shown(&edge, &ca) == der(&leaf)).then_some(()));
    assert_eq!(edge.status()["last_reload"]["ok"], true);
}
