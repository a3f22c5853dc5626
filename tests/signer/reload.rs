//! What changes while the signer runs: tokens, certificates, callers, policies; and what does not.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustix::process::Signal;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::listeners::{BY_NAME, BY_TOKEN, MESH, Tls};
use super::{TOKEN, Wallet, ask, assert_problem, listening};
use crate::support::{Ca, Home, Pem, SOON, wait_until};

const NEXT: &str = "the-next-token-of-the-payments-service";

fn status(home: &Home, token: &str) -> u16 {
    ask(home, "/v1/keys", &["-H", &format!("Authorization: Bearer {token}")]).status
}

/// Waits until it is answered so.
#[track_caller]
fn becomes(home: &Home, token: &str, wanted: u16) {
    wait_until(SOON, &format!("{token} is answered {wanted}"), || (status(home, token) == wanted).then_some(()));
}

fn local() -> Home {
    let home = Home::new(&super::keys::local("allow_local_keys = true"));
    home.secret("secrets/payments.token", TOKEN);
    home.secret("state/dev.key", "11".repeat(32));
    home
}

fn reloads(home: &Home, outcome: &str) -> u64 {
    let metrics = ask(home, "/metrics", &[]).text();
    let name = format!("keygate_signer_reloads_total{{outcome=\"{outcome}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or_default()
}

#[test]
fn a_token_is_changed_for_the_next_without_a_gap() {
    let home = local();
    let _signer = listening(home.start("signer"));
    assert_eq!((status(&home, TOKEN), status(&home, NEXT)), (200, 401));
    home.secret("secrets/payments.token", format!("{TOKEN}\n{NEXT}\n"));
    becomes(&home, NEXT, 200);
    assert_eq!(status(&home, TOKEN), 200, "both are good meanwhile");
    home.secret("secrets/payments.token", format!("{NEXT}\n"));
    becomes(&home, TOKEN, 401);
    assert_eq!(status(&home, NEXT), 200);
    assert!(reloads(&home, "ok") >= 2);
}

#[test]
fn a_file_that_does_not_validate_changes_nothing() {
    let home = local();
    let mut signer = listening(home.start("signer"));
    let config = super::keys::local("allow_local_keys = true");
    for (n, bad) in [
        config.replace("policy = \"all\"", "policy = \"none\""),
        config.replace("payments.token", "missing.token"),
        "[listeners.http]\nbind = []\n".to_owned(),
        "nonsense".to_owned(),
    ]
    .iter()
    .enumerate()
    {
        home.config(bad);
        signer.wait_until(SOON, "it is refused", |s| {
            (s.stderr().matches("not reloaded: nothing has changed").count() > n).then_some(())
        });
        assert_eq!(status(&home, TOKEN), 200);
    }
    assert_eq!((reloads(&home, "error"), reloads(&home, "ok")), (4, 0));
    // A file that was missing and comes is enough.
    home.config(&config.replace("payments.token", "next.token"));
    signer.wait_until(SOON, "it is refused", |s| (s.stderr().matches("not reloaded").count() > 4).then_some(()));
    home.secret("secrets/next.token", NEXT);
    becomes(&home, NEXT, 200);
    assert_eq!(status(&home, TOKEN), 401);
}

#[test]
fn what_takes_a_restart_is_named_and_the_rest_is_taken_over() {
    let home = local();
    let mut signer = listening(home.start("signer"));
    let config = super::keys::local("allow_local_keys = true");
    let config = config.replace("sqlite:state/ledger.db", "sqlite:state/other.db").replace("signer.sock", "other.sock");
    let more = "[signer.keys.more]\nlocal = { path = \"state/more.key\" }\n[signer.callers.payments]";
    home.config(&config.replace("[signer.callers.payments]", more).replace("payments.token", "next.token"));
    home.secret("secrets/next.token", NEXT);
    signer.signal(Signal::HUP);
    becomes(&home, NEXT, 200);
    for name in ["listen", "ledger", "keys"] {
        let said = format!("[signer] {name} has changed, and stays");
        signer.wait_until(SOON, &said, |s| s.stderr().contains(&said).then_some(()));
    }
    assert!(!signer.stderr().contains("allow_local_keys has changed"), "{}", signer.stderr());
    assert!(!home.path("state/other.db").exists() && !home.path("state/other.sock").exists());
}

#[test]
fn policies_change_for_the_next_request_and_the_log_says_how() {
    let wallet = Wallet::with("max_value = \"1 wei\"");
    let mut signer = wallet.start();
    let payment = wallet.payment(&serde_json::json!({ "value": 2 }));
    assert_problem(&wallet.sign("1", &payment), 403, "policy-denied");
    let config = std::fs::read_to_string(wallet.home.path("keygate.toml")).expect("a configuration");
    wallet.home.config(&config.replace("\"1 wei\"", "\"2 wei\""));
    signer.wait_until(SOON, "it is announced", |s| s.stderr().contains("policy changed").then_some(()));
    let line = signer.stderr().lines().find(|line| line.contains("policy changed")).map(str::to_owned).expect("a line");
    assert!(line.contains("loosened") && line.contains("max_value") && line.contains("tightened"), "{line}");
    assert!(line.len() < 300 && !line.contains("Policy"), "{line}");
    wait_until(SOON, "it is signed", || (wallet.sign("1", &payment).status == 200).then_some(()));
    // A caller that has lost its policy.
    wallet.home.config(&config.replace("policy = \"payouts\"", ""));
    signer.wait_until(SOON, "it is announced", |s| s.stderr().contains("caller changed").then_some(()));
    wait_until(SOON, "it is denied", || (wallet.sign("2", &payment).status == 403).then_some(()));
    assert!(!signer.stderr().contains(TOKEN));
}

/// A connection that is kept.
struct Kept(BufReader<StreamOwned<ClientConnection, TcpStream>>);

impl Kept {
    fn open(tls: &Tls, authority: &Ca, client: &Pem) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.cert.as_bytes()).expect("PEM")).expect("an authority");
        let chain = vec![CertificateDer::from_pem_slice(client.cert.as_bytes()).expect("PEM")];
        let key = PrivateKeyDer::from_pem_slice(client.key.as_bytes()).expect("PEM");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .expect("a certificate and its key");
        let name = "127.0.0.1".try_into().expect("an address");
        let connection = ClientConnection::new(Arc::new(config), name).expect("a client");
        let stream = TcpStream::connect(("127.0.0.1", tls.port)).expect("it listens");
        stream.set_read_timeout(Some(SOON)).expect("a socket");
        Self(BufReader::new(StreamOwned::new(connection, stream)))
    }

    /// The status of `GET /v1/keys`; none, if the connection has ended.
    fn status(&mut self) -> Option<u16> {
        let stream = self.0.get_mut();
        stream.write_all(b"GET /v1/keys HTTP/1.1\r\nHost: signer\r\n\r\n").ok()?;
        let (mut first, mut length) = (String::new(), 0);
        self.0.read_line(&mut first).ok().filter(|read| *read > 0)?;
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).ok()?;
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a number");
            }
            if line == "\r\n" {
                break;
            }
        }
        self.0.read_exact(&mut vec![0; length]).ok()?;
        first.split(' ').nth(1).and_then(|status| status.parse().ok())
    }
}

#[test]
fn a_kept_connection_is_judged_by_what_is_in_force_now() {
    let tls = Tls::new(&format!("{BY_TOKEN}{BY_NAME}"));
    let _signer = tls.start();
    let client = tls.clients.client(MESH);
    let (mut kept, mut other) = (Kept::open(&tls, &tls.ca, &client), Kept::open(&tls, &tls.ca, &client));
    assert_eq!((kept.status(), other.status()), (Some(200), Some(200)));

    // The caller is removed, and comes back.
    tls.home.config(&Tls::config(tls.port, BY_TOKEN));
    wait_until(SOON, "the caller is removed", || (kept.status() == Some(401)).then_some(()));
    tls.home.config(&Tls::config(tls.port, &format!("{BY_TOKEN}{BY_NAME}")));
    wait_until(SOON, "the caller is back", || (kept.status() == Some(200)).then_some(()));

    // Another authority: what it has not signed is good no more, neither on connections that are open nor on others.
    let new = Ca::new();
    tls.home.write("tls/clients.pem", format!("{}{}", tls.clients.cert, new.cert));
    let new_client = new.client(MESH);
    wait_until(SOON, "both are good", || (Kept::open(&tls, &tls.ca, &new_client).status() == Some(200)).then_some(()));
    assert_eq!(kept.status(), Some(200));
    tls.home.write("tls/clients.pem", &new.cert);
    wait_until(SOON, "the first is bad", || (kept.status() == Some(401)).then_some(()));
    assert_eq!(other.status(), Some(401), "the first request after the reload");
    assert_eq!(Kept::open(&tls, &tls.ca, &client).status(), None, "the handshake fails");
    assert_eq!(Kept::open(&tls, &tls.ca, &new_client).status(), Some(200));
    // Nor does a token help a connection whose certificate is bad.
    let old = tls.client("old", &client);
    tls.ask(&["--cert", &old, "-H", &format!("Authorization: Bearer {TOKEN}")]).expect_err("a bad certificate");
}

#[test]
fn the_signers_own_certificate_changes_for_new_connections() {
    let tls = Tls::new(BY_NAME);
    let mut signer = tls.start();
    let client = tls.clients.client(MESH);
    let mut kept = Kept::open(&tls, &tls.ca, &client);
    assert_eq!(kept.status(), Some(200));
    let new = Ca::new();
    let leaf = new.leaf(&["127.0.0.1"]);
    // In two steps: between them, certificate and key do not match, and nothing changes.
    tls.home.write("tls/signer.crt", leaf.cert);
    signer.wait_until(SOON, "it is refused", |s| s.stderr().contains("is not the key of").then_some(()));
    assert_eq!(Kept::open(&tls, &tls.ca, &client).status(), Some(200));
    tls.home.secret("tls/signer.key", leaf.key);
    wait_until(SOON, "the new one is shown", || (Kept::open(&tls, &new, &client).status() == Some(200)).then_some(()));
    assert_eq!(Kept::open(&tls, &tls.ca, &client).status(), None);
    assert_eq!(kept.status(), Some(200), "what is open goes on");
}
