//! What an origin is told about the client, and what a client may not claim.

use super::{Edge, Simple, TLS, tls_home};
use crate::support::{Ca, Origin, Seen};

/// Sends these header lines to the plain listener; answers what the origin saw.
fn seen(edge: &Edge, origin: &Origin, headers: &str) -> Seen {
    let mut client = edge.client();
    client.send(format!("GET /x HTTP/1.1\r\nHost: Api.Example.com:8080\r\n{headers}\r\n"));
    assert_eq!(client.reply().status, 200);
    origin.last()
}

/// A UUID of version 7 (RFC 9562), and when it was made, in milliseconds of Unix time.
#[track_caller]
fn uuid_v7_time(id: &str) -> u128 {
    let shape: Vec<usize> = id.split('-').map(str::len).collect();
    assert_eq!(shape, [8, 4, 4, 4, 12], "{id}");
    assert!(&id[14..15] == "7" && "89ab".contains(&id[19..20]), "{id}");
    u128::from_str_radix(&id.replace('-', "")[..12], 16).expect("hexadecimal")
}

const FORGED: &str = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 7.7.7.7\r\nX-Forwarded-Proto: https\r\n\
    X-Forwarded-Host: evil.test\r\nX-Forwarded-Port: 1\r\nX-Forwarded-User: root\r\nX_Forwarded_For: 6.6.6.6\r\n\
    X-Forwarded_For: 6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nX_Real_IP: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n\
    X-Request-Id: mine\r\nX_Request_Id: mine\r\nX-Original-URL: /admin\r\nX-Rewrite-URL: /admin\r\nProxy: evil.test\r\n";

#[test]
fn a_stranger_is_told_of_as_it_is() {
    let origin = Origin::start("blue");
    let edge = Simple { servers: &[origin.server()], ..Simple::default() }.start();
    let seen = seen(&edge, &origin, &format!("X-Mine: kept\r\nx_mine: too\r\n{FORGED}"));
    let of = |name: &str| seen.headers_named(name);
    assert_eq!(of("host"), ["Api.Example.com:8080"]);
    assert_eq!(of("x-real-ip"), ["127.0.0.1"]);
    assert_eq!(of("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(of("x-forwarded-proto"), ["http"]);
    assert_eq!(of("x-forwarded-host"), ["Api.Example.com:8080"]);
    assert_eq!((of("x-mine"), of("x_mine")), (vec!["kept"], vec!["too"]));
    // Nothing of what was forged has arrived, in whatever spelling.
    for (name, value) in &seen.headers {
        assert!(
            !["6.6.6.6", "7.7.7.7", "evil.test", "root", "mine", "/admin"].iter().any(|v| value.contains(v)),
            "{name}: {value}"
        );
        let like = name.to_ascii_lowercase().replace('_', "-");
        let ours = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-real-ip", "x-request-id"];
        let claims =
            like.starts_with("x-forwarded") || like == "forwarded" || like == "proxy" || like.starts_with("x-re");
        assert!(!claims || ours.contains(&name.to_ascii_lowercase().as_str()), "{name}: {value}");
    }
}

#[test]
fn every_request_has_an_id_of_its_own() {
    let origin = Origin::start("blue");
    let edge = Simple { servers: &[origin.server()], ..Simple::default() }.start();
    let now = || std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_millis();
    let before = now();
    let mut client = edge.client();
    let mut ids = std::collections::BTreeSet::new();
    for _ in 0..50 {
        let reply = client.get("/");
        let id = reply.header("x-request-id").expect("an id").to_owned();
        assert_eq!(origin.last().header("x-request-id"), Some(id.as_str()), "the origin knows it by the same");
        assert!((before..=now()).contains(&uuid_v7_time(&id)), "{id}");
        ids.insert(id);
    }
    assert_eq!(ids.len(), 50);
}

#[test]
fn tls_and_http2_are_told_of() {
    let (origin, home) = (Origin::start("blue"), tls_home(&Ca::new(), &["api.example.com"]));
    let edge = Simple { servers: &[origin.server()], rest: TLS, ..Simple::default() }.start_in(&home);
    for version in ["--http1.1", "--http2"] {
        let args =
            [version, "-H", "X-Forwarded-Proto: http", "-H", "X_Forwarded_For: 6.6.6.6", "-H", "X-Request-Id: mine"];
        let answer = edge.curl_tls("api.example.com", "/", args);
        let seen = origin.last();
        assert_eq!(seen.headers_named("host"), ["api.example.com"]);
        assert_eq!(seen.headers_named("x-forwarded-host"), ["api.example.com"]);
        assert_eq!(seen.headers_named("x-forwarded-proto"), ["https"]);
        assert_eq!(seen.headers_named("x-forwarded-for"), ["127.0.0.1"]);
        assert_eq!(seen.headers_named("x-real-ip"), ["127.0.0.1"]);
        assert_eq!(seen.headers_named("x_forwarded_for"), [""; 0]);
        assert_eq!(seen.header("x-request-id"), answer.header("x-request-id"));
        uuid_v7_time(answer.header("x-request-id").expect("an id"));
    }
}

#[test]
fn ipv6_clients_are_told_of() {
    let origin = Origin::start("blue");
    let rest = "[listeners.v6]\nbind = [\"[::1]:$HTTPS\"]\n";
    let edge = Simple { servers: &[origin.server()], rest, ..Simple::default() }.start();
    assert_eq!(crate::support::curl([format!("http://[::1]:{}/", edge.https)]).status, 200);
    let seen = origin.last();
    assert_eq!((seen.header("x-real-ip"), seen.header("x-forwarded-for")), (Some("::1"), Some("::1")));
    assert_eq!(seen.header("host"), Some(format!("[::1]:{}", edge.https).as_str()));
}

#[test]
fn trusted_proxies_are_believed() {
    let origin = Origin::start("blue");
    let listener = "trusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\", \"2001:db8::/32\"]";
    let edge = Simple { servers: &[origin.server()], listener, ..Simple::default() }.start();
    let client = |forwarded: &str| {
        let seen = seen(&edge, &origin, &format!("X-Forwarded-For: {forwarded}\r\n"));
        (seen.header("x-real-ip").map(str::to_owned), seen.headers_named("x-forwarded-for").join("|"))
    };
    let is = |ip: &str, chain: &str| (Some(ip.to_owned()), chain.to_owned());
    assert_eq!(client("192.0.2.7"), is("192.0.2.7", "192.0.2.7, 127.0.0.1"));
    // The last that is no proxy of ours; what stands before it, anybody may have written.
    assert_eq!(client("6.6.6.6, 192.0.2.7, 10.1.1.1"), is("192.0.2.7", "6.6.6.6, 192.0.2.7, 10.1.1.1, 127.0.0.1"));
    assert_eq!(client("192.0.2.7:4711").0.as_deref(), Some("192.0.2.7"));
    assert_eq!(client("[2001:db9::1]:443, 2001:db8::5").0.as_deref(), Some("2001:db9::1"));
    // What cannot be read ends the chain.
    assert_eq!(client("6.6.6.6, unknown, 10.1.1.1").0.as_deref(), Some("10.1.1.1"));
    assert_eq!(client("").0.as_deref(), Some("127.0.0.1"));

    let more = "X-Forwarded-Proto: https\r\nX-Forwarded-Host: public.example\r\nX-Request-Id: edge-1:a/b+c=\r\n";
    let seen_more = seen(&edge, &origin, &format!("X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-For: 10.1.1.1\r\n{more}"));
    let of = |name: &str| seen_more.headers_named(name);
    assert_eq!(of("x-forwarded-for"), ["192.0.2.7, 10.1.1.1, 127.0.0.1"], "lines are one list");
    assert_eq!(of("x-real-ip"), ["192.0.2.7"]);
    assert_eq!(of("x-forwarded-proto"), ["https"]);
    assert_eq!(of("x-forwarded-host"), ["public.example"]);
    assert_eq!(of("x-request-id"), ["edge-1:a/b+c="]);
    assert_eq!(of("host"), ["Api.Example.com:8080"]);
    // An id that would be a danger in a log is not kept, nor is a protocol that is none.
    let seen_bad =
        seen(&edge, &origin, "X-Request-Id: a b\"\r\nX-Forwarded-Proto: gopher\r\nX_Forwarded_For: 6.6.6.6\r\n");
    uuid_v7_time(seen_bad.header("x-request-id").expect("an id"));
    assert_eq!(seen_bad.headers_named("x-forwarded-proto"), ["http"]);
    assert_eq!(seen_bad.headers_named("x_forwarded_for"), [""; 0]);
}

#[test]
fn trust_is_a_listeners_own() {
    let origin = Origin::start("blue");
    let rest = "[listeners.inside]\nbind = [\"127.0.0.1:$HTTPS\"]\ntrusted_proxies = [\"127.0.0.1/32\"]\n";
    let edge = Simple { servers: &[origin.server()], rest, ..Simple::default() }.start();
    for (port, wanted) in [(edge.http, "127.0.0.1"), (edge.https, "192.0.2.7")] {
        crate::support::curl(["-H", "X-Forwarded-For: 192.0.2.7", &format!("http://127.0.0.1:{port}/")]);
        assert_eq!(origin.last().header("x-real-ip"), Some(wanted));
    }
}

#[test]
fn headers_of_one_hop_stay_on_it() {
    let origin = Origin::start("blue");
    let edge = Simple { servers: &[origin.server()], ..Simple::default() }.start();
    let seen = seen(
        &edge,
        &origin,
        "Connection: keep-alive, X-Secret, x-other\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n\
         TE: trailers, gzip\r\nTrailer: x-sum\r\nUpgrade: foo\r\nProxy-Authorization: Basic abc\r\nX-Secret: 1\r\n\
         X-Other: 2\r\nX-Kept: 3\r\n",
    );
    for gone in ["keep-alive", "proxy-connection", "upgrade", "x-secret", "x-other", "proxy-authorization"] {
        assert_eq!(seen.headers_named(gone), [""; 0], "{gone}: {seen:?}");
    }
    assert!(!seen.headers_named("te").iter().any(|te| te.contains("gzip")), "{seen:?}");
    assert_eq!(seen.header("x-kept"), Some("3"));
    // Nor can a client have the gateway's own headers taken away by naming them.
    for name in ["x-forwarded-for", "x-real-ip", "x-request-id", "host", "x-forwarded-proto"] {
        let hits = origin.hits();
        let mut client = edge.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nConnection: {name}\r\nContent-Length: 2\r\n\r\nhi"));
        if client.reply().status == 400 {
            assert_eq!(origin.hits(), hits);
            continue;
        }
        let seen = origin.last();
        assert!(seen.headers_named(name).len() == 1 && seen.body == b"hi", "{name}: {seen:?}");
    }
}

#[test]
fn an_origins_hop_by_hop_headers_stay_there() {
    let raw = crate::support::RawOrigin::answering(
        "HTTP/1.1 200 OK\r\nconnection: close, x-internal\r\nkeep-alive: timeout=5\r\nproxy-connection: close\r\n\
         x-internal: secret\r\nx-kept: 1\r\ncontent-length: 2\r\n\r\nok",
    );
    let home = tls_home(&Ca::new(), &["example.com"]);
    let edge = Simple { servers: &[raw.server()], rest: TLS, ..Simple::default() }.start_in(&home);
    for version in ["--http1.1", "--http2"] {
        let answer = edge.curl_tls("example.com", "/", [version]);
        assert_eq!((answer.text().as_str(), answer.header("x-kept")), ("ok", Some("1")));
        for gone in ["keep-alive", "proxy-connection", "x-internal"] {
            assert_eq!(answer.headers_named(gone), [""; 0], "{gone} over {version}");
        }
    }
    // The origin's "close" is not the client's.
    let mut client = edge.client();
    assert_eq!(client.get("/").text(), "ok");
    assert_eq!(client.get("/").text(), "ok");
}
