//! `examples/novabank`: the edge that was an nginx.conf.

use std::time::Instant;

use serde_json::json;

use super::client::tls_config;
use super::{Client, Edge};
use crate::support::{Ca, Home, Origin, curl, openssl};

struct Bank {
    edge: Edge,
    ca: Ca,
    blue: [Origin; 2],
    green: Origin,
    admin: Origin,
}

const API: &str = "api.novabank.com";
const ADMIN: &str = "admin.novabank.com";

fn example() -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/novabank/keygate.toml");
    std::fs::read_to_string(path).expect("the example")
}

/// A folder with certificates where the example expects them.
fn home(ca: &Ca) -> Home {
    let home = Home::new("");
    home.write("ca.pem", &ca.cert);
    for host in [API, ADMIN] {
        let leaf = ca.leaf(&[host]);
        home.write(&format!("tls/{host}.crt"), &leaf.cert);
        home.secret(&format!("tls/{host}.key"), &leaf.key);
    }
    home
}

impl Bank {
    /// The example as it is, but for its ports and its servers.
    fn open() -> Self {
        let ca = Ca::new();
        let blue = ["core-api-1", "core-api-2"].map(Origin::start);
        let (green, admin) = (Origin::start("core-api-3"), Origin::start("admin-interface"));
        let mut toml = example();
        for (from, to) in [
            ("[\"0.0.0.0:443\", \"[::]:443\"]", "[\"127.0.0.1:$HTTPS\", \"[::1]:$HTTPS\"]".to_owned()),
            ("[\"0.0.0.0:80\", \"[::]:80\"]", "[\"127.0.0.1:$HTTP\", \"[::1]:$HTTP\"]".to_owned()),
            ("core-api-1:3000", blue[0].server()),
            ("core-api-2:3000", blue[1].server()),
            ("core-api-3:3000", green.server()),
            ("admin-interface:3001", admin.server()),
        ] {
            assert_eq!(toml.matches(from).count(), 1, "{from}");
            toml = toml.replace(from, &to);
        }
        Self { edge: Edge::start(&home(&ca), &toml), ca, blue, green, admin }
    }

    fn client(&self, host: &str) -> Client<super::client::TlsStream> {
        Client::connect_tls(self.edge.https, host, &tls_config(&self.ca, &["http/1.1"]))
    }

    /// How many of 60 requests at once are served, and the least and the most that may be.
    fn flood(&self, host: &str, at_once: usize, a_second: usize) -> (usize, std::ops::RangeInclusive<usize>) {
        let mut client = self.client(host);
        let started = Instant::now();
        let served = (0..60)
            .filter(|_| {
                client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
                let reply = client.reply();
                if reply.status != 200 {
                    reply.is_problem(429, "rate-limited");
                    assert!(reply.header("retry-after").is_some());
                }
                reply.status == 200
            })
            .count();
        let back = started.elapsed().as_millis() as usize * a_second / 1000 + 1;
        (served, at_once..=(at_once + back).min(60))
    }
}

#[test]
fn the_example_passes_its_check_as_it_is() {
    let home = home(&Ca::new());
    home.config(&example());
    assert_eq!(home.run(["check"]).success(), "keygate.toml: ok\n");
}

#[test]
fn two_hosts_by_sni_with_their_headers() {
    let bank = Bank::open();
    for (host, origins) in [(API, [&bank.blue[0], &bank.blue[1]]), (ADMIN, [&bank.admin, &bank.admin])] {
        let shown = openssl(
            [
                "s_client",
                "-connect",
                &format!("127.0.0.1:{}", bank.edge.https),
                "-servername",
                host,
                "-verify_return_error",
                "-verify_hostname",
                host,
                "-CAfile",
                &bank.edge.home.path("ca.pem").display().to_string(),
            ],
            b"",
        );
        assert!(shown.success().contains("Verify return code: 0 (ok)"), "{}", shown.output());
        for version in ["--http2", "--http1.1"] {
            let answer = bank.edge.curl_tls(
                host,
                "/accounts?id=7&set_cookie=session%3Dx",
                [version, "-H", "X-Forwarded-For: 6.6.6.6"],
            );
            assert_eq!(answer.status, 200);
            for (name, value) in [
                ("x-frame-options", "SAMEORIGIN"),
                ("x-content-type-options", "nosniff"),
                ("x-xss-protection", "1; mode=block"),
                ("strict-transport-security", "max-age=31536000; includeSubDomains"),
                ("content-security-policy", "default-src 'self'"),
                ("set-cookie", "session=x; Secure; HttpOnly; SameSite=Lax"),
            ] {
                assert_eq!(answer.headers_named(name), [value], "{name}");
            }
            assert_eq!((answer.header("server"), answer.header("x-powered-by")), (None, None));
            let name = answer.header("x-origin").expect("an origin");
            let seen = origins.iter().find(|origin| origin.name == name).expect("one of the host's").last();
            assert_eq!(seen.target, "/accounts?id=7&set_cookie=session%3Dx");
            // What nginx set: Host, X-Real-IP, X-Forwarded-For, X-Forwarded-Proto.
            assert_eq!(seen.headers_named("host"), [host]);
            assert_eq!(seen.headers_named("x-real-ip"), ["127.0.0.1"]);
            assert_eq!(seen.headers_named("x-forwarded-for"), ["127.0.0.1"]);
            assert_eq!(seen.headers_named("x-forwarded-proto"), ["https"]);
        }
    }
    // Over IPv6 as well; and no other host is anybody's.
    let to = format!("{API}:443:[::1]:{}", bank.edge.https);
    let ca = bank.edge.home.path("ca.pem").display().to_string();
    assert_eq!(curl(["--cacert", &ca, "--connect-to", &to, &format!("https://{API}/")]).status, 200);
    assert_eq!(bank.edge.curl_tls("evil.example", "/", ["-k"]).status, 404);
}

#[test]
fn each_host_has_its_own_limit() {
    let bank = Bank::open();
    let (served, expected) = bank.flood(API, 21, 10);
    assert!(expected.contains(&served), "{served} of {expected:?}");
    let (served, expected) = bank.flood(ADMIN, 11, 5);
    assert!(expected.contains(&served), "{served} of {expected:?}");
}

#[test]
fn http_goes_on_to_https() {
    let bank = Bank::open();
    for host in [API, ADMIN] {
        let to = format!("{host}:80:127.0.0.1:{}", bank.edge.http);
        let answer = curl(["--connect-to", &to, &format!("http://{host}/a?b=c")]);
        assert_eq!((answer.status, answer.header("location")), (301, Some(format!("https://{host}/a?b=c").as_str())));
    }
    assert_eq!(bank.admin.hits(), 0);
}

#[test]
fn blue_goes_to_green_without_a_reload() {
    let bank = Bank::open();
    let served = || bank.blue.each_ref().map(Origin::hits).iter().sum::<u64>();
    let mut client = bank.client(API);
    let mut ask = |times: usize| {
        for _ in 0..times {
            client.send(format!("GET / HTTP/1.1\r\nHost: {API}\r\n\r\n"));
            assert_eq!(client.reply().status, 200);
        }
    };
    ask(10);
    assert_eq!((served(), bank.green.hits()), (9, 1));
    assert!(bank.blue.iter().all(|origin| origin.hits() > 0), "both servers of blue");
    let set = bank.edge.home.run(["weights", "set", "core-api", "core-blue=0", "core-green=100"]);
    assert_eq!(set.success(), "core-api: core-blue=0 core-green=100\n");
    ask(10);
    assert_eq!((served(), bank.green.hits()), (9, 11));
    assert_eq!(bank.edge.status()["differences"].as_array().map(Vec::len), Some(2));
    assert_eq!(bank.edge.home.run(["routes", "--json"]).json()[0]["hosts"], json!([API]));
}
