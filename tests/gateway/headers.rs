//! Security headers: on what is proxied, and on every answer of our own.

use super::{Edge, Simple, TLS, tls_home};
use crate::support::{Ca, Origin, Response, free_port};

const LEGACY: [(&str, &str); 5] = [
    ("X-Frame-Options", "SAMEORIGIN"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-XSS-Protection", "1; mode=block"),
    ("Strict-Transport-Security", "max-age=31536000; includeSubDomains"),
    ("Content-Security-Policy", "default-src 'self'"),
];

const STRICT: [(&str, &str); 8] = [
    ("Strict-Transport-Security", "max-age=63072000; includeSubDomains"),
    (
        "Content-Security-Policy",
        "default-src 'self'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
    ),
    ("X-Frame-Options", "DENY"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "strict-origin-when-cross-origin"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=()"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
];

const API: [(&str, &str); 6] = [
    ("Strict-Transport-Security", "max-age=63072000; includeSubDomains"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("X-Frame-Options", "DENY"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
];

/// A route with this policy, over TLS and plain.
fn edge_with(policy: &str, origin: &Origin) -> Edge {
    let rest = format!("{TLS}\n[security_headers.standard]\n{policy}\n");
    let route = "security_headers = \"standard\"";
    let home = tls_home(&Ca::new(), &["example.com"]);
    Simple { servers: &[origin.server()], route, rest: &rest, ..Simple::default() }.start_in(&home)
}

/// Each of them exactly once, and with exactly this value.
#[track_caller]
fn carries(answer: &Response, headers: &[(&str, &str)]) {
    for (name, value) in headers {
        assert_eq!(answer.headers_named(name), [*value], "{name} of {answer:?}");
    }
}

/// Headers of an answer that are neither the origin's nor the protocol's own.
fn added(answer: &Response) -> Vec<String> {
    let known = ["x-origin", "content-type", "content-length", "date", "connection", "x-request-id"];
    let mut names: Vec<_> = answer.headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    names.retain(|name| !known.contains(&name.as_str()));
    names.sort_unstable();
    names
}

fn names(headers: &[(&str, &str)]) -> Vec<String> {
    let mut names: Vec<_> = headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_policys_cache_control_is_the_only_one() {
    let origin = Origin::start("blue");
    let edge = edge_with("set = { cache-control = \"private\" }", &origin);
    let mut client = edge.client();
    // By the gateway, in place of the server that is gone, over HTTP/1 and HTTP/2.
    drop(origin);
    client.send("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n");
    let head = client.head();
    assert_eq!((head.status, head.headers.iter().filter(|(name, _)| name == "cache-control").count()), (502, 1));
    assert_eq!(head.header("cache-control"), Some("private"));
    carries(&edge.curl_tls("example.com", "/", ["--http2"]), &[("cache-control", "private")]);
}

#[test]
fn presets_are_exactly_what_they_say() {
    let origin = Origin::start("blue");
    for (preset, wanted) in [("legacy", &LEGACY[..]), ("strict", &STRICT[..]), ("api", &API[..])] {
        let edge = edge_with(&format!("preset = \"{preset}\""), &origin);
        for version in ["--http1.1", "--http2"] {
            let answer = edge.curl_tls("example.com", "/", [version]);
            carries(&answer, wanted);
            // `server` and `x-powered-by`, which the origin sends, are gone; nothing else has come.
            assert_eq!(added(&answer), names(wanted), "{preset}");
        }
        let plain = edge.curl("/", []);
        let without_hsts: Vec<_> = wanted.iter().copied().filter(|(name, _)| !name.starts_with("Strict")).collect();
        carries(&plain, &without_hsts);
        assert_eq!(added(&plain), names(&without_hsts), "HSTS is for https");
    }
}

#[test]
fn a_preset_can_be_changed_and_wins_over_the_origin() {
    let origin = Origin::start("blue");
    let edge = edge_with(
        "preset = \"legacy\"\nset = { \"X-Frame-Options\" = \"DENY\", \"x-house\" = \"blue: 7\" }\nremove = [\"X-XSS-Protection\"]",
        &origin,
    );
    let answer = edge.curl_tls("example.com", "/?header=X-Frame-Options:ALLOWALL", []);
    carries(&answer, &[("x-frame-options", "DENY"), ("x-house", "blue: 7"), LEGACY[1], LEGACY[3], LEGACY[4]]);
    // `remove` names all that is removed: the origin's `server` is not, here.
    carries(&answer, &[("server", "origin/1"), ("x-powered-by", "tests")]);
    let answer = edge.curl_tls("example.com", "/?header=x-xss-protection:0", []);
    assert_eq!(answer.headers_named("x-xss-protection"), [""; 0]);
}

#[test]
fn without_a_policy_nothing_is_touched() {
    let origin = Origin::start("blue");
    let edge = Simple { servers: &[origin.server()], ..Simple::default() }.start();
    let answer = edge.curl("/?header=X-Frame-Options:ALLOWALL&set_cookie=a%3Db", []);
    carries(&answer, &[("server", "origin/1"), ("x-frame-options", "ALLOWALL"), ("set-cookie", "a=b")]);
}

#[test]
fn our_own_errors_carry_them_too() {
    let (origin, dead) = (Origin::start("blue"), format!("127.0.0.1:{}", free_port()));
    let home = tls_home(&Ca::new(), &["example.com"]);
    let toml = format!(
        r#"
[listeners.https]
bind = ["127.0.0.1:$HTTPS"]
security_headers = "house"
limits.body_size = "1KiB"
tls.certificates = [{{ cert = "tls/site.crt", key = "tls/site.key" }}]
[listeners.http]
bind = ["127.0.0.1:$HTTP"]
security_headers = "house"
redirect = "https"
[security_headers.house]
preset = "legacy"
[upstreams.service]
servers = ["{}"]
timeouts.first_byte = "200ms"
max_in_flight = 1
[upstreams.dead]
servers = ["{dead}"]
[rate_limits.once]
key = "route"
rate = "1/1h"
[[routes]]
name = "all"
path = "/all"
backends = [{{ upstream = "service" }}]
[[routes]]
name = "dead"
path = "/dead"
backends = [{{ upstream = "dead" }}]
[[routes]]
name = "once"
path = "/once"
rate_limits = ["once"]
backends = [{{ upstream = "service" }}]
"#,
        origin.server()
    );
    let edge = Edge::start(&home, &toml);
    let body = "x".repeat(2000);
    for version in ["--http1.1", "--http2"] {
        let is_ours = |answer: &Response, status| {
            assert_eq!(answer.status, status, "{answer:?}");
            carries(answer, &LEGACY);
            carries(answer, &[("content-type", "application/problem+json")]);
            assert_eq!(answer.headers_named("server"), [""; 0]);
        };
        let answer = |status, target: &str, args: &[&str]| {
            let mut all = [version; 5];
            all[1..=args.len()].copy_from_slice(args);
            is_ours(&edge.curl_tls("example.com", target, all), status);
        };
        answer(404, "/nothing", &[]);
        answer(502, "/dead", &[]);
        answer(504, "/all?delay_ms=1000", &[]);
        answer(405, "/all", &["-X", "TRACE"]);
        answer(400, "/all/../x", &["--path-as-is"]);
        if version == "--http2" {
            is_ours(&edge.post_http2("/all", 2000, true), 413);
        } else {
            answer(413, "/all", &["-d", &body]);
            assert_eq!(edge.curl_tls("example.com", "/once", []).status, 200);
            // From the front door, before any route.
            answer(400, "/all", &["-H", "Host: a b"]);
        }
        answer(429, "/once", &[]);
    }
    let redirect = edge.curl("/x", []);
    assert_eq!(redirect.status, 301);
    carries(&redirect, &[LEGACY[0], LEGACY[1], LEGACY[2], LEGACY[4]]);
}

#[test]
fn a_route_has_its_listeners_headers_unless_it_names_its_own() {
    let origin = Origin::start("blue");
    let rest = "[security_headers.house]\nset = { x-house = \"listener\" }\n[security_headers.own]\nset = { x-house = \"route\" }\n\
                [[routes]]\nname = \"own\"\npath = \"/own\"\nsecurity_headers = \"own\"\nbackends = [{ upstream = \"service\" }]\n";
    let listener = "security_headers = \"house\"";
    let edge = Simple { servers: &[origin.server()], listener, rest, ..Simple::default() }.start();
    carries(&edge.curl("/", []), &[("x-house", "listener")]);
    carries(&edge.curl("/own", []), &[("x-house", "route")]);
}

#[test]
fn cookies_gain_what_they_lack() {
    let origin = Origin::start("blue");
    let edge = edge_with("cookies = { secure = true, http_only = true, same_site = \"lax\" }", &origin);
    for (sent, wanted) in [
        ("a%3Db", "a=b; Secure; HttpOnly; SameSite=Lax"),
        ("a%3Db%3BPath%3D/%3Bsecure", "a=b;Path=/;secure; HttpOnly; SameSite=Lax"),
        ("a%3Db%3Bhttponly%3BSAMESITE%3DStrict%3BSecure", "a=b;httponly;SAMESITE=Strict;Secure"),
        // Their names in a value are no attributes.
        ("secure%3Dhttponly", "secure=httponly; Secure; HttpOnly; SameSite=Lax"),
    ] {
        for version in ["--http1.1", "--http2"] {
            let answer = edge.curl_tls("example.com", &format!("/?set_cookie={sent}"), [version]);
            assert_eq!(answer.headers_named("set-cookie"), [wanted]);
        }
    }
    let none = edge_with("cookies = { secure = true, same_site = \"none\" }", &origin);
    assert_eq!(
        none.curl_tls("example.com", "/?set_cookie=a%3Db", []).header("set-cookie"),
        Some("a=b; Secure; SameSite=None")
    );
}

#[test]
fn several_cookies_each_gain_theirs() {
    let raw = crate::support::RawOrigin::answering(
        "HTTP/1.1 200 OK\r\nset-cookie: a=1\r\nset-cookie: b=2; Secure\r\ncontent-length: 0\r\n\r\n",
    );
    let rest = "[security_headers.c]\ncookies = { secure = true }\n";
    let edge =
        Simple { servers: &[raw.server()], route: "security_headers = \"c\"", rest, ..Simple::default() }.start();
    assert_eq!(edge.curl("/", []).headers_named("set-cookie"), ["a=1; Secure", "b=2; Secure"]);
}
