//! What a server of HTTP/2 says that it should not, frame by frame; and what it may say, and few do.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

use super::client::tls_config;
use super::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Http2, RESET, SETTINGS, block, frame, literal,
};
use super::{Client, Edge, Simple, TLS, tls_home};
use crate::support::{Ca, RawOrigin, SOON, Step, wait_until};

const INTERNAL_ERROR: [u8; 4] = [0, 0, 0, 2];
const NO_ERROR: [u8; 4] = [0; 4];
const REFUSED_STREAM: [u8; 4] = [0, 0, 0, 7];
/// The head of the first request on a connection: of one without a body, and of one with.
const GET: &[u8] = &[HEADERS, END_HEADERS | END_STREAM, 0, 0, 0, 1];
const POST: &[u8] = &[HEADERS, END_HEADERS, 0, 0, 0, 1];

/// What a client gets.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Got {
    Whole(u16, String),
    /// It sees that it is not whole.
    Cut(u16),
}

fn start(first: &[u8], wait: &'static [u8], then: Vec<u8>) -> RawOrigin {
    RawOrigin::start(vec![Step::Send(first.to_vec()), Step::ReadUntil(wait), Step::Send(then), Step::ReadToEnd])
}

fn settings(pairs: &[(u16, u32)]) -> Vec<u8> {
    let pairs = pairs.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat());
    frame(SETTINGS, 0, 0, &pairs.collect::<Vec<u8>>())
}

/// A gateway before each of these servers, whose number is the path; and a client's TLS to it.
fn before(origins: &[RawOrigin]) -> (Edge, Arc<ClientConfig>) {
    let ca = Ca::new();
    let home = tls_home(&ca, &["example.com"]);
    let mut rest = format!("{TLS}\n[process]\nworkers = 1\n");
    for (n, origin) in origins.iter().enumerate() {
        let server = origin.server();
        rest += &format!(
            "[upstreams.raw{n}]\nservers = [\"{server}\"]\nprotocol = \"http2\"\n\
             timeouts = {{ first_byte = \"2s\", send = \"2s\" }}\n\
             [[routes]]\nname = \"raw{n}\"\npath = \"/{n}\"\nbackends = [{{ upstream = \"raw{n}\" }}]\n"
        );
    }
    let (servers, listener) = (["127.0.0.1:1".to_owned()], "limits.head_size = \"128KiB\"");
    let edge = Simple { servers: &servers, listener, rest: &rest, ..Simple::default() }.start_in(&home);
    (edge, tls_config(&ca, &["h2"]))
}

fn by_http1(edge: &Edge, path: &str) -> Got {
    let mut client = edge.client();
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
    let head = client.head();
    let rest = client.rest();
    let body = match (head.header("content-length"), head.header("transfer-encoding")) {
        (Some(length), None) if length == rest.len().to_string() => rest,
        (None, Some("chunked")) if rest.ends_with(b"0\r\n\r\n") => {
            // None of these bodies has more than one chunk.
            let data = rest.strip_suffix(b"0\r\n\r\n").and_then(|rest| rest.strip_suffix(b"\r\n")).unwrap_or_default();
            data.splitn(2, |b| *b == b'\n').nth(1).unwrap_or_default().to_vec()
        }
        (None, None) if head.status == 204 => rest,
        _ => return Got::Cut(head.status),
    };
    Got::Whole(head.status, String::from_utf8_lossy(&body).into_owned())
}

fn by_http2(edge: &Edge, config: &Arc<ClientConfig>, path: &str) -> Got {
    let mut client = Http2::connect(edge.https, config, &[]);
    let stream = client.get(path);
    let (head, body, last) = client.answer(stream);
    match last.kind {
        RESET => Got::Cut(head.status()),
        _ => Got::Whole(head.status(), String::from_utf8_lossy(&body).into_owned()),
    }
}

#[test]
fn answers_are_whole_or_look_cut() {
    let head = |fields: &[(&str, &str)], flags: u8| frame(HEADERS, END_HEADERS | flags, 1, &block(fields.to_vec()));
    let ok = |more: &[(&str, &str)]| head(&[&[(":status", "200")], more].concat(), 0);
    let only = |more: &[(&str, &str)]| head(&[&[(":status", "200")], more].concat(), END_STREAM);
    let data = |text: &str, flags: u8| frame(DATA, flags, 1, text.as_bytes());
    let raw = |name: &[u8], value: &[u8]| {
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &[literal(b":status", b"200"), literal(name, value)].concat())
    };
    let rst = |reason: [u8; 4]| frame(RESET, 0, 1, &reason);
    let many: Vec<u8> = (0..300).flat_map(|n| literal(format!("x-{n}").as_bytes(), b"1")).collect();
    let large: Vec<u8> = (0..6).flat_map(|n| literal(format!("x-{n}").as_bytes(), &[b'x'; 12_000])).collect();
    let in_parts = |fields: &[u8]| {
        let block = [&literal(b":status", b"200"), fields].concat();
        let mut parts = block.chunks(16_000).peekable();
        let mut out = frame(HEADERS, END_STREAM, 1, parts.next().expect("a part"));
        while let Some(part) = parts.next() {
            out.extend(frame(CONTINUATION, if parts.peek().is_none() { END_HEADERS } else { 0 }, 1, part));
        }
        [out, frame(CONTINUATION, END_HEADERS, 1, &[])].concat()
    };
    let trailers = |fields: &[(&str, &str)]| head(fields, END_STREAM);
    let whole = |text: &str| Got::Whole(200, text.to_owned());
    let (bad, cut) = (Got::Whole(502, String::new()), Got::Cut(200));
    let cases: Vec<(&str, Vec<Vec<u8>>, Got)> = vec![
        ("plain", vec![ok(&[]), data("hello", END_STREAM)], whole("hello")),
        ("counted", vec![ok(&[("content-length", "5")]), data("hello", END_STREAM)], whole("hello")),
        ("nothing", vec![only(&[])], whole("")),
        ("an empty end", vec![ok(&[]), data("hello", 0), data("", END_STREAM)], whole("hello")),
        ("bytes beyond ASCII", vec![raw(b"x-text", "caf\u{e9}".as_bytes())], whole("")),
        ("white space around", vec![raw(b"x-text", b"  a\t")], whole("")),
        ("interim", vec![head(&[(":status", "103"), ("link", "<a>")], 0), only(&[])], whole("")),
        ("another protocol", vec![head(&[(":status", "101")], END_STREAM)], bad.clone()),
        ("status 99", vec![head(&[(":status", "099")], END_STREAM)], bad.clone()),
        ("status 600", vec![head(&[(":status", "600")], END_STREAM)], bad.clone()),
        ("no status", vec![head(&[("x", "y")], END_STREAM)], bad.clone()),
        ("chunked", vec![ok(&[("transfer-encoding", "chunked")]), data("0\r\n\r\n", END_STREAM)], bad.clone()),
        ("connection", vec![only(&[("connection", "close")])], bad.clone()),
        ("two lengths, equal", vec![ok(&[("content-length", "5"); 2]), data("hello", END_STREAM)], bad.clone()),
        (
            "two lengths",
            vec![ok(&[("content-length", "5"), ("content-length", "6")]), data("hello", END_STREAM)],
            bad.clone(),
        ),
        ("a length with a sign", vec![ok(&[("content-length", "+5")]), data("hello", END_STREAM)], bad.clone()),
        ("a length without a body", vec![only(&[("content-length", "5")])], bad.clone()),
        ("a line's end in a value", vec![raw(b"x", b"a\r\nset-cookie: b")], bad.clone()),
        ("a line's end in a name", vec![raw(b"x: a\r\ny", b"b")], bad.clone()),
        ("no name", vec![raw(b"", b"a")], bad.clone()),
        ("a name in capitals", vec![raw(b"X-Name", b"a")], bad.clone()),
        ("many fields", vec![in_parts(&many)], bad.clone()),
        ("a large head", vec![in_parts(&large)], bad.clone()),
        ("reset at once", vec![rst(INTERNAL_ERROR)], bad.clone()),
        ("reset in peace at once", vec![rst(NO_ERROR)], bad.clone()),
        ("too few bytes", vec![ok(&[("content-length", "9")]), data("hello", END_STREAM)], cut.clone()),
        ("too few bytes, and trailers", vec![ok(&[("content-length", "9")]), trailers(&[("x", "y")])], cut.clone()),
        ("too many bytes", vec![ok(&[("content-length", "3")]), data("hello", END_STREAM)], cut.clone()),
        ("reset after the head", vec![ok(&[]), rst(INTERNAL_ERROR)], cut.clone()),
        ("reset in peace after the head", vec![ok(&[]), rst(NO_ERROR)], cut.clone()),
        ("reset in peace in the middle", vec![ok(&[]), data("hello", 0), rst(NO_ERROR)], cut.clone()),
        ("reset in peace after the end", vec![ok(&[]), data("hello", END_STREAM), rst(NO_ERROR)], whole("hello")),
        (
            "a good-bye in the middle",
            vec![ok(&[]), data("hello", 0), frame(GOAWAY, 0, 0, &[[0, 0, 0, 1], NO_ERROR].concat()), vec![0; 9]],
            cut.clone(),
        ),
        ("a length in trailers", vec![ok(&[]), data("a", 0), trailers(&[("content-length", "1")])], cut.clone()),
        ("large trailers", vec![ok(&[]), data("a", 0), trailers(&[("x", &"y".repeat(12_000))])], cut.clone()),
        ("no content, and some", vec![head(&[(":status", "204")], 0), data("hello", END_STREAM)], {
            Got::Whole(204, String::new())
        }),
    ];
    let servers = || cases.iter().map(|(_, frames, _)| start(&settings(&[]), GET, frames.concat())).collect::<Vec<_>>();
    let origins: Vec<RawOrigin> = servers().into_iter().chain(servers()).collect();
    let (edge, config) = before(&origins);
    for (n, (name, _, expected)) in cases.iter().enumerate() {
        let got = [by_http1(&edge, &format!("/{n}")), by_http2(&edge, &config, &format!("/{}", n + cases.len()))];
        for got in got {
            let got = match got {
                Got::Whole(502, _) => bad.clone(),
                got => got,
            };
            assert_eq!(got, *expected, "{name}");
        }
    }
}

#[test]
fn trailers_follow_a_body_that_is_counted() {
    let answer = |kind: &str| {
        let head = block([(":status", "200"), ("content-type", kind), ("content-length", "5")]);
        let trailers = block([("grpc-status", "0")]);
        let frames = [
            frame(HEADERS, END_HEADERS, 1, &head),
            frame(DATA, 0, 1, b"hello"),
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &trailers),
        ];
        start(&settings(&[]), GET, frames.concat())
    };
    let origins = [answer("application/grpc+proto"), answer("text/plain")];
    let (edge, config) = before(&origins);
    let mut client = Http2::connect(edge.https, &config, &[]);
    let stream = client.get("/0");
    let (_, body, last) = client.answer(stream);
    assert_eq!((body.as_slice(), last.kind), (&b"hello"[..], HEADERS));
    // Others keep their length, as clients want it.
    assert_eq!(edge.client().get("/1").header("content-length"), Some("5"));
}

#[test]
fn an_answer_may_come_before_the_request_is_whole() {
    let frames = [
        frame(HEADERS, END_HEADERS, 1, &block([(":status", "413")])),
        frame(DATA, END_STREAM, 1, b"enough"),
        frame(RESET, 0, 1, &NO_ERROR),
    ];
    let origins = [start(&settings(&[]), POST, frames.concat())];
    let (edge, _) = before(&origins);
    let mut client = edge.client();
    client.send("POST /0 HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nsome");
    let reply = client.reply();
    assert_eq!((reply.status, reply.text().as_str()), (413, "enough"));
}

#[test]
fn the_end_of_a_body_needs_no_room() {
    const SETTLED: &[u8] = &[0, 0, 0, SETTINGS, ACK, 0, 0, 0, 0];
    const END: &[u8] = &[0, 0, 0, DATA, END_STREAM, 0, 0, 0, 1];
    // The stream's window is as large as the body, and does not grow.
    let origins = [start(&settings(&[(4, 5)]), END, frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0x88]))];
    let (edge, _) = before(&origins);
    let mut client = edge.client();
    client.send("POST /0 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    origins[0].wait_for(SETTLED);
    client.send("5\r\nhello\r\n");
    origins[0].wait_for(b"hello");
    client.send("0\r\n\r\n");
    assert_eq!(client.reply().status, 200);
}

#[test]
fn who_takes_nothing_is_given_up() {
    // No room for a body; and an answer that never comes.
    let origins = [start(&settings(&[(4, 0)]), b"never", Vec::new()), start(&settings(&[]), b"never", Vec::new())];
    let (edge, _) = before(&origins);
    let mut client = edge.client();
    client.send("POST /0 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    origins[0].wait_for(&[SETTINGS, ACK, 0, 0, 0, 0]);
    client.send("5\r\nhello\r\n");
    assert_eq!(client.reply().status, 504);
    // The server is told, and the connection is used further.
    origins[0].wait_for(&[RESET, 0, 0, 0, 0, 1]);
    assert_eq!(edge.client().get("/0").status, 504);
    origins[0].wait_for(&[RESET, 0, 0, 0, 0, 3]);
    assert_eq!((origins[0].received().len(), edge.client().get("/1").status), (1, 504));
}

#[test]
fn a_request_that_fails_alone_is_not_asked_again() {
    let resets = |reason: [u8; 4]| {
        let mut script = vec![Step::Send(settings(&[]))];
        for stream in (1..).step_by(2).take(8) {
            script.extend([Step::ReadUntil(&GET[..5]), Step::Send(frame(RESET, 0, stream, &reason))]);
        }
        script.push(Step::ReadToEnd);
        RawOrigin::start(script)
    };
    let origins = [resets(INTERNAL_ERROR), resets(REFUSED_STREAM)];
    let (edge, _) = before(&origins);
    let requests = |n: usize| {
        let count = |bytes: &Vec<u8>| bytes.windows(5).filter(|b| *b == &GET[..5]).count();
        origins[n].received().iter().map(count).sum::<usize>()
    };
    let mut client = edge.client();
    for _ in 0..3 {
        assert_eq!(client.get("/0").status, 502);
    }
    assert_eq!((requests(0), origins[0].received().len()), (3, 1));
    // Refused for ever, it is asked for so often, and by the connection that there is.
    assert_eq!(client.get("/1").status, 502);
    assert_eq!((requests(1), origins[1].received().len()), (5, 1));
}

#[test]
fn a_good_bye_is_no_answer() {
    // Nothing was done about any request.
    let none = frame(GOAWAY, 0, 0, &[[0; 4], NO_ERROR].concat());
    let origins = [start(&settings(&[]), POST, none.clone()), start(&settings(&[]), GET, none)];
    let (edge, _) = before(&origins);
    let mut client = edge.client();
    client.send("POST /0 HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nsome");
    // What has not come whole cannot be sent again.
    assert_eq!((client.reply().status, origins[0].received().len()), (502, 1));
    assert_eq!((edge.client().get("/1").status, origins[1].received().len()), (502, 5));
    // The first may have been done: what is not idempotent is not asked for again, whatever the reason.
    let origins = [RawOrigin::start(vec![
        Step::Send(settings(&[])),
        Step::ReadUntil(&GET[..5]),
        Step::Send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0x88])),
        Step::ReadUntil(&POST[..5]),
        Step::Send(frame(GOAWAY, 0, 0, &[[0, 0, 0, 3], INTERNAL_ERROR].concat())),
        Step::Close,
    ])];
    let (edge, _) = before(&origins);
    let mut client = edge.client();
    assert_eq!(client.get("/0").status, 200);
    client.send("POST /0 HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nsome");
    assert_eq!((client.reply().status, origins[0].received().len()), (502, 1));
}

#[test]
fn one_request_at_a_time_is_kept_to() {
    const SETTLED: &[u8] = &[0, 0, 0, SETTINGS, ACK, 0, 0, 0, 0];
    let origins = [start(&settings(&[(3, 1)]), b"never", Vec::new())];
    let (edge, _) = before(&origins);
    let mut clients: Vec<Client<_>> = (0..3).map(|_| edge.client()).collect();
    clients[0].send("GET /0 HTTP/1.1\r\nHost: a\r\n\r\n");
    origins[0].wait_for(SETTLED);
    // The others go by connections of their own.
    for (n, client) in clients.iter_mut().enumerate().skip(1) {
        client.send("GET /0 HTTP/1.1\r\nHost: a\r\n\r\n");
        wait_until(SOON, "another connection", || {
            let connections = origins[0].received();
            let settled = |bytes: &Vec<u8>| bytes.windows(SETTLED.len()).any(|window| window == SETTLED);
            (connections.len() == n + 1 && connections.iter().all(settled)).then_some(())
        });
    }
}

#[test]
fn targets_of_any_size_and_form_are_asked_for() {
    let mut origins = vec![start(&settings(&[]), b"never", Vec::new())];
    let ok = frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0x88]);
    origins.extend((0..4).map(|_| start(&settings(&[]), GET, ok.clone())));
    let (mut edge, _) = before(&origins);
    let mut client = edge.client();
    client
        .send("GET http://a:65535/1?x HTTP/1.1\r\nHost: a:65535\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n");
    assert_eq!(client.reply().status, 200);
    client.send("GET /2 HTTP/1.1\r\nHost: [::1]:080\r\nX-Text: caf\u{e9}\r\nTE: gzip\r\n\r\n");
    assert_eq!(client.reply().status, 200);
    client.send("OPTIONS /3 HTTP/1.0\r\n\r\n");
    assert_eq!(client.reply().status, 200);
    let mut client = edge.client();
    // Larger than a URI of `http` may be: it is nobody's fault, and no other connection would help.
    for _ in 0..2 {
        client.send(format!("GET /0?{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(70_000)));
        assert_eq!(client.reply().status, 502);
    }
    // Which it may not have seen yet when the client is answered.
    wait_until(SOON, "the connection", || (!origins[0].received().is_empty()).then_some(()));
    assert_eq!(origins[0].received().len(), 1);
    edge.keygate.sigterm();
    // Connections to servers are not waited for.
    assert_eq!(edge.keygate.wait(Duration::from_secs(5)).code(), Some(0));
}
