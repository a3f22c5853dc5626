//! Origins that refuse, hang, break off or die; and clients that do.

use std::time::Duration;

use serde_json::Value;

use super::{Client, Edge, Simple, TLS, tls_home};
use crate::support::{Ca, Home, Origin, OriginProcess, RawOrigin, SOON, Step, free_port, try_curl, wait_until};

fn dead() -> String {
    format!("127.0.0.1:{}", free_port())
}

#[track_caller]
fn is_problem(edge: &Edge, target: &str, status: u16, kind: &str) {
    for version in ["--http1.1", "--http2"] {
        let answer = edge.curl_tls("example.com", target, [version]);
        super::problem(answer.status, &answer.headers, &answer.body, (status, kind));
    }
}

#[test]
fn nobody_there_is_502() {
    let home = tls_home(&Ca::new(), &["example.com"]);
    let edge = Simple { servers: &[dead(), dead()], rest: TLS, ..Simple::default() }.start_in(&home);
    is_problem(&edge, "/", 502, "upstream-unavailable");
    let errors = edge.metric("keygate_upstream_errors_total", &[("upstream", "service"), ("kind", "connect")]);
    assert_eq!(errors, Some(4.0), "each of two requests asked both servers");
    // A body that was sent in vain, too; and the connection goes on after an answer without one.
    let answer = edge.curl("/", ["-d", "x=1"]);
    assert_eq!(answer.status, 502);
    let mut client = edge.client();
    assert_eq!(client.get("/").status, 502);
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.try_reply().map(|reply| reply.status).unwrap_or(502), 502);
}

#[test]
fn a_name_that_nobody_has_is_502() {
    let edge = Simple { servers: &["no-such-host.invalid:80".to_owned()], ..Simple::default() }.start();
    edge.client().get("/").is_problem(502, "upstream-unavailable");
    let servers = edge.status()["routes"][0]["backends"][0]["servers"].clone();
    assert_eq!(servers[0]["resolved"], false);
}

#[test]
fn names_are_resolved() {
    let origin = Origin::start("blue");
    let server = format!("localhost:{}", origin.addr.port());
    let edge = Simple { servers: &[server], ..Simple::default() }.start();
    assert_eq!(edge.client().get("/").header("x-origin"), Some("blue"));
}

#[test]
fn one_dead_server_of_two_fails_no_request() {
    let (origin, dead) = (Origin::start("blue"), dead());
    let edge = Simple { servers: &[dead.clone(), origin.server()], ..Simple::default() }.start();
    let mut client = edge.client();
    for n in 0..40 {
        // Nothing has been sent to a server that refuses: even a payment may go to another.
        client.send(format!("POST /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"));
        let reply = client.reply();
        assert_eq!((reply.status, reply.json()["body_bytes"].as_u64()), (200, Some(2)));
    }
    assert_eq!(origin.hits(), 40);
    let servers = edge.status()["routes"][0]["backends"][0]["servers"].clone();
    assert_eq!(
        (servers[0]["server"].as_str(), &servers[0]["up"], &servers[1]["up"]),
        (Some(dead.as_str()), &Value::Bool(false), &Value::Bool(true))
    );
    // Left out for a while, it is not tried each time.
    let errors = edge.metric("keygate_upstream_errors_total", &[("kind", "connect")]);
    assert!(errors <= Some(3.0), "{errors:?}");
    assert!(edge.home.run(["routes"]).success().contains("service=1 (1 down)"));
}

#[test]
fn too_slow_is_504() {
    let (origin, home) = (Origin::start("blue"), tls_home(&Ca::new(), &["example.com"]));
    let upstream = "timeouts.first_byte = \"200ms\"";
    let edge = Simple { servers: &[origin.server()], upstream, rest: TLS, ..Simple::default() }.start_in(&home);
    is_problem(&edge, "/?delay_ms=2000", 504, "upstream-timeout");
    let mut client = edge.client();
    client.get("/?delay_ms=2000").is_problem(504, "upstream-timeout");
    edge.counts("keygate_upstream_errors_total", &[("kind", "timeout")], 3.0);
    assert_eq!(edge.client().get("/?delay_ms=20").status, 200);
    // It was asked once each time: who is slow is not asked again.
    assert_eq!(origin.hits(), 4);
}

#[test]
fn an_answer_that_is_none_is_502() {
    for answer in ["garbage\r\n\r\n", "HTTP/1.1 abc\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-le", ""] {
        let raw = RawOrigin::answering(answer);
        let edge = Simple { servers: &[raw.server()], ..Simple::default() }.start();
        edge.client().get("/").is_problem(502, "upstream-unavailable");
        let mut client = edge.client();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
        client.reply().is_problem(502, "upstream-unavailable");
        let payments = raw.received().iter().filter(|bytes| bytes.starts_with(b"POST")).count();
        assert_eq!(payments, 1, "a payment is not sent twice: {answer:?}");
    }
}

#[test]
fn a_body_that_is_sent_again_counts_once() {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    // A connection answers once; it ends when it is asked again, too late to be known as stale.
    let raw = RawOrigin::start(vec![
        Step::ReadUntil(b"last"),
        Step::Send(ANSWER.to_vec()),
        Step::ReadUntil(b"last"),
        Step::Close,
    ]);
    let rest = "[process]\nworkers = 1\n";
    let edge = Simple { servers: &[raw.server()], route: "body_size = \"60B\"", rest, ..Simple::default() }.start();
    let mut client = edge.client();
    for _ in 0..2 {
        client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 40\r\n\r\n{:>40}", "last"));
        assert_eq!(client.reply().status, 200);
    }
    assert_eq!(raw.received().len(), 2, "the second was sent again");
    wait_until(SOON, "their lines", || {
        let lines = edge.log_lines();
        (lines.len() == 2 && lines.iter().all(|line| line["bytes_in"] == 40)).then_some(())
    });
}

#[test]
fn an_answer_that_can_be_read_in_two_ways_is_502() {
    let home = tls_home(&Ca::new(), &["example.com"]);
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\ncontent-length: 2\r\n\r\nab",
        "HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: a\x00b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx(y): a\r\n\r\n",
        "HTTP/1.1 200 OK\r\n: a\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "http/1.1 200 OK\r\n\r\n",
    ] {
        // The server keeps the connection; we do not.
        let raw = RawOrigin::start(vec![
            Step::ReadUntil(b"\r\n\r\n"),
            Step::Send(answer.into()),
            Step::ReadUntil(b"\r\n\r\n"),
            Step::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec()),
        ]);
        let edge = Simple { servers: &[raw.server()], rest: TLS, ..Simple::default() }.start_in(&home);
        edge.client().get("/").is_problem(502, "upstream-unavailable");
        let over_http2 = edge.curl_tls("example.com", "/", ["--http2"]);
        super::problem(over_http2.status, &over_http2.headers, &over_http2.body, (502, "upstream-unavailable"));
        assert_eq!(raw.received().len(), 2, "each on a connection of its own: {answer:?}");
    }
}

#[test]
fn what_follows_an_answer_is_not_the_next() {
    const POISON: &str = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";
    for answer in [
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\ncontent-length: 50\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let raw = RawOrigin::start(vec![
            Step::ReadUntil(b"\r\n\r\n"),
            Step::Send([answer, POISON].concat().into()),
            Step::ReadToEnd,
        ]);
        let edge = Simple { servers: &[raw.server()], rest: "[process]\nworkers = 1\n", ..Simple::default() }.start();
        let mut client = edge.client();
        for n in 1..4 {
            let reply = client.get("/");
            assert!(
                [200, 204, 304].contains(&reply.status) && !reply.text().contains("poison"),
                "{answer:?}: {reply:?}"
            );
            assert!(reply.status != 204 || reply.header("content-length").is_none(), "{reply:?}");
            assert_eq!(raw.received().len(), n, "a connection each: {answer:?}");
        }
    }
}

#[test]
fn an_answer_that_breaks_off_is_seen_to() {
    let (origin, home) = (Origin::start("blue"), tls_home(&Ca::new(), &["example.com"]));
    let mut edge = Simple { servers: &[origin.server()], rest: TLS, ..Simple::default() }.start_in(&home);
    for target in ["/?cut=1&bytes=100000", "/?cut=1&chunked=1&bytes=100000"] {
        // curl: 18 a partial file, 56 a reset, 92 an HTTP/2 stream that was reset.
        let code = try_curl([edge.url(target)]).expect_err("half an answer").code;
        assert!([18, 56].contains(&code), "{target}: {code}");
        for (version, codes) in [("--http1.1", &[18, 56]), ("--http2", &[92, 18])] {
            let code = edge.try_curl_tls("example.com", target, [version]).expect_err("half an answer").code;
            assert!(codes.contains(&code), "{target} over {version}: {code}");
        }
    }
    edge.wait_log("what went wrong", |line| line["error"].is_string() && line["status"] == 200);
    assert_eq!(edge.client().get("/").status, 200);
}

#[test]
fn a_pause_in_an_answer_is_seen_to() {
    let raw = RawOrigin::start(vec![
        Step::ReadUntil(b"\r\n\r\n"),
        Step::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf".to_vec()),
        Step::ReadToEnd,
    ]);
    let edge =
        Simple { servers: &[raw.server()], upstream: "timeouts.first_byte = \"200ms\"", ..Simple::default() }.start();
    let mut client = edge.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head().status, 200);
    assert_eq!(client.rest(), b"half", "and then the end");
}

#[test]
fn an_origin_killed_before_it_answers_is_502() {
    let mut origin = OriginProcess::start("blue");
    let edge = Simple { servers: &[origin.server()], ..Simple::default() }.start();
    let mut client = edge.client();
    assert_eq!(client.get("/").header("x-origin"), Some("blue"));
    client.send("POST /pay?delay_ms=10000 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
    wait_in_flight(&edge, 1);
    origin.kill9();
    client.reply().is_problem(502, "upstream-unavailable");
    origin.start_again();
    wait_until(SOON, "it is asked again", || (edge.client().get("/").status == 200).then_some(()));
}

#[test]
fn an_origin_killed_in_mid_answer_is_truncated_and_the_next_is_served_by_the_other() {
    let mut dying = OriginProcess::start("blue");
    let other = Origin::start("green");
    let edge = Simple { servers: &[dying.server(), other.server()], ..Simple::default() }.start();
    // The servers take turns: one of two connections begins with the one that dies.
    let (mut client, mut served) = (edge.client(), String::new());
    while served != "blue" {
        client = edge.client();
        client.send(format!("GET /?bytes={} HTTP/1.1\r\nHost: a\r\n\r\n", 64 << 20));
        served = client.head().header("x-origin").expect("an origin").to_owned();
    }
    client.bytes(1 << 20);
    dying.kill9();
    let rest = client.rest().len();
    assert!(rest < 63 << 20, "{rest} bytes");
    let mut client = edge.client();
    for _ in 0..10 {
        let reply = client.get("/");
        assert_eq!((reply.status, reply.header("x-origin")), (200, Some("green")));
    }
}

#[test]
fn overload_is_503() {
    let (origin, home) = (Origin::start("blue"), tls_home(&Ca::new(), &["example.com"]));
    let edge = Simple { servers: &[origin.server()], upstream: "max_in_flight = 2", rest: TLS, ..Simple::default() }
        .start_in(&home);
    let mut waiting: Vec<Client> = (0..2).map(|_| edge.client()).collect();
    for client in &mut waiting {
        client.send("GET /?delay_ms=1500 HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    wait_in_flight(&edge, 2);
    let mut third = edge.client();
    let reply = third.get("/");
    reply.is_problem(503, "overload");
    assert_eq!(reply.header("retry-after"), Some("1"));
    let answer = edge.curl_tls("example.com", "/", ["--http2"]);
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    for client in &mut waiting {
        assert_eq!(client.reply().status, 200);
    }
    assert_eq!(third.get("/").status, 200);
    edge.counts("keygate_upstream_errors_total", &[("kind", "overload")], 2.0);
}

#[test]
fn a_client_that_goes_away_frees_its_place() {
    let raw = RawOrigin::start(vec![Step::ReadToEnd]);
    let mut edge = Simple { servers: &[raw.server()], upstream: "max_in_flight = 1", ..Simple::default() }.start();
    let mut client = edge.client();
    client.send("GET /gone HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_in_flight(&edge, 1);
    drop(client);
    wait_in_flight(&edge, 0);
    let line = edge.wait_log("the request that nobody waited for", |line| line["path"] == "/gone");
    assert_eq!(line["status"], 499);
}

/// Waits until so many requests are in flight to the upstream.
#[track_caller]
fn wait_in_flight(edge: &Edge, count: u64) {
    wait_until(Duration::from_secs(10), &format!("{count} requests in flight"), || {
        (edge.status()["routes"][0]["backends"][0]["in_flight"] == count).then_some(())
    });
}

#[test]
fn when_the_gateway_has_no_descriptor_left_it_is_not_the_servers_fault() {
    let origin = Origin::start("blue");
    let (home, http) = (Home::new(""), free_port());
    let toml = Simple { servers: &[origin.server()], rest: "[process]\nworkers = 1\n", ..Simple::default() }.toml();
    home.config(&toml.replace("$HTTP", &http.to_string()));
    let shell = format!("ulimit -n 64; exec {} gateway -c keygate.toml", env!("CARGO_BIN_EXE_keygate"));
    let keygate = home.spawn(&mut home.command_of("sh", ["-c", &shell]));
    let mut edge = Edge { keygate, home, http, https: 0 };
    edge.wait_ready();
    let mut early: Vec<_> = (0..10).map(|_| edge.client()).collect();
    let others: Vec<_> = (0..100).map(|_| Client::connect(http)).collect();
    edge.keygate.wait_until(SOON, "no connection can be accepted", |p| {
        p.stderr().contains("cannot accept a connection").then_some(())
    });
    // All at once: what one leaves another cannot use.
    for client in &mut early {
        client.send("GET /?delay_ms=300 HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    let replies: Vec<_> = early.iter_mut().map(Client::reply).collect();
    let refused: Vec<_> = replies.iter().filter(|reply| reply.status != 200).collect();
    assert!(refused.len() >= 5, "{replies:?}");
    for reply in refused {
        reply.is_problem(503, "exhausted");
        assert!(reply.header("retry-after").is_some());
    }
    drop(others);
    wait_until(SOON, "there is room again", || (early[0].get("/").status == 200).then_some(()));
    assert_eq!(edge.metric("keygate_upstream_errors_total", &[]), None);
}
