//! Every lane gives the same: the same answers, the same heads to servers, the same lines in the log; and the same answers
//! from servers of either protocol.
//!
//! Each request is made over HTTP/1.1 and over HTTP/2, to the same TLS listener. What is left out of the comparison is
//! what must differ: ids, times, the protocol's own name, and headers of one connection.

use serde_json::{Value, json};

use super::http2_servers::{HTTP2, Server};
use super::{Edge, Simple, TLS, tls_home};
use crate::support::{Ca, Origin, RawOrigin, Response, free_port};

/// Routes with all that policy can do, to an origin, to one that is nowhere, and to one that never answers.
fn edge(server: String, upstream: &str, silent: &RawOrigin) -> Edge {
    let nobody = free_port();
    let rest = format!(
        r#"
{TLS}
security_headers = "listener"
limits.body_size = "64KiB"
[security_headers.listener]
preset = "api"
[security_headers.strict]
preset = "strict"
set = {{ "x-set" = "by us", "x-both" = "ours" }}
remove = ["server", "x-powered-by"]
cookies = {{ secure = true, http_only = true, same_site = "lax" }}
[rate_limits.few]
key = "header:x-api-key"
rate = "2/h"
[upstreams.nowhere]
servers = ["127.0.0.1:{nobody}"]
[upstreams.silent]
servers = ["{}"]
timeouts.first_byte = "300ms"
[[routes]]
name = "strict"
hosts = ["api.example.com"]
path = "/strict"
security_headers = "strict"
backends = [{{ upstream = "service" }}]
[[routes]]
name = "small"
hosts = ["api.example.com"]
path = "/small"
body_size = "10B"
backends = [{{ upstream = "service" }}]
[[routes]]
name = "limited"
hosts = ["api.example.com"]
path = "/limited"
rate_limits = ["few"]
backends = [{{ upstream = "service" }}]
[[routes]]
name = "nowhere"
hosts = ["api.example.com"]
path = "/nowhere"
backends = [{{ upstream = "nowhere" }}]
[[routes]]
name = "silent"
hosts = ["api.example.com"]
path = "/silent"
backends = [{{ upstream = "silent" }}]
"#,
        silent.server()
    );
    let home = tls_home(&Ca::new(), &["api.example.com"]);
    let route = "hosts = [\"api.example.com\"]";
    Simple { servers: &[server], upstream, route, rest: &rest, ..Simple::default() }.start_in(&home)
}

/// What an answer is but for what must differ.
fn answer(response: &Response) -> Value {
    let mut headers: Vec<(String, String)> = response
        .headers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
        .filter(|(name, _)| !["date", "connection", "keep-alive", "transfer-encoding"].contains(&name.as_str()))
        .map(|(name, value)| if name == "x-request-id" { (name, "an id".to_owned()) } else { (name, value) })
        .collect();
    headers.sort();
    let mut body: Value = serde_json::from_slice(&response.body).unwrap_or_else(|_| json!(response.text()));
    if let Some(problem) = body.as_object_mut() {
        problem.remove("request_id");
        // The origin tells what arrived: that is compared by itself.
        problem.remove("headers");
    }
    // curl shows the head in place of the body when it asks for no more.
    let head = response.body.starts_with(b"HTTP/");
    json!({ "status": response.status, "headers": headers, "body": if head { json!(null) } else { body } })
}

/// What the origin saw of a request but for what must differ.
fn seen(origin: &Origin) -> Value {
    let seen = origin.last();
    let mut headers: Vec<(String, String)> =
        seen.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect();
    headers.retain(|(name, _)| !["x-request-id", "transfer-encoding"].contains(&name.as_str()));
    headers.sort();
    json!({ "method": seen.method, "target": seen.target, "headers": headers, "body": seen.body.len() })
}

/// What is asked: its name, its target, and what curl is told besides. `large`: a body that is too large.
fn requests(large: &str) -> Vec<(&'static str, &'static str, Vec<&str>)> {
    vec![
        ("plain", "/", vec![]),
        ("query", "/a/b?x=1&y=%20&status=201", vec![]),
        ("no route", "/", vec!["-H", "Host: other.example.com"]),
        ("dots", "/strict/..;/x", vec!["--path-as-is"]),
        ("encoded dots", "/%2e%2e/x", vec!["--path-as-is"]),
        ("backslash", "/a%5cb", vec![]),
        ("strict headers", "/strict?header=server:leaky&header=x-powered-by:php", vec![]),
        ("theirs gives way", "/strict?header=x-both:theirs", vec![]),
        ("a cookie", "/strict?set_cookie=a%3Db", vec![]),
        ("forged", "/", vec!["-H", "X-Forwarded-For: 6.6.6.6", "-H", "X-Real-IP: 6.6.6.6", "-H", "Proxy: x"]),
        ("their id", "/", vec!["-H", "X-Request-Id: mine"]),
        ("cookies", "/", vec!["-H", "Cookie: a=1; b=2"]),
        ("post", "/", vec!["-d", "a=b"]),
        ("put", "/strict/x", vec!["-X", "PUT", "-d", "a=b"]),
        ("delete", "/", vec!["-X", "DELETE"]),
        ("options", "/", vec!["-X", "OPTIONS"]),
        ("their own method", "/", vec!["-X", "PURGE"]),
        ("trace", "/", vec!["-X", "TRACE"]),
        ("head", "/strict?bytes=1000", vec!["-I"]),
        ("a large answer", "/?bytes=300000", vec![]),
        ("chunks", "/?bytes=30000&chunked=1", vec![]),
        ("no content", "/?status=204", vec![]),
        ("not modified", "/?status=304", vec![]),
        ("their error", "/?status=500", vec![]),
        ("body too large", "/small", vec!["-d", "more than ten bytes"]),
        ("body too large for the listener", "/", vec!["-H", "Expect:", "--data-binary", large]),
        ("limited, one", "/limited", vec!["-H", "x-api-key: $LANE"]),
        ("limited, two", "/limited", vec!["-H", "x-api-key: $LANE"]),
        ("limited, three", "/limited", vec!["-H", "x-api-key: $LANE"]),
        ("limited, head", "/limited", vec!["-I", "-H", "x-api-key: $LANE"]),
        ("two keys", "/limited", vec!["-H", "x-api-key: one", "-H", "x-api-key: two"]),
        ("nowhere", "/nowhere", vec![]),
        ("silent", "/silent", vec![]),
        ("te", "/", vec!["-H", "TE: trailers"]),
    ]
}

fn large_body(edge: &Edge) -> String {
    format!("@{}", edge.home.write("large", vec![b'x'; 100 << 10]).display())
}

#[test]
fn both_protocols_are_given_the_same() {
    let origin = Origin::start("blue");
    let silent = RawOrigin::start(vec![crate::support::Step::ReadToEnd]);
    let mut edge = edge(origin.server(), "", &silent);
    let large = large_body(&edge);
    for (number, (name, target, args)) in requests(&large).iter().enumerate() {
        let lanes = [("one", "--http1.1"), ("two", "--http2")];
        let [one, two] = lanes.map(|(lane, protocol)| {
            let hits = origin.hits();
            let agent = format!("{number} by {lane}");
            let args: Vec<String> = args.iter().map(|arg| arg.replace("$LANE", lane)).collect();
            let given = ask(&edge, target, protocol, &agent, &args);
            let arrived = (origin.hits() > hits)
                .then(|| seen(&origin).to_string().replace(&agent, "the same").replace(lane, "$LANE"));
            (answer(&given), arrived)
        });
        assert_eq!(one.0, two.0, "{name}: the answer");
        assert_eq!(one.1, two.1, "{name}: what arrives");
        let lines = lanes.map(|(lane, _)| {
            let agent = format!("{number} by {lane}");
            let mut line = edge.wait_log(&agent, |line| line["user_agent"] == agent);
            for field in ["time", "request_id", "protocol", "duration_ms", "upstream_ms", "user_agent"] {
                line.as_object_mut().expect("an object").remove(field);
            }
            line
        });
        assert_eq!(lines[0], lines[1], "{name}: its line");
    }
}

#[test]
fn servers_of_both_protocols_are_passed_on_alike() {
    let origin = Origin::start("blue");
    let two = Server::before(&origin);
    let silent = RawOrigin::start(vec![crate::support::Step::ReadToEnd]);
    let edges = [edge(origin.server(), "", &silent), edge(two.name(), HTTP2, &silent)];
    let large = large_body(&edges[0]);
    for (name, target, args) in requests(&large) {
        // What the gateway answers by itself is compared above.
        if ["/limited", "/nowhere", "/silent"].contains(&target) {
            continue;
        }
        let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
        for protocol in ["--http1.1", "--http2"] {
            let [one, two] = edges.each_ref().map(|edge| answer(&ask(edge, target, protocol, "curl", &args)));
            assert_eq!(one, two, "{name}, {protocol}");
        }
    }
}

/// The real curl, over this protocol, as this user agent.
fn ask(edge: &Edge, target: &str, protocol: &str, agent: &str, args: &[String]) -> Response {
    let ca = edge.home.path("ca.pem").display().to_string();
    let to = format!("api.example.com:443:127.0.0.1:{}", edge.https);
    let url = format!("https://api.example.com{target}");
    let common = ["--cacert", &ca, "--connect-to", &to, protocol, "-A", agent].map(str::to_owned);
    crate::support::curl(common.into_iter().chain(args.iter().cloned()).chain([url]))
}
