//! Malformed HTTP/1: refused before anything of it reaches an origin.

use super::client::tls_config;
use super::{Client, Edge, Simple, TLS, tls_home};
use crate::support::{Ca, Origin, RawOrigin, SOON, Step, wait_until};

/// What is sent, and the status it is refused with.
const MALFORMED: &[(&str, u16)] = &[
    // Framed in two ways (RFC 9112, 6.3): the seeds of request smuggling.
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\nhello", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 501),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", 501),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", 501),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    // Lines.
    ("GET / HTTP/1.1\nHost: a\n\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\rY: 2\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\n X: 1\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\n: no name\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX\0Y: 1\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\x002\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: \x1b[31m\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX(Y): 1\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX\u{e9}: 1\r\n\r\n", 400),
    // Host.
    ("GET / HTTP/1.1\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a:port\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
    ("GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", 400),
    // The request line.
    ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
    ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    ("GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505),
    ("GET / HTTP/1.10\r\nHost: a\r\n\r\n", 505),
    ("GET / http/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /\r\n\r\n", 400),
    ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
    ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GE(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /# HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /\" HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
    ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
];

/// Chunked bodies that are not exactly as RFC 9112, 7.1 has them.
const BAD_CHUNKS: &[&str] = &[
    "5;ext=1\r\nhello\r\n0\r\n\r\n",
    "5\nhello\r\n0\r\n\r\n",
    "5 \r\nhello\r\n0\r\n\r\n",
    "0x5\r\nhello\r\n0\r\n\r\n",
    "-5\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello world\r\n0\r\n\r\n",
    "5\r\nhellox\r\n0\r\n\r\n",
    "5\r\nhello\n0\r\n\r\n",
    "\r\n\r\n",
    "g\r\n\r\n",
    "10000000000000005\r\nhello\r\n0\r\n\r\n",
    "0\r\n folded: 1\r\n\r\n",
];

/// What no origin may ever see.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

fn refused<S: std::io::Read + std::io::Write>(mut client: Client<S>, sent: &str) -> u16 {
    // What follows a refused request is not served, however it is framed.
    client.send(format!("{sent}{SMUGGLED}"));
    let reply = client.reply();
    reply.is_problem(reply.status, "malformed-request");
    assert_eq!(reply.header("connection"), Some("close"), "{sent:?}");
    assert!(client.rest().is_empty(), "an answer too many: {sent:?}");
    reply.status
}

#[test]
fn malformed_requests_reach_no_origin() {
    let raw = RawOrigin::start(vec![Step::ReadToEnd]);
    let edge = Simple { servers: &[raw.server()], ..Simple::default() }.start();
    for (sent, status) in MALFORMED {
        assert_eq!(refused(edge.client(), sent), *status, "{sent:?}");
    }
    assert!(raw.received().is_empty(), "{:?}", String::from_utf8_lossy(&raw.received().concat()));
    edge.counts("keygate_refused_total", &[], MALFORMED.len() as f64);
    // Each has its line in the log.
    wait_until(SOON, "their lines in the log", || {
        let lines = edge.log_lines();
        let refused = lines.iter().filter(|line| line["method"] == "-" && line["error"].is_string()).count();
        (refused == MALFORMED.len()).then_some(())
    });
}

#[test]
fn through_tls_no_more_than_without() {
    let ca = Ca::new();
    let home = tls_home(&ca, &["example.com"]);
    let raw = RawOrigin::start(vec![Step::ReadToEnd]);
    let edge = Simple { servers: &[raw.server()], rest: TLS, ..Simple::default() }.start_in(&home);
    let config = tls_config(&ca, &["http/1.1"]);
    for (sent, status) in MALFORMED.iter().step_by(5) {
        assert_eq!(refused(Client::connect_tls(edge.https, "example.com", &config), sent), *status, "{sent:?}");
    }
    assert!(raw.received().is_empty());
}

#[test]
fn http2_is_held_to_the_rules_of_http1() {
    let (origin, home) = (Origin::start("blue"), tls_home(&Ca::new(), &["example.com"]));
    let edge = Simple { servers: &[origin.server()], rest: TLS, ..Simple::default() }.start_in(&home);
    let get = |path: &'static str, more: &[(&'static str, &'static str)]| {
        let mut fields = vec![(":method", "GET"), (":path", path), (":scheme", "https")];
        fields.extend(more);
        fields
    };
    let at = |path: &'static str| get(path, &[(":authority", "example.com")]);
    // Refused by us, with a problem.
    let malformed = [
        at("/\""),
        at("/{x}"),
        at("/a|b"),
        at("/a^b"),
        at("/a\\b"),
        at("*"),
        get("/", &[(":authority", "a,b")]),
        get("/", &[(":authority", "a:65536")]),
        get("/", &[("host", "a b")]),
        get("/", &[("host", "a/b")]),
    ];
    for (fields, answer) in malformed.iter().zip(edge.http2(&malformed)) {
        let answer = answer.unwrap_or_else(|| panic!("{fields:?} is reset"));
        super::problem(answer.status, &answer.headers, &answer.body, (400, "malformed-request"));
    }
    edge.counts("keygate_refused_total", &[], malformed.len() as f64);
    // Refused before they are requests: the stream is reset, or answered 400 with nothing.
    let unreadable = [
        at("/<"),
        at("/`"),
        at("/a b"),
        at("/\u{e9}"),
        at("a"),
        at("http://example.com/"),
        get("/", &[(":authority", "example.com"), ("host", "other.test")]),
        get("/", &[(":authority", "user@example.com")]),
    ];
    for (fields, answer) in unreadable.iter().zip(edge.http2(&unreadable)) {
        assert!(answer.as_ref().is_none_or(|answer| answer.status == 400), "{fields:?}: {answer:?}");
    }
    assert_eq!(origin.hits(), 0);
    let served = [at("/a?b=%7B"), get("/", &[("host", "example.com")]), at("/x")];
    assert!(edge.http2(&served).iter().all(|answer| answer.as_ref().is_some_and(|answer| answer.status == 200)));
    assert!(origin.seen().iter().all(|seen| seen.header("host") == Some("example.com")));
}

#[test]
fn after_a_good_request_a_bad_one_is_still_bad() {
    let origin = Origin::start("blue");
    let edge = Simple { servers: &[origin.server()], ..Simple::default() }.start();
    for (sent, status) in MALFORMED.iter().step_by(3).filter(|(sent, _)| !sent.starts_with("\r\n")) {
        let mut client = edge.client();
        client.send(format!("GET /good HTTP/1.1\r\nHost: a\r\n\r\n{sent}{SMUGGLED}"));
        assert_eq!(client.reply().status, 200);
        assert_eq!(client.reply().status, *status, "{sent:?}");
        assert!(client.rest().is_empty());
    }
    assert!(origin.seen().iter().all(|seen| seen.target == "/good"));
    assert_eq!(origin.malformed(), 0);
}

#[test]
fn a_body_that_is_malformed_is_cut_where_it_is() {
    let origin = Origin::start("blue");
    let edge = Simple { servers: &[origin.server()], ..Simple::default() }.start();
    for body in BAD_CHUNKS {
        let mut client = edge.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}{SMUGGLED}"));
        let reply = client.reply();
        reply.is_problem(400, "malformed-request");
        assert!(client.rest().is_empty(), "{body:?}");
    }
    // An origin that was already asked never saw an end of it, and nothing behind it.
    assert_eq!((origin.hits(), origin.seen().len()), (0, 0));
    // One of them is malformed in its trailers.
    edge.counts("keygate_refused_total", &[("reason", "chunk")], (BAD_CHUNKS.len() - 1) as f64);
    edge.counts("keygate_refused_total", &[("reason", "trailer")], 1.0);
    let mut client = edge.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n");
    assert_eq!(client.reply().json()["body_bytes"], 5);
}

#[test]
fn a_body_is_never_a_request() {
    let origin = Origin::start("blue");
    let edge = Simple { servers: &[origin.server()], ..Simple::default() }.start();
    let mut client = edge.client();
    let length = SMUGGLED.len();
    client.send(format!("POST /one HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{SMUGGLED}"));
    assert_eq!(client.reply().json()["body_bytes"], length);
    client.send(format!(
        "POST /two HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{SMUGGLED}\r\n0\r\n\r\n"
    ));
    assert_eq!(client.reply().json()["body_bytes"], length);
    client.send(format!("GET /three HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{SMUGGLED}"));
    assert_eq!(client.reply().json()["body_bytes"], length);
    // Not when the request is answered before its body has been read, either.
    let unread = format!("POST /.. HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{SMUGGLED}");
    client.send(unread);
    assert_eq!(client.reply().status, 400);
    assert!(client.rest().is_empty());
    let targets: Vec<_> = origin.seen().into_iter().map(|seen| seen.target).collect();
    assert_eq!(targets, ["/one", "/two", "/three"]);
}

#[test]
fn what_is_unusual_but_well_formed_is_served() {
    let origin = Origin::start("blue");
    let edge = Simple { servers: &[origin.server()], ..Simple::default() }.start();
    for sent in [
        "GET / HTTP/1.1\r\nhOsT: a\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\t a \t\r\nX:\r\n\r\n",
        "GET http://a/x?y HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET HTTP://A:80/ HTTP/1.1\r\nHost: a:80\r\n\r\n",
        "OPTIONS / HTTP/1.1\r\nHost: a\r\n\r\n",
        "PURGE / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /?a=%7B&b=~!$'()*+,;=:@/? HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: caf\u{e9}\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n0A\r\n0123456789\r\n00\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
    ] {
        let mut client = edge.client();
        client.send(sent);
        let reply = client.reply();
        assert_eq!(reply.status, 200, "{sent:?}: {}", reply.text());
    }
    assert_eq!(origin.hits(), 12);
    assert_eq!(origin.malformed(), 0);
    // Absolute form is passed on as the path.
    assert!(origin.seen().iter().any(|seen| seen.target == "/x?y" && seen.header("host") == Some("a")));
}

#[test]
fn a_question_about_the_server_is_answered_by_us() {
    let (origin, home) = (Origin::start("blue"), tls_home(&Ca::new(), &["example.com"]));
    let edge = Simple { servers: &[origin.server()], listener: "redirect = \"https\"", rest: TLS, ..Simple::default() }
        .start_in(&home);
    let mut client = edge.client();
    for body in ["", "Content-Length: 0\r\n"] {
        client.send(format!("OPTIONS * HTTP/1.1\r\nHost: a\r\n{body}\r\n"));
        let reply = client.reply();
        assert_eq!((reply.status, reply.header("content-length"), reply.header("location")), (204, None, None));
        assert!(reply.header("allow").is_some_and(|methods| methods.contains("OPTIONS")), "{reply:?}");
        assert!(reply.header("x-request-id").is_some());
    }
    // A body that nobody reads is not the next request.
    client.send(format!("OPTIONS * HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{SMUGGLED}", SMUGGLED.len()));
    assert_eq!(client.reply().status, 204);
    assert!(client.rest().is_empty());
    let star = vec![(":method", "OPTIONS"), (":path", "*"), (":authority", "example.com")];
    assert_eq!(edge.http2(&[star])[0].as_ref().map(|answer| answer.status), Some(204));
    assert_eq!(origin.hits(), 0);
}

#[test]
fn a_head_may_arrive_in_pieces() {
    let origin = Origin::start("blue");
    let edge = Simple { servers: &[origin.server()], ..Simple::default() }.start();
    let mut client = edge.client();
    for byte in "POST /pieces HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".bytes()
    {
        client.send([byte]);
    }
    assert_eq!(client.reply().json()["body_bytes"], 5);
    wait_until(SOON, "one request", || (origin.hits() == 1).then_some(()));
    wait_until(SOON, "its line in the log", || (ids(&edge) == 1).then_some(()));
}

/// How many different requests the access log knows.
fn ids(edge: &Edge) -> usize {
    let mut ids: Vec<_> = edge.log_lines().into_iter().map(|line| line["request_id"].to_string()).collect();
    ids.sort_unstable();
    ids.dedup();
    ids.len()
}
