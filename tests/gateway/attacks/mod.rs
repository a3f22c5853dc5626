//! What attackers send, and what becomes of each: tables of bytes and verdicts, against an origin that records what
//! arrives.

mod chunks;
mod floods;
mod framing;
mod http2;
mod lines;
mod pipelines;
mod sizes;
mod targets;

use std::collections::BTreeMap;
use std::io::{self, Cursor};

use super::{Client, Edge, Reply, Simple, TLS, tls_home};
use crate::support::{Ca, RawOrigin, Seen, Step, read_request};

/// What is sent, and what becomes of it. Each character is one byte; `<x*9>` is nine times `x`.
pub type Row = (&'static str, Verdict);

/// What becomes of what is sent.
#[derive(Debug, Clone, Copy)]
pub enum Verdict {
    /// Refused with this status and counted for this reason. The connection ends; nothing arrives.
    Refused(u16, &'static str),
    /// These arrive, as "METHOD TARGET BODY", and are answered.
    Served(&'static [&'static str]),
    /// These arrive; what follows is refused with this status, for this reason.
    Then(&'static [&'static str], u16, &'static str),
    /// Answered by the gateway. The connection stays.
    Answered(u16),
    /// Answered by the gateway. The connection ends.
    Closed(u16),
    /// Answered 400 for its path. The connection stays.
    BadPath,
    /// Answered 400 for its path. The connection ends.
    ClosedBadPath,
}

use Verdict::{Answered, BadPath, Closed, ClosedBadPath, Refused, Served, Then};

/// A GET with more header lines.
macro_rules! with {
    ($lines:literal) => {
        concat!("GET / HTTP/1.1\r\nHost: a\r\n", $lines, "\r\n")
    };
}
/// A POST with more header lines, and a body.
macro_rules! post {
    ($lines:literal, $body:literal) => {
        concat!("POST / HTTP/1.1\r\nHost: a\r\n", $lines, "\r\n", $body)
    };
}
/// A POST with a chunked body.
macro_rules! chunked {
    ($body:literal) => {
        concat!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", $body)
    };
}
/// A request with this request line.
macro_rules! line {
    ($line:literal) => {
        concat!($line, "\r\nHost: a\r\n\r\n")
    };
}
/// A GET with these header lines.
macro_rules! host {
    ($lines:literal) => {
        concat!("GET / HTTP/1.1\r\n", $lines, "\r\n")
    };
}
use {chunked, host, line, post, with};

/// What no origin may ever see as a request.
const SMUGGLED: &[u8] = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
const LIMITS: &str = "limits = { head_size = \"4KiB\", header_count = 20, body_size = \"1KiB\" }\n";

/// A gateway with tight limits, and a server that records.
fn start() -> (Edge, RawOrigin) {
    let raw = RawOrigin::start(vec![Step::Serve]);
    let rest = format!("{TLS}{LIMITS}");
    let home = tls_home(&Ca::new(), &["example.com"]);
    let edge = Simple { servers: &[raw.server()], listener: LIMITS, rest: &rest, ..Simple::default() }.start_in(&home);
    (edge, raw)
}

/// The bytes of a row.
fn bytes(row: &str) -> Vec<u8> {
    let (mut text, mut rest) = (String::new(), row);
    while let Some((before, after)) = rest.split_once('<') {
        text += before;
        let times = after.split_once('>').and_then(|(inner, rest)| {
            let (unit, count) = inner.rsplit_once('*')?;
            Some((unit.repeat(count.parse().ok()?), rest))
        });
        match times {
            Some((repeated, after)) => (text, rest) = (text + &repeated, after),
            None => (text, rest) = (text + "<", after),
        }
    }
    (text + rest).chars().map(|c| u8::try_from(u32::from(c)).expect("a byte")).collect()
}

/// What arrived since this was last asked. What is sent to an origin is well-formed, and says who asks, once.
#[track_caller]
fn arrived(raw: &RawOrigin, row: &str) -> (Vec<String>, Vec<u8>) {
    let (mut requests, mut all) = (Vec::new(), Vec::new());
    for connection in raw.take() {
        let mut reader = Cursor::new(&connection);
        loop {
            let seen = match read_request(&mut reader) {
                Ok(Some(seen)) => seen,
                // What was cut is no request.
                Ok(None) => break,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => panic!("{row:?} arrives as {error}"),
            };
            check(&seen, row);
            let body: String = seen.body.iter().map(|b| char::from(*b)).collect();
            requests.push(format!("{} {} {body}", seen.method, seen.target).trim_end_matches(' ').to_owned());
        }
        all.extend(connection);
    }
    requests.sort();
    (requests, all)
}

#[track_caller]
fn check(seen: &Seen, row: &str) {
    for name in ["host", "x-forwarded-for", "x-real-ip", "x-request-id", "x-forwarded-proto"] {
        assert_eq!(seen.headers_named(name).len(), 1, "{name}: {row:?} arrives as {seen:?}");
    }
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"), "{row:?}");
    for name in ["upgrade", "http2-settings", "content_length", "transfer_encoding"] {
        assert_eq!(seen.header(name), None, "{row:?}");
    }
}

#[track_caller]
fn is_refused(reply: &Reply, status: u16, row: &str) {
    assert_eq!((reply.status, reply.header("connection")), (status, Some("close")), "{row:?}: {}", reply.text());
    reply.is_problem(status, "malformed-request");
}

/// Sends a row, and compares what becomes of it. Answers for what reason it is counted as refused.
#[track_caller]
fn judge(edge: &Edge, (row, verdict): Row) -> Option<&'static str> {
    let (mut client, sent) = (edge.client(), bytes(row));
    // The connection may be closed before all of it is sent.
    let _ = client.try_send(&sent);
    let replies = |client: &mut Client, requests: &[&str]| {
        for request in requests {
            let reply = client.try_reply().unwrap_or_else(|error| panic!("{row:?}: {request:?}: {error}"));
            assert_eq!(reply.status, 200, "{row:?}: {request:?}: {}", reply.text());
        }
    };
    let reason = match verdict {
        Refused(status, reason) | Then(_, status, reason) => {
            let _ = client.try_send(SMUGGLED);
            if let Then(requests, ..) = verdict {
                replies(&mut client, requests);
            }
            is_refused(&client.try_reply().unwrap_or_else(|error| panic!("{row:?}: {error}")), status, row);
            Some(reason)
        }
        Served(requests) => {
            replies(&mut client, requests);
            client.end_of_input();
            None
        }
        Closed(status) => {
            let _ = client.try_send(SMUGGLED);
            assert_eq!(client.reply().status, status, "{row:?}");
            None
        }
        ClosedBadPath => {
            let _ = client.try_send(SMUGGLED);
            client.reply().is_problem(400, "bad-path");
            Some("path")
        }
        Answered(status) => {
            assert_eq!(client.reply().status, status, "{row:?}");
            assert_eq!(client.get("/kept").status, 200, "{row:?}");
            return None;
        }
        BadPath => {
            client.reply().is_problem(400, "bad-path");
            assert_eq!(client.get("/kept").status, 200, "{row:?}");
            return Some("path");
        }
    };
    let rest = client.rest();
    assert!(rest.is_empty(), "an answer too many: {row:?}: {}", rest.escape_ascii());
    reason
}

impl Verdict {
    fn arrives(self) -> Vec<String> {
        let mut arrives: Vec<String> = match self {
            Served(requests) | Then(requests, ..) => requests.iter().map(|&request| request.to_owned()).collect(),
            Answered(_) | BadPath => vec!["GET /kept".to_owned()],
            Refused(..) | Closed(_) | ClosedBadPath => Vec::new(),
        };
        // An innocent's, on a connection of their own, right after.
        arrives.push("GET /innocent".to_owned());
        arrives.sort();
        arrives
    }
}

/// Judges every row, and that each leaves the next client alone. `framed`: rows are one request, whose framing must arrive
/// as it was sent.
#[track_caller]
fn judge_all(rows: &[Row], framed: bool) {
    let (edge, raw) = start();
    let mut reasons = BTreeMap::<_, u32>::new();
    for &(row, verdict) in rows {
        if let Some(reason) = judge(&edge, (row, verdict)) {
            let count = reasons.entry(reason).or_default();
            *count += 1;
            edge.counts("keygate_refused_total", &[("reason", reason)], f64::from(*count));
        }
        assert_eq!(edge.client().get("/innocent").status, 200, "after {row:?}");
        let (requests, came) = arrived(&raw, row);
        assert_eq!(requests, verdict.arrives(), "{row:?}");
        if framed && matches!(verdict, Served(_)) {
            is_framed_as_judged(row, &came);
        }
    }
    if !reasons.is_empty() {
        edge.counts("keygate_refused_total", &[], f64::from(reasons.values().sum::<u32>()));
    }
    assert!(raw.take().is_empty(), "something arrives that nobody waited for");
}

#[track_caller]
fn is_framed_as_judged(row: &str, came: &[u8]) {
    let sent = bytes(row);
    let contains = |part: &[u8]| part.is_empty() || came.windows(part.len()).any(|window| window == part);
    let head = sent.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
    assert!(contains(&sent[head + 2..]), "the body of {row:?} arrives as {}", came.escape_ascii());
    for line in sent[..head + 2].split_inclusive(|b| *b == b'\n') {
        let line = String::from_utf8_lossy(line).to_ascii_lowercase();
        let Some((name, value)) = line.split_once(':') else { continue };
        // The one way to write it, whatever the client's.
        let framed = match name {
            "content-length" => {
                let length: u64 = value.trim().parse().expect("a length");
                format!("\r\ncontent-length: {length}\r\n")
            }
            "transfer-encoding" => "\r\ntransfer-encoding: chunked\r\n".to_owned(),
            _ => continue,
        };
        assert!(contains(framed.as_bytes()), "{line:?} arrives as {}", came.escape_ascii());
    }
}

#[test]
fn lines() {
    judge_all(lines::ROWS, false);
}

#[test]
fn framing() {
    judge_all(framing::ROWS, true);
}

#[test]
fn chunks() {
    judge_all(chunks::ROWS, true);
}

#[test]
fn targets() {
    judge_all(targets::ROWS, false);
}

#[test]
fn sizes() {
    judge_all(sizes::ROWS, false);
}

#[test]
fn pipelines() {
    judge_all(pipelines::ROWS, false);
}

/// The origin has the head when the chunks come: it never sees an end of them.
#[test]
fn chunks_behind_a_head_that_was_passed_on() {
    let raw = RawOrigin::start(vec![Step::ReadToEnd]);
    let edge = Simple { servers: &[raw.server()], ..Simple::default() }.start();
    let refused = chunks::ROWS.iter().filter_map(|(row, verdict)| match verdict {
        Refused(status, _) => Some((row, status)),
        _ => None,
    });
    for (row, status) in refused {
        let sent = bytes(row);
        let head = sent.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
        let mut client = edge.client();
        client.send(&sent[..head]);
        raw.wait_for(b"\r\n\r\n");
        let _ = client.try_send(&sent[head..]);
        let _ = client.try_send(SMUGGLED);
        let reply = client.try_reply().unwrap_or_else(|error| panic!("{row:?}: {error}"));
        is_refused(&reply, *status, row);
        assert!(client.rest().is_empty(), "{row:?}");
        for connection in raw.take() {
            let read = read_request(&mut Cursor::new(&connection));
            assert!(read.is_err(), "{row:?} arrives whole: {}", connection.escape_ascii());
        }
    }
}
