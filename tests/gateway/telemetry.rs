//! What is told of requests: access log, metrics, health.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{Edge, Simple, TLS, tls_home};
use crate::support::{Ca, Home, Origin, RawOrigin, SOON, free_port, wait_until};

#[test]
fn every_request_has_a_line_that_tells_all() {
    let (origin, home) = (Origin::start("blue"), tls_home(&Ca::new(), &["api.example.com"]));
    let mut edge = Simple { servers: &[origin.server()], rest: TLS, ..Simple::default() }.start_in(&home);
    let answer =
        edge.curl_tls("api.example.com", "/pay?card=4111&bytes=500", ["--http2", "-A", "test/1", "-d", "12345"]);
    let id = answer.header("x-request-id").expect("an id").to_owned();
    let line = edge.wait_log("the request", |line| line["request_id"] == id.as_str());
    let wanted = [
        ("client", json!("127.0.0.1")),
        ("listener", json!("https")),
        ("protocol", json!("HTTP/2")),
        ("tls", json!("TLSv1.3")),
        ("method", json!("POST")),
        ("host", json!("api.example.com")),
        ("path", json!("/pay")),
        ("status", json!(200)),
        ("route", json!("all")),
        ("upstream", json!("service")),
        ("server", json!(origin.server())),
        ("bytes_in", json!(5)),
        ("bytes_out", json!(500)),
        ("user_agent", json!("test/1")),
    ];
    for (field, value) in wanted {
        assert_eq!(line[field], value, "{field}: {line}");
    }
    let time = line["time"].as_str().expect("a time");
    assert!(time.len() == 24 && time.starts_with("20") && time.ends_with('Z'), "{time}");
    let milliseconds = |field: &str| line[field].as_f64().expect("a number");
    assert!(0.0 < milliseconds("upstream_ms") && milliseconds("upstream_ms") <= milliseconds("duration_ms"), "{line}");
    assert_eq!(line.get("error"), None, "{line}");

    // What failed, what was refused: with why, and without what was never there.
    let reply = edge.client().get("/..");
    let line = edge.wait_log("a bad path", |line| line["request_id"] == reply.header("x-request-id").expect("an id"));
    assert_eq!((&line["status"], line.get("route"), line.get("tls")), (&json!(400), None, None));
    let mut client = edge.client();
    client.send("nonsense\r\n\r\n");
    let reply = client.reply();
    let line = edge.wait_log("nonsense", |line| line["request_id"] == reply.header("x-request-id").expect("an id"));
    assert_eq!((&line["status"], &line["error"]), (&json!(400), &json!("request-line")));
    // The query is nowhere: it may hold secrets.
    assert!(!edge.keygate.stdout().contains("4111") && !edge.keygate.stderr().contains("4111"));
}

#[test]
fn a_log_line_cannot_be_forged() {
    let origin = Origin::start("blue");
    let mut edge = Simple { servers: &[origin.server()], ..Simple::default() }.start();
    let mut client = edge.client();
    client.send("GET /a%0a%7B%22status%22:200%7D HTTP/1.1\r\nHost: a\r\nUser-Agent: \"}\u{e9}\t{\"x\":\"\r\n\r\n");
    assert_eq!(client.reply().status, 400);
    let line = edge.wait_log("the request", |line| line["path"].as_str().is_some_and(|path| path.starts_with("/a")));
    assert_eq!(line["path"], "/a%0a%7B%22status%22:200%7D");
    assert_eq!(edge.log_lines().len(), 1);
}

#[test]
fn what_an_upstream_sends_is_not_quoted() {
    let heads = ["HTTP/1.1 200 OK\r\nx: SECRET\x01\r\n\r\n", "SECRET\r\n\r\n", "HTTP/1.1 200 OK\r\nSECRET\r\n\r\n"];
    for head in heads {
        let raw = RawOrigin::answering(head);
        let home = Home::new("").env("KEYGATE_LOG", "trace");
        let mut edge = Simple { servers: &[raw.server()], ..Simple::default() }.start_in(&home);
        let reply = edge.client().get("/");
        reply.is_problem(502, "upstream-unavailable");
        let line = edge.wait_log("the request", |line| line["path"] == "/");
        let error = line["error"].as_str().expect("an error");
        assert!(error.starts_with("Upstream InvalidHTTPHeader"), "{line}");
        assert!(!reply.text().contains("SECRET") && !edge.keygate.logs().contains("SECRET"), "{}", edge.keygate.logs());
    }
}

#[test]
fn a_log_file_is_rotated() {
    let origin = Origin::start("blue");
    let edge =
        Simple { servers: &[origin.server()], rest: "[access_log]\npath = \"logs.json\"\n", ..Simple::default() }
            .start();
    let log = edge.home.path("logs.json");
    let paths = |file: &str| -> Vec<String> {
        let text = std::fs::read_to_string(edge.home.path(file)).unwrap_or_default();
        let path = |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["path"].as_str().map(str::to_owned);
        text.lines().filter_map(path).collect()
    };
    let mut client = edge.client();
    for n in 0..3 {
        client.get(&format!("/before/{n}"));
    }
    wait_until(SOON, "three lines", || (paths("logs.json").len() == 3).then_some(()));
    std::fs::rename(&log, edge.home.path("logs.json.1")).expect("a file");
    client.get("/between");
    wait_until(SOON, "a line in the old file", || (paths("logs.json.1").len() == 4).then_some(()));
    edge.keygate.signal(Signal::USR1);
    // Nobody asks for anything meanwhile.
    wait_until(SOON, "the new file", || log.exists().then_some(()));
    client.get("/after");
    wait_until(SOON, "a line in the new file", || (paths("logs.json") == ["/after"]).then_some(()));
    assert_eq!(paths("logs.json.1").len(), 4);
    assert_eq!(edge.keygate.stdout(), "", "nothing goes to standard output then");
}

#[test]
fn metrics_are_those_of_the_dashboards() {
    let (origin, home) = (Origin::start("blue"), tls_home(&Ca::new(), &["example.com"]));
    let edge = Simple { servers: &[origin.server()], rest: TLS, ..Simple::default() }.start_in(&home);
    let mut client = edge.client();
    for _ in 0..3 {
        client.get("/");
    }
    client.get("/?status=503");
    client.send("BREW / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.reply().status, 200);
    edge.curl_tls("example.com", "/", ["--http2", "-X", "DELETE"]);
    let requests = |method, status, count| {
        let labels = [("route", "all"), ("upstream", "service"), ("method", method), ("status", status)];
        edge.counts("http_requests_total", &labels, count);
    };
    requests("GET", "200", 3.0);
    requests("GET", "503", 1.0);
    requests("DELETE", "200", 1.0);
    // Clients make no labels.
    requests("other", "200", 1.0);
    let labels = [("route", "all"), ("upstream", "service")];
    edge.counts("http_request_duration_seconds_count", &labels, 6.0);
    edge.counts("http_request_duration_seconds_bucket", &[labels[0], labels[1], ("le", "+Inf")], 6.0);
    assert!(edge.metric("http_request_duration_seconds_sum", &labels) > Some(0.0));
    edge.counts("keygate_route_weight", &labels, 1.0);
    edge.counts("keygate_generation", &[], 1.0);
    edge.counts("keygate_connections", &[("listener", "http")], 1.0);
    edge.counts("keygate_access_log_lost_lines", &[], 0.0);
    // Scraped as Prometheus does it.
    let scraped = edge.admin("GET", "/metrics", "");
    assert!(scraped.header("content-type").is_some_and(|kind| kind.starts_with("text/plain; version=0.0.4")));
    assert!(scraped.text().contains("# TYPE http_requests_total counter"));
    assert!(scraped.text().contains("# TYPE http_request_duration_seconds histogram"));
    assert!(edge.metric("keygate_certificate_expiry_timestamp_seconds", &[("listener", "https")]) > Some(1.9e9));
}

#[test]
fn a_reader_that_has_stopped_stops_no_request() {
    let origin = Origin::start("blue");
    let home = Home::new("");
    let port = free_port();
    let toml =
        Simple { servers: &[origin.server()], rest: "[process]\ndrain_timeout = \"1s\"\n", ..Simple::default() }.toml();
    home.config(&toml.replace("$HTTP", &port.to_string()));
    // Standard output is a pipe that nobody reads: it holds 64 KiB, and then it blocks.
    let unread = format!("exec {} gateway > >(exec sleep 1000)", env!("CARGO_BIN_EXE_keygate"));
    let keygate = home.spawn(&mut home.command_of("bash", ["-c", &unread]));
    let mut edge = Edge { keygate, home, http: port, https: 0 };
    edge.wait_ready();
    // Refused before any route, so that it is quick: 36,000 lines are more than the buffers have room for.
    let served = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = edge.client();
                    for _ in 0..120 {
                        client.send("GET /.. HTTP/1.1\r\nHost: a\r\n\r\n".repeat(100));
                        for _ in 0..100 {
                            assert_eq!(client.reply().status, 400);
                        }
                    }
                    12_000
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().expect("every request is answered")).sum::<i32>()
    });
    assert_eq!(served, 36_000);
    // An answer may be here before its line is lost.
    wait_until(SOON, "lines are lost, and counted alike in the status and the metrics", || {
        let lost = edge.status()["access_log_lost_lines"].as_u64().expect("a number");
        let counted = edge.metric("keygate_access_log_lost_lines", &[]);
        ((1..36_000).contains(&lost) && counted == Some(lost as f64)).then_some(())
    });
    // It does not keep the process from ending, either.
    edge.keygate.sigterm();
    assert_eq!(edge.keygate.wait(SOON).code(), Some(0));
}

#[test]
fn lines_that_were_handed_over_are_written_before_the_end() {
    let origin = Origin::start("blue");
    let edge = Simple { servers: &[origin.server()], ..Simple::default() }.start();
    let mut edge = edge;
    let mut client = edge.client();
    for _ in 0..200 {
        client.get("/");
    }
    drop(client);
    edge.keygate.sigterm();
    assert_eq!(edge.keygate.wait(SOON).code(), Some(0));
    assert_eq!(edge.log_lines().len(), 200);
}

#[test]
fn a_log_that_cannot_be_opened_is_said_to_be() {
    let home = Home::new(&format!(
        "[access_log]\npath = \"no/such/folder/log\"\n[listeners.http]\nbind = [\"127.0.0.1:{}\"]\n",
        free_port()
    ));
    let done = home.run(["gateway"]);
    assert!(done.code == 1 && done.stderr.contains("no/such/folder"), "{}", done.stderr);
    // "off" writes nothing at all.
    let origin = Origin::start("blue");
    let edge =
        Simple { servers: &[origin.server()], rest: "[access_log]\npath = \"off\"\n", ..Simple::default() }.start();
    assert_eq!(edge.client().get("/").status, 200);
    edge.counts("http_requests_total", &[("status", "200")], 1.0);
    assert_eq!(edge.keygate.stdout(), "");
}
