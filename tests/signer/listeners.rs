//! Where the signer listens besides Unix sockets: TLS with callers' certificates, and plain HTTP on loopback.

use serde_json::json;

use super::{JSON, RECIPIENT, TOKEN, assert_problem, listening};
use crate::support::{Ca, CurlFailure, Home, Keygate, Pem, Response, free_port, try_curl};

pub(super) const MESH: &str = "spiffe://test/payments";

/// A signer with a local key and a certificate of its own, that listens on a Unix socket and for TLS.
pub(super) struct Tls {
    pub(super) home: Home,
    pub(super) port: u16,
    pub(super) ca: Ca,
    pub(super) clients: Ca,
}

impl Tls {
    /// With these callers, and authorities for their certificates.
    pub(super) fn new(callers: &str) -> Self {
        let (port, ca, clients) = (free_port(), Ca::new(), Ca::new());
        let home = Home::new(&Self::config(port, callers));
        let leaf = ca.leaf(&["127.0.0.1"]);
        home.write("tls/ca.pem", &ca.cert);
        home.write("tls/clients.pem", &clients.cert);
        home.write("tls/signer.crt", leaf.cert);
        home.secret("tls/signer.key", leaf.key);
        home.secret("secrets/payments.token", TOKEN);
        home.secret("state/dev.key", "11".repeat(32));
        Self { home, port, ca, clients }
    }

    pub(super) fn config(port: u16, callers: &str) -> String {
        let lines = "allow_local_keys = true\n\
                     tls = { cert = \"tls/signer.crt\", key = \"tls/signer.key\", client_ca = \"tls/clients.pem\" }";
        let unix = "listen = \"unix:state/signer.sock\"";
        let both = format!("listen = [\"unix:state/signer.sock\", \"https://127.0.0.1:{port}\"]");
        let config = super::keys::local(lines).replace(unix, &both);
        let payments = config.find("[signer.callers.payments]").expect("a caller");
        format!("{}{callers}", &config[..payments])
    }

    #[track_caller]
    pub(super) fn start(&self) -> Keygate {
        listening(self.home.start("signer"))
    }

    /// A caller's certificate as files: its name for curl's `--cert`.
    pub(super) fn client(&self, name: &str, pem: &Pem) -> String {
        self.home.write(&format!("client/{name}.pem"), format!("{}{}", pem.cert, pem.key)).display().to_string()
    }

    pub(super) fn ask(&self, args: &[&str]) -> Result<Response, CurlFailure> {
        let (url, ca) = (format!("https://127.0.0.1:{}/v1/keys", self.port), self.home.path("tls/ca.pem"));
        let ca = ca.display().to_string();
        try_curl(["--cacert", &ca, &url].iter().chain(args))
    }

    #[track_caller]
    fn status(&self, args: &[&str]) -> u16 {
        self.ask(args).expect("an answer").status
    }
}

pub(super) const BY_TOKEN: &str = r#"
    [signer.callers.payments]
    token_file = "secrets/payments.token"
    keys = ["dev"]
    policy = "all"
    "#;
pub(super) const BY_NAME: &str = r#"
    [signer.callers.mesh]
    san = "spiffe://test/payments"
    keys = ["dev"]
    policy = "all"
    [signer.callers.host]
    san = "Payments.test"
    keys = []
    "#;

#[test]
fn over_tls_callers_are_known_by_certificate_or_token() {
    let tls = Tls::new(&format!("{BY_TOKEN}{BY_NAME}"));
    let _signer = tls.start();
    let mesh = tls.client("mesh", &tls.clients.client(MESH));
    let host = tls.client("host", &tls.clients.leaf(&["payments.test"]));
    let other = tls.client("other", &tls.clients.client("spiffe://test/payments/other"));
    // Of the right form, and from an authority that may say nothing of callers.
    let forged = tls.client("forged", &tls.ca.client(MESH));
    let expired = tls.client("expired", &tls.clients.expired(&["payments.test"]));
    let right = format!("Authorization: Bearer {TOKEN}");
    let wrong = "Authorization: Bearer not-a-token-of-anybody-at-all";

    for version in ["1.2", "1.3"] {
        let (min, max) = (format!("--tlsv{version}"), version);
        let answer = tls.ask(&[&min, "--tls-max", max, "--cert", &mesh]).expect("an answer");
        assert_eq!((answer.status, answer.json()["keys"][0]["name"].as_str()), (200, Some("dev")));
    }
    assert_eq!(tls.ask(&["--cert", &host]).expect("an answer").json()["keys"], json!([]), "another caller");
    assert_eq!(tls.status(&["-H", &right]), 200);
    assert_eq!(tls.status(&["-H", &right, "--cert", &other]), 200);
    for stranger in [&[][..], &["-H", wrong], &["--cert", &other], &["--cert", &mesh, "-H", wrong]] {
        assert_problem(&tls.ask(stranger).expect("an answer"), 401, "unauthenticated");
    }
    for bad in [&forged, &expired] {
        tls.ask(&["--cert", bad]).expect_err("the handshake fails");
        tls.ask(&["--cert", bad, "-H", &right]).expect_err("whatever else is shown");
    }
    assert_problem(&tls.ask(&["--cert", &mesh, "-H", "Origin: https://evil.test"]).unwrap(), 403, "from-a-page");

    let transaction = json!({
        "chainId": 31337, "type": 0, "nonce": 0, "to": RECIPIENT, "value": 1, "gas": 21_000, "gasPrice": 1,
    });
    let url = format!("https://127.0.0.1:{}/v1/keys/dev/transactions", tls.port);
    let body = transaction.to_string();
    let ca = tls.home.path("tls/ca.pem").display().to_string();
    let args = ["--cacert", &ca, &url, "--cert", &mesh, "-H", JSON, "-H", "Idempotency-Key: 1", "-d", &body];
    assert_eq!(try_curl(args).expect("an answer").status, 200);
}

#[test]
fn where_nobody_has_a_token_strangers_do_not_get_past_the_handshake() {
    let tls = Tls::new(BY_NAME);
    let _signer = tls.start();
    let mesh = tls.client("mesh", &tls.clients.client(MESH));
    assert_eq!(tls.status(&["--cert", &mesh]), 200);
    tls.ask(&[]).expect_err("no certificate");
}

#[test]
fn plain_http_is_for_tokens_on_loopback_and_not_for_pages() {
    let port = free_port();
    let uid = rustix::process::getuid().as_raw();
    let listen = format!("listen = [\"unix:state/signer.sock\", \"http://127.0.0.1:{port}\"]");
    let config = super::keys::local("allow_local_keys = true").replace("listen = \"unix:state/signer.sock\"", &listen);
    let home = Home::new(&format!("{config}[signer.callers.me]\nuid = {uid}\nkeys = []\n"));
    home.secret("secrets/payments.token", TOKEN);
    home.secret("state/dev.key", "11".repeat(32));
    let _signer = listening(home.start("signer"));
    let ask = |host: &str, path: &str, args: &[&str]| {
        let url = format!("http://{host}:{port}{path}");
        let resolve = format!("{host}:{port}:127.0.0.1");
        try_curl(["--resolve", &resolve, &url].iter().chain(args)).expect("an answer")
    };
    let token = format!("Authorization: Bearer {TOKEN}");
    assert_eq!(ask("127.0.0.1", "/v1/keys", &["-H", &token]).status, 200);
    assert_eq!(ask("localhost", "/v1/keys", &["-H", &token]).status, 200);
    // Its user id is nobody's business here.
    assert_problem(&ask("127.0.0.1", "/v1/keys", &[]), 401, "unauthenticated");
    for path in ["/v1/keys", "/health", "/metrics", "/"] {
        assert_problem(&ask("rebound.test", path, &["-H", &token]), 403, "from-a-page");
        assert_problem(&ask("127.0.0.1", path, &["-H", &token, "-H", "Origin: null"]), 403, "from-a-page");
    }

    for address in ["0.0.0.0", "192.0.2.1", "[::]"] {
        home.config(&config.replace("127.0.0.1", address));
        for command in ["check", "signer"] {
            let refused = home.run([command]);
            assert_eq!(refused.code, 1, "{refused:?}");
            assert!(refused.stderr.contains("tokens would cross the network in the clear"), "{refused:?}");
        }
    }
}

#[test]
fn a_token_may_be_kept_as_its_hash() {
    let home = Home::new(&super::keys::local("allow_local_keys = true"));
    let mut command = home.command(["signer", "hash-token"]);
    let hashed = crate::support::run(&mut command, format!("{TOKEN}\n").as_bytes());
    let line = hashed.success().trim();
    assert_eq!(line.len(), "sha256:".len() + 64);
    let short = crate::support::run(&mut home.command(["signer", "hash-token"]), b"too short\n");
    assert!(short.code == 1 && !short.output().contains("too short"), "{short:?}");

    home.secret("secrets/payments.token", line);
    home.secret("state/dev.key", "11".repeat(32));
    let token = format!("Authorization: Bearer {TOKEN}");
    let hash_shown = format!("Authorization: Bearer {line}");
    let signer = listening(home.start("signer"));
    assert_eq!(super::ask(&home, "/v1/keys", &["-H", &token]).status, 200);
    assert_eq!(super::ask(&home, "/v1/keys", &["-H", &hash_shown]).status, 401, "the hash is no token");
    drop(signer);
    let config = super::keys::local("allow_local_keys = true");
    let in_file = format!("token_sha256 = \"{}\"", &line["sha256:".len()..]);
    home.config(&config.replace("token_file = \"secrets/payments.token\"", &in_file));
    let _signer = listening(home.start("signer"));
    assert_eq!(super::ask(&home, "/v1/keys", &["-H", &token]).status, 200);
}
