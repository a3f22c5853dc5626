//! Where the gateway listens, and what else it says there: IPv4, IPv6, the redirect, the number of connections.

use std::net::TcpStream;

use super::client::tcp;
use super::{Client, Edge, Simple, TLS, tls_home};
use crate::support::{Ca, Home, Origin, SOON, curl, free_port, try_curl};

#[test]
fn several_addresses_of_both_families() {
    let origin = Origin::start("blue");
    let ports = [(); 3].map(|()| free_port());
    let toml = format!(
        r#"
[listeners.first]
bind = ["127.0.0.1:$HTTP", "127.0.0.2:$HTTP", "[::1]:$HTTP", "127.0.0.1:{}"]
[listeners.second]
bind = ["[::1]:{}", "[::]:{}", "0.0.0.0:{}"]
[upstreams.service]
servers = ["{}"]
[[routes]]
name = "all"
backends = [{{ upstream = "service" }}]
"#,
        ports[0],
        ports[1],
        ports[2],
        ports[2],
        origin.server()
    );
    let edge = Edge::start(&Home::new(""), &toml);
    let http = edge.http;
    for address in [
        format!("127.0.0.1:{http}"),
        format!("127.0.0.2:{http}"),
        format!("[::1]:{http}"),
        format!("127.0.0.1:{}", ports[0]),
        format!("[::1]:{}", ports[1]),
        format!("[::1]:{}", ports[2]),
        format!("127.0.0.1:{}", ports[2]),
        format!("127.0.0.3:{}", ports[2]),
    ] {
        let answer = curl([format!("http://{address}/")]);
        assert_eq!((answer.status, answer.header("x-origin")), (200, Some("blue")), "{address}");
        let client = origin.last().header("x-real-ip").expect("an address").to_owned();
        // From 127.0.0.1 to 127.0.0.3, the client's address is the latter.
        assert_eq!(client.contains(':'), address.starts_with('['), "{address}: {client}");
    }
    // Only what is named is bound.
    for address in [format!("127.0.0.2:{}", ports[0]), format!("127.0.0.1:{}", ports[1])] {
        assert_eq!(try_curl([format!("http://{address}/")]).expect_err("nobody listens").code, 7, "{address}");
    }
    let listed = edge.status()["listeners"].as_array().expect("listeners").len();
    assert_eq!(listed, 7);
}

#[test]
fn an_address_that_is_taken_is_said_to_be() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound");
    let home = Home::new(&format!("[listeners.http]\nbind = [\"{address}\"]\n"));
    let done = home.run(["gateway"]);
    assert_eq!(done.code, 1);
    assert!(done.stderr.contains(&format!("cannot bind {address}")), "{}", done.stderr);
}

#[test]
fn a_plain_listener_redirects_to_https() {
    let (origin, home) = (Origin::start("blue"), tls_home(&Ca::new(), &["api.example.com"]));
    let edge = Simple { servers: &[origin.server()], listener: "redirect = \"https\"", rest: TLS, ..Simple::default() }
        .start_in(&home);
    for (host, target, location) in [
        ("api.example.com", "/", "https://api.example.com/"),
        ("API.example.com:8080", "/a/b?c=d&e", "https://api.example.com/a/b?c=d&e"),
        ("[::1]:80", "//x", "https://[::1]//x"),
    ] {
        let answer = edge.curl(target, ["-H", &format!("Host: {host}"), "--path-as-is"]);
        assert_eq!((answer.status, answer.header("location")), (301, Some(location)));
    }
    // Whatever the method, with a body or without; nothing is routed.
    assert_eq!(edge.curl("/pay", ["-H", "Host: api.example.com", "-d", "x=1"]).status, 301);
    let mut client = edge.client();
    client.send("GET / HTTP/1.0\r\n\r\n");
    client.reply().is_problem(400, "bad-request");
    assert_eq!(origin.hits(), 0);
    // curl follows it, to what the TLS listener serves.
    let to = format!("api.example.com:80:127.0.0.1:{}", edge.http);
    let tls = format!("api.example.com:443:127.0.0.1:{}", edge.https);
    let ca = home.path("ca.pem").display().to_string();
    let args = ["-L", "--cacert", &ca, "--connect-to", &to, "--connect-to", &tls, "http://api.example.com/x?y=z"];
    let answer = curl(args);
    assert_eq!((answer.status, answer.json()["target"].as_str()), (200, Some("/x?y=z")));
}

#[test]
fn connections_beyond_the_limit_wait_for_their_turn() {
    let origin = Origin::start("blue");
    let edge = Simple { servers: &[origin.server()], listener: "limits.connections = 2", ..Simple::default() }.start();
    let mut first = edge.client();
    assert_eq!(first.get("/").status, 200);
    let mut second = edge.client();
    assert_eq!(second.get("/").status, 200);
    // The kernel takes a third; the gateway does not, until there is room.
    let mut third = edge.client();
    third.send("GET /third HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(first.get("/").status, 200);
    assert!(!origin.seen().iter().any(|seen| seen.target == "/third"));
    edge.counts("keygate_connections", &[("listener", "http")], 2.0);
    drop(second);
    assert_eq!(third.reply().status, 200);
    // A reload may make room, too.
    let mut fourth = edge.client();
    fourth.send("GET /fourth HTTP/1.1\r\nHost: a\r\n\r\n");
    let more = Simple { servers: &[origin.server()], listener: "limits.connections = 3", ..Simple::default() };
    edge.config(&more.toml());
    edge.home.run(["reload"]).success();
    assert_eq!(fourth.reply().status, 200);
}

#[test]
fn an_idle_address_takes_no_place_from_a_busy_one() {
    let origin = Origin::start("blue");
    let listener = "limits.connections = 1";
    let more = free_port();
    let toml = Simple { servers: &[origin.server()], listener, ..Simple::default() }.toml();
    let binds = format!("bind = [\"127.0.0.1:$HTTP\", \"127.0.0.1:{more}\", \"[::1]:$HTTP\"]");
    let edge = Edge::start(&Home::new(""), &toml.replace("bind = [\"127.0.0.1:$HTTP\"]", &binds));
    for _ in 0..20 {
        assert_eq!(Client::connect(more).get("/").status, 200);
        assert_eq!(edge.client().get("/").status, 200);
    }
}

#[test]
fn the_limit_on_open_files_is_raised_and_what_is_too_low_is_said() {
    let origin = Origin::start("blue");
    let started = |connections: u32| {
        let (home, http) = (Home::new(""), free_port());
        let listener = format!("limits.connections = {connections}");
        let toml = Simple { servers: &[origin.server()], listener: &listener, ..Simple::default() }.toml();
        home.config(&toml.replace("$HTTP", &http.to_string()));
        let shell =
            format!("ulimit -Sn 64; ulimit -Hn 1000; exec {} gateway -c keygate.toml", env!("CARGO_BIN_EXE_keygate"));
        let mut keygate = home.spawn(&mut home.command_of("sh", ["-c", &shell]));
        keygate.wait_until(SOON, "it listens", |p| p.stderr().contains("listening").then_some(()));
        let open: Vec<Client> = (0..100).map(|_| Client::connect(http)).collect();
        for mut client in open {
            assert_eq!(client.get("/").status, 200);
        }
        keygate.stderr()
    };
    let said = started(200);
    assert!(!said.contains("open files"), "{said}");
    let said = started(2000);
    assert!(said.contains("the limit on open files is below"), "{said}");
}

#[test]
fn a_client_that_says_nothing_keeps_nobody_waiting() {
    let origin = Origin::start("blue");
    let edge = Simple { servers: &[origin.server()], ..Simple::default() }.start();
    let silent: Vec<TcpStream> = (0..50).map(|_| tcp(edge.http)).collect();
    assert_eq!(Client::connect(edge.http).get("/").status, 200);
    drop(silent);
}
