//! Clients and servers that try to hold the express lane, or to slip past it.

use std::time::{Duration, Instant};

use super::{Client, Simple};
use crate::support::{Origin, RawOrigin, SOON, Step, wait_until};

/// Far above every time-out here, far below [`SOON`].
const BUSY: Duration = Duration::from_secs(6);

/// Sends a byte now and then until the gateway ends the connection; answers how long that took.
#[track_caller]
fn drip(client: &mut Client, byte: &[u8]) -> Duration {
    let started = Instant::now();
    while client.try_send(byte).is_ok() {
        assert!(started.elapsed() < BUSY, "it goes on for ever");
        std::thread::sleep(Duration::from_millis(50));
    }
    started.elapsed()
}

#[test]
fn a_tunnel_that_is_silent_ends_and_frees_its_place() {
    let raw = RawOrigin::start(vec![
        Step::ReadUntil(b"\r\n\r\n"),
        Step::Send(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n".to_vec()),
        Step::ReadToEnd,
    ]);
    let upstream = "timeouts.first_byte = \"500ms\"\nmax_in_flight = 1";
    let edge = Simple { servers: &[raw.server()], upstream, ..Simple::default() }.start();
    let mut client = edge.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(client.head().status, 101);
    // What moves keeps it.
    for _ in 0..8 {
        std::thread::sleep(Duration::from_millis(100));
        client.send("x");
    }
    assert_eq!(edge.client().get("/").status, 503, "it has the only place");
    let started = Instant::now();
    assert!(client.rest().is_empty());
    assert!((Duration::from_millis(300)..BUSY).contains(&started.elapsed()), "{:?}", started.elapsed());
    wait_until(SOON, "the place is free", || {
        (edge.status()["routes"][0]["backends"][0]["in_flight"] == 0).then_some(())
    });
}

#[test]
fn interim_answers_do_not_prolong_the_wait() {
    let mut script = vec![Step::ReadUntil(b"\r\n\r\n")];
    for _ in 0..60 {
        script.push(Step::Send(b"HTTP/1.1 102 Processing\r\n\r\n".to_vec()));
        script.push(Step::Pause(Duration::from_millis(100)));
    }
    let raw = RawOrigin::start(script);
    let upstream = "timeouts.first_byte = \"700ms\"";
    let edge = Simple { servers: &[raw.server()], upstream, ..Simple::default() }.start();
    let mut client = edge.client();
    let started = Instant::now();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut head = client.head();
    while head.status == 102 {
        head = client.head();
    }
    assert_eq!(head.status, 504);
    assert!(started.elapsed() < BUSY, "{:?}", started.elapsed());
}

#[test]
fn a_client_that_takes_nothing_cannot_make_up_for_it_by_sending() {
    let endless = [b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n".to_vec(), vec![b'x'; 32 << 20]].concat();
    let raw = RawOrigin::start(vec![Step::ReadUntil(b"\r\n\r\n"), Step::Send(endless)]);
    let listener = "timeouts.send = \"500ms\"";
    let edge = Simple { servers: &[raw.server()], listener, ..Simple::default() }.start();
    let mut client = edge.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n");
    drip(&mut client, b"x");
}

#[test]
fn who_waits_to_be_told_to_go_on_cannot_send_nothing_for_ever() {
    let raw = RawOrigin::start(vec![Step::ReadToEnd]);
    let upstream = "timeouts.first_byte = \"700ms\"";
    let edge = Simple { servers: &[raw.server()], upstream, ..Simple::default() }.start();
    let mut client = edge.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx-sum: ");
    drip(&mut client, b"1");
    assert_eq!(client.reply().status, 504);
}

#[test]
fn a_header_that_stays_here_counts_for_nothing_here() {
    let origin = Origin::start("blue");
    let rest = "[rate_limits.few]\nkey = \"header:x-api-key\"\nrate = \"2/h\"\n";
    let edge =
        Simple { servers: &[origin.server()], route: "rate_limits = [\"few\"]", rest, ..Simple::default() }.start();
    let mut client = edge.client();
    let answers: Vec<u16> = (0..5)
        .map(|n| {
            client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: x-api-key\r\nx-api-key: {n}\r\n\r\n"));
            client.reply().status
        })
        .collect();
    assert_eq!(answers, [200, 200, 429, 429, 429]);
    assert!(origin.seen().iter().all(|seen| seen.header("x-api-key").is_none()));
}

#[test]
fn an_answer_that_is_cut_short_does_not_look_whole_to_http10() {
    // The client knows no chunks: the connection's end is the answer's.
    let script = vec![
        Step::ReadUntil(b"\r\n\r\n"),
        Step::Send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nsome\r\n".to_vec()),
        Step::Pause(Duration::from_millis(300)),
    ];
    let raw = RawOrigin::start(script);
    let edge = Simple { servers: &[raw.server()], ..Simple::default() }.start();
    let mut client = edge.client();
    client.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(client.head().status, 200);
    assert_eq!(client.try_bytes(4).expect("what came"), b"some");
    let end = client.try_bytes(1).expect_err("no more of it");
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn what_frames_a_body_is_written_as_it_was_judged() {
    let raw = RawOrigin::start(vec![
        Step::ReadUntil(b"hello"),
        Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length:  0005\t\r\nDate: one\r\nDate: two\r\n\r\nhello".to_vec()),
        Step::ReadToEnd,
    ]);
    let edge = Simple { servers: &[raw.server()], ..Simple::default() }.start();
    let mut client = edge.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nCONTENT-LENGTH: \t 05 \r\n\r\nhello");
    let reply = client.reply();
    assert_eq!((reply.header("content-length"), reply.text().as_str()), (Some("5"), "hello"));
    assert_eq!(reply.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("date")).count(), 1);
    let received = String::from_utf8(raw.received().concat()).expect("text");
    assert!(received.contains("\r\ncontent-length: 5\r\n"), "{received}");
}

#[test]
fn interim_answers_say_no_more_than_the_answer_may() {
    let script = vec![
        Step::ReadUntil(b"\r\n\r\n"),
        Step::Send(
            b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\nserver: leaky\r\nset-cookie: a=b\r\n\r\n\
              HTTP/1.1 426 Upgrade Required\r\nstrict-transport-security: max-age=1\r\nupgrade: TLS/1.2\r\n\
              connection: upgrade\r\ncontent-length: 0\r\n\r\n"
                .to_vec(),
        ),
    ];
    let raw = RawOrigin::start(script);
    let rest = "[security_headers.quiet]\nremove = [\"server\"]\n";
    let route = "security_headers = \"quiet\"";
    let edge = Simple { servers: &[raw.server()], route, rest, ..Simple::default() }.start();
    let mut client = edge.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let all = String::from_utf8(client.rest()).expect("text");
    let (hints, answer) = all.split_once("\r\n\r\n").expect("two heads");
    assert_eq!(hints, "HTTP/1.1 103 Early Hints\r\nlink: </a.css>");
    let answer = answer.to_ascii_lowercase();
    assert!(answer.contains("upgrade: tls/1.2\r\n") && answer.contains("connection: upgrade\r\n"), "{answer}");
    // RFC 6797, 7.2: not over http, though the server says it.
    assert!(!answer.contains("strict-transport-security"), "{answer}");
}
