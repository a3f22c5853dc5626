//! Clients of HTTP/2 that make much of little: each is sent away or comes to nothing, and others are served meanwhile.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;

use super::super::client::{Client, tls_config};
use super::super::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Http2, PING, PRIORITY, RESET, SETTINGS,
    WINDOW_UPDATE, frame, head, literal,
};
use crate::gateway::{Edge, Simple, TLS, tls_home};
use crate::support::{Ca, Hole, Origin, SOON, wait_until};

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;

/// A gateway before a server that is attacked, and one at `/ok` that must not suffer.
struct Attacked {
    edge: Edge,
    config: Arc<ClientConfig>,
    ok: Origin,
}

fn attacked(server: &str, listener: &str) -> Attacked {
    let (ca, ok) = (Ca::new(), Origin::start("ok"));
    let home = tls_home(&ca, &["example.com"]);
    let rest = format!(
        "{TLS}{listener}\n[upstreams.ok]\nservers = [\"{}\"]\n\
         [[routes]]\nname = \"ok\"\npath = \"/ok\"\nbackends = [{{ upstream = \"ok\" }}]\n",
        ok.server()
    );
    let edge = Simple { servers: &[server.to_owned()], rest: &rest, ..Simple::default() }.start_in(&home);
    Attacked { edge, config: tls_config(&ca, &["h2"]), ok }
}

impl Attacked {
    fn connect(&self, settings: &[(u16, u32)]) -> Http2 {
        Http2::connect(self.edge.https, &self.config, settings)
    }

    /// Another client is served.
    #[track_caller]
    fn serves(&self) {
        let hits = self.ok.hits();
        let answer = self.edge.curl_tls("example.com", "/ok", ["--http2"]);
        assert_eq!((answer.status, self.ok.hits()), (200, hits + 1));
    }

    /// The connection ends, for this reason where that is seen, and so it is counted.
    #[track_caller]
    fn is_sent_away(&self, mut client: Http2, reason: &str) {
        assert!(matches!(client.end(), None | Some(ENHANCE_YOUR_CALM)));
        self.edge.counts("keygate_refused_total", &[("reason", reason)], 1.0);
        self.is_over();
    }

    /// No connection is open, and no request is under way.
    #[track_caller]
    fn is_over(&self) {
        wait_until(SOON, "no connection is open", || {
            (self.edge.metric("keygate_connections", &[("listener", "https")]) == Some(0.0)).then_some(())
        });
        assert_eq!(self.edge.status()["routes"][0]["backends"][0]["in_flight"], 0);
        assert!(!self.edge.keygate.stderr().contains("panicked"), "{}", self.edge.keygate.logs());
        self.serves();
    }

    /// Resident memory, in KiB.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.edge.keygate.pid())).expect("a process");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("its memory");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
    }
}

/// Has a few streams at a time ended by `end`, once the gateway has begun a request for each, until it has enough.
fn reset_rapidly(gateway: &Attacked, hole: &Hole, end: impl Fn(u32) -> Vec<u8>) {
    let mut client = gateway.connect(&[]);
    for round in 0..1000 {
        let streams: Vec<u32> = (0..8).map(|_| client.reserve()).collect();
        let block = head("GET", "/", &[]);
        let asked = streams.iter().flat_map(|stream| frame(HEADERS, END_HEADERS | END_STREAM, *stream, &block));
        let ping = frame(PING, 0, 0, b"settled?");
        if client.client.try_send(asked.chain(ping).collect::<Vec<_>>()).is_err() {
            break;
        }
        // Its answer comes no sooner than the streams have been taken for requests.
        let settled = loop {
            match client.try_frame() {
                Ok(frame) if frame.kind == PING && frame.flags == ACK => break true,
                Ok(frame) if frame.kind == GOAWAY => break false,
                Ok(_) => {}
                Err(_) => break false,
            }
        };
        if !settled || client.client.try_send(streams.into_iter().flat_map(&end).collect::<Vec<_>>()).is_err() {
            break;
        }
        if round == 10 {
            gateway.serves();
        }
    }
    gateway.is_sent_away(client, "reset-flood");
    assert!((200..400).contains(&hole.opened()), "requests begun: {}", hole.opened());
    wait_until(SOON, "the server is left alone", || (hole.opened() == hole.ended()).then_some(()));
}

#[test]
fn rapid_reset() {
    let hole = Hole::silent();
    reset_rapidly(&attacked(&hole.server(), ""), &hole, |stream| frame(RESET, 0, stream, &8u32.to_be_bytes()));
}

#[test]
fn made_you_reset() {
    let hole = Hole::silent();
    let most = 0x7fff_ffff_u32.to_be_bytes();
    reset_rapidly(&attacked(&hole.server(), ""), &hole, |stream| frame(WINDOW_UPDATE, 0, stream, &most));
}

#[test]
fn frames_out_of_place_end_the_connection_and_its_requests() {
    let hole = Hole::silent();
    let mut gateway = attacked(&hole.server(), "");
    let most = 0x7fff_ffff_u32.to_be_bytes();
    let block = head("GET", "/", &[]);
    let rows: [(&str, Vec<u8>, u32); 7] = [
        ("a window update by nothing", frame(WINDOW_UPDATE, 0, 1, &[0; 4]), PROTOCOL_ERROR),
        ("the connection's window too large", frame(WINDOW_UPDATE, 0, 0, &most), FLOW_CONTROL_ERROR),
        ("data after the end", frame(DATA, 0, 1, b"more"), PROTOCOL_ERROR),
        ("data of no stream", frame(DATA, 0, 9, b"more"), PROTOCOL_ERROR),
        ("a reset of no stream", frame(RESET, 0, 9, &[0; 4]), PROTOCOL_ERROR),
        ("a stream of the server's", frame(HEADERS, 5, 2, &block), PROTOCOL_ERROR),
        ("settings that are no settings", frame(SETTINGS, 0, 0, &[0; 5]), PROTOCOL_ERROR),
    ];
    for (number, (name, bytes, reason)) in rows.into_iter().enumerate() {
        let number = number as u64;
        let mut client = gateway.connect(&[]);
        client.request("GET", "/", &[("user-agent", name)], true);
        wait_until(SOON, "it arrives", || (hole.opened() == number + 1).then_some(()));
        client.client.send(bytes);
        assert!([None, Some(reason)].contains(&client.end()), "{name}");
        let line = gateway.edge.wait_log(name, |line| line["user_agent"] == name);
        assert_eq!(line["status"], 499, "{name}");
        wait_until(SOON, "the server is left alone", || (hole.ended() == number + 1).then_some(()));
    }
    gateway.is_over();
}

#[test]
fn continuation_flood() {
    let hole = Hole::silent();
    let gateway = attacked(&hole.server(), "");
    let mut client = gateway.connect(&[]);
    let stream = client.reserve();
    client.send(HEADERS, END_STREAM, stream, &head("GET", "/", &[]));
    let more = frame(CONTINUATION, 0, stream, &literal(b"x", b"y"));
    while client.client.try_send(more.repeat(100)).is_ok() {}
    gateway.is_sent_away(client, "http2-flood");
    assert_eq!(hole.opened(), 0);
}

#[test]
fn a_header_list_beyond_the_bound_is_431() {
    let hole = Hole::silent();
    let gateway = attacked(&hole.server(), "");
    let mut client = gateway.connect(&[]);
    let stream = client.reserve();
    client.send(HEADERS, END_STREAM, stream, &head("GET", "/", &[]));
    for last in [false, false, false, false, true] {
        let flags = if last { END_HEADERS } else { 0 };
        client.send(CONTINUATION, flags, stream, &literal(b"x", &[b'x'; 16_000]));
    }
    let (head, _, _) = client.answer(stream);
    assert_eq!((head.status(), head.ends()), (431, true));
    assert_eq!(gateway.edge.metric("keygate_refused_total", &[]), None, "it never was a request");
    // The others of its streams go on.
    let stream = client.get("/ok");
    assert_eq!(client.answer(stream).0.status(), 200);
    assert_eq!(hole.opened(), 0);
}

#[test]
fn header_bomb() {
    let hole = Hole::silent();
    let gateway = attacked(&hole.server(), "");
    let mut client = gateway.connect(&[]);
    let before = gateway.memory();
    // A field of almost the whole table, and then itself over and over: 64 MB out of 16 kB.
    let mut field = literal(b"x", &[b'x'; 4000]);
    field[0] = 0x40;
    let bomb = [head("GET", "/", &[]), field, vec![0xbe; 12_000]].concat();
    let stream = client.reserve();
    client.send(HEADERS, END_HEADERS | END_STREAM, stream, &bomb);
    gateway.is_sent_away(client, "http2-flood");
    let grown = gateway.memory().saturating_sub(before);
    assert!(grown < 8 << 10, "{grown} KiB");
    assert_eq!(hole.opened(), 0);
}

#[test]
fn frames_of_no_use() {
    let hole = Hole::silent();
    let floods: [(&str, Vec<u8>, bool); 4] = [
        ("priorities", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 16]), false),
        ("settings", frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100].repeat(2700)), true),
        ("pings", frame(PING, 0, 0, b"12345678"), true),
        ("of no known kind", frame(0xfa, 0, 1, &[0; 16 << 10]), false),
    ];
    for (name, bytes, answered) in floods {
        let gateway = attacked(&hole.server(), "");
        let before = gateway.memory();
        let mut client = gateway.connect(&[]);
        // A request is under way: the time without one is not what ends it.
        client.get("/");
        let (times, mut sent) = ((64 << 10) / bytes.len() + 1, 0);
        let batch = bytes.repeat(times);
        let read = |client: &mut Http2| !answered || (0..times).all(|_| client.try_frame().is_ok());
        while client.client.try_send(&batch).is_ok() && read(&mut client) {
            sent += batch.len();
        }
        assert!((4 << 20..24 << 20).contains(&sent), "{name}: {sent} bytes");
        gateway.is_sent_away(client, "http2-flood");
        let grown = gateway.memory().saturating_sub(before);
        assert!(grown < 16 << 10, "{name}: {grown} KiB");
    }
}

#[test]
fn pings_whose_answers_nobody_reads() {
    let hole = Hole::silent();
    let gateway = attacked(&hole.server(), "timeouts.idle = \"1s\"\n");
    let before = gateway.memory();
    let mut client = gateway.connect(&[]);
    let batch = frame(PING, 0, 0, b"12345678").repeat(4000);
    while client.client.try_send(&batch).is_ok() {}
    let grown = gateway.memory().saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB");
    gateway.is_over();
}

#[test]
fn connections_that_wait_cost_little() {
    let origin = Origin::start("blue");
    let gateway = attacked(&origin.server(), "");
    let ask = |client: &mut Http2| {
        let stream = client.get("/");
        assert_eq!(client.answer(stream).0.status(), 200);
    };
    let connect = || {
        let mut client = gateway.connect(&[]);
        ask(&mut client);
        client
    };
    let mut first: Vec<Http2> = (0..20).map(|_| connect()).collect();
    let before = gateway.memory();
    let others: Vec<Http2> = (0..100).map(|_| connect()).collect();
    let each = gateway.memory().saturating_sub(before) / others.len() as u64;
    assert!(each < 100, "{each} KiB");
    first.iter_mut().for_each(ask);
}

#[test]
fn empty_data_flood() {
    let hole = Hole::silent();
    let gateway = attacked(&hole.server(), "");
    let mut client = gateway.connect(&[]);
    let stream = client.request("POST", "/", &[], false);
    while client.client.try_send(frame(DATA, 0, stream, &[]).repeat(100)).is_ok() {}
    gateway.is_sent_away(client, "http2-flood");
}

#[test]
fn a_body_a_byte_a_frame_is_a_body() {
    let origin = Origin::start("blue");
    let gateway = attacked(&origin.server(), "");
    let mut client = gateway.connect(&[]);
    let stream = client.request("POST", "/", &[], false);
    for _ in 0..50 {
        client.client.send(frame(DATA, 0, stream, b"x").repeat(100));
        client.settle();
    }
    client.send(DATA, END_STREAM, stream, b"");
    assert_eq!(client.answer(stream).0.status(), 200);
    assert_eq!(origin.last().body, [b'x'; 5000]);
}

#[test]
fn answers_that_nobody_opens_a_window_for() {
    const STREAMS: u64 = 20;
    let hole = Hole::endless("HTTP/1.1 200 OK\r\n\r\n");
    let gateway = attacked(&hole.server(), "timeouts.send = \"500ms\"\n");
    let before = gateway.memory();
    let mut client = gateway.connect(&[(4, 0)]);
    for _ in 0..STREAMS {
        client.get("/");
    }
    // One that opens it by a byte is given a byte.
    client.send(WINDOW_UPDATE, 0, 1, &1u32.to_be_bytes());
    let first = client.wait("a byte", |frame| frame.kind == DATA);
    assert_eq!((first.stream, first.payload.len()), (1, 1));
    gateway.serves();
    for _ in 0..STREAMS {
        client.wait("its end", |frame| frame.kind == RESET);
    }
    wait_until(SOON, "servers are left alone", || (hole.ended() == STREAMS).then_some(()));
    wait_until(SOON, "each is logged", || {
        let lines = gateway.edge.log_lines();
        let late = lines.iter().filter(|line| line["error"] == "Downstream WriteTimedout").count();
        (late as u64 == STREAMS).then_some(())
    });
    let grown = gateway.memory().saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB");
}

#[test]
fn answers_that_nobody_reads() {
    const STREAMS: u64 = 50;
    let hole = Hole::endless("HTTP/1.1 200 OK\r\n\r\n");
    let gateway = attacked(&hole.server(), "timeouts.send = \"500ms\"\n");
    let before = gateway.memory();
    // All windows are open; the connection is not read from.
    let mut client = gateway.connect(&[(4, 0x7fff_ffff)]);
    client.send(WINDOW_UPDATE, 0, 0, &0x7000_0000_u32.to_be_bytes());
    for _ in 0..STREAMS {
        client.get("/");
    }
    wait_until(SOON, "servers are left alone", || (hole.ended() == STREAMS).then_some(()));
    let grown = gateway.memory().saturating_sub(before);
    assert!(grown < 24 << 10, "{grown} KiB");
    gateway.is_over();
    drop(client);
}

#[test]
fn small_answers_that_nobody_reads() {
    let origin = Origin::start("blue");
    let gateway = attacked(&origin.server(), "timeouts.send = \"500ms\"\ntimeouts.idle = \"60s\"\n");
    let mut client = gateway.connect(&[(4, 0x7fff_ffff)]);
    client.send(WINDOW_UPDATE, 0, 0, &0x7000_0000_u32.to_be_bytes());
    // More than sockets hold, in answers that are each soon over.
    for _ in 0..128 {
        client.get("/?bytes=65000");
    }
    let started = Instant::now();
    gateway.is_over();
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    drop(client);
}

#[test]
fn streams_beyond_the_bound_are_refused() {
    let hole = Hole::silent();
    let gateway = attacked(&hole.server(), "");
    let mut client = gateway.connect(&[]);
    let streams: Vec<u32> = (0..140).map(|_| client.get("/")).collect();
    for stream in &streams[128..] {
        let refused = client.wait("a refusal", |frame| frame.kind == RESET);
        assert_eq!((refused.stream, refused.reason()), (*stream, REFUSED_STREAM));
    }
    wait_until(SOON, "the others arrive", || (hole.opened() == 128).then_some(()));
    gateway.serves();
    assert_eq!(hole.opened(), 128);
}

#[test]
fn heads_that_never_end() {
    let hole = Hole::silent();
    let gateway = attacked(&hole.server(), "timeouts.idle = \"300ms\"\ntimeouts.request_head = \"300ms\"\n");
    let mut client = gateway.connect(&[]);
    client.send(HEADERS, END_STREAM, 1, &head("GET", "/", &[]));
    assert_eq!(client.end(), Some(0), "asked to leave");
    // Nor does one that goes on and on.
    let mut drip = gateway.connect(&[]);
    drip.send(HEADERS, END_STREAM, 1, &head("GET", "/", &[]));
    let deadline = Instant::now() + SOON;
    let mut parts = frame(CONTINUATION, 0, 1, &literal(b"x", b"y")).into_iter();
    while let Some(byte) = parts.next()
        && drip.client.try_send([byte]).is_ok()
    {
        std::thread::sleep(Duration::from_millis(100));
        assert!(Instant::now() < deadline);
    }
    assert!([None, Some(0)].contains(&drip.end()));
    let mut half = Client::connect_tls(gateway.edge.https, "example.com", &gateway.config);
    half.send(b"PRI * HTTP/2.0\r\n");
    assert!(half.rest().len() < 100);
    assert_eq!(half.try_bytes(1).map_err(|error| error.kind()), Err(ErrorKind::UnexpectedEof));
    assert_eq!(hole.opened(), 0);
    gateway.is_over();
}
