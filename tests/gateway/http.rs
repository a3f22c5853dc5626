//! HTTP from clients and to origins: connections that are kept, bodies that are whole, what has no body.

use std::io::Write;

use sha2::{Digest, Sha256};

use super::{Client, Simple, TLS, tls_home};
use crate::support::{Ca, Origin, RawOrigin, Step, curl, try_curl};

#[test]
fn connections_are_kept_on_both_sides() {
    let (origin, home) = (Origin::start("blue"), tls_home(&Ca::new(), &["example.com"]));
    // One worker, and one pool for all protocols.
    let rest = format!("{TLS}\n[process]\nworkers = 1\n");
    let edge = Simple { servers: &[origin.server()], rest: &rest, ..Simple::default() }.start_in(&home);
    let mut client = edge.client();
    for n in 0..20 {
        assert_eq!(client.get(&format!("/{n}")).status, 200);
    }
    assert_eq!((origin.hits(), origin.connections()), (20, 1));
    // curl does as much over HTTP/2, and so does another client of HTTP/1.1.
    let answer = edge.curl_tls("example.com", "/[1-20]", ["--http2"]);
    assert_eq!((answer.status, answer.version.as_str()), (200, "2"));
    assert_eq!(edge.curl("/[1-20]", []).status, 200);
    assert_eq!((origin.hits(), origin.connections()), (60, 1));
    edge.counts("keygate_tls_handshakes_total", &[], 1.0);
    // A client that wants to be told is told.
    let mut last = edge.client();
    last.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(last.reply().header("connection"), Some("close"));
    assert!(last.rest().is_empty());
}

#[test]
fn an_origin_that_closes_its_connections_fails_no_request() {
    let origin = Origin::start("blue");
    let edge = Simple { servers: &[origin.server()], ..Simple::default() }.start();
    let mut client = edge.client();
    for n in 0..5 {
        // It says so, or it does not.
        assert_eq!(client.get("/?close=1").status, 200);
        assert_eq!(client.get(&format!("/{n}")).status, 200);
        origin.cut();
        client.send("POST /pay HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
        let reply = client.reply();
        // A payment on a connection that was just cut may fail; it is never sent twice.
        assert!(matches!(reply.status, 200 | 502), "{reply:?}");
        if reply.status == 502 {
            client = edge.client();
        }
    }
    let payments = origin.seen().iter().filter(|seen| seen.method == "POST").count();
    assert!(payments <= 5, "{payments}");
}

#[test]
fn what_has_no_body() {
    let (origin, home) = (Origin::start("blue"), tls_home(&Ca::new(), &["example.com"]));
    let edge = Simple { servers: &[origin.server()], rest: TLS, ..Simple::default() }.start_in(&home);
    // On one connection: a body where there is none would be the next answer.
    let mut client = edge.client();
    let mut plain = |request: &str| {
        client.send(format!("{request} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let head = client.head();
        assert_eq!(client.get("/").status, 200, "after {request}");
        head
    };
    let head = plain("HEAD /?bytes=1000");
    assert_eq!((head.status, head.header("content-length")), (200, Some("1000")));
    assert_eq!(plain("GET /?status=204").status, 204);
    assert_eq!(plain("GET /?status=304").status, 304);
    assert_eq!(plain("HEAD /?chunked=1").status, 200);
    for version in ["--http1.1", "--http2"] {
        let head = edge.curl_tls("example.com", "/?bytes=1000", [version, "-I"]);
        assert_eq!((head.status, head.header("content-length")), (200, Some("1000")));
        assert_eq!(edge.curl_tls("example.com", "/?status=204", [version]).status, 204);
        assert_eq!(edge.curl_tls("example.com", "/?status=304", [version]).status, 304);
    }
    // An answer of our own has none either, when it is asked for with HEAD.
    let mut head = edge.client();
    head.send("HEAD /.. HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(head.head().status, 400);
    assert_eq!(head.get("/").status, 200);
}

#[test]
fn large_bodies_arrive_whole_both_ways() {
    let ca = Ca::new();
    let (origin, home) = (Origin::start("blue"), tls_home(&ca, &["example.com"]));
    let edge = Simple { servers: &[origin.server()], route: "body_size = \"8MiB\"", rest: TLS, ..Simple::default() }
        .start_in(&home);
    let mut noise = vec![0u8; 8 << 20];
    let mut state = 1u32;
    for byte in &mut noise {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (state >> 24) as u8;
    }
    let file = home.write("noise", &noise).display().to_string();
    let sha256 = hex::encode(Sha256::digest(&noise));
    for version in ["--http1.1", "--http2"] {
        let down = edge.curl_tls("example.com", &format!("/?bytes={}", 32 << 20), [version]);
        assert_eq!((down.status, down.body.len()), (200, 32 << 20));
        assert!(down.body.iter().all(|b| *b == b'x'));
        let chunked = edge.curl_tls("example.com", &format!("/?chunked=1&bytes={}", 4 << 20), [version]);
        assert_eq!((chunked.status, chunked.body.len()), (200, 4 << 20));
        let up = edge.curl_tls("example.com", "/up", [version, "-T", &file]);
        assert_eq!((up.status, &up.json()["body_sha256"]), (200, &serde_json::json!(sha256)));
        let up = edge.curl_tls("example.com", "/up", [version, "-T", &file, "-H", "Transfer-Encoding: chunked"]);
        assert_eq!((up.status, &up.json()["body_sha256"]), (200, &serde_json::json!(sha256)));
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::start("blue");
    let edge = Simple { servers: &[origin.server()], ..Simple::default() }.start();
    let mut client = edge.client();
    let mut pipeline = Vec::new();
    for n in 0..30 {
        match n % 3 {
            // The first ones take longer than the last.
            0 => write!(pipeline, "GET /{n}?delay_ms={} HTTP/1.1\r\nHost: a\r\n\r\n", 30 - n),
            1 => write!(pipeline, "POST /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"),
            _ => write!(
                pipeline,
                "PUT /{n} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n0\r\n\r\n"
            ),
        }
        .expect("memory");
    }
    client.send(pipeline);
    for n in 0..30 {
        let seen = client.reply().json();
        let target = seen["target"].as_str().expect("a target").split('?').next().map(str::to_owned);
        assert_eq!(target, Some(format!("/{n}")));
        assert_eq!(seen["body_bytes"], [0, 4, 2][n % 3]);
    }
    let number = |seen: &crate::support::Seen| seen.target[1..].split('?').next()?.parse().ok();
    let order: Vec<u32> = origin.seen().iter().filter_map(number).collect();
    assert_eq!(order, (0..30).collect::<Vec<_>>(), "one after the other");
}

#[test]
fn old_clients_get_what_they_understand() {
    let origin = Origin::start("blue");
    let edge = Simple { servers: &[origin.server()], ..Simple::default() }.start();
    let mut client = edge.client();
    client.send("GET /?chunked=1&bytes=20000 HTTP/1.0\r\nHost: a\r\n\r\n");
    let head = client.head();
    assert_eq!((head.status, head.header("transfer-encoding")), (200, None), "1.0 has no chunks: {head:?}");
    assert_eq!(client.rest().len(), 20_000);
    // Nor when it would like to keep the connection.
    let mut client = edge.client();
    client.send("GET /?chunked=1&bytes=20000 HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
    let head = client.head();
    assert_eq!((head.header("transfer-encoding"), head.header("connection")), (None, Some("close")), "{head:?}");
    assert_eq!(client.rest().len(), 20_000);
    // With a length, it can be kept.
    let mut client = edge.client();
    for _ in 0..2 {
        client.send("GET /?bytes=20 HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
        let reply = client.reply();
        assert_eq!((reply.header("connection"), reply.body.len()), (Some("keep-alive"), 20));
    }
    let answer = edge.curl("/", ["--http1.0"]);
    assert_eq!((answer.status, answer.header("x-origin")), (200, Some("blue")));
    assert_eq!(answer.json()["version"], "HTTP/1.1", "upstreams are always spoken to in 1.1");
}

#[test]
fn an_upstream_that_answers_in_1_0_is_understood() {
    let raw = RawOrigin::answering("HTTP/1.0 200 OK\r\ncontent-type: text/plain\r\n\r\nuntil the end");
    let edge = Simple { servers: &[raw.server()], ..Simple::default() }.start();
    let mut client = edge.client();
    for _ in 0..2 {
        let reply = client.get("/");
        assert_eq!((reply.status, reply.text().as_str()), (200, "until the end"));
    }
}

#[test]
fn informational_answers_pass_and_expectations_are_met() {
    let raw = RawOrigin::start(vec![
        Step::ReadUntil(b"\r\n\r\n"),
        Step::Send(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()),
        Step::ReadUntil(b"hello"),
        Step::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec()),
    ]);
    let edge = Simple { servers: &[raw.server()], ..Simple::default() }.start();
    let mut client = edge.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(client.bytes(21), b"HTTP/1.1 100 Continue", "before the body is sent");
    client.send("hello");
    let rest = client.rest_of_interim();
    assert_eq!(rest.text(), "ok");
}

#[test]
fn tunnels_and_traces_are_not_served() {
    let (origin, home) = (Origin::start("blue"), tls_home(&Ca::new(), &["example.com"]));
    let edge = Simple { servers: &[origin.server()], rest: TLS, ..Simple::default() }.start_in(&home);
    let mut client = edge.client();
    client.send("CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n");
    client.reply().is_problem(405, "method-not-allowed");
    for version in ["--http1.1", "--http2"] {
        assert_eq!(edge.curl_tls("example.com", "/", [version, "-X", "TRACE"]).status, 405);
    }
    assert_eq!(origin.hits(), 0);
    // As a proxy for somewhere else, it routes what it has, and goes nowhere else.
    let proxy = format!("http://127.0.0.1:{}", edge.http);
    let done = try_curl(["--noproxy", "", "-x", &proxy, "https://example.com/"]).expect_err("no tunnel");
    assert_eq!(done.code, 56, "{done:?}");
    assert_eq!(curl(["--noproxy", "", "-x", &proxy, "http://elsewhere.test/x"]).header("x-origin"), Some("blue"));
    assert_eq!(origin.last().header("host"), Some("elsewhere.test"));
}

impl Client {
    /// What follows the status line of an interim answer that was just read.
    fn rest_of_interim(&mut self) -> super::Reply {
        assert_eq!(self.bytes(4), b"\r\n\r\n");
        self.reply()
    }
}

#[test]
fn cookies_that_come_a_line_each_over_http2_are_one_line() {
    let (origin, home) = (Origin::start("blue"), tls_home(&Ca::new(), &["example.com"]));
    let edge = Simple { servers: &[origin.server()], rest: TLS, ..Simple::default() }.start_in(&home);
    let start = [(":method", "GET"), (":path", "/"), (":authority", "example.com")];
    let crumbs: Vec<String> = (0..120).map(|n| format!("c{n}=1")).collect();
    for cookies in [&["a=1", "b=2"][..], &["a=1"], &[], &crumbs.iter().map(String::as_str).collect::<Vec<_>>()] {
        let request = start.into_iter().chain(cookies.iter().map(|cookie| ("cookie", *cookie))).collect();
        assert_eq!(edge.http2(&[request])[0].as_ref().map(|answer| answer.status), Some(200));
        let wanted = if cookies.is_empty() { Vec::new() } else { vec![cookies.join("; ")] };
        assert_eq!(origin.last().headers_named("cookie"), wanted);
    }
}

#[test]
fn a_connection_has_so_many_requests_and_no_more() {
    let (origin, home) = (Origin::start("blue"), tls_home(&Ca::new(), &["example.com"]));
    let rest = format!("{TLS}limits.connection_requests = 5\n");
    let listener = "limits.connection_requests = 3";
    let edge = Simple { servers: &[origin.server()], listener, rest: &rest, ..Simple::default() }.start_in(&home);
    let mut client = edge.client();
    for n in 1..=3 {
        let reply = client.get("/");
        assert_eq!((reply.status, reply.header("connection")), (200, (n == 3).then_some("close")), "{n}");
    }
    assert!(client.rest().is_empty());
    // Over HTTP/2 the client is asked to leave, and goes on by another connection.
    let answers = edge.curl_tls("example.com", "/[1-20]", ["--http2", "-H", "x: y"]);
    assert_eq!(answers.status, 200);
    assert_eq!(origin.hits(), 23);
    let handshakes = edge.metric("keygate_tls_handshakes_total", &[]).expect("a count");
    assert!((4.0..=20.0).contains(&handshakes), "{handshakes}");
}
