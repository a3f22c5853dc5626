//! Which requests go where.

use serde_json::json;

use super::{Edge, TLS, tls_home};
use crate::support::{Ca, Home, Origin};

/// Route name, hosts, path: in an order that no rule depends on.
const ROUTES: [(&str, &str, &str); 11] = [
    ("any-health", "[]", r#""/health""#),
    ("api", r#"["api.test"]"#, r#""/""#),
    ("api-v1", r#"["api.test"]"#, r#""/v1""#),
    ("api-v1-users", r#"["api.test"]"#, r#""/v1/users/""#),
    ("api-v1-exact", r#"["api.test"]"#, r#"{ exact = "/v1" }"#),
    ("api-search", r#"["api.test"]"#, r#"{ regex = "^/v[0-9]+/search$" }"#),
    ("api-deep-search", r#"["api.test"]"#, r#"{ regex = "^/v[0-9]+/search/deep$" }"#),
    ("wild", r#"["*.test"]"#, r#""/""#),
    ("wild-deep", r#"["*.deep.test"]"#, r#""/""#),
    ("two-hosts", r#"["a.example", "b.example"]"#, r#""/app""#),
    ("address", r#"["127.0.0.1", "[::1]"]"#, r#""/""#),
];

/// Host, path, and the route that must be taken.
const REQUESTS: [(&str, &str, Option<&str>); 38] = [
    ("api.test", "/", Some("api")),
    ("api.test", "/other", Some("api")),
    ("API.Test:8080", "/v1/x", Some("api-v1")),
    ("api.test.", "/v1/x", Some("api-v1")),
    ("api.test", "/v1", Some("api-v1-exact")),
    ("api.test", "/v1?x=/v1/users", Some("api-v1-exact")),
    ("api.test", "/v1/", Some("api-v1")),
    ("api.test", "/v11", Some("api")),
    ("api.test", "/v1/users", Some("api-v1-users")),
    ("api.test", "/v1/users/", Some("api-v1-users")),
    ("api.test", "/v1/users/7/orders", Some("api-v1-users")),
    ("api.test", "/v1/usersx", Some("api-v1")),
    ("api.test", "/v2/search", Some("api-search")),
    ("api.test", "/v1/search", Some("api-search")),
    ("api.test", "/v1/search/deep", Some("api-deep-search")),
    ("api.test", "/v1/search/x", Some("api-v1")),
    // However the path is spelt, the same policy holds.
    ("api.test", "//v1//x", Some("api-v1")),
    ("api.test", "/%76%31/x", Some("api-v1")),
    ("api.test", "/v1%2Fusers", Some("api-v1-users")),
    // Parameters, and what is encoded twice, where they make no difference to the route.
    ("api.test", "/v1/users/7;v=1/orders", Some("api-v1-users")),
    ("api.test", "/other;v=1", Some("api")),
    ("api.test", "/v1/x%3By", Some("api-v1")),
    ("api.test", "/v1/%2541", Some("api-v1")),
    ("api.test", "/v1/100%25", Some("api-v1")),
    ("api.test", "/health", Some("api")),
    ("other.test", "/v1", Some("wild")),
    ("x.y.test", "/v1", Some("wild")),
    ("x.deep.test", "/", Some("wild-deep")),
    ("x.y.deep.test", "/", Some("wild-deep")),
    ("deep.test", "/", Some("wild")),
    ("test", "/", None),
    ("nottest", "/health", Some("any-health")),
    ("nottest", "/health/live", Some("any-health")),
    ("nottest", "/healthy", None),
    ("a.example", "/app/x", Some("two-hosts")),
    ("b.example:443", "/app", Some("two-hosts")),
    ("a.example", "/", None),
    ("[::1]:8080", "/", Some("address")),
];

fn toml(routes: impl Iterator<Item = (&'static str, &'static str, &'static str)>, origin: &Origin) -> String {
    let mut toml = format!(
        "[listeners.http]\nbind = [\"127.0.0.1:$HTTP\"]\n{TLS}\n[upstreams.service]\nservers = [\"{}\"]\n",
        origin.server()
    );
    for (name, hosts, path) in routes {
        // The route adds its name to the answer.
        toml += &format!(
            "[security_headers.{name}]\nset = {{ x-route = \"{name}\" }}\n\
             [[routes]]\nname = \"{name}\"\nhosts = {hosts}\npath = {path}\nsecurity_headers = \"{name}\"\n\
             backends = [{{ upstream = \"service\" }}]\n"
        );
    }
    toml
}

#[track_caller]
fn takes_the_routes(edge: &Edge) {
    let mut client = edge.client();
    for (host, path, route) in REQUESTS {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        let reply = client.reply();
        assert_eq!(reply.header("x-route"), route, "{host} {path}");
        match route {
            // What is forwarded is the path as it came.
            Some(_) => assert_eq!(reply.json()["target"], path),
            None => reply.is_problem(404, "no-route"),
        }
    }
}

#[test]
fn the_most_specific_route_wins_in_any_order() {
    let origin = Origin::start("blue");
    let edge = Edge::start(&tls_home(&Ca::new(), &["*.test"]), &toml(ROUTES.into_iter(), &origin));
    takes_the_routes(&edge);
    for turn in [3, 7] {
        let mut other = ROUTES;
        other.rotate_left(turn);
        other[..5].reverse();
        edge.config(&toml(other.into_iter(), &origin));
        edge.home.run(["reload"]).success();
        takes_the_routes(&edge);
    }
    // HTTP/2 has its host elsewhere.
    for (host, path, route) in
        [("api.test", "/v1/x", "api-v1"), ("other.test", "/", "wild"), ("no.example", "/health", "any-health")]
    {
        let answer = edge.curl_tls(host, path, ["--http2", "-k"]);
        assert_eq!((answer.version.as_str(), answer.header("x-route")), ("2", Some(route)), "{host}{path}");
        assert_eq!(origin.last().header("host"), Some(host));
    }
}

#[test]
fn what_no_route_serves_is_a_small_problem() {
    let origin = Origin::start("blue");
    let edge = Edge::start(&tls_home(&Ca::new(), &["*.test"]), &toml(ROUTES.into_iter(), &origin));
    for version in ["--http1.1", "--http2"] {
        let answer = edge.curl_tls("nowhere.example", "/x", [version, "-k"]);
        super::problem(answer.status, &answer.headers, &answer.body, (404, "no-route"));
        assert!(answer.body.len() < 300);
    }
    assert_eq!(origin.hits(), 0);
    edge.counts("http_requests_total", &[("route", "-"), ("upstream", "-"), ("status", "404")], 2.0);
}

#[test]
fn paths_that_servers_read_differently_are_refused() {
    let origin = Origin::start("blue");
    let edge = Edge::start(&tls_home(&Ca::new(), &["*.test"]), &toml(ROUTES.into_iter(), &origin));
    for path in [
        "/../v1",
        "/a/../b",
        "/%2e%2e/admin",
        "/v1/..%2fadmin",
        "/.",
        "/a/./b",
        "/a%00b",
        "/a%0d%0ab",
        "/%zz",
        "/a%5c..%5cb",
        "/a%5cb",
        "/%c0%ae%c0%ae/admin",
        "/caf%e9",
        // As Tomcat reads them: parameters are no part of a segment.
        "/x/..;/v1",
        "/x/..;a=b/v1",
        "/v1;x/users",
        "/;/v1",
        "/v1%3B/users",
        // Decoded twice.
        "/x/%252e%252e/v1",
        "/v1%252fusers",
        "/%2576%2531/x",
    ] {
        let reply = edge.client_get("api.test", path);
        reply.is_problem(400, "bad-path");
        let answer = edge.curl_tls("api.test", path, ["--http2", "-k", "--path-as-is"]);
        super::problem(answer.status, &answer.headers, &answer.body, (400, "bad-path"));
    }
    assert_eq!(origin.hits(), 0);
    edge.counts("keygate_refused_total", &[("reason", "path")], 42.0);
}

#[test]
fn ambiguity_is_an_error_with_its_place() {
    let home = Home::new(
        r#"[listeners.http]
bind = ["127.0.0.1:8080"]
[upstreams.a]
servers = ["127.0.0.1:1"]
[[routes]]
name = "one"
hosts = ["x.test", "api.test"]
path = "/v1"
backends = [{ upstream = "a" }]
[[routes]]
name = "two"
hosts = ["API.test"]
path = "/v1"
backends = [{ upstream = "a" }]
"#,
    );
    let checked = home.run(["check"]);
    assert_eq!(checked.code, 1);
    for wanted in [
        "route \"two\" is ambiguous",
        "keygate.toml:12:10",
        "hosts = [\"API.test\"]",
        "api.test, path /v1: so is route \"one\"",
    ] {
        assert!(checked.stderr.contains(wanted), "{wanted}: {}", checked.stderr);
    }
    assert_eq!(home.run(["gateway"]).code, 1, "it does not start");
    let found = home.run(["check", "--json"]);
    let found: serde_json::Value = serde_json::from_str(&found.stdout).expect("JSON");
    assert_eq!(
        (&found[0]["line"], &found[0]["column"], &found[0]["severity"]),
        (&json!(12), &json!(10), &json!("error"))
    );
}

#[test]
fn regular_expressions_that_overlap_are_ambiguous() {
    let home = Home::new(
        r#"[listeners.http]
bind = ["127.0.0.1:8080"]
[upstreams.a]
servers = ["127.0.0.1:1"]
[[routes]]
name = "one"
path = { regex = "^/v[0-9]+/search" }
backends = [{ upstream = "a" }]
[[routes]]
name = "two"
path = { regex = "^/v1/" }
backends = [{ upstream = "a" }]
"#,
    );
    let checked = home.run(["check"]);
    assert_eq!(checked.code, 1);
    assert!(checked.stderr.contains("route \"two\" is ambiguous"), "{}", checked.stderr);
    assert!(checked.stderr.contains("keygate.toml:11:8"), "{}", checked.stderr);
}

impl Edge {
    fn client_get(&self, host: &str, path: &str) -> super::Reply {
        let mut client = self.client();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        client.reply()
    }
}
