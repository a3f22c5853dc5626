//! How long a client may take, and how much it may send.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::client::{Client, WhenDropped, tcp, tls_config};
use super::{Edge, Simple, TLS, tls_home};
use crate::support::{Ca, Origin, RawOrigin, SOON, Step, wait_until};

/// Far above every time-out here, far below [`SOON`].
const BUSY: Duration = Duration::from_secs(6);

fn with_listener(origin: &Origin, listener: &str) -> Edge {
    Simple { servers: &[origin.server()], listener, ..Simple::default() }.start()
}

#[test]
fn a_handshake_that_does_not_come() {
    let home = tls_home(&Ca::new(), &["example.com"]);
    let tls = format!("{TLS}timeouts.handshake = \"300ms\"\n");
    let origin = Origin::start("blue");
    let edge = Simple { servers: &[origin.server()], rest: &tls, ..Simple::default() }.start_in(&home);
    let started = Instant::now();
    let mut silent = Client::new(tcp(edge.https));
    // Half a ClientHello is no more than none.
    let mut half = Client::new(tcp(edge.https));
    half.send([0x16, 3, 1, 2, 0, 1, 0, 1]);
    assert_eq!((silent.rest(), half.rest()), (vec![], vec![]));
    assert!((Duration::from_millis(300)..BUSY).contains(&started.elapsed()), "{:?}", started.elapsed());
    edge.counts("keygate_tls_handshake_failures_total", &[("reason", "timeout")], 2.0);
    assert_eq!(edge.curl_tls("example.com", "/", []).status, 200);
}

#[test]
fn a_head_that_drips_ends_at_the_deadline() {
    let origin = Origin::start("blue");
    let edge = with_listener(&origin, "timeouts.request_head = \"700ms\"");
    // Once as the first request of a connection, once after another.
    for before in [0, 1] {
        let stream = tcp(edge.http);
        let (mut drip, mut client) = (stream.try_clone().expect("a connection"), Client::new(stream));
        for _ in 0..before {
            assert_eq!(client.get("/").status, 200);
        }
        let (started, answered) = (Instant::now(), AtomicBool::new(false));
        // A byte every 100 ms, for twice as long as it may take to be refused: no read ever waits for 700 ms.
        let reply = std::thread::scope(|scope| {
            scope.spawn(|| {
                for byte in b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ".iter().chain(&[b'x'; 90]) {
                    if answered.load(Ordering::SeqCst) || drip.write_all(&[*byte]).is_err() {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(100));
                }
            });
            let _answered = WhenDropped(&answered);
            client.reply()
        });
        assert!((Duration::from_millis(700)..BUSY).contains(&started.elapsed()), "{:?}", started.elapsed());
        reply.is_problem(408, "malformed-request");
        assert_eq!(reply.header("connection"), Some("close"));
        assert!(client.rest().is_empty());
    }
    assert_eq!(origin.hits(), 1);
    edge.counts("keygate_refused_total", &[("reason", "head-timeout")], 2.0);
}

#[test]
fn an_idle_connection_ends_without_a_word() {
    let origin = Origin::start("blue");
    let edge = with_listener(&origin, "timeouts.idle = \"300ms\"");
    let mut fresh = edge.client();
    assert!(fresh.rest().is_empty(), "it never asked");
    let mut kept = edge.client();
    assert_eq!(kept.get("/").status, 200);
    assert!(kept.rest().is_empty(), "it asks no more");
    wait_until(SOON, "no connection is open", || (edge.metric("keygate_connections", &[]) == Some(0.0)).then_some(()));
}

#[test]
fn an_idle_connection_of_http2_ends_too() {
    let ca = Ca::new();
    let (origin, home) = (Origin::start("blue"), tls_home(&ca, &["localhost"]));
    let listener = format!("{TLS}timeouts.idle = \"300ms\"\n");
    let edge = Simple { servers: &[origin.server()], rest: &listener, ..Simple::default() }.start_in(&home);
    let mut client = Client::connect_tls(edge.https, "localhost", &tls_config(&ca, &["h2"]));
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    let started = Instant::now();
    // Its settings, and its farewell.
    assert!(!client.rest().is_empty());
    assert!((Duration::from_millis(200)..BUSY).contains(&started.elapsed()), "{:?}", started.elapsed());
}

#[test]
fn a_body_that_pauses_is_408() {
    let raw = RawOrigin::start(vec![Step::ReadToEnd]);
    let listener = "timeouts.request_body = \"300ms\"";
    let edge = Simple { servers: &[raw.server()], listener, ..Simple::default() }.start();
    for framing in ["Content-Length: 100\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n64\r\nhalf"] {
        let mut client = edge.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}"));
        let started = Instant::now();
        let reply = client.reply();
        reply.is_problem(408, "request-timeout");
        assert!(client.rest().is_empty());
        assert!((Duration::from_millis(200)..BUSY).contains(&started.elapsed()), "{:?}", started.elapsed());
    }
    // One that drips goes on: each part comes in time.
    let origin = Origin::start("blue");
    let edge = with_listener(&origin, "timeouts.request_body = \"2s\"");
    let mut client = edge.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n");
    for byte in b"dripping" {
        std::thread::sleep(Duration::from_millis(30));
        client.send([*byte]);
    }
    assert_eq!(client.reply().json()["body_bytes"], 8);
}

#[test]
fn a_body_that_drips_for_ever_is_408() {
    let (raw, home) = (RawOrigin::start(vec![Step::ReadToEnd]), tls_home(&Ca::new(), &["example.com"]));
    let limits = "timeouts.request_body = \"1s\"\nlimits.body_min_rate = \"100B/s\"";
    let rest = format!("{TLS}{limits}\n");
    let edge = Simple { servers: &[raw.server()], listener: limits, rest: &rest, ..Simple::default() }.start_in(&home);
    // 20 bytes a second, where the pause may be a second, and 100 bytes a second are asked for.
    for framing in ["Content-Length: 5000", "Transfer-Encoding: chunked"] {
        let stream = tcp(edge.http);
        let (mut drip, mut client) = (stream.try_clone().expect("a connection"), Client::new(stream));
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"));
        let (started, answered) = (Instant::now(), AtomicBool::new(false));
        let reply = std::thread::scope(|scope| {
            scope.spawn(|| {
                let part = if framing.contains("chunked") { "1\r\nx\r\n" } else { "x" };
                while !answered.load(Ordering::SeqCst) && drip.write_all(part.as_bytes()).is_ok() {
                    std::thread::sleep(Duration::from_millis(50));
                }
            });
            let _answered = WhenDropped(&answered);
            client.reply()
        });
        reply.is_problem(408, "request-timeout");
        assert!((Duration::from_secs(1)..BUSY).contains(&started.elapsed()), "{:?}", started.elapsed());
    }
    let slow = edge.post_http2_slowly("/", 1000, 50);
    super::problem(slow.status, &slow.headers, &slow.body, (408, "request-timeout"));
    assert_eq!(edge.metric("keygate_upstream_errors_total", &[]), None, "the server did nothing wrong");
    // One that is fast enough takes as long as it takes.
    let fast = [b'x'; 10].as_slice();
    let origin = Origin::start("blue");
    let edge = with_listener(&origin, limits);
    let mut client = edge.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 400\r\n\r\n");
    for _ in 0..40 {
        std::thread::sleep(Duration::from_millis(40));
        client.send(fast);
    }
    assert_eq!(client.reply().json()["body_bytes"], 400);
}

#[test]
fn a_body_that_stops_over_http2_is_408_and_no_fault_of_the_server() {
    let (raw, home) = (RawOrigin::start(vec![Step::ReadToEnd]), tls_home(&Ca::new(), &["example.com"]));
    let upstream = "timeouts.first_byte = \"500ms\"";
    let listener = "timeouts.request_body = \"500ms\"";
    let edge = Simple { servers: &[raw.server()], listener, upstream, rest: TLS, ..Simple::default() }.start_in(&home);
    let silent = edge.post_http2_slowly("/", 3, 10);
    super::problem(silent.status, &silent.headers, &silent.body, (408, "request-timeout"));
    assert_eq!(edge.metric("keygate_upstream_errors_total", &[]), None);
    // Over HTTP/1, too.
    let mut client = edge.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf");
    client.reply().is_problem(408, "request-timeout");
    // A client that waits to be told to go on waits for the server.
    let mut client = edge.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n");
    client.reply().is_problem(504, "upstream-timeout");
    edge.counts("keygate_upstream_errors_total", &[("kind", "timeout")], 1.0);
}

#[test]
fn a_client_that_takes_nothing_is_dropped() {
    let home = tls_home(&Ca::new(), &["example.com"]);
    let origin = Origin::start("blue");
    let edge = Simple { servers: &[origin.server()], listener: "timeouts.send = \"300ms\"", ..Simple::default() }
        .start_in(&home);
    let mut client = edge.client();
    client.send(format!("GET /?bytes={} HTTP/1.1\r\nHost: a\r\n\r\n", 64 << 20));
    assert_eq!(client.head().status, 200);
    wait_until(SOON, "it is dropped", || (edge.metric("keygate_connections", &[]) == Some(0.0)).then_some(()));
    assert!(client.rest().len() < 64 << 20, "and its answer with it");
}

#[test]
fn an_http2_client_that_never_begins_is_dropped() {
    let ca = Ca::new();
    let (origin, home) = (Origin::start("blue"), tls_home(&ca, &["example.com"]));
    let tls = format!("{TLS}timeouts.request_head = \"300ms\"\n");
    let edge = Simple { servers: &[origin.server()], rest: &tls, ..Simple::default() }.start_in(&home);
    let mut client = Client::connect_tls(edge.https, "example.com", &tls_config(&ca, &["h2"]));
    // The gateway's settings (RFC 9113, 3.4), and the end.
    assert!(client.rest().len() < 100);
    wait_until(SOON, "it is dropped", || (edge.metric("keygate_connections", &[]) == Some(0.0)).then_some(()));
}

#[test]
fn heads_that_are_too_large_are_refused() {
    let origin = Origin::start("blue");
    let home = tls_home(&Ca::new(), &["example.com"]);
    let limits = "limits.head_size = \"2KiB\"\nlimits.header_count = 20";
    let tls = format!("{TLS}{limits}\n");
    let edge =
        Simple { servers: &[origin.server()], listener: limits, rest: &tls, ..Simple::default() }.start_in(&home);
    let long = "x".repeat(2100);
    let many = (0..21).map(|n| format!("x-{n}: 1\r\n")).collect::<String>();
    for (request, reason) in [
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), "target-size"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX-Long: {long}\r\n\r\n"), "head-size"),
        (format!("GET / HTTP/1.1\r\n{many}Host: a\r\n\r\n"), "header-count"),
    ] {
        let mut client = edge.client();
        client.send(request);
        let reply = client.reply();
        reply.is_problem(if reason == "target-size" { 414 } else { 431 }, "malformed-request");
        assert_eq!(reply.header("connection"), Some("close"));
        assert!(client.rest().is_empty(), "{reason}");
    }
    edge.counts("keygate_refused_total", &[("reason", "head-size")], 1.0);
    edge.counts("keygate_refused_total", &[("reason", "target-size")], 1.0);
    edge.counts("keygate_refused_total", &[("reason", "header-count")], 1.0);
    assert_eq!(origin.hits(), 0);
    // Not a byte more than allowed, and as many headers.
    let mut client = edge.client();
    let overhead = "GET / HTTP/1.1\r\nHost: a\r\nX-Long: \r\n\r\n".len();
    let exactly = "x".repeat(2048 - overhead);
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Long: {exactly}\r\n\r\n"));
    assert_eq!(client.reply().status, 200);
    let nineteen = (0..19).map(|n| format!("x-{n}: 1\r\n")).collect::<String>();
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{nineteen}\r\n"));
    assert_eq!(client.reply().status, 200);

    // The same limits hold over HTTP/2.
    let hits = origin.hits();
    let header = format!("x-long: {long}");
    assert_eq!(edge.curl_tls("example.com", "/", ["--http2", "-H", &header]).status, 431);
    let file = home.write("headers", many.replace("\r\n", "\n")).display().to_string();
    assert_eq!(edge.curl_tls("example.com", "/", ["--http2", "-H", &format!("@{file}")]).status, 431);
    assert_eq!(origin.hits(), hits);
}

#[test]
fn an_early_answer_over_http2_is_seen_by_a_client_that_still_sends() {
    let (origin, home) = (Origin::start("blue"), tls_home(&Ca::new(), &["example.com"]));
    let edge = Simple { servers: &[origin.server()], route: "body_size = \"1KiB\"", rest: TLS, ..Simple::default() }
        .start_in(&home);
    let data = format!("@{}", home.write("body", vec![b'x'; 500_000]).display());
    for framing in ["X-None: 1", "Content-Length:"] {
        for _ in 0..5 {
            let answer = edge.curl_tls("example.com", "/", ["--http2", "--data-binary", &data, "-H", framing]);
            super::problem(answer.status, &answer.headers, &answer.body, (413, "body-too-large"));
        }
    }
}

#[test]
fn bodies_that_are_too_large_are_413() {
    let origin = Origin::start("blue");
    let home = tls_home(&Ca::new(), &["example.com"]);
    let route = "body_size = \"1KiB\"\n[[routes]]\nname = \"listeners\"\npath = \"/listeners\"\nbackends = [{ upstream = \"service\" }]";
    let limits = "limits.body_size = \"2KiB\"";
    let tls = format!("{TLS}{limits}\n");
    let edge = Simple { servers: &[origin.server()], listener: limits, route, rest: &tls, ..Simple::default() }
        .start_in(&home);
    let body = |size: usize| home.write(&format!("body-{size}"), vec![b'x'; size]).display().to_string();
    for (target, size, status) in
        [("/", 1024, 200), ("/", 1025, 413), ("/listeners", 2048, 200), ("/listeners", 2049, 413), ("/", 200_000, 413)]
    {
        let data = format!("@{}", body(size));
        for announced in [true, false] {
            let framing = if announced { "X-None: 1" } else { "Transfer-Encoding: chunked" };
            let hits = origin.hits();
            let args = ["--http1.1", "--data-binary", &data, "-H", framing];
            for answer in [edge.curl_tls("example.com", target, args), edge.post_http2(target, size, announced)] {
                assert_eq!(answer.status, status, "{target} {size} {announced}: {answer:?}");
                if status == 413 {
                    super::problem(answer.status, &answer.headers, &answer.body, (413, "body-too-large"));
                    assert_eq!(origin.hits(), hits, "no whole request has arrived");
                }
            }
        }
    }
    // Announced, it is refused before a byte of it is sent, and what follows is not taken for a request.
    let mut client = edge.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\nExpect: 100-continue\r\n\r\n");
    client.reply().is_problem(413, "body-too-large");
    let _ = client.try_send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.rest().is_empty());
    assert!(!origin.seen().iter().any(|seen| seen.target == "/next"));
}
