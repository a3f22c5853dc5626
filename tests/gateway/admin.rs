//! Where the gateway is administered: who may, and who may not.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::time::Instant;

use serde_json::json;

use super::{Client, Edge, Simple};
use crate::support::{Home, Origin, SOON, free_port, wait_until};

const TOKEN: &str = "a-token-of-more-than-16-characters";

/// A gateway that is administered over TCP, and where.
fn over_tcp(home: &Home, origin: &Origin) -> (Edge, u16) {
    let port = free_port();
    let admin = format!("[admin]\nlisten = \"127.0.0.1:{port}\"\ntoken_file = \"admin.token\"\n");
    let simple = Simple { servers: &[origin.server()], rest: &admin, ..Simple::default() };
    let http = free_port();
    home.config(&simple.toml().replace("$HTTP", &http.to_string()));
    let mut edge = Edge { keygate: home.start("gateway"), home: home.clone(), http, https: 0 };
    edge.keygate.wait_until(SOON, "the gateway serves", |_| std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    (edge, port)
}

#[test]
fn those_who_ask_nothing_take_nothing_from_the_clients() {
    let (origin, home, port) = (Origin::start("blue"), Home::new(""), free_port());
    home.secret("admin.token", TOKEN);
    let admin = format!("[admin]\nlisten = \"127.0.0.1:{port}\"\ntoken_file = \"admin.token\"\n");
    let rest = format!("[process]\nworkers = 1\n{admin}");
    let simple = Simple { servers: &[origin.server()], rest: &rest, ..Simple::default() };
    let http = free_port();
    home.config(&simple.toml().replace("$HTTP", &http.to_string()));
    let limited = format!("ulimit -n 100; exec {} gateway -c keygate.toml", env!("CARGO_BIN_EXE_keygate"));
    let mut keygate = home.spawn(&mut home.command_of("bash", ["-c", &limited]));
    keygate.wait_until(SOON, "the gateway serves", |_| std::net::TcpStream::connect(("127.0.0.1", http)).ok());
    let begin = Instant::now();
    let half_heads: Vec<Client> = (0..150)
        .map(|_| {
            let mut client = Client::connect(port);
            client.send("GET /v1/status HTTP/1.1\r\nHost: a");
            client
        })
        .collect();
    for _ in 0..20 {
        assert_eq!(Client::connect(http).get("/").status, 200);
    }
    assert!(!keygate.stderr().contains("cannot accept"), "{}", keygate.stderr());
    drop(half_heads);
    // Whoever is silent is let go.
    let mut silent = Client::connect(port);
    silent.send("GET /v1/status HTTP/1.1\r\n");
    assert_eq!(silent.rest(), b"");
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
    assert_eq!(call(port, "/health", "").status, 200);
    // Nor does a body that does not come hold one.
    let authorised = format!("Authorization: Bearer {TOKEN}");
    let mut slow = Client::connect(port);
    slow.send(format!("PUT /v1/routes/all/weights HTTP/1.1\r\nHost: a\r\n{authorised}\r\nContent-Length: 9\r\n\r\n{{"));
    assert_eq!(slow.reply().status, 408);
}

fn call(port: u16, path: &str, authorization: &str) -> super::Reply {
    let mut client = Client::connect(port);
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{authorization}\r\n"));
    client.reply()
}

#[test]
fn the_socket_is_its_owners() {
    let origin = Origin::start("blue");
    let edge = Simple { servers: &[origin.server()], ..Simple::default() }.start();
    let metadata = std::fs::metadata(edge.home.path("state/admin.sock")).expect("a socket");
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    let state = std::fs::metadata(edge.home.path("state")).expect("a folder");
    assert_eq!(state.permissions().mode() & 0o777, 0o700);
}

#[test]
fn over_tcp_a_token_is_needed() {
    let (origin, home) = (Origin::start("blue"), Home::new(""));
    home.secret("admin.token", format!("{TOKEN}\n"));
    let (edge, port) = over_tcp(&home, &origin);
    let paths =
        ["/v1/status", "/v1/routes", "/v1/routes/all", "/v1/routes/all/weights", "/v1/certificates", "/metrics"];
    for path in paths {
        for wrong in
            ["", "Authorization: Bearer wrong\r\n", "Authorization: Bearer\r\n", "Authorization: Basic YTpi\r\n"]
        {
            let reply = call(port, path, wrong);
            assert_eq!((reply.status, reply.header("www-authenticate")), (401, Some("Bearer")), "{path} {wrong:?}");
            assert_eq!(reply.json()["type"], "urn:keygate:problem:unauthorised");
        }
        let almost = format!("Authorization: Bearer {}\r\n", &TOKEN[..TOKEN.len() - 1]);
        assert_eq!(call(port, path, &almost).status, 401);
        assert_eq!(call(port, path, &format!("Authorization: Bearer {TOKEN}\r\n")).status, 200, "{path}");
    }
    let mut client = Client::connect(port);
    client.send("POST /v1/reload HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.reply().status, 401);
    client.send("PUT /v1/routes/all/weights HTTP/1.1\r\nHost: a\r\nContent-Length: 13\r\n\r\n{\"service\":5}");
    assert_eq!(client.reply().status, 401);
    // A probe carries no token.
    assert_eq!((call(port, "/health", "").status, call(port, "/ready", "").status), (200, 200));
    // The commands find it in the file, or are told.
    assert_eq!(
        home.run(["weights", "get", "all", "--json"]).json()["backends"][0]["weight"],
        1,
        "nobody has changed it"
    );
    let admin = format!("127.0.0.1:{port}");
    assert!(home.run(["status", "--admin", &admin, "--token-file", "admin.token"]).success().contains("all"));
    let without = home.run(["status", "--admin", &admin]);
    assert!(without.code == 1 && without.stderr.contains("a bearer token is needed"), "{}", without.stderr);
    assert!(!edge.keygate.logs().contains(TOKEN));
}

#[test]
fn the_token_is_replaced_without_a_restart() {
    let (origin, home) = (Origin::start("blue"), Home::new(""));
    home.secret("admin.token", TOKEN);
    let (_edge, port) = over_tcp(&home, &origin);
    let status = |token: &str| call(port, "/v1/status", &format!("Authorization: Bearer {token}\r\n")).status;
    assert_eq!(status(TOKEN), 200);
    home.secret("admin.token", "another-token-just-as-long");
    wait_until(SOON, "the new token counts", || (status("another-token-just-as-long") == 200).then_some(()));
    assert_eq!(status(TOKEN), 401);
}

#[test]
fn over_tcp_without_a_token_nothing_starts() {
    let toml = |admin: &str| {
        let simple = Simple { servers: &["127.0.0.1:9".to_owned()], rest: admin, ..Simple::default() };
        simple.toml().replace("$HTTP", "0")
    };
    let home = Home::new(&toml("[admin]\nlisten = \"127.0.0.1:9\"\n"));
    for command in ["check", "gateway"] {
        let done = home.run([command]);
        assert_eq!(done.code, 1);
        assert!(done.stderr.contains("an admin listener on TCP needs a token"), "{}", done.stderr);
    }
    home.config(&toml("[admin]\nlisten = \"127.0.0.1:9\"\ntoken_file = \"admin.token\"\n"));
    for (token, why) in [(None, "No such file"), (Some("short"), "at least 16 visible ASCII characters")] {
        if let Some(token) = token {
            home.secret("admin.token", token);
        }
        for command in ["check", "gateway"] {
            let done = home.run([command]);
            assert_eq!(done.code, 1, "{command}: {}", done.output());
            assert!(done.stderr.contains("admin.token") && done.stderr.contains(why), "{}", done.stderr);
        }
    }
}

#[test]
fn a_dead_gateways_socket_is_replaced_and_a_living_ones_is_not() {
    let origin = Origin::start("blue");
    let simple = Simple { servers: &[origin.server()], ..Simple::default() };
    let mut edge = simple.start();
    edge.keygate.kill9();
    assert!(edge.home.path("state/admin.sock").exists(), "nobody has cleared up");
    edge.start_again();
    assert_eq!(edge.client().get("/").status, 200);

    // A second gateway at the same socket, with a state and addresses of its own.
    let second = format!("{}\n[process]\nstate_dir = \"second\"\n", simple.toml());
    edge.home.write("second.toml", second.replace("$HTTP", &free_port().to_string()));
    let second = edge.home.run(["gateway", "-c", "second.toml"]);
    assert_eq!(second.code, 1);
    assert!(second.stderr.contains("another gateway answers there"), "{}", second.stderr);
    assert_eq!(edge.status()["pid"], edge.keygate.pid(), "the first goes on");
    assert_eq!(edge.client().get("/").status, 200);
}

#[test]
fn a_state_folder_has_one_gateway_at_a_time() {
    let origin = Origin::start("blue");
    let simple = Simple { servers: &[origin.server()], ..Simple::default() };
    let mut edge = simple.start();
    let state = edge.home.path("state").display().to_string();
    let refused = |edge: &Edge, file: &str| {
        let second = edge.home.run(["gateway", "-c", file]);
        assert_eq!(second.code, 1, "{}", second.output());
        assert_eq!(second.stderr, format!("keygate: another gateway has the state folder {state}\n"));
        assert_eq!(edge.status()["pid"], edge.keygate.pid(), "the first goes on");
    };
    // The same file twice; and another, that has everything else of its own.
    refused(&edge, "keygate.toml");
    let second = format!("{}\n[admin]\nlisten = \"unix:second.sock\"\n", simple.toml());
    edge.home.write("second.toml", second.replace("$HTTP", &free_port().to_string()));
    refused(&edge, "second.toml");
    // Nobody has to clear up after one that was killed, or one that ended.
    edge.keygate.kill9();
    assert!(edge.home.path("state/lock").exists());
    edge.start_again();
    refused(&edge, "keygate.toml");
    edge.keygate.sigterm();
    assert_eq!(edge.keygate.wait(SOON).code(), Some(0));
    edge.start_again();
    assert_eq!(edge.client().get("/").status, 200);
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let simple = Simple { servers: &["127.0.0.1:9".to_owned()], ..Simple::default() };
    let home = Home::new(&simple.toml().replace("$HTTP", "0"));
    let kept = home.path("kept");
    std::fs::write(&kept, "precious").expect("a file");
    let socket = home.write("state/admin.sock", "precious");
    for linked in [false, true] {
        if linked {
            std::fs::remove_file(&socket).expect("the file");
            std::os::unix::fs::symlink(&kept, &socket).expect("a link");
        }
        let done = home.run(["gateway"]);
        assert_eq!(done.code, 1);
        assert!(done.stderr.contains("admin.sock: there is a file that is no socket"), "{}", done.stderr);
        assert_eq!(std::fs::read_to_string(&socket).expect("it is still there"), "precious");
    }
}

#[test]
fn what_is_kept_and_cannot_be_read_is_not_guessed_at() {
    let origin = Origin::start("blue");
    let mut edge = Simple { servers: &[origin.server()], ..Simple::default() }.start();
    edge.set_weights("all", &json!({ "service": 7 }));
    edge.keygate.kill9();
    std::fs::write(edge.home.path("state/weights.json"), "{ half").expect("a file");
    let done = edge.home.run(["gateway"]);
    assert_eq!(done.code, 1);
    assert!(done.stderr.contains("weights.json") && done.stderr.contains("mend or remove the file"), "{}", done.stderr);
}
