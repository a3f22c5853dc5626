//! What of the tables HTTP/2 can say: an HTTP/1 server must not be told by it what no HTTP/1 client could have said.

use std::collections::BTreeMap;

use super::super::client::{Client, tls_config};
use super::super::frames::{Outcome, ask};
use super::{LIMITS, arrived, bytes};
use crate::gateway::{Simple, TLS, tls_home};
use crate::support::{Ca, RawOrigin, Step};

/// What becomes of a request.
#[derive(Debug, Clone, Copy)]
enum Verdict {
    /// Refused with this status and counted for this reason.
    Refused(u16, &'static str),
    /// No request at all: reset, or answered 400.
    Unreadable,
    /// It arrives as this, and is answered.
    Served(&'static str),
    /// Answered by the gateway.
    Answered(u16),
}

use Verdict::{Answered, Refused, Served, Unreadable};

type Row = (&'static [(&'static str, &'static str)], &'static str, Verdict);

/// A GET of this path.
macro_rules! at {
    ($path:literal) => {
        &[(":method", "GET"), (":scheme", "https"), (":path", $path), (":authority", "example.com")]
    };
}
/// A request with this method.
macro_rules! method {
    ($method:literal) => {
        &[(":method", $method), (":scheme", "https"), (":path", "/"), (":authority", "example.com")]
    };
}
/// A GET with this authority.
macro_rules! authority {
    ($authority:literal) => {
        &[(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", $authority)]
    };
}
/// A POST with more fields.
macro_rules! with {
    ($($field:expr),*) => {
        &[(":method", "POST"), (":scheme", "https"), (":path", "/"), (":authority", "example.com"), $($field),*]
    };
}

/// A request that is whole before it turns out to be none: it may arrive, without what is too much.
const CUT: &str = "/cut";

const ROWS: &[Row] = &[
    // Targets.
    (at!("/\""), "", Refused(400, "target")),
    (at!("/{x}"), "", Refused(400, "target")),
    (at!("/a|b"), "", Refused(400, "target")),
    (at!("/a^b"), "", Refused(400, "target")),
    (at!("/a\\b"), "", Refused(400, "target")),
    (at!("*"), "", Refused(400, "target")),
    (at!(""), "", Unreadable),
    (at!("a"), "", Unreadable),
    (at!("?a"), "", Refused(400, "target")),
    (at!("/a b"), "", Unreadable),
    (at!("/\u{e9}"), "", Unreadable),
    (at!("/a\0b"), "", Unreadable),
    (at!("/a\x7fb"), "", Unreadable),
    (at!("/\r\nX: 1"), "", Unreadable),
    (at!("/ HTTP/1.1\r\nHost: a\r\n\r\nGET /smuggled"), "", Unreadable),
    (at!("/\tHTTP/1.1"), "", Unreadable),
    (at!("http://example.com/"), "", Unreadable),
    (at!("/<x*4096>"), "", Refused(414, "target-size")),
    (at!("/.."), "", Refused(400, "path")),
    (at!("/a/..;/b"), "", Refused(400, "path")),
    (at!("/a%5c..%5cb"), "", Refused(400, "path")),
    (at!("/a%0d%0ab"), "", Refused(400, "path")),
    (at!("/?a=%7B&b=~!$'()*+,;=:@/?"), "", Served("GET /?a=%7B&b=~!$'()*+,;=:@/?")),
    // Methods.
    (method!(""), "", Unreadable),
    (method!("GE T"), "", Unreadable),
    (method!("G\0T"), "", Unreadable),
    (method!("G(T"), "", Unreadable),
    (method!("G\u{c9}T"), "", Unreadable),
    (method!("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET"), "", Unreadable),
    (method!("<X*33>"), "", Refused(400, "request-line")),
    (method!("TRACE"), "", Answered(405)),
    (&[(":method", "CONNECT"), (":authority", "example.com:443")], "", Answered(405)),
    (method!("PURGE"), "", Served("PURGE /")),
    // The host.
    (authority!("a,b"), "", Refused(400, "host")),
    (authority!("a:65536"), "", Refused(400, "host")),
    (authority!(""), "", Unreadable),
    (authority!("a b"), "", Unreadable),
    (authority!("a/b"), "", Unreadable),
    (authority!("u@a"), "", Refused(400, "host")),
    (authority!("a\r\nX: 1"), "", Unreadable),
    (authority!("a\0"), "", Unreadable),
    (authority!("[::1"), "", Unreadable),
    (with![("host", "other.test")], "", Refused(400, "host")),
    (with![("host", "example.com, other.test")], "", Refused(400, "host")),
    (&[(":method", "GET"), (":scheme", "https"), (":path", "/")], "", Refused(400, "host")),
    (&[(":method", "GET"), (":scheme", "https"), (":path", "/"), ("host", "a b")], "", Refused(400, "host")),
    (
        &[(":method", "GET"), (":scheme", "https"), (":path", "/"), ("host", "a"), ("host", "b")],
        "",
        Refused(400, "host"),
    ),
    (&[(":method", "GET"), (":scheme", "https"), (":path", "/"), ("host", "example.com")], "", Served("GET /")),
    // Pseudo fields: each once, before the others, and no other (RFC 9113, 8.3).
    (&[(":scheme", "https"), (":path", "/"), (":authority", "example.com")], "", Unreadable),
    (&[(":method", "GET"), (":path", "/"), (":authority", "example.com")], "", Unreadable),
    (&[(":method", "GET"), (":scheme", "https"), (":authority", "example.com")], "", Unreadable),
    (with![(":path", "/b")], "", Unreadable),
    (with![(":method", "GET")], "", Unreadable),
    (with![(":authority", "b")], "", Unreadable),
    (with![("x", "1"), (":path", "/b")], "", Unreadable),
    (with![(":status", "200")], "", Unreadable),
    (with![(":unknown", "1")], "", Unreadable),
    (with![(":protocol", "websocket")], "", Unreadable),
    // Names and values.
    (with![("X-Upper", "1")], "", Unreadable),
    (with![("x y", "1")], "", Unreadable),
    (with![("x:y", "1")], "", Unreadable),
    (with![("", "1")], "", Unreadable),
    (with![("x\0", "1")], "", Unreadable),
    (with![("x\r\ny", "1")], "", Unreadable),
    (with![("x\u{e9}", "1")], "", Unreadable),
    (with![("x", "1\r\ny: 2")], "", Unreadable),
    (with![("x", "1\ny: 2")], "", Unreadable),
    (with![("x", "1\ry: 2")], "", Unreadable),
    (with![("x", "1\0")], "", Unreadable),
    (with![("x", "1\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n")], "", Unreadable),
    (with![("x", "\x7f")], "", Unreadable),
    (with![("x", "caf\u{e9}")], "", Served("POST /")),
    (with![("x", "")], "", Served("POST /")),
    (with![("x", "<x*4096>")], "", Refused(431, "head-size")),
    // What frames a message, or belongs to one connection (RFC 9113, 8.2.2): TE.H2, CL.H2.
    (with![("transfer-encoding", "chunked")], "", Unreadable),
    (with![("transfer-encoding", "chunked")], "0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n", Unreadable),
    (with![("transfer_encoding", "chunked")], "", Refused(400, "header")),
    (with![("content_length", "5")], "hello", Refused(400, "header")),
    (with![("connection", "close")], "", Unreadable),
    (with![("connection", "x-forwarded-for")], "", Unreadable),
    (with![("keep-alive", "5")], "", Unreadable),
    (with![("proxy-connection", "close")], "", Unreadable),
    (with![("upgrade", "h2c")], "", Unreadable),
    (with![("te", "gzip")], "", Unreadable),
    (with![("te", "trailers")], "", Served("POST /")),
    (
        &[(":method", "POST"), (":scheme", "https"), (":path", CUT), (":authority", "a"), ("content-length", "0")],
        "GET /smuggled HTTP/1.1\r\n\r\n",
        Unreadable,
    ),
    (with![("content-length", "3")], "hello", Unreadable),
    (with![("content-length", "9")], "hello", Unreadable),
    (with![("content-length", "5")], "", Unreadable),
    (with![("content-length", "+5")], "hello", Unreadable),
    (with![("content-length", "5, 5")], "hello", Unreadable),
    (with![("content-length", "5"), ("content-length", "5")], "hello", Refused(400, "content-length")),
    (with![("content-length", "5"), ("content-length", "6")], "hello", Unreadable),
    (with![("content-length", "18446744073709551621")], "hello", Unreadable),
    (with![("content-length", "5")], "hello", Served("POST / hello")),
    (with![], "hello", Served("POST / hello")),
    (with![], "0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n", Served("POST / 0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n")),
    // What only a proxy may say is not passed on.
    (
        with![("x-forwarded-for", "1.2.3.4"), ("x_real_ip", "1.2.3.4"), ("forwarded", "for=1.2.3.4")],
        "",
        Served("POST /"),
    ),
];

#[test]
fn http2() {
    let (ca, raw) = (Ca::new(), RawOrigin::start(vec![Step::Serve]));
    let (home, rest) = (tls_home(&ca, &["example.com"]), format!("{TLS}{LIMITS}"));
    let edge = Simple { servers: &[raw.server()], rest: &rest, ..Simple::default() }.start_in(&home);
    let config = tls_config(&ca, &["h2"]);
    let mut reasons = BTreeMap::new();
    let mut wrong = Vec::new();
    for (fields, body, verdict) in ROWS {
        let coded: Vec<_> = fields.iter().map(|(name, value)| (bytes(name), bytes(value))).collect();
        let row = format!("{fields:?} {body:?}");
        let client = Client::connect_tls(edge.https, "example.com", &config);
        let outcome = ask(client, &coded, &bytes(body));
        let arrives = match verdict {
            Served(request) => vec![(*request).to_owned()],
            _ => Vec::new(),
        };
        let as_judged = match (*verdict, outcome) {
            (Refused(status, _) | Answered(status), Outcome::Answered(answered)) => status == answered,
            (Unreadable, outcome) => matches!(outcome, Outcome::Reset | Outcome::Answered(400)),
            (Served(_), outcome) => outcome == Outcome::Answered(200),
            _ => false,
        };
        let (mut requests, _) = arrived(&raw, &row);
        requests.retain(|request| request != &format!("POST {CUT}"));
        if !as_judged || requests != arrives {
            wrong.push(format!("{row}: {verdict:?}, but {outcome:?}, and {requests:?} arrive"));
        }
        let counted: f64 = reasons.values().sum();
        if matches!(verdict, Unreadable) && edge.metric("keygate_refused_total", &[]).unwrap_or(0.0) > counted {
            wrong.push(format!("{row}: counted, though no request"));
        }
        if let Refused(_, reason) = verdict {
            let count = reasons.entry(*reason).or_insert(0.0);
            *count += 1.0;
            if edge.metric("keygate_refused_total", &[("reason", reason)]) != Some(*count) {
                wrong.push(format!("{row}: not counted for {reason}"));
                *count -= 1.0;
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(edge.metric("keygate_refused_total", &[]), Some(reasons.values().sum()));
    assert_eq!(edge.curl_tls("example.com", "/innocent", ["--http2"]).status, 200);
    assert_eq!(arrived(&raw, "an innocent's").0, ["GET /innocent"]);
}
