//! HTTP/2 from clients, as messages: bodies, trailers, interim answers, and ends of all kinds.

use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use super::client::tls_config;
use super::frames::{DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Http2, RESET, SETTINGS, WINDOW_UPDATE, block};
use super::{Edge, Simple, TLS, tls_home};
use crate::support::{Ca, Hole, Origin, Process, RawOrigin, SOON, Step, run, wait_until};

const PROTOCOL_ERROR: u32 = 1;
const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;
const CANCEL: [u8; 4] = [0, 0, 0, 8];

/// A gateway before this server, and a client's TLS to it.
fn before(server: &str, more: &str) -> (Edge, Arc<ClientConfig>) {
    let ca = Ca::new();
    let home = tls_home(&ca, &["example.com"]);
    let (servers, rest) = ([server.to_owned()], format!("{TLS}{more}"));
    let edge = Simple { servers: &servers, route: "body_size = \"64MiB\"", rest: &rest, ..Simple::default() };
    (edge.start_in(&home), tls_config(&ca, &["h2"]))
}

fn connect(edge: &Edge, config: &Arc<ClientConfig>) -> Http2 {
    Http2::connect(edge.https, config, &[])
}

/// What a script for node prints, given a session to the gateway, as JSON.
#[track_caller]
fn node(edge: &Edge, script: &str) -> Value {
    let script = format!(
        r#"
const crypto = require("node:crypto");
const session = require("node:http2").connect(process.argv[1], {{ rejectUnauthorized: false }});
const ask = (headers, body, more = () => {{}}) => new Promise((done, fail) => {{
  const request = session.request(headers);
  const answer = {{ bytes: 0, events: [] }}, hash = crypto.createHash("sha256");
  request.on("headers", headers => {{ if (headers[":status"] !== 100) answer.events.push([headers[":status"], headers.link]); }});
  request.on("continue", () => answer.events.push("continue"));
  request.on("response", headers => {{ answer.status = headers[":status"]; }});
  request.on("trailers", trailers => {{ answer.trailers = {{ ...trailers }}; }});
  request.on("data", data => {{ answer.bytes += data.length; hash.update(data); answer.last = data.toString(); }});
  request.on("end", () => {{ answer.ended = true; }});
  request.on("error", fail);
  request.on("close", () => done({{ ...answer, sha256: hash.digest("hex") }}));
  more(request);
  request.end(body);
}});
(async () => {{ {script} }})().then(answer => {{ console.log(JSON.stringify(answer)); process.exit(); }});
"#
    );
    let url = format!("https://127.0.0.1:{}", edge.https);
    run(Command::new("node").args(["-e", &script, &url]), b"").json()
}

#[test]
fn trailers_of_requests() {
    let raw = RawOrigin::start(vec![
        Step::ReadUntil(b"\r\n0\r\n"),
        Step::ReadUntil(b"\r\n\r\n"),
        Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into()),
    ]);
    let (edge, config) = before(&raw.server(), "");
    let mut client = connect(&edge, &config);
    let stream = client.request("POST", "/", &[], false);
    client.send(DATA, 0, stream, b"hello");
    client.send(HEADERS, END_HEADERS | END_STREAM, stream, &block([("x-sum", "1"), ("x-more", "a b")]));
    assert_eq!(client.answer(stream).0.status(), 200);
    raw.wait_for(b"hello\r\n0\r\nx-sum: 1\r\nx-more: a b\r\n\r\n");
    let long = "x".repeat(9 << 10);
    for (name, value) in [("authorization", "x"), ("x-forwarded-for", "1.2.3.4"), ("host", "b"), ("x-long", &long)] {
        let mut client = connect(&edge, &config);
        let stream = client.request("POST", "/", &[], false);
        client.send(DATA, 0, stream, b"hello");
        // So that the gateway has begun.
        client.settle();
        client.send(HEADERS, END_HEADERS | END_STREAM, stream, &block([("x-fine", "1"), (name, value)]));
        assert_eq!(client.answer(stream).0.status(), 400, "{name}");
    }
    edge.counts("keygate_refused_total", &[("reason", "trailer")], 4.0);
    assert!(!raw.received().iter().any(|came| came.windows(6).any(|part| part == b"x-fine")));
}

#[test]
fn trailers_of_answers() {
    let raw = RawOrigin::answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nGrpc-Status: 0\r\nX-Sum: a b\r\n\r\n",
    );
    let (edge, _) = before(&raw.server(), "");
    let answer = node(&edge, "return ask({ ':path': '/', te: 'trailers' });");
    assert_eq!((&answer["status"], &answer["last"], &answer["ended"]), (&200.into(), &"hello".into(), &true.into()));
    assert_eq!(answer["trailers"], serde_json::json!({ "grpc-status": "0", "x-sum": "a b" }));
    // What may not be a trailer ends the answer short.
    let raw = RawOrigin::answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n",
    );
    let (edge, config) = before(&raw.server(), "");
    let mut client = connect(&edge, &config);
    let stream = client.get("/");
    let (head, _, last) = client.answer(stream);
    assert!(last.kind == RESET || head.status() == 502, "{head:?} {last:?}");
}

#[test]
fn an_early_answer_of_a_server_arrives_while_the_client_sends() {
    let raw = RawOrigin::start(vec![
        Step::ReadUntil(b"first"),
        Step::Send(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno".into()),
        Step::ReadToEnd,
    ]);
    let (mut edge, config) = before(&raw.server(), "");
    let mut client = connect(&edge, &config);
    let stream = client.request("POST", "/", &[], false);
    client.send(DATA, 0, stream, b"first");
    let (head, body, last) = client.answer(stream);
    assert_eq!((head.status(), body.as_slice(), last.ends()), (403, b"no".as_slice(), true));
    // It may go on for a while, and is then told that nobody reads it (RFC 9113, 8.1).
    client.send(DATA, 0, stream, b"more");
    let told = client.wait("an end of sending", |frame| (frame.kind, frame.stream) == (RESET, stream));
    assert_eq!(told.reason(), 0);
    assert_eq!(edge.wait_log("it is logged", |line| line["status"] == 403)["error"], Value::Null);
}

#[test]
fn interim_answers() {
    let raw = RawOrigin::start(vec![
        Step::ReadUntil(b"\r\n\r\n"),
        Step::Send(
            b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n\
              HTTP/1.1 100 Continue\r\n\r\n"
                .into(),
        ),
        Step::ReadUntil(b"hello"),
        Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".into()),
        Step::Close,
    ]);
    let (edge, _) = before(&raw.server(), "");
    // The body comes once the server has asked for it.
    let answer = node(
        &edge,
        "return ask({ ':path': '/', ':method': 'POST', expect: '100-continue', 'content-length': 5 }, undefined,
           request => { const end = request.end; request.end = () => {};
             request.on('continue', () => end.call(request, 'hello')); });",
    );
    assert_eq!(answer["events"], serde_json::json!([[103, "</a.css>"], "continue"]));
    assert_eq!((&answer["status"], &answer["last"]), (&200.into(), &"ok".into()));
}

#[test]
fn answers_without_a_body_end_with_their_head() {
    let origin = Origin::start("blue");
    let (edge, config) = before(&origin.server(), "");
    for (method, path, status) in [
        ("HEAD", "/?bytes=1000", 200),
        ("HEAD", "/?bytes=1000&chunked=1", 200),
        ("GET", "/?status=204", 204),
        ("GET", "/?status=304", 304),
        ("GET", "/?bytes=0", 200),
        ("HEAD", "/a\\b", 400),
    ] {
        let mut client = connect(&edge, &config);
        let stream = client.request(method, path, &[], true);
        let (head, _, _) = client.answer(stream);
        assert!(head.ends(), "{method} {path}");
        assert_eq!(head.status(), status, "{method} {path}");
    }
}

#[test]
fn answers_that_are_cut_short_have_no_end() {
    let origin = Origin::start("blue");
    let (mut edge, config) = before(&origin.server(), "");
    for path in ["/?bytes=100000&cut=1", "/?bytes=100000&cut=1&chunked=1"] {
        let mut client = connect(&edge, &config);
        let stream = client.get(path);
        let (head, body, last) = client.answer(stream);
        assert_eq!((head.status(), last.kind, last.reason()), (200, RESET, INTERNAL_ERROR), "{path}");
        assert!((8 << 10..100_000).contains(&body.len()), "{path}: what came is passed on, {}", body.len());
    }
    assert_eq!(edge.wait_log("a cut answer", |line| line["error"] != Value::Null)["error"], "Upstream ReadError");
    // One that only the connection ends is whole.
    let raw = RawOrigin::answering([b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &[b'x'; 50_000]].concat());
    let (edge, config) = before(&raw.server(), "");
    let mut client = connect(&edge, &config);
    let stream = client.get("/");
    let (head, body, last) = client.answer(stream);
    assert_eq!((head.status(), body.len(), last.ends()), (200, 50_000, true));
}

#[test]
fn a_client_that_cancels_ends_its_request() {
    let (silent, endless) = (Hole::silent(), Hole::endless("HTTP/1.1 200 OK\r\n\r\n"));
    let begins = Hole::begins("HTTP/1.1 200 OK\r\n\r\nfirst");
    let rows = [(&silent, "GET", 499), (&silent, "POST", 499), (&endless, "GET", 200), (&begins, "GET", 200)];
    for (hole, method, status) in rows {
        let (mut edge, config) = before(&hole.server(), "");
        let ended = hole.ended();
        let mut client = connect(&edge, &config);
        let stream = client.request(method, "/cancelled", &[], method == "GET");
        wait_until(SOON, "it arrives", || (hole.opened() == ended + 1).then_some(()));
        if status == 200 {
            client.wait("an answer that begins", |frame| frame.kind == DATA);
        }
        let cancelled = Instant::now();
        client.send(RESET, 0, stream, &CANCEL);
        wait_until(SOON, "the server is told", || (hole.ended() == ended + 1).then_some(()));
        assert!(cancelled.elapsed() < Duration::from_secs(5), "{:?}", cancelled.elapsed());
        let line = edge.wait_log("it is logged", |line| line["path"] == "/cancelled");
        assert_eq!((&line["status"], &line["protocol"]), (&status.into(), &"HTTP/2".into()), "{method}");
        // The connection goes on.
        client.settle();
    }
}

#[test]
fn a_client_that_cancels_while_its_server_takes_nothing() {
    // Accepted by the kernel, and never read from.
    let listener = TcpListener::bind(("127.0.0.1", crate::support::free_port())).expect("a free port");
    let (mut edge, config) =
        before(&listener.local_addr().expect("bound").to_string(), "timeouts.request_body = \"60s\"\n");
    let mut client = connect(&edge, &config);
    let stream = client.request("POST", "/stuck", &[], false);
    // As much as is taken: to where the window stays shut.
    let mut sent = 0;
    let mut window = 65_535_usize;
    while sent < 32 << 20 {
        while window >= 16 << 10 {
            client.send(DATA, 0, stream, &[0; 16 << 10]);
            (window, sent) = (window - (16 << 10), sent + (16 << 10));
        }
        client.client.set_read_timeout(Duration::from_millis(500));
        match client.try_frame() {
            Ok(frame) if frame.kind == WINDOW_UPDATE && frame.stream == stream => {
                window += u32::from_be_bytes(frame.payload.try_into().expect("four bytes")) as usize;
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    assert!(sent < 32 << 20, "it is held back");
    client.send(RESET, 0, stream, &CANCEL);
    assert_eq!(edge.wait_log("it is logged", |line| line["path"] == "/stuck")["status"], 499);
}

#[test]
fn a_client_that_cancels_while_its_server_is_connected_to() {
    // A server whose queue of connections is full: the next one waits for an answer from nobody.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], crate::support::free_port()));
    socket.set_reuse_address(true).expect("a socket");
    socket.bind(&any.into()).and_then(|()| socket.listen(0)).expect("a free port");
    let server = socket.local_addr().ok().and_then(|address| address.as_socket()).expect("bound");
    let mut queued = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&server, Duration::from_millis(300)) {
        queued.push(stream);
    }
    let (servers, upstream) = ([server.to_string()], "timeouts.connect = \"60s\"");
    let ca = Ca::new();
    let home = tls_home(&ca, &["example.com"]);
    let mut edge = Simple { servers: &servers, upstream, rest: TLS, ..Simple::default() }.start_in(&home);
    let mut client = connect(&edge, &tls_config(&ca, &["h2"]));
    let stream = client.get("/connecting");
    let in_flight = |edge: &Edge| edge.status()["routes"][0]["backends"][0]["in_flight"].clone();
    wait_until(SOON, "it is in flight", || (in_flight(&edge) == 1).then_some(()));
    client.send(RESET, 0, stream, &CANCEL);
    let line = edge.wait_log("it is logged", |line| line["path"] == "/connecting");
    assert_eq!((&line["status"], &line["error"]), (&499.into(), &"Downstream ConnectionClosed".into()));
    assert_eq!(in_flight(&edge), 0);
}

#[test]
fn a_client_that_vanishes_ends_all_of_its_requests() {
    let hole = Hole::silent();
    let (edge, config) = before(&hole.server(), "");
    let mut client = connect(&edge, &config);
    for n in 0..5 {
        client.get(&format!("/{n}"));
    }
    client.request("POST", "/5", &[], false);
    wait_until(SOON, "all arrive", || (hole.opened() == 6).then_some(()));
    drop(client);
    wait_until(SOON, "the server is left alone", || (hole.ended() == 6).then_some(()));
    let paths = wait_until(SOON, "each is logged", || {
        let lines = edge.log_lines();
        let gone = lines.iter().filter(|line| line["status"] == 499);
        let mut paths: Vec<_> = gone.map(|line| line["path"].as_str().expect("a path").to_owned()).collect();
        paths.sort();
        (paths.len() == 6).then_some(paths)
    });
    assert_eq!(paths, ["/0", "/1", "/2", "/3", "/4", "/5"]);
}

#[test]
fn bodies_arrive_whole() {
    let origin = Origin::start("blue");
    let (edge, _) = before(&origin.server(), "");
    let script = r#"
const sha256 = body => crypto.createHash("sha256").update(body).digest("hex");
const post = async (body, path = "/") => {
  const answer = await ask({ ":path": path, ":method": "POST" }, body);
  return answer.status === 200 && JSON.parse(answer.last).body_sha256 === sha256(body);
};
const get = async (bytes, path) => {
  const answer = await ask({ ":path": path });
  return answer.ended && answer.bytes === bytes && answer.sha256 === sha256(Buffer.alloc(bytes, "x"));
};
const wrong = [];
const check = (name, ok) => { if (!ok) wrong.push(name); };
for (const size of [1, 1 << 20, 20 << 20]) {
  check(`up ${size}`, await post(crypto.randomBytes(size)));
  check(`down ${size}`, await get(size, `/?bytes=${size}`));
}
check("down in chunks", await get(1 << 20, `/?bytes=${1 << 20}&chunked=1`));
const all = Array.from({ length: 50 }, (_, n) => post(crypto.randomBytes(5000 * n + 1), `/${n}`));
(await Promise.all(all)).forEach((ok, n) => check(`together ${n}`, ok));
for (let round = 0; round < 20; round++) {
  const all = Array.from({ length: 100 }, (_, n) => get(n, `/?bytes=${n}`));
  (await Promise.all(all)).forEach((ok, n) => check(`small ${round}, ${n}`, ok));
}
return wrong;
"#;
    assert_eq!(node(&edge, script), serde_json::json!([]));
}

#[test]
fn a_client_that_does_not_read_holds_its_server_back() {
    let hole = Hole::endless("HTTP/1.1 200 OK\r\n\r\n");
    let (edge, config) = before(&hole.server(), "");
    let mut client = Http2::connect(edge.https, &config, &[(4, 0x7fff_ffff)]);
    client.send(WINDOW_UPDATE, 0, 0, &0x7000_0000_u32.to_be_bytes());
    client.get("/");
    let mut last = (0, Instant::now());
    wait_until(SOON, "no more is taken from the server", || {
        if hole.sent() != last.0 {
            last = (hole.sent(), Instant::now());
        }
        (last.0 > 0 && last.1.elapsed() > Duration::from_millis(300)).then_some(())
    });
    assert!(hole.sent() < 24 << 20, "what sockets hold: {}", hole.sent());
}

#[test]
fn a_drain_lets_requests_end() {
    let origin = Origin::start("blue");
    let (mut edge, config) = before(&origin.server(), "[process]\ndrain_timeout = \"60s\"\n");
    let mut client = connect(&edge, &config);
    let stream = client.get("/?delay_ms=1000");
    let mut deaf = connect(&edge, &config);
    deaf.get("/?delay_ms=3500");
    wait_until(SOON, "they are in flight", || {
        (edge.status()["routes"][0]["backends"][0]["in_flight"] == 2).then_some(())
    });
    edge.keygate.sigterm();
    let farewell = client.wait("a farewell", |frame| frame.kind == GOAWAY);
    assert_eq!(farewell.reason(), 0);
    let head = client.wait("its answer", |frame| frame.stream == stream && frame.kind == HEADERS);
    assert_eq!(head.status(), 200);
    assert_eq!(client.end(), None, "it has been told");
    // Who goes on asking, and has not answered the farewell's ping, is refused in the end.
    deaf.wait("a farewell", |frame| frame.kind == GOAWAY);
    let refused = wait_until(SOON, "a refusal", || {
        let stream = deaf.get("/");
        let of =
            |kind| move |frame: &super::frames::Frame| frame.stream == stream && [RESET, kind].contains(&frame.kind);
        let first = deaf.wait("an answer", of(HEADERS));
        (first.kind == RESET).then(|| first.reason())
    });
    assert_eq!(refused, REFUSED_STREAM);
    assert_eq!(edge.keygate.wait(SOON).code(), Some(0));
}

#[test]
fn a_reload_leaves_requests_under_way_alone() {
    let (blue, green) = (Origin::start("blue"), Origin::start("green"));
    let (edge, config) = before(&blue.server(), "");
    let mut client = connect(&edge, &config);
    let stream = client.get("/?delay_ms=700");
    wait_until(SOON, "it arrives", || (blue.hits() == 1).then_some(()));
    edge.config(&Simple { servers: &[green.server()], rest: TLS, ..Simple::default() }.toml());
    edge.wait_reloads("ok", 1.0);
    let of = |body: &[u8]| serde_json::from_slice::<Value>(body).expect("JSON")["origin"].clone();
    let next = client.get("/");
    assert_eq!(of(&client.answer(next).1), "green");
    assert_eq!(of(&client.answer(stream).1), "blue");
}

#[test]
fn tunnels_are_not_offered() {
    let hole = Hole::silent();
    let (edge, config) = before(&hole.server(), "");
    let mut client = connect(&edge, &config);
    let settings = client.wait("settings", |frame| frame.kind == SETTINGS);
    assert!(settings.payload.chunks(6).all(|setting| setting[..2] != [0, 8]), "RFC 8441: {settings:?}");
    let stream = client.request("CONNECT", "/", &[], false);
    assert_eq!(client.wait("an end", |frame| frame.stream == stream).reason(), PROTOCOL_ERROR);
    let stream = client.reserve();
    let pseudo = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "https"),
        (":path", "/"),
        (":authority", "example.com"),
    ];
    client.send(HEADERS, END_HEADERS, stream, &block(pseudo));
    assert_eq!(client.wait("an end", |frame| frame.stream == stream).reason(), PROTOCOL_ERROR);
    assert_eq!(hole.opened(), 0);
    client.settle();
}

#[test]
fn an_idle_client_is_asked_to_leave() {
    let origin = Origin::start("blue");
    let (edge, _) = before(&origin.server(), "timeouts.idle = \"300ms\"\n");
    let script = r#"
const session = require("node:http2").connect(process.argv[1], { rejectUnauthorized: false });
session.on("goaway", code => console.log("asked", code));
session.on("close", () => console.log("closed"));
session.on("error", error => console.log(error));
session.request({ ":path": "/" }).resume();
"#;
    let url = format!("https://127.0.0.1:{}", edge.https);
    let mut node = Process::spawn("node", Command::new("node").args(["-e", script, &url]));
    assert_eq!(node.wait(SOON).code(), Some(0), "{}", node.logs());
    assert!(node.stdout().ends_with("closed\n") && node.stdout().starts_with("asked 0\n"), "{}", node.logs());
}
