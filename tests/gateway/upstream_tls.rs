//! TLS to servers: whom the gateway takes for a server, what it shows to one, and what becomes of connections.
//!
//! Each server is one of the others, behind a [`TlsFront`].

use std::io::{Read, Write};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};

use super::{Edge, Simple, TLS, tls_home};
use crate::support::{
    Ca, FrontTls, Home, Origin, Pem, Process, RawOrigin, SOON, Step, TlsFront, free_port, wait_until,
};

/// The upstream's lines for a server that has a certificate of `ca` for `core.internal`.
const NAMED: &str = "tls = { ca = \"ca.pem\", server_name = \"core.internal\" }";
/// The same, with a client's certificate.
const SHOWN: &str = "[upstreams.service.tls]\nca = \"ca.pem\"\nserver_name = \"core.internal\"\n\
                     cert = \"client.crt\"\nkey = \"client.key\"";
/// A pool for all.
const ONE_WORKER: &str = "[process]\nworkers = 1\n";

/// A folder that has `ca.pem`.
fn home(ca: &Ca) -> Home {
    let home = Home::new("");
    home.write("ca.pem", &ca.cert);
    home
}

fn client_certificate(home: &Home, pem: &Pem) {
    home.write("client.crt", &pem.cert);
    home.secret("client.key", &pem.key);
}

fn edge(home: &Home, servers: &[String], upstream: &str) -> Edge {
    Simple { servers, upstream, rest: ONE_WORKER, ..Simple::default() }.start_in(home)
}

/// An origin, TLS in front of it with a certificate of `ca` for `core.internal`, and a gateway to it.
fn good(ca: &Ca) -> (Origin, TlsFront, Edge) {
    let (origin, leaf) = (Origin::start("blue"), ca.leaf(&["core.internal"]));
    let front = TlsFront::start(origin.addr, &FrontTls::new(&leaf));
    let edge = edge(&home(ca), &[front.server()], NAMED);
    (origin, front, edge)
}

fn der(pem: &Pem) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.cert.as_bytes()).expect("a certificate")
}

/// What the log says of the latest request for this path that failed.
#[track_caller]
fn error_of(edge: &mut Edge, path: &str) -> String {
    let line = edge.wait_log(path, |line| line["path"] == path && line["error"].is_string());
    line["error"].as_str().expect("an error").to_owned()
}

/// So many handshakes have failed, and no more: the front counts them when the gateway may have answered already.
#[track_caller]
fn refused(front: &TlsFront, times: u64) {
    wait_until(SOON, "the handshakes fail", || (front.refused() >= times).then_some(()));
    assert_eq!(front.refused(), times);
}

#[test]
fn a_server_is_asked_through_tls() {
    let ca = Ca::new();
    let (origin, front, edge) = good(&ca);
    let mut client = edge.client();
    for n in 0..5 {
        let reply = client.get(&format!("/{n}"));
        assert_eq!((reply.status, reply.header("x-origin")), (200, Some("blue")));
    }
    let seen = origin.last();
    assert_eq!((seen.header("host"), seen.header("x-forwarded-proto")), (Some("example.com"), Some("http")));
    let shaken = front.shaken();
    assert_eq!(shaken.len(), 1, "one connection is enough");
    assert_eq!(shaken[0].name.as_deref(), Some("core.internal"));
    assert_eq!(shaken[0].alpn.as_deref(), Some("http/1.1"));
    assert!(shaken[0].client.is_none());
}

#[test]
fn a_server_is_known_by_its_host() {
    let (ca, origin) = (Ca::new(), Origin::start("blue"));
    let ours = "tls.ca = \"ca.pem\"";
    // An address is looked for in the certificate, and not sent: SNI has names only (RFC 6066, 3).
    let by_address = TlsFront::start(origin.addr, &FrontTls::new(&ca.leaf(&["127.0.0.1"])));
    assert_eq!(edge(&home(&ca), &[by_address.server()], ours).client().get("/").status, 200);
    assert_eq!(by_address.shaken()[0].name, None);
    let by_name = TlsFront::start(origin.addr, &FrontTls::new(&ca.leaf(&["localhost"])));
    let server = format!("localhost:{}", by_name.addr.port());
    assert_eq!(edge(&home(&ca), &[server], ours).client().get("/").status, 200);
    assert_eq!(by_name.shaken()[0].name.as_deref(), Some("localhost"));
    // A name is not good for an address, nor the other way round.
    for (front, server) in
        [(&by_name, by_name.server()), (&by_address, format!("localhost:{}", by_address.addr.port()))]
    {
        edge(&home(&ca), &[server], ours).client().get("/").is_problem(502, "upstream-unavailable");
        assert_eq!(front.shaken().len(), 1);
    }
    // Nor is the system's trust good for nothing: without `ca`, it is what counts.
    let system = home(&ca).env("SSL_CERT_FILE", "ca.pem");
    assert_eq!(edge(&system, &[by_address.server()], "tls = {}").client().get("/").status, 200);
    let others = home(&ca).env("SSL_CERT_FILE", "others.pem");
    others.write("others.pem", Ca::new().cert);
    assert_eq!(edge(&others, &[by_address.server()], "tls = {}").client().get("/").status, 502);
    let nobody = home(&ca).env("SSL_CERT_FILE", "none.pem").env("SSL_CERT_DIR", "none");
    nobody.config(
        &Simple { servers: &[by_address.server()], upstream: "tls = {}", ..Simple::default() }
            .toml()
            .replace("$HTTP", "0"),
    );
    let checked = nobody.run(["check"]);
    assert_eq!(checked.code, 1, "{}", checked.output());
    assert!(checked.stderr.contains("this machine trusts no authority"), "{}", checked.stderr);
}

#[test]
fn who_is_not_the_server_gets_no_request() {
    let ca = Ca::new();
    let leaves = [
        (ca.leaf(&["other.internal"]), "Upstream InvalidCert for another name"),
        (ca.expired(&["core.internal"]), "Upstream InvalidCert expired"),
        (ca.not_yet_valid(&["core.internal"]), "Upstream InvalidCert not valid yet"),
        // The tests' authorities all have one name.
        (Ca::new().leaf(&["core.internal"]), "Upstream InvalidCert bad signature"),
    ];
    let good_leaf = ca.leaf(&["core.internal"]);
    for (leaf, why) in &leaves {
        for only_1_2 in [false, true] {
            let origin = Origin::start("blue");
            let bad = TlsFront::start(origin.addr, &FrontTls { only_1_2, ..FrontTls::new(leaf) });
            let mut alone = edge(&home(&ca), &[bad.server()], NAMED);
            alone.client().get("/bad").is_problem(502, "upstream-unavailable");
            assert_eq!(error_of(&mut alone, "/bad"), *why);
            alone.counts("keygate_upstream_errors_total", &[("kind", "tls")], 1.0);
            assert_eq!(alone.status()["routes"][0]["backends"][0]["servers"][0]["up"], false);
            refused(&bad, 1);
            assert_eq!(origin.hits(), 0, "{why}");
            // Another one is asked instead, with whatever was to be sent, and this one is left out for a while.
            let good = TlsFront::start(origin.addr, &FrontTls::new(&good_leaf));
            let both = edge(&home(&ca), &[bad.server(), good.server()], NAMED);
            let mut client = both.client();
            for _ in 0..10 {
                client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
                assert_eq!(client.reply().status, 200, "{why}");
            }
            refused(&bad, 2);
            assert_eq!(origin.hits(), 10, "{why}");
            both.counts("keygate_upstream_errors_total", &[("kind", "tls")], 1.0);
        }
    }
}

#[test]
fn versions_below_the_lowest_are_refused() {
    let (ca, origin) = (Ca::new(), Origin::start("blue"));
    let leaf = ca.leaf(&["core.internal"]);
    let old = TlsFront::start(origin.addr, &FrontTls { only_1_2: true, ..FrontTls::new(&leaf) });
    assert_eq!(edge(&home(&ca), &[old.server()], NAMED).client().get("/").status, 200);
    let new = NAMED.replace("tls = {", "tls = { min_version = \"1.3\",");
    let mut edge = edge(&home(&ca), &[old.server()], &new);
    edge.client().get("/old").is_problem(502, "upstream-unavailable");
    assert!(error_of(&mut edge, "/old").starts_with("Upstream TLSHandshakeFailure"));
    assert_eq!(origin.hits(), 1);
}

#[test]
fn a_server_that_asks_is_shown_our_certificate() {
    let (ca, clients, origin) = (Ca::new(), Ca::new(), Origin::start("blue"));
    let (leaf, ours) = (ca.leaf(&["core.internal"]), clients.leaf(&["gateway.internal"]));
    for only_1_2 in [false, true] {
        let front =
            || TlsFront::start(origin.addr, &FrontTls { clients: Some(&clients), only_1_2, ..FrontTls::new(&leaf) });
        let with = |pem: &Pem| {
            let home = home(&ca);
            client_certificate(&home, pem);
            home
        };
        let strict = front();
        assert_eq!(edge(&with(&ours), &[strict.server()], SHOWN).client().get("/").status, 200);
        assert_eq!(strict.shaken()[0].client, Some(der(&ours)));
        // Without one, and with one that is not good enough: in 1.3, that is known after the handshake only.
        let not_ours = ca.leaf(&["gateway.internal"]);
        for upstream in [NAMED, SHOWN] {
            let (strict, hits) = (front(), origin.hits());
            let mut alone = edge(&with(&not_ours), &[strict.server()], upstream);
            let mut client = alone.client();
            client.send("POST /pay HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
            client.reply().is_problem(502, "upstream-unavailable");
            let error = error_of(&mut alone, "/pay");
            assert!(error.starts_with("Upstream TLSHandshakeFailure alert "), "{error}");
            alone.counts("keygate_upstream_errors_total", &[("kind", "tls")], 1.0);
            refused(&strict, 1);
            assert_eq!(origin.hits(), hits);
            // What it has not read may go to another, and it is left out for a while.
            let open = TlsFront::start(origin.addr, &FrontTls::new(&leaf));
            let both = edge(&with(&not_ours), &[strict.server(), open.server()], upstream);
            let mut client = both.client();
            for _ in 0..10 {
                client.send("POST /pay HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
                assert_eq!(client.reply().status, 200);
            }
            refused(&strict, 2);
        }
    }
}

#[test]
fn sessions_are_resumed_also_after_a_reload() {
    let (ca, origin) = (Ca::new(), Origin::start("blue"));
    let leaf = ca.leaf(&["core.internal"]);
    for only_1_2 in [false, true] {
        // Two servers of one name, which do not read each other's tickets.
        let fronts = [(); 2].map(|()| TlsFront::start(origin.addr, &FrontTls { only_1_2, ..FrontTls::new(&leaf) }));
        let edge = edge(&home(&ca), &[fronts[0].server(), fronts[1].server()], NAMED);
        let mut client = edge.client();
        for n in 0..8 {
            assert_eq!(client.get("/?close=1").status, 200);
            if n == 3 {
                edge.home.run(["reload"]).success();
            }
        }
        for front in fronts {
            let resumed: Vec<bool> = front.shaken().iter().map(|shaken| shaken.resumed).collect();
            assert_eq!(resumed, [false, true, true, true]);
        }
    }
}

#[test]
fn openssl_is_understood() {
    let (ca, clients) = (Ca::new(), Ca::new());
    let home = home(&ca);
    let leaf = ca.leaf(&["core.internal"]);
    home.write("server.crt", &leaf.cert);
    home.secret("server.key", &leaf.key);
    home.write("clients.pem", &clients.cert);
    client_certificate(&home, &clients.leaf(&["gateway.internal"]));
    for version in ["-tls1_2", "-tls1_3"] {
        let port = free_port();
        let args = format!(
            "s_server -accept 127.0.0.1:{port} -www {version} -cert server.crt -key server.key -CAfile clients.pem \
             -Verify 1 -verify_return_error"
        );
        let mut server = Process::spawn("openssl", &mut home.command_of("openssl", args.split_whitespace()));
        server.wait_until(SOON, "openssl listens", |p| p.stdout().contains("ACCEPT").then_some(()));
        let mut edge = edge(&home, &[format!("127.0.0.1:{port}")], SHOWN);
        for how in ["New, ", "Reused, "] {
            let page = edge.client().get("/").text();
            assert!(page.contains(how) && page.contains("DNS:gateway.internal"), "{how}: {page}");
            // The end of its answer is the connection's, and TLS says so.
            assert!(page.trim_end().ends_with("</HTML>"), "{page}");
        }
        edge.keygate.sigterm();
        edge.keygate.wait(SOON);
    }
}

#[test]
fn connections_are_kept_whatever_tls_says_meanwhile() {
    let (ca, origin) = (Ca::new(), Origin::start("blue"));
    let leaf = ca.leaf(&["core.internal"]);
    let front = TlsFront::start(origin.addr, &FrontTls { new_keys: true, ..FrontTls::new(&leaf) });
    let edge = edge(&home(&ca), &[front.server()], NAMED);
    for n in 1..=10 {
        assert_eq!(edge.client().get("/").status, 200);
        // They come behind the answer, while nothing is asked.
        wait_until(SOON, "new keys are sent", || (front.new_keys() == n).then_some(()));
        if n == 5 {
            edge.home.run(["reload"]).success();
        }
    }
    assert_eq!(front.shaken().len(), 1);
}

#[test]
fn large_bodies_pass_both_ways() {
    let ca = Ca::new();
    for only_1_2 in [false, true] {
        let (origin, leaf) = (Origin::start("blue"), ca.leaf(&["core.internal"]));
        let front = TlsFront::start(origin.addr, &FrontTls { only_1_2, ..FrontTls::new(&leaf) });
        let listener = "limits.body_size = \"64MiB\"";
        let edge = Simple { servers: &[front.server()], upstream: NAMED, listener, ..Simple::default() };
        let edge = edge.start_in(&home(&ca));
        let body: Vec<u8> = (0..20_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let mut client = edge.client();
        client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()));
        client.send(&body);
        let sum = hex::encode(Sha256::digest(&body));
        assert_eq!(client.reply().json()["body_sha256"], sum.as_str());
        client.send("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        for part in body.chunks(1 << 20) {
            client.send(format!("{:x}\r\n", part.len()));
            client.send(part);
            client.send("\r\n");
        }
        client.send("0\r\n\r\n");
        assert_eq!(client.reply().json()["body_sha256"], sum.as_str());
        assert_eq!(client.get("/?bytes=20000000").body, vec![b'x'; 20_000_000]);
        assert_eq!(client.get("/?bytes=20000000&chunked=1").body, vec![b'x'; 20_000_000]);
        assert_eq!(front.shaken().len(), 1);
    }
}

#[test]
fn a_tunnel_leads_through_tls() {
    let ca = Ca::new();
    let echo = super::streaming::origin(|mut stream| {
        stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\r\nhello")
            .unwrap();
        let mut buffer = [0; 1024];
        while let Ok(n @ 1..) = stream.read(&mut buffer) {
            stream.write_all(&buffer[..n]).unwrap();
        }
        stream.write_all(b"bye").unwrap();
    });
    let leaf = ca.leaf(&["core.internal"]);
    let front = TlsFront::start(echo, &FrontTls::new(&leaf));
    let edge = edge(&home(&ca), &[front.server()], NAMED);
    let mut client = edge.client();
    client.send("GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(client.reply().status, 101);
    assert_eq!(client.bytes(5), b"hello");
    for n in 0..20u8 {
        let frame: Vec<u8> = [0x82, 100].into_iter().chain((0..100).map(|byte| byte ^ n)).collect();
        client.send(&frame);
        assert_eq!(client.bytes(frame.len()), frame);
    }
    // Each side says its end, and hears the other out.
    client.end_of_input();
    assert_eq!(client.rest(), b"bye");
    assert_eq!(front.ends(), 1, "the server is told as TLS wants it told");
}

#[test]
fn an_answer_that_was_cut_off_is_not_whole() {
    let ca = Ca::new();
    let leaf = ca.leaf(&["core.internal"]);
    let ask = |answer: &str, abrupt: bool| {
        let raw = RawOrigin::answering(answer);
        let front = TlsFront::start(raw.addr, &FrontTls { abrupt, ..FrontTls::new(&leaf) });
        let mut edge = edge(&home(&ca), &[front.server()], NAMED);
        let reply = edge.client().try_reply_to("/cut");
        let line = edge.wait_log("the request", |line| line["path"] == "/cut");
        (reply.map(|reply| reply.text()).ok(), line["error"].as_str().map(str::to_owned))
    };
    // Where the end is all that says so, it must be said (RFC 9112, 9.8).
    let until_close = "HTTP/1.1 200 OK\r\n\r\nall of it";
    assert_eq!(ask(until_close, false), (Some("all of it".into()), None));
    assert_eq!(ask(until_close, true), (None, Some("Upstream ReadError".into())));
    for whole in [
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nall of it",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nall of it\r\n0\r\n\r\n",
    ] {
        for abrupt in [false, true] {
            assert_eq!(ask(whole, abrupt), (Some("all of it".into()), None));
        }
    }
}

#[test]
fn other_authorities_end_what_was_opened_under_those_before() {
    let (ca, other) = (Ca::new(), Ca::new());
    let (origin, front, edge) = good(&ca);
    assert_eq!(edge.client().get("/").status, 200);
    // The watcher sees it.
    edge.home.write("ca.pem", &other.cert);
    edge.wait_reloads("ok", 1.0);
    edge.client().get("/").is_problem(502, "upstream-unavailable");
    assert_eq!((origin.hits(), front.shaken().len()), (1, 1), "not even by the connection that is still open");
    edge.home.write("ca.pem", format!("{}{}", other.cert, ca.cert));
    edge.wait_reloads("ok", 2.0);
    assert_eq!(edge.client().get("/").status, 200);
    let resumed: Vec<bool> = front.shaken().iter().map(|shaken| shaken.resumed).collect();
    assert_eq!(resumed, [false, false], "nor is what was agreed on before");
    // A file that is no good changes nothing.
    edge.home.write("ca.pem", "garbage");
    edge.wait_reloads("error", 1.0);
    assert_eq!(edge.client().get("/").status, 200);
    assert_eq!(front.shaken().len(), 2);
}

#[test]
fn a_name_that_changed_is_verified_anew() {
    let ca = Ca::new();
    let (origin, front, edge) = good(&ca);
    assert_eq!(edge.client().get("/").status, 200);
    let with =
        |upstream: &str| Simple { servers: &[front.server()], upstream, rest: ONE_WORKER, ..Simple::default() }.toml();
    edge.config(&with(&NAMED.replace("core.internal", "other.internal")));
    edge.home.run(["reload"]).success();
    edge.client().get("/").is_problem(502, "upstream-unavailable");
    // Nor is TLS left off, or put on, by a connection that is there.
    edge.config(&with(""));
    edge.home.run(["reload"]).success();
    edge.client().get("/").is_problem(502, "upstream-unavailable");
    assert_eq!((origin.hits(), front.shaken().len()), (1, 1));
}

#[test]
fn a_new_client_certificate_is_shown_without_a_restart() {
    let (ca, clients, origin) = (Ca::new(), Ca::new(), Origin::start("blue"));
    let leaf = ca.leaf(&["core.internal"]);
    let front = TlsFront::start(origin.addr, &FrontTls { clients: Some(&clients), ..FrontTls::new(&leaf) });
    let (old, new) = (clients.leaf(&["gateway.internal"]), clients.leaf(&["gateway.internal"]));
    let home = home(&ca);
    client_certificate(&home, &old);
    let edge = edge(&home, &[front.server()], SHOWN);
    assert_eq!(edge.client().get("/").status, 200);
    client_certificate(&home, &new);
    wait_until(SOON, "the new certificate is shown", || {
        assert_eq!(edge.client().get("/").status, 200);
        (front.shaken().len() > 1).then_some(())
    });
    let shown: Vec<_> = front.shaken().into_iter().map(|shaken| shaken.client).collect();
    assert_eq!(shown, [Some(der(&old)), Some(der(&new))]);
}

#[test]
fn a_connection_that_ends_as_it_is_asked_again_is_replaced() {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    let ca = Ca::new();
    let leaf = ca.leaf(&["core.internal"]);
    for abrupt in [false, true] {
        // Too late to be known as stale.
        let raw = RawOrigin::start(vec![
            Step::ReadUntil(b"\r\n\r\n"),
            Step::Send(ANSWER.to_vec()),
            Step::ReadUntil(b"\r\n\r\n"),
            Step::Close,
        ]);
        let front = TlsFront::start(raw.addr, &FrontTls { abrupt, ..FrontTls::new(&leaf) });
        let edge = edge(&home(&ca), &[front.server()], NAMED);
        for _ in 0..4 {
            assert_eq!(edge.client().get("/").status, 200);
        }
        assert_eq!(front.shaken().len(), 4);
        // A payment is not sent twice.
        let mut client = edge.client();
        client.send("POST /pay HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        client.reply().is_problem(502, "upstream-unavailable");
        let payments = raw.received().iter().filter(|bytes| bytes.windows(9).any(|at| at == b"POST /pay")).count();
        assert_eq!(payments, 1);
        // One that has ended already is known to have.
        let origin = Origin::start("blue");
        let front = TlsFront::start(origin.addr, &FrontTls { abrupt, ..FrontTls::new(&leaf) });
        let edge = self::edge(&home(&ca), &[front.server()], NAMED);
        assert_eq!(edge.client().get("/").status, 200);
        origin.cut();
        assert_eq!(edge.client().get("/").status, 200);
        assert_eq!((origin.hits(), front.shaken().len()), (2, 2));
    }
}

#[test]
fn a_handshake_that_takes_too_long_is_504() {
    let silent = RawOrigin::start(vec![Step::ReadToEnd]);
    let upstream = format!("{NAMED}\ntimeouts.connect = \"300ms\"");
    let mut edge = edge(&home(&Ca::new()), &[silent.server()], &upstream);
    edge.client().get("/slow").is_problem(504, "upstream-timeout");
    assert_eq!(error_of(&mut edge, "/slow"), "Upstream TLSHandshakeTimedout");
    edge.counts("keygate_upstream_errors_total", &[("kind", "tls")], 1.0);
    assert_eq!(edge.status()["routes"][0]["backends"][0]["servers"][0]["up"], false);
}

#[test]
fn no_request_goes_out_in_the_clear() {
    let ca = Ca::new();
    let home = tls_home(&ca, &["example.com"]);
    let plain = RawOrigin::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let upstream = format!("{NAMED}\ntimeouts.connect = \"5s\"");
    let mut edge =
        Simple { servers: &[plain.server()], upstream: &upstream, rest: TLS, ..Simple::default() }.start_in(&home);
    for version in ["--http1.1", "--http2"] {
        let answer = edge.curl_tls("example.com", "/secret", [version, "--max-time", "20"]);
        assert!(matches!(answer.status, 502 | 504), "{version}: {}", answer.status);
    }
    assert!(plain.received().iter().all(|bytes| !bytes.windows(6).any(|at| at == b"secret")));
    assert!(!error_of(&mut edge, "/secret").is_empty());
    // Nobody there is counted as such.
    let upstream = "tls = {}";
    let nobody = format!("127.0.0.1:{}", free_port());
    let system = self::home(&ca).env("SSL_CERT_FILE", "ca.pem");
    let edge = self::edge(&system, &[nobody], upstream);
    edge.client().get("/").is_problem(502, "upstream-unavailable");
    edge.counts("keygate_upstream_errors_total", &[("kind", "connect")], 1.0);
}

impl super::Client {
    /// A request without a body, and its answer; an error when it ends early.
    fn try_reply_to(&mut self, target: &str) -> std::io::Result<super::Reply> {
        self.try_send(format!("GET {target} HTTP/1.1\r\nHost: example.com\r\n\r\n"))?;
        self.try_reply()
    }
}
