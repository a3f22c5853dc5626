//! How a gateway ends.

use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::client::{Client, tcp, tls_config};
use super::{Edge, Simple, TLS, tls_home};
use crate::support::{Ca, Origin, Process, RawOrigin, SOON, Step, try_curl, wait_until};

/// `drain_timeout` where it must not be what ends the process.
const PATIENT: &str = "[process]\ndrain_timeout = \"60s\"\n";

fn patient(origin: &str) -> Edge {
    Simple { servers: &[origin.to_owned()], rest: PATIENT, ..Simple::default() }.start()
}

#[track_caller]
fn in_flight(edge: &Edge, count: u64) {
    wait_until(SOON, "requests are in flight", || {
        (edge.status()["routes"][0]["backends"][0]["in_flight"] == count).then_some(())
    });
}

#[track_caller]
fn refuses_connections(edge: &Edge) {
    wait_until(SOON, "new connections are refused", || {
        try_curl([edge.url("/")]).is_err_and(|failure| failure.code == 7).then_some(())
    });
}

#[test]
fn a_request_in_flight_ends_and_so_does_the_process() {
    let origin = Origin::start("blue");
    let mut edge = patient(&origin.server());
    let mut idle = edge.client();
    assert_eq!(idle.get("/").status, 200);
    let mut busy = edge.client();
    busy.send("GET /?delay_ms=1200 HTTP/1.1\r\nHost: a\r\n\r\n");
    in_flight(&edge, 1);
    edge.keygate.sigterm();
    refuses_connections(&edge);
    assert!(idle.rest().is_empty(), "who has no request is told by the end of the connection");
    assert_eq!(edge.admin("GET", "/health", "").status, 200);
    assert_eq!(edge.admin("GET", "/ready", "").status, 503, "no more traffic, please");
    assert_eq!(edge.status()["draining"], true);
    assert!(edge.keygate.exited().is_none());
    let reply = busy.reply();
    assert_eq!((reply.status, reply.header("x-origin")), (200, Some("blue")));
    let answered = Instant::now();
    assert_eq!(edge.keygate.wait(SOON).code(), Some(0));
    assert!(answered.elapsed() < Duration::from_secs(2), "right after the last request: {:?}", answered.elapsed());
    assert!(edge.keygate.stderr().contains("drained: every request has ended"), "{}", edge.keygate.stderr());
    assert!(!edge.home.path("state/admin.sock").exists(), "its socket is gone with it");
}

#[test]
fn without_requests_it_ends_at_once() {
    let origin = Origin::start("blue");
    for signal in [Signal::TERM, Signal::INT] {
        let mut edge = patient(&origin.server());
        let mut idle: Vec<Client> = (0..5).map(|_| edge.client()).collect();
        for client in &mut idle {
            assert_eq!(client.get("/").status, 200);
        }
        let silent = tcp(edge.http);
        let started = Instant::now();
        edge.keygate.signal(signal);
        assert_eq!(edge.keygate.wait(SOON).code(), Some(0));
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
        drop(silent);
    }
}

#[test]
fn idle_tls_connections_keep_nothing_up() {
    let ca = Ca::new();
    let (origin, home) = (Origin::start("blue"), tls_home(&ca, &["example.com"]));
    let rest = format!("{TLS}\n{PATIENT}");
    let mut edge = Simple { servers: &[origin.server()], rest: &rest, ..Simple::default() }.start_in(&home);
    let mut one = Client::connect_tls(edge.https, "example.com", &tls_config(&ca, &["http/1.1"]));
    assert_eq!(one.get("/").status, 200);
    // One of HTTP/2, by a client that knows how to be asked to go.
    let script = r#"
const session = require("node:http2").connect(process.argv[1], { rejectUnauthorized: false });
session.on("close", () => console.log("closed"));
const request = session.request({ ":path": "/" });
request.on("response", headers => console.log(headers[":status"]));
request.resume();
"#;
    let url = format!("https://127.0.0.1:{}", edge.https);
    let mut node = Process::spawn("node", Command::new("node").args(["-e", script, &url]));
    node.wait_until(SOON, "an answer", |p| p.stdout().contains("200").then_some(()));
    // One that has not said anything, not even hello; and one that has stopped after it.
    let silent = tcp(edge.https);
    let stopped = Client::connect_tls(edge.https, "example.com", &tls_config(&ca, &["h2"]));
    edge.counts("keygate_connections", &[("listener", "https")], 4.0);
    let started = Instant::now();
    edge.keygate.sigterm();
    let status = edge.keygate.wait(SOON);
    assert_eq!(status.code(), Some(0), "{}", edge.keygate.logs());
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert_eq!((node.wait(SOON).code(), node.stdout().as_str()), (Some(0), "200\nclosed\n"), "{}", node.logs());
    drop((silent, stopped));
}

#[test]
fn requests_of_http2_end_too() {
    let (origin, home) = (Origin::start("blue"), tls_home(&Ca::new(), &["localhost"]));
    let rest = format!("{TLS}\n{PATIENT}");
    let mut edge = Simple { servers: &[origin.server()], rest: &rest, ..Simple::default() }.start_in(&home);
    let url = format!("https://localhost:{}/?delay_ms=1000", edge.https);
    let mut curl = Process::spawn(
        "curl",
        Command::new("curl")
            .args(["-q", "-sS", "--http2", "-w", "%{http_code} %{http_version}", "-o", "/dev/null", "--cacert"])
            .arg(home.path("ca.pem"))
            .arg(url),
    );
    in_flight(&edge, 1);
    edge.keygate.sigterm();
    assert_eq!(curl.wait(SOON).code(), Some(0), "{}", curl.logs());
    assert_eq!(curl.stdout(), "200 2");
    let answered = Instant::now();
    assert_eq!(edge.keygate.wait(SOON).code(), Some(0));
    assert!(answered.elapsed() < Duration::from_secs(3), "{:?}", answered.elapsed());
}

#[test]
fn at_the_drain_timeout_it_ends_though_a_request_hangs() {
    let raw = RawOrigin::start(vec![Step::ReadToEnd]);
    let rest = "[process]\ndrain_timeout = \"700ms\"\n";
    let mut edge = Simple { servers: &[raw.server()], rest, ..Simple::default() }.start();
    let mut hangs = edge.client();
    hangs.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    raw.wait_for(b"GET / HTTP/1.1");
    let started = Instant::now();
    edge.keygate.sigterm();
    assert_eq!(edge.keygate.wait(SOON).code(), Some(0));
    assert!(
        (Duration::from_millis(600)..Duration::from_secs(5)).contains(&started.elapsed()),
        "{:?}",
        started.elapsed()
    );
    assert!(hangs.rest().is_empty());
    assert!(edge.keygate.stderr().contains("drain_timeout is over"), "{}", edge.keygate.stderr());
    let lines = edge.log_lines();
    let cut = lines.iter().find(|line| line["error"] == "Internal Cut").expect("the request has its line");
    assert_eq!((&cut["path"], &cut["status"]), (&serde_json::json!("/"), &serde_json::json!(499)));
}

#[test]
fn a_second_signal_ends_it_now() {
    let raw = RawOrigin::start(vec![Step::ReadToEnd]);
    let mut edge = patient(&raw.server());
    let mut hangs = edge.client();
    hangs.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    raw.wait_for(b"GET / HTTP/1.1");
    edge.keygate.signal(Signal::INT);
    refuses_connections(&edge);
    edge.keygate.signal(Signal::INT);
    assert_eq!(edge.keygate.wait(SOON).code(), Some(1));
}

#[test]
fn an_upload_under_way_ends_too() {
    let origin = Origin::start("blue");
    let mut edge = patient(&origin.server());
    let mut client = edge.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf-");
    in_flight(&edge, 1);
    edge.keygate.sigterm();
    refuses_connections(&edge);
    client.send("there");
    let reply = client.reply();
    assert_eq!((reply.status, reply.json()["body_bytes"].as_u64()), (200, Some(10)));
    assert!(client.rest().is_empty());
    assert_eq!(edge.keygate.wait(SOON).code(), Some(0));
}
