//! Rate limits.

use serde_json::json;

use super::{Edge, Reply, Simple, TLS, problem, tls_home};
use crate::support::{Ca, Origin, SOON, wait_until};

/// Asks so many times, as fast as one connection goes; with more header lines.
fn ask(edge: &Edge, target: &str, headers: &str, times: usize) -> Vec<Reply> {
    let mut client = edge.client();
    let mut once = || {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n{headers}\r\n"));
        client.reply()
    };
    (0..times).map(|_| once()).collect()
}

fn allowed(replies: &[Reply]) -> usize {
    replies.iter().filter(|reply| reply.status == 200).count()
}

fn limited(limit: &str, origin: &Origin, listener: &str) -> Edge {
    let rest = format!("[rate_limits.api]\n{limit}\n");
    let route = "rate_limits = [\"api\"]";
    Simple { servers: &[origin.server()], listener, route, rest: &rest, ..Simple::default() }.start()
}

#[test]
fn ten_a_second_with_a_burst_of_twenty() {
    // The window is long, so that a busy machine gives nothing back meanwhile: 1/10s is 10/s a hundred times slower.
    let origin = Origin::start("blue");
    let edge = limited("key = \"client-ip\"\nrate = \"1/10s\"\nburst = 20", &origin, "");
    let replies = ask(&edge, "/", "", 25);
    let statuses: Vec<_> = replies.iter().map(|reply| reply.status).collect();
    assert_eq!(statuses, [[200; 21].as_slice(), &[429; 4]].concat(), "one, and the burst, then no more");
    assert_eq!(origin.hits(), 21);

    let (first, refused) = (&replies[0], &replies[21]);
    assert_eq!(first.header("ratelimit-policy"), Some("\"api\";q=21;w=210"));
    assert_eq!(first.header("ratelimit"), Some("\"api\";r=20;t=0"));
    assert_eq!(first.header("retry-after"), None);
    refused.is_problem(429, "rate-limited");
    let seconds: u64 = refused.header("retry-after").and_then(|value| value.parse().ok()).expect("a number");
    assert!((1..=10).contains(&seconds), "{seconds}");
    assert_eq!(refused.header("ratelimit-policy"), Some("\"api\";q=21;w=210"));
    assert_eq!(refused.header("ratelimit"), Some(format!("\"api\";r=0;t={seconds}").as_str()));
    edge.counts("keygate_rate_limited_total", &[("route", "all"), ("limit", "api")], 4.0);
}

#[test]
fn what_is_spent_comes_back_at_the_rate() {
    let origin = Origin::start("blue");
    let edge = limited("key = \"client-ip\"\nrate = \"10/s\"\nburst = 20", &origin, "");
    let started = std::time::Instant::now();
    let replies = ask(&edge, "/", "", 60);
    let returned = 21 + started.elapsed().as_millis() as usize / 100;
    assert!((21..=returned).contains(&allowed(&replies)), "{}", allowed(&replies));
    assert_eq!(replies[0].header("ratelimit-policy"), Some("\"api\";q=21;w=3"));
    // Refused, one who waits as long as Retry-After says is served: it says a second, as it says nothing shorter.
    let mut client = edge.client();
    wait_until(SOON, "served again", || (client.get("/").status == 200).then_some(()));
    assert!(started.elapsed() < SOON);
}

#[test]
fn a_limit_holds_over_http2_and_tells_as_much() {
    let (origin, home) = (Origin::start("blue"), tls_home(&Ca::new(), &["example.com"]));
    let rest = format!("{TLS}\n[rate_limits.api]\nkey = \"client-ip\"\nrate = \"3/1h\"\n");
    let edge =
        Simple { servers: &[origin.server()], route: "rate_limits = [\"api\"]", rest: &rest, ..Simple::default() }
            .start_in(&home);
    // The plain listener and the TLS listener share the route, and so the limit.
    assert_eq!(allowed(&ask(&edge, "/", "", 2)), 2);
    let answer = edge.curl_tls("example.com", "/", ["--http2"]);
    assert_eq!((answer.status, answer.header("ratelimit")), (200, Some("\"api\";r=0;t=1200")));
    let answer = edge.curl_tls("example.com", "/", ["--http2"]);
    problem(answer.status, &answer.headers, &answer.body, (429, "rate-limited"));
    let seconds = answer.header("retry-after").expect("seconds").parse::<u64>().expect("a number");
    assert!((1100..=1200).contains(&seconds), "{seconds}");
}

#[test]
fn a_long_window() {
    let origin = Origin::start("blue");
    let edge = limited("key = \"client-ip\"\nrate = \"100/15m\"", &origin, "");
    let replies = ask(&edge, "/", "", 110);
    assert_eq!(allowed(&replies), 100);
    let last = &replies[109];
    assert_eq!(last.header("ratelimit-policy"), Some("\"api\";q=100;w=900"));
    let seconds = last.header("retry-after").expect("seconds").parse::<u64>().expect("a number");
    assert!((1..=9).contains(&seconds), "one each nine seconds: {seconds}");
}

#[test]
fn clients_are_told_apart_by_a_header() {
    let origin = Origin::start("blue");
    let edge = limited("key = \"header:X-Api-Key\"\nrate = \"2/1h\"", &origin, "");
    assert_eq!(allowed(&ask(&edge, "/", "X-Api-Key: one\r\n", 3)), 2);
    assert_eq!(allowed(&ask(&edge, "/", "x-api-key: two\r\n", 3)), 2);
    assert_eq!(allowed(&ask(&edge, "/", "X-API-KEY: one\r\n", 3)), 0);
    // Without one, it is the address that counts.
    assert_eq!(allowed(&ask(&edge, "/", "", 3)), 2);
    assert_eq!(allowed(&ask(&edge, "/", "X-Other: 1\r\n", 3)), 0);
}

#[test]
fn a_key_that_is_doubled_dodges_nothing() {
    let (origin, home) = (Origin::start("blue"), tls_home(&Ca::new(), &["example.com"]));
    let rest = format!("{TLS}\n[rate_limits.api]\nkey = \"header:x-api-key\"\nrate = \"2/1h\"\n");
    let edge =
        Simple { servers: &[origin.server()], route: "rate_limits = [\"api\"]", rest: &rest, ..Simple::default() }
            .start_in(&home);
    for second in ["X-Api-Key: two", "X-Api-Key: one", "X-Api-Key:", "X_Api_Key: two"] {
        for reply in ask(&edge, "/", &format!("X-Api-Key: one\r\n{second}\r\n"), 3) {
            reply.is_problem(400, "doubled-header");
        }
    }
    let two = ["--http2", "-H", "X-Api-Key: one", "-H", "x-api-key: two"];
    assert_eq!(edge.curl_tls("example.com", "/", two).status, 400);
    assert_eq!(origin.hits(), 0);
    edge.counts("keygate_refused_total", &[("reason", "rate-limit-key")], 13.0);
    // Nor does another spelling of one.
    assert_eq!(allowed(&ask(&edge, "/", "X-Api-Key: one\r\n", 1)), 1);
    assert_eq!(allowed(&ask(&edge, "/", "X-Api-Key:   one \r\n", 2)), 1);
    assert_eq!(allowed(&ask(&edge, "/", "X_Api_Key: one\r\n", 1)), 0);
    let spaced = vec![(":method", "GET"), (":path", "/"), (":authority", "example.com"), ("x-api-key", " one ")];
    assert_eq!(edge.http2(&[spaced])[0].as_ref().map(|answer| answer.status), Some(429));
    // An empty one is none.
    assert_eq!(allowed(&ask(&edge, "/", "X-Api-Key:\r\n", 3)), 2);
    assert_eq!(allowed(&ask(&edge, "/", "", 1)), 0);
}

#[test]
fn routes_are_counted_as_a_whole_and_apart() {
    let origin = Origin::start("blue");
    let listener = "trusted_proxies = [\"127.0.0.1/32\"]";
    let rest = "[rate_limits.api]\nkey = \"route\"\nrate = \"2/1h\"\n\
                [[routes]]\nname = \"other\"\npath = \"/other\"\nrate_limits = [\"api\"]\nbackends = [{ upstream = \"service\" }]\n\
                [[routes]]\nname = \"free\"\npath = \"/free\"\nbackends = [{ upstream = \"service\" }]\n";
    let edge =
        Simple { servers: &[origin.server()], listener, route: "rate_limits = [\"api\"]", rest, ..Simple::default() }
            .start();
    assert_eq!(allowed(&ask(&edge, "/", "X-Forwarded-For: 192.0.2.1\r\n", 1)), 1);
    assert_eq!(allowed(&ask(&edge, "/", "X-Forwarded-For: 192.0.2.2\r\n", 1)), 1);
    assert_eq!(allowed(&ask(&edge, "/", "X-Forwarded-For: 192.0.2.3\r\n", 1)), 0);
    assert_eq!(allowed(&ask(&edge, "/other", "", 3)), 2);
    let free = ask(&edge, "/free", "", 5);
    assert_eq!((allowed(&free), free[4].header("ratelimit")), (5, None));
}

#[test]
fn clients_are_addresses_and_networks_of_ipv6() {
    let origin = Origin::start("blue");
    let edge = limited("key = \"client-ip\"\nrate = \"2/1h\"", &origin, "trusted_proxies = [\"127.0.0.1/32\"]");
    let as_client = |ip: &str, times| allowed(&ask(&edge, "/", &format!("X-Forwarded-For: {ip}\r\n"), times));
    assert_eq!(as_client("192.0.2.1", 3), 2);
    assert_eq!(as_client("192.0.2.2", 3), 2);
    assert_eq!(as_client("::ffff:192.0.2.2", 1), 0, "the same address, written otherwise");
    assert_eq!(as_client("2001:db8:1:2::1", 1), 1);
    assert_eq!(as_client("2001:db8:1:2:ffff::9", 3), 1, "one /64 is one client");
    assert_eq!(as_client("2001:db8:1:3::1", 3), 2);
}

#[test]
fn an_address_cannot_be_claimed() {
    let origin = Origin::start("blue");
    let edge = limited("key = \"client-ip\"\nrate = \"2/1h\"", &origin, "");
    let mut served = 0;
    for n in 0..5 {
        served += allowed(&ask(&edge, "/", &format!("X-Forwarded-For: 192.0.2.{n}\r\nX-Real-IP: 192.0.2.{n}\r\n"), 1));
    }
    assert_eq!(served, 2);
}

#[test]
fn several_limits_must_agree_and_the_tightest_is_told() {
    let origin = Origin::start("blue");
    let rest = "[rate_limits.wide]\nkey = \"route\"\nrate = \"100/1h\"\n[rate_limits.tight]\nkey = \"client-ip\"\nrate = \"2/1h\"\n";
    let route = "rate_limits = [\"wide\", \"tight\"]";
    let edge = Simple { servers: &[origin.server()], route, rest, ..Simple::default() }.start();
    let replies = ask(&edge, "/", "", 3);
    assert_eq!(allowed(&replies), 2);
    assert_eq!(replies[0].header("ratelimit"), Some("\"tight\";r=1;t=0"));
    assert!(replies[2].header("ratelimit").is_some_and(|said| said.starts_with("\"tight\";r=0;")), "{:?}", replies[2]);
}

#[test]
fn what_is_spent_stays_spent_across_a_reload() {
    let origin = Origin::start("blue");
    let rest = "[rate_limits.api]\nkey = \"client-ip\"\nrate = \"2/1h\"\n";
    let simple = Simple { servers: &[origin.server()], route: "rate_limits = [\"api\"]", rest, ..Simple::default() };
    let edge = simple.start();
    assert_eq!(allowed(&ask(&edge, "/", "", 3)), 2);
    edge.config(&format!("{}\n# changed\n", simple.toml()));
    edge.home.run(["reload"]).success();
    assert_eq!(allowed(&ask(&edge, "/", "", 3)), 0);
    // So it does when weights are set; and a limit that is itself changed begins anew.
    edge.set_weights("all", &json!({ "service": 2 }));
    assert_eq!(allowed(&ask(&edge, "/", "", 3)), 0);
    edge.config(&simple.toml().replace("2/1h", "3/1h"));
    edge.home.run(["reload"]).success();
    assert_eq!(allowed(&ask(&edge, "/", "", 5)), 3);
}

#[test]
fn a_flood_of_keys_is_bounded_and_frees_nobody() {
    let origin = Origin::start("blue");
    let edge = limited("key = \"header:x-api-key\"\nrate = \"2/1h\"\nmax_keys = 64", &origin, "");
    assert_eq!(allowed(&ask(&edge, "/", "X-Api-Key: heavy\r\n", 3)), 2);
    let mut client = edge.client();
    for n in 0..500 {
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {n}\r\n\r\n"));
        assert_eq!(client.reply().status, 200, "a new key is served");
    }
    assert_eq!(allowed(&ask(&edge, "/", "X-Api-Key: heavy\r\n", 1)), 0);
}
