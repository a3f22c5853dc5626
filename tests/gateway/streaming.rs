//! Bodies that pass piece by piece, and never pile up.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use super::{Simple, TLS, tls_home};
use crate::support::{Ca, RawOrigin, SOON, Step, free_port, wait_until};

/// An origin that does what `play` says with each connection, once its request's head has been read.
pub(super) fn origin(play: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", free_port())).expect("a free port");
    let addr = listener.local_addr().expect("bound");
    let play = Arc::new(play);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let play = play.clone();
            std::thread::spawn(move || {
                let mut reader = BufReader::with_capacity(1, &stream);
                let mut line = String::new();
                while line != "\r\n" {
                    line.clear();
                    if reader.read_line(&mut line).unwrap_or(0) == 0 {
                        return;
                    }
                }
                play(stream);
            });
        }
    });
    addr
}

#[test]
fn events_arrive_as_they_happen() {
    let (tell, told) = mpsc::channel::<&'static str>();
    let told = std::sync::Mutex::new(told);
    let events = origin(move |mut stream| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            .unwrap();
        for event in told.lock().unwrap().iter() {
            write!(stream, "{:x}\r\n{event}\r\n", event.len()).unwrap();
        }
        stream.write_all(b"0\r\n\r\n").unwrap();
    });
    let edge = Simple { servers: &[events.to_string()], ..Simple::default() }.start();
    let mut client = edge.client();
    client.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n");
    // The head comes before any event; each event before the next has happened.
    assert_eq!(client.head().header("content-type"), Some("text/event-stream"));
    for event in ["data: one\n\n", "data: two\n\n", "data: three\n\n"] {
        tell.send(event).expect("the origin listens");
        assert_eq!(client.chunk().expect("an event"), event.as_bytes());
    }
    drop(tell);
    assert_eq!(client.chunk(), None);
}

#[test]
fn a_body_of_known_length_arrives_as_it_comes() {
    let (tell, told) = mpsc::channel::<&'static str>();
    let told = std::sync::Mutex::new(told);
    let slow = origin(move |mut stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n").unwrap();
        for part in told.lock().unwrap().iter() {
            stream.write_all(part.as_bytes()).unwrap();
        }
    });
    let edge = Simple { servers: &[slow.to_string()], ..Simple::default() }.start();
    let mut client = edge.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head().header("content-length"), Some("11"), "before any of the body");
    for part in ["first", " ", "later"] {
        tell.send(part).expect("the origin listens");
        assert_eq!(client.bytes(part.len()), part.as_bytes());
    }
}

#[test]
fn events_arrive_over_http2_as_they_happen() {
    let (tell, told) = mpsc::channel::<&'static str>();
    let told = std::sync::Mutex::new(told);
    let events = origin(move |mut stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
        for event in told.lock().unwrap().iter() {
            write!(stream, "{:x}\r\n{event}\r\n", event.len()).unwrap();
        }
        stream.write_all(b"0\r\n\r\n").unwrap();
    });
    let home = tls_home(&Ca::new(), &["localhost"]);
    let edge = Simple { servers: &[events.to_string()], rest: TLS, ..Simple::default() }.start_in(&home);
    let url = format!("https://localhost:{}/", edge.https);
    let mut curl = crate::support::Process::spawn(
        "curl",
        std::process::Command::new("curl")
            .args(["-q", "-sSN", "--http2", "-i", "--cacert"])
            .arg(home.path("ca.pem"))
            .arg(url),
    );
    for event in ["data: one\n\n", "data: two\n\n"] {
        tell.send(event).expect("the origin listens");
        curl.wait_until(SOON, "an event", |p| p.stdout().ends_with(event).then_some(()));
    }
    drop(tell);
    assert_eq!(curl.wait(SOON).code(), Some(0));
    assert!(curl.stdout().starts_with("HTTP/2 200"), "{}", curl.stdout());
}

#[test]
fn an_upload_reaches_the_origin_before_it_ends() {
    let raw = RawOrigin::start(vec![
        Step::ReadUntil(b"the end"),
        // Each request has a connection, and with it the steps, to itself.
        Step::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok".to_vec()),
        Step::ReadToEnd,
    ]);
    let edge = Simple { servers: &[raw.server()], ..Simple::default() }.start();
    let mut chunked = edge.client();
    chunked.send("POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
    raw.wait_for(b"first");
    chunked.send("6\r\nsecond\r\n");
    raw.wait_for(b"second");
    chunked.send("7\r\nthe end\r\n0\r\n\r\n");
    assert_eq!(chunked.reply().text(), "ok");
    let mut counted = edge.client();
    counted.send("POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\nhalf-");
    raw.wait_for(b"half-");
    counted.send("the end");
    assert_eq!(counted.reply().text(), "ok");
}

#[test]
fn an_upgraded_connection_is_a_tunnel() {
    let echo = origin(|mut stream| {
        stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: x\r\n\r\n")
            .unwrap();
        let mut buffer = [0; 1024];
        while let Ok(n @ 1..) = stream.read(&mut buffer) {
            stream.write_all(&buffer[..n]).unwrap();
        }
    });
    let edge =
        Simple { servers: &[echo.to_string()], listener: "limits.body_size = \"1KiB\"", ..Simple::default() }.start();
    let mut client = edge.client();
    client.send(
        "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    let head = client.reply();
    assert_eq!(
        (head.status, head.header("upgrade"), head.header("sec-websocket-accept")),
        (101, Some("websocket"), Some("x"))
    );
    // Frames that are no HTTP, both ways and back, more of them than a request's body may have.
    for n in 0..20u8 {
        let frame: Vec<u8> = [0x82, 100].into_iter().chain((0..100).map(|byte| byte ^ n)).collect();
        client.send(&frame);
        assert_eq!(client.bytes(frame.len()), frame);
    }
    // What looks like a request is none here.
    client.send("GET / HTTP/1.1\r\n\r\n");
    assert_eq!(client.bytes(18), b"GET / HTTP/1.1\r\n\r\n");
    client.end_of_input();
    assert!(client.rest().is_empty());
}

#[test]
fn a_slow_reader_costs_no_memory() {
    const BODY: u64 = 96 << 20;
    let sent = Arc::new(AtomicU64::new(0));
    let count = sent.clone();
    let large = origin(move |mut stream| {
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {BODY}\r\n\r\n").unwrap();
        let part = vec![b'x'; 64 << 10];
        while count.load(Ordering::Relaxed) < BODY {
            stream.write_all(&part).unwrap();
            count.fetch_add(part.len() as u64, Ordering::Relaxed);
        }
    });
    let edge = Simple { servers: &[large.to_string()], ..Simple::default() }.start();
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", edge.keygate.pid())).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a size");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") << 10
    };
    assert!(edge.client().try_send("").is_ok());
    let before = resident();
    let mut client = edge.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head().status, 200);
    // Nobody reads: the origin must be stopped, by what the kernel's buffers hold.
    let (mut last, mut still) = (0, 0);
    wait_until(SOON, "the origin is held back", || {
        let now = sent.load(Ordering::Relaxed);
        still = if now == last { still + 1 } else { 0 };
        last = now;
        (still > 60).then_some(())
    });
    assert!(last < BODY / 2, "{last} of {BODY} bytes were taken from the origin");
    let grown = resident().saturating_sub(before);
    assert!(grown < 8 << 20, "the gateway holds {grown} bytes more");
    // And it all arrives once somebody does.
    let mut left = BODY;
    while left > 0 {
        left -= client.bytes(1 << 20).len() as u64;
    }
}
