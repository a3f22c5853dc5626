//! The admin API: what it shows, and how weights are changed by several at once.

use serde_json::json;

use super::{Edge, Simple};
use crate::support::{Home, Origin};

fn two() -> (Origin, Origin, Edge) {
    let (blue, green) = (Origin::start("blue"), Origin::start("green"));
    let toml = format!(
        "[listeners.http]\nbind = [\"127.0.0.1:$HTTP\"]\n\
         [upstreams.blue]\nservers = [\"{}\"]\n[upstreams.green]\nservers = [\"{}\"]\n\
         [rate_limits.many]\nkey = \"client-ip\"\nrate = \"1000/s\"\n\
         [[routes]]\nname = \"all\"\nhosts = [\"a.test\", \"*.b.test\"]\npath = \"/v1\"\nrate_limits = [\"many\"]\n\
         backends = [{{ upstream = \"blue\", weight = 90 }}, {{ upstream = \"green\", weight = 10 }}]\n",
        blue.server(),
        green.server()
    );
    let edge = Edge::start(&Home::new(""), &toml);
    (blue, green, edge)
}

#[test]
fn a_route_is_shown_whole() {
    let (blue, green, edge) = two();
    let shown = edge.admin("GET", "/v1/routes/all", "");
    let mut route = shown.json();
    let version = route["version"].as_str().expect("a version").to_owned();
    assert_eq!(shown.header("etag"), Some(format!("\"{version}\"").as_str()));
    route["version"] = json!("");
    let server = |origin: &Origin| json!([{ "server": origin.server(), "up": true, "resolved": true }]);
    let wanted = json!({
        "name": "all", "hosts": ["a.test", "*.b.test"], "path": "/v1", "rate_limits": ["many"], "version": "",
        "backends": [
            { "upstream": "blue", "weight": 90, "file_weight": 90, "in_flight": 0, "servers": server(&blue) },
            { "upstream": "green", "weight": 10, "file_weight": 10, "in_flight": 0, "servers": server(&green) },
        ],
    });
    assert_eq!(route, wanted);
    let status = edge.status();
    assert_eq!(status["routes"], edge.admin("GET", "/v1/routes", "").json());
    assert_eq!(status["pid"], edge.keygate.pid());
    assert_eq!(status["listeners"][0]["address"], format!("127.0.0.1:{}", edge.http));
    assert_eq!(
        (&status["draining"], &status["last_reload"], &status["generation"]),
        (&json!(false), &json!(null), &json!(1))
    );
}

#[test]
fn weights_are_changed_by_one_at_a_time() {
    let (_blue, _green, edge) = two();
    let path = "/v1/routes/all/weights";
    let etag = edge.admin("GET", path, "").header("etag").expect("an ETag").to_owned();
    let body = r#"{"blue":50,"green":50}"#;
    let set = |if_match: &str, body: &str| edge.admin_with("PUT", path, body, &format!("If-Match: {if_match}\r\n"));
    // Who read first, and is first, wins; who is second is told so.
    let first = set(&etag, body);
    assert_eq!(first.status, 200);
    let now = first.header("etag").expect("an ETag").to_owned();
    assert_ne!(now, etag);
    assert_eq!(first.json()["backends"][0]["weight"], 50);
    let second = set(&etag, r#"{"blue":1,"green":1}"#);
    assert_eq!((second.status, second.json()["type"].as_str()), (409, Some("urn:keygate:problem:weights-changed")));
    assert!(
        second.json()["detail"].as_str().is_some_and(|detail| detail.contains(now.trim_matches('"'))),
        "{second:?}"
    );
    assert_eq!(edge.admin("GET", path, "").json()["backends"][0]["weight"], 50);
    // Having read it, it may.
    assert_eq!(set(&now, r#"{"blue":1,"green":1}"#).status, 200);
    assert_eq!(set("*", body).status, 200);
    // The command line does the same.
    let version =
        edge.home.run(["weights", "get", "all", "--json"]).json()["version"].as_str().expect("one").to_owned();
    let set = |version: &str| edge.home.run(["weights", "set", "all", "blue=3", "green=1", "--if-version", version]);
    assert_eq!(set(&version).success(), "all: blue=3 green=1\n");
    let late = set(&version);
    assert!(late.code == 1 && late.stderr.contains("the weights have changed since"), "{}", late.stderr);
}

#[test]
fn weights_and_conditions_that_cannot_be_read_change_nothing() {
    let (_blue, _green, edge) = two();
    let path = "/v1/routes/all/weights";
    let before = edge.admin("GET", path, "").json();
    for body in [
        r#"{"blue":1,"green":1,"blue":2}"#,
        r#"{"blue":1,"gr\u0065en":1,"green":1}"#,
        r#"{"blue":1,"green":1} x"#,
        r#"{"blue":1,"green":1}{"blue":2,"green":2}"#,
        r#"{"blue":1,"green":1.5}"#,
        r#"{"blue":1,"green":-1}"#,
        r#"{"blue":1,"green":4294967297}"#,
        r#"[["blue",1],["green",1]]"#,
        "",
    ] {
        let refused = edge.admin("PUT", path, body);
        assert_eq!((refused.status, refused.json()["type"].as_str()), (400, Some("urn:keygate:problem:bad-weights")));
    }
    for condition in [
        "If-Match: \u{e9}\r\n",
        "If-Match: \"\u{e9}\"\r\n",
        "If-Match: \"a\", \"b\"\r\n",
        "If-Match: W/\"a\"\r\n",
        "If-Match: *\r\nIf-Match: *\r\n",
    ] {
        let refused = edge.admin_with("PUT", path, r#"{"blue":1,"green":1}"#, condition);
        let kind = refused.json()["type"].as_str().map(str::to_owned);
        assert_eq!((refused.status, kind.as_deref()), (400, Some("urn:keygate:problem:bad-if-match")), "{condition}");
    }
    assert_eq!(edge.admin("GET", path, "").json(), before);
    assert_eq!(edge.admin_with("PUT", path, r#"{"blue":1,"green":1}"#, "If-Match:\r\n").status, 409);
}

#[test]
fn a_version_holds_while_the_weights_do() {
    let (_blue, _green, mut edge) = two();
    let etag = |edge: &Edge| edge.admin("GET", "/v1/routes/all", "").header("etag").expect("an ETag").to_owned();
    let before = etag(&edge);
    edge.home.run(["reload"]).success();
    assert_eq!(etag(&edge), before, "the file said the same");
    edge.keygate.kill9();
    edge.start_again();
    assert_ne!(etag(&edge), before, "another process does not know what happened between");
}

#[test]
fn many_at_once_lose_no_change() {
    let (_blue, _green, edge) = two();
    let won = std::thread::scope(|scope| {
        let tries: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let mut won = 0;
                    while won < 5 {
                        let shown = edge.admin("GET", "/v1/routes/all", "");
                        let weight = shown.json()["backends"][0]["weight"].as_u64().expect("a weight");
                        let if_match = format!("If-Match: {}\r\n", shown.header("etag").expect("an ETag"));
                        let body = json!({ "blue": weight + 1, "green": 10 }).to_string();
                        match edge.admin_with("PUT", "/v1/routes/all/weights", &body, &if_match).status {
                            200 => won += 1,
                            409 => {}
                            other => panic!("answered {other}"),
                        }
                    }
                    won
                })
            })
            .collect();
        tries.into_iter().map(|t| t.join().expect("no panic")).sum::<u64>()
    });
    assert_eq!(won, 40);
    assert_eq!(edge.status()["routes"][0]["backends"][0]["weight"], 90 + 40);
}

#[test]
fn what_is_not_there_is_a_problem() {
    let origin = Origin::start("blue");
    let edge = Simple { servers: &[origin.server()], ..Simple::default() }.start();
    for (method, path, status) in [
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/routes/nosuch", 404),
        ("GET", "/v1/routes/nosuch/weights", 404),
        ("DELETE", "/v1/status", 405),
        ("GET", "/v1/reload", 405),
        ("POST", "/v1/routes/all/weights", 405),
    ] {
        let reply = edge.admin(method, path, "");
        assert_eq!(reply.status, status, "{method} {path}");
        assert_eq!(reply.header("content-type"), Some("application/problem+json"));
        assert_eq!(reply.json()["status"], status);
    }
    assert_eq!(edge.admin("GET", "/health", "").text(), "ok\n");
    assert_eq!(edge.admin("GET", "/ready", "").text(), "ready\n");
}
