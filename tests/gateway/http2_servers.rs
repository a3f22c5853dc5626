//! Servers that speak HTTP/2 only, as gRPC's: the server is node's.

use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::client::tls_config;
use super::frames::{HEADERS, Http2};
use super::{Edge, Simple, TLS, tls_home};
use crate::support::{Ca, FrontTls, Home, Origin, Process, SOON, TlsFront, run, wait_until};

pub(super) const HTTP2: &str = "protocol = \"http2\"";

pub(super) struct Server {
    process: Process,
    port: String,
}

impl Server {
    fn start(args: &[&str]) -> Self {
        Self::of(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/parts/http2_server.mjs"), args)
    }

    /// What this origin is, by HTTP/2.
    pub(super) fn before(origin: &Origin) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/parts/http2_front.mjs");
        Self::of(script, &[&origin.addr.port().to_string()])
    }

    fn of(script: &str, args: &[&str]) -> Self {
        let mut process = Process::spawn("http2-server", Command::new("node").arg(script).args(args));
        let port = process.wait_until(SOON, "its port", |p| {
            p.stdout().lines().find_map(|line| line.strip_prefix("port ").map(str::to_owned))
        });
        Self { process, port }
    }

    fn plain() -> Self {
        Self::start(&[])
    }

    pub(super) fn name(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn sessions(&self) -> usize {
        self.process.stdout().lines().filter(|line| *line == "session").count()
    }

    fn wait_for(&mut self, line: &str) {
        self.process.wait_until(SOON, line, |p| p.stdout().lines().any(|said| said == line).then_some(()));
    }
}

fn edge(server: &Server) -> Edge {
    let home = tls_home(&Ca::new(), &["example.com"]);
    let rest = format!("{TLS}\nlimits.body_size = \"8MiB\"\n[process]\nworkers = 1\n");
    Simple { servers: &[server.name()], upstream: HTTP2, rest: &rest, ..Simple::default() }.start_in(&home)
}

/// A call as gRPC makes it, by node over HTTP/2: a body in parts, trailers behind it. What came of it.
fn call(edge: &Edge, path: &str) -> Value {
    const SCRIPT: &str = r#"
const [url, path] = process.argv.slice(1);
const session = require("node:http2").connect(url, { rejectUnauthorized: false });
const request = session.request(
  { ":method": "POST", ":path": path, "content-type": "application/grpc", te: "trailers" }, { waitForTrailers: true });
const answer = { body: "" };
request.on("wantTrailers", () => request.sendTrailers({ "x-sum": "31" }));
request.on("response", headers => { answer.headers = { ...headers }; });
request.on("trailers", trailers => { answer.trailers = { ...trailers }; });
request.on("data", data => { answer.body += data; });
request.on("error", () => {});
request.on("close", () => { answer.code = request.rstCode; console.log(JSON.stringify(answer)); process.exit(); });
request.write("hello, ");
setTimeout(() => request.end("server"), 50);
"#;
    let url = format!("https://127.0.0.1:{}", edge.https);
    run(Command::new("node").args(["-e", SCRIPT, &url, path]), b"").json()
}

fn seen(text: &str) -> Value {
    serde_json::from_str(text).expect("what the server has seen")
}

#[test]
fn a_call_has_trailers_both_ways() {
    let server = Server::plain();
    let mut edge = edge(&server);
    let answer = call(&edge, "/call");
    assert_eq!(answer["body"], "hello, server");
    assert_eq!(answer["code"], 0);
    assert_eq!((&answer["trailers"]["grpc-status"], &answer["trailers"]["x-received"]), (&json!("0"), &json!("13")));
    let seen = seen(answer["headers"]["x-seen"].as_str().expect("seen"));
    assert_eq!(seen["trailers"]["x-sum"], "31");
    let headers = &seen["headers"];
    let port = edge.https;
    assert_eq!(headers[":authority"], format!("127.0.0.1:{port}"));
    assert_eq!((&headers["content-type"], &headers["te"]), (&json!("application/grpc"), &json!("trailers")));
    assert_eq!((&headers["x-forwarded-proto"], &headers["x-forwarded-for"]), (&json!("https"), &json!("127.0.0.1")));
    assert!(headers["x-request-id"].is_string() && headers["transfer-encoding"].is_null());
    let line = edge.wait_log("the call", |line| line["path"] == "/call");
    assert_eq!((&line["status"], &line["bytes_in"], &line["bytes_out"]), (&json!(200), &json!(13), &json!(13)));
    // An answer that is trailers only has no body.
    let answer = call(&edge, "/unavailable");
    assert_eq!((&answer["headers"]["grpc-status"], &answer["body"]), (&json!("14"), &json!("")));
}

#[test]
fn clients_of_http1_are_served_too() {
    let server = Server::plain();
    let edge = edge(&server);
    let mut client = edge.client();
    client
        .send("POST /echo HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\nhello");
    let reply = client.reply();
    assert_eq!((reply.status, reply.text().as_str()), (200, "hello"));
    let seen = seen(reply.header("x-seen").expect("seen"));
    assert_eq!((&seen["headers"][":authority"], &seen["headers"]["content-length"]), (&json!("a.test"), &json!("5")));
    assert!(seen["headers"]["x-hop"].is_null() && seen["headers"]["connection"].is_null());
    // In chunks, with a trailer; by who waits to be told to go on; and without a body.
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n");
    const GO_ON: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
    assert_eq!(client.try_bytes(GO_ON.len()).expect("to go on"), GO_ON);
    client.send("3\r\nabc\r\n2\r\nde\r\n0\r\nx-sum: 7\r\n\r\n");
    let reply = client.reply();
    assert_eq!((reply.status, reply.text().as_str()), (200, "abcde"));
    assert_eq!(self::seen(reply.header("x-seen").expect("seen"))["trailers"]["x-sum"], "7");
    for (path, status, length) in [
        ("/empty?status=204", 204, None),
        ("/empty?status=304", 304, None),
        ("/empty?status=404", 404, Some("0")),
        ("/echo?bytes=10&length", 200, Some("10")),
    ] {
        let reply = client.get(path);
        assert_eq!((reply.status, reply.header("content-length")), (status, length), "{path}");
    }
    client.send("HEAD /echo?bytes=10&length HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head().header("content-length"), Some("10"));
    assert_eq!(client.get("/echo").status, 200);
    client.send("GET /echo HTTP/1.0\r\n\r\n");
    assert_eq!(client.head().status, 200);
}

#[test]
fn requests_share_a_connection() {
    let server = Server::plain();
    let edge = edge(&server);
    let mut client = edge.client();
    for _ in 0..20 {
        assert_eq!(client.get("/echo").status, 200);
    }
    assert_eq!(server.sessions(), 1);
    // Many at once, on one connection of the client's.
    let url = format!("https://127.0.0.1:{}", edge.https);
    const SCRIPT: &str = r#"
const session = require("node:http2").connect(process.argv[1], { rejectUnauthorized: false });
const one = n => new Promise(done => {
  const request = session.request({ ":method": "POST", ":path": "/echo" });
  let body = "";
  request.on("data", data => { body += data; });
  request.on("end", () => done(body === "x".repeat(n * 100)));
  request.end("x".repeat(n * 100));
});
Promise.all([...Array(100).keys()].map(one)).then(all => { console.log(JSON.stringify(all)); process.exit(); });
"#;
    let all = run(Command::new("node").args(["-e", SCRIPT, &url]), b"").json();
    assert_eq!(all, json!(vec![true; 100]));
    assert!(server.sessions() <= 3, "{} connections", server.sessions());
}

#[test]
fn clients_that_take_nothing_stop_nobody_else() {
    let server = Server::plain();
    let ca = Ca::new();
    let rest = format!("{TLS}\n[process]\nworkers = 1\n");
    let edge = Simple { servers: &[server.name()], upstream: HTTP2, rest: &rest, ..Simple::default() };
    let edge = edge.start_in(&tls_home(&ca, &["example.com"]));
    assert_eq!(edge.client().get("/echo").status, 200);
    // No room for any answer, of which each is larger than what the gateway takes of it. node has ten megabytes for all.
    let mut idle = Http2::connect(edge.https, &tls_config(&ca, &["h2"]), &[(4, 0)]);
    for _ in 0..25 {
        idle.get("/echo?bytes=300000");
    }
    for _ in 0..25 {
        assert_eq!(idle.wait("an answer's head", |frame| frame.kind == HEADERS).status(), 200);
    }
    for _ in 0..3 {
        assert_eq!(edge.client().get("/echo?bytes=300000&length").body.len(), 300_000);
    }
    assert_eq!(server.sessions(), 1);
}

#[test]
fn large_bodies_pass_whole() {
    let server = Server::plain();
    let edge = edge(&server);
    let body: Vec<u8> = (0..3 << 20).map(|n: u32| n.to_le_bytes()[n as usize % 3]).collect();
    let file = edge.home.write("body", &body);
    let data = format!("@{}", file.display());
    for version in ["--http1.1", "--http2"] {
        let echoed = edge.curl_tls("example.com", "/echo", [version, "-H", "Expect:", "--data-binary", &data]);
        assert_eq!(echoed.status, 200);
        assert_eq!(Sha256::digest(&echoed.body), Sha256::digest(&body), "{version}");
        let counted = edge.curl_tls("example.com", "/echo?bytes=2000000&length", [version]);
        assert_eq!((counted.body.len(), &counted.body[..10]), (2_000_000, &b"abcdefghij"[..]), "{version}");
        let large = format!("@{}", edge.home.write("large", vec![b'x'; 9 << 20]).display());
        let refused = edge.curl_tls("example.com", "/echo", [version, "-H", "Expect:", "--data-binary", &large]);
        assert_eq!(refused.status, 413, "{version}");
    }
}

#[test]
fn what_the_server_has_not_begun_is_asked_again() {
    let server = Server::plain();
    let edge = edge(&server);
    let mut client = edge.client();
    // Not idempotent, and the server says that it did nothing.
    client.send("POST /refuse/?a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(client.reply().text(), "hi");
    // It leaves after this one; the next goes by another connection.
    for _ in 0..5 {
        assert_eq!(client.get("/goodbye").status, 200);
    }
    assert!(server.sessions() > 1);
}

#[test]
fn a_server_that_ends_fails_no_later_request() {
    let server = Server::plain();
    let edge = edge(&server);
    let mut client = edge.client();
    assert_eq!(client.get("/echo").status, 200);
    drop(server);
    wait_until(SOON, "the server is gone", || (client.get("/echo").status == 502).then_some(()));
    // What was asked of a dead connection is not mistaken for an answer.
    let reply = client.get("/echo");
    super::problem(reply.status, &reply.headers, &reply.body, (502, "upstream-unavailable"));
}

#[test]
fn a_client_that_leaves_takes_its_request_along() {
    let mut server = Server::plain();
    let mut edge = edge(&server);
    let mut client = edge.client();
    client.send("GET /silent/one HTTP/1.1\r\nHost: a\r\n\r\n");
    server.wait_for("asked /silent/one");
    drop(client);
    server.wait_for("aborted /silent/one");
    assert_eq!(edge.wait_log("its line", |line| line["path"] == "/silent/one")["status"], 499);
    // An answer that is cut short is not whole for the client.
    let answer = call(&edge, "/cut");
    assert_ne!(answer["code"], 0, "{answer}");
    let mut client = edge.client();
    client.send("GET /cut HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(!String::from_utf8_lossy(&client.rest()).ends_with("0\r\n\r\n"));
}

#[test]
fn over_tls_both_must_agree_on_it() {
    let ca = Ca::new();
    let leaf = ca.leaf(&["core.internal"]);
    let home = Home::new("");
    home.write("ca.pem", &ca.cert);
    let (cert, key) = (home.write("server.crt", &leaf.cert), home.secret("server.key", &leaf.key));
    let (cert, key) = (cert.display().to_string(), key.display().to_string());
    let two = Server::start(&[&cert, &key]);
    // One that has no HTTP/2.
    let origin = Origin::start("blue");
    let one = TlsFront::start(origin.addr, &FrontTls { protocols: &["http/1.1"], ..FrontTls::new(&leaf) });
    let upstream = "protocol = \"http2\"\ntls = { ca = \"ca.pem\", server_name = \"core.internal\" }";
    let start = |server: String| Simple { servers: &[server], upstream, ..Simple::default() }.start_in(&home);
    let edge = start(two.name());
    let mut client = edge.client();
    for _ in 0..3 {
        assert_eq!(client.get("/echo").status, 200);
    }
    assert_eq!(two.sessions(), 1);
    drop(edge);
    let edge = start(one.server());
    assert_eq!(edge.client().get("/").status, 502);
    edge.counts("keygate_upstream_errors_total", &[("kind", "tls")], 1.0);
    // A server of HTTP/1 without TLS says something that is no HTTP/2.
    let edge = Simple { servers: &[origin.server()], upstream: HTTP2, ..Simple::default() }.start();
    assert_eq!(edge.client().get("/").status, 502);
}
