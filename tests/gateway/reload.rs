//! Where changes come from, what they keep, and what they say.

use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;
use serde_json::json;

use super::{Client, Edge, Simple};
use crate::support::{Ca, Home, Origin, SOON, free_port, try_curl, wait_until};

/// A route to blue and green with these weights, and a header that tells the files apart.
fn toml(blue: &Origin, green: &Origin, weights: [u32; 2], mark: &str) -> String {
    format!(
        "[listeners.http]\nbind = [\"127.0.0.1:$HTTP\"]\n\
         [upstreams.blue]\nservers = [\"{}\"]\n[upstreams.green]\nservers = [\"{}\"]\n\
         [security_headers.mark]\nset = {{ x-file = \"{mark}\" }}\n\
         [[routes]]\nname = \"all\"\nsecurity_headers = \"mark\"\n\
         backends = [{{ upstream = \"blue\", weight = {} }}, {{ upstream = \"green\", weight = {} }}]\n",
        blue.server(),
        green.server(),
        weights[0],
        weights[1]
    )
}

fn two() -> (Origin, Origin) {
    (Origin::start("blue"), Origin::start("green"))
}

#[track_caller]
fn wait_mark(client: &mut Client, mark: &str) {
    wait_until(SOON, &format!("file {mark} is in force"), || {
        (client.get("/").header("x-file") == Some(mark)).then_some(())
    });
}

#[test]
fn every_way_to_reload() {
    let (blue, green) = two();
    let edge = Edge::start(&Home::new(""), &toml(&blue, &green, [1, 1], "one"));
    let mut client = edge.client();
    assert_eq!(client.get("/").header("x-file"), Some("one"));
    // The file itself, renamed into place, and written in place.
    edge.config(&toml(&blue, &green, [1, 1], "renamed"));
    wait_mark(&mut client, "renamed");
    let in_place =
        std::fs::read_to_string(edge.home.path("keygate.toml")).expect("a file").replace("renamed", "written");
    std::fs::write(edge.home.path("keygate.toml"), in_place).expect("a file");
    wait_mark(&mut client, "written");
    // A signal, the command and the API hold at once; the watcher may see the file as well.
    edge.config(&toml(&blue, &green, [1, 1], "signal"));
    edge.keygate.signal(Signal::HUP);
    wait_mark(&mut client, "signal");
    edge.config(&toml(&blue, &green, [1, 1], "command"));
    let done = edge.home.run(["reload"]);
    assert!(done.success().starts_with("reloaded: generation "), "{}", done.stdout);
    assert_eq!(client.get("/").header("x-file"), Some("command"));
    edge.config(&toml(&blue, &green, [1, 1], "api"));
    let reply = edge.admin("POST", "/v1/reload", "");
    assert_eq!((reply.status, &reply.json()["notes"]), (200, &json!([])));
    assert_eq!(client.get("/").header("x-file"), Some("api"));
    assert_eq!(
        edge.metric("keygate_generation", &[]).map(|n| json!(n as u64)),
        Some(edge.status()["generation"].clone())
    );
}

#[test]
fn a_signal_reloads_though_nothing_has_changed() {
    let (blue, green) = two();
    let edge = Edge::start(&Home::new(""), &toml(&blue, &green, [1, 1], "one"));
    edge.keygate.signal(Signal::HUP);
    edge.wait_reloads("ok", 1.0);
    assert_eq!(edge.status()["generation"], 2);
    let last = &edge.status()["last_reload"];
    assert_eq!((&last["ok"], &last["notes"]), (&json!(true), &json!([])));
}

#[test]
fn a_broken_file_changes_nothing_and_is_reported() {
    let (blue, green) = two();
    let good = toml(&blue, &green, [3, 1], "good");
    let edge = Edge::start(&Home::new(""), &good);
    let mut client = edge.client();
    edge.set_weights("all", &json!({ "blue": 1, "green": 0 }));
    let before = edge.status();
    for (n, (broken, why)) in [
        (good.replace("[[routes]]", "[[routes"), "keygate.toml:"),
        (String::new(), "has no listeners"),
        (good.replace("name = \"all\"", "nam = \"all\""), "unknown field `nam`"),
        (good.replace("upstream = \"green\"", "upstream = \"gren\""), "no upstreams is named \"gren\""),
        (format!("{good}\n[listeners.x]\nbind = [\"192.0.2.1:1\"]\n"), "cannot bind 192.0.2.1:1"),
    ]
    .into_iter()
    .enumerate()
    {
        edge.config(&broken);
        // The watcher, by itself.
        edge.wait_reloads("error", (2 * n + 1) as f64);
        // A file that is no TOML does not say where its gateway is.
        let admin: &[&str] = if n == 0 { &["--admin", "unix:state/admin.sock"] } else { &[] };
        let refused = edge.home.run(["reload"].iter().chain(admin));
        assert!(refused.code == 1 && refused.stderr.contains(why), "{}", refused.stderr);
        let status = edge.status();
        assert_eq!(status["generation"], before["generation"]);
        assert!(status["last_reload"]["error"].as_str().expect("an error").contains(why), "{status}");
        let shown = edge.home.run(["status"].iter().chain(admin));
        assert!(shown.success().contains("NOT IN FORCE") && shown.stdout.contains(why), "{}", shown.output());
        let reply = client.get("/");
        assert_eq!((reply.header("x-file"), reply.header("x-origin")), (Some("good"), Some("blue")));
    }
    assert!(edge.keygate.stderr().contains("not reloaded: nothing has changed"), "{}", edge.keygate.stderr());
    edge.config(&good);
    edge.wait_reloads("ok", 1.0);
    let status = edge.status();
    assert_eq!(
        (&status["last_reload"]["ok"], &status["routes"][0]["backends"][0]["weight"]),
        (&json!(true), &json!(1))
    );
}

#[test]
fn what_is_not_there_yet_is_tried_again_and_told_once() {
    let origin = Origin::start("blue");
    let simple = Simple { servers: &[origin.server()], ..Simple::default() };
    let edge = simple.start();
    // The file comes before the certificate that it names.
    let port = free_port();
    let later = "{ cert = \"site.crt\", key = \"site.key\" }";
    edge.config(&format!(
        "{}\n[listeners.later]\nbind = [\"127.0.0.1:{port}\"]\ntls.certificates = [{later}]\n",
        simple.toml()
    ));
    edge.wait_reloads("error", 1.0);
    edge.wait_reloads("retried", 2.0);
    assert_eq!(edge.status()["last_reload"]["ok"], false);
    let leaf = Ca::new().leaf(&["example.com"]);
    edge.home.secret("site.key", &leaf.key);
    edge.home.write("site.crt", &leaf.cert);
    edge.wait_reloads("ok", 1.0);
    assert_eq!(edge.status()["last_reload"]["ok"], true);
    assert_eq!(edge.keygate.stderr().matches("not reloaded").count(), 1, "{}", edge.keygate.stderr());
}

#[test]
fn live_weights_survive_a_restart_and_a_crash() {
    let (blue, green) = two();
    let mut edge = Edge::start(&Home::new(""), &toml(&blue, &green, [90, 10], "one"));
    let difference = |edge: &Edge| edge.status()["differences"].clone();
    assert_eq!(difference(&edge), json!([]));
    let set = edge.home.run(["weights", "set", "all", "blue=0", "green=100"]);
    assert_eq!(set.success(), "all: blue=0 green=100\n");
    let wanted = json!([
        { "route": "all", "upstream": "blue", "file": 90, "live": 0 },
        { "route": "all", "upstream": "green", "file": 10, "live": 100 },
    ]);
    assert_eq!(difference(&edge), wanted);
    let all_green = |edge: &Edge| (0..20).all(|_| edge.client().get("/").header("x-origin") == Some("green"));
    assert!(all_green(&edge));

    edge.keygate.kill9();
    edge.start_again();
    assert_eq!(difference(&edge), wanted);
    assert!(all_green(&edge));
    edge.keygate.sigterm();
    assert_eq!(edge.keygate.wait(SOON).code(), Some(0));
    edge.start_again();
    assert_eq!(difference(&edge), wanted);
    assert!(all_green(&edge));
    let shown = edge.home.run(["status"]);
    assert!(
        shown.success().contains("live differs from the file: route all, green: 10 in the file, 100 live"),
        "{}",
        shown.stdout
    );
    // Other changes of the file leave them be.
    edge.config(&toml(&blue, &green, [90, 10], "two"));
    assert_eq!(edge.home.run(["reload", "--json"]).json()["notes"], json!([]));
    assert_eq!(difference(&edge), wanted);
    assert!(all_green(&edge));
    // A route that is gone for a while comes back as it was.
    edge.config(&toml(&blue, &green, [90, 10], "two").replace("name = \"all\"", "name = \"other\""));
    edge.home.run(["reload"]).success();
    edge.config(&toml(&blue, &green, [90, 10], "two"));
    edge.home.run(["reload"]).success();
    assert_eq!(difference(&edge), wanted);
    let metric = |upstream| edge.metric("keygate_route_weight", &[("route", "all"), ("upstream", upstream)]);
    assert_eq!((metric("blue"), metric("green")), (Some(0.0), Some(100.0)));
}

#[test]
fn a_later_change_of_the_weights_in_the_file_wins_and_is_said() {
    let (blue, green) = two();
    let mut edge = Edge::start(&Home::new(""), &toml(&blue, &green, [90, 10], "one"));
    edge.set_weights("all", &json!({ "blue": 0, "green": 100 }));
    edge.config(&toml(&blue, &green, [1, 0], "two"));
    let done = edge.home.run(["reload"]);
    // The watcher may have been first: the status has what either said.
    let said = "route all: its weights changed in the file; the live weights are dropped";
    let logged = edge.keygate.stderr().contains(said);
    assert!(done.success().contains(said) || logged, "{}", done.stdout);
    assert_eq!(edge.status()["differences"], json!([]));
    let mut client = edge.client();
    assert!((0..10).all(|_| client.get("/").header("x-origin") == Some("blue")));

    // So it is when the file changed while nothing ran.
    edge.set_weights("all", &json!({ "blue": 0, "green": 100 }));
    edge.keygate.kill9();
    edge.config(&toml(&blue, &green, [2, 0], "three"));
    edge.start_again();
    assert!(edge.keygate.stderr().contains(said), "{}", edge.keygate.stderr());
    assert_eq!(edge.status()["differences"], json!([]));
    // And it is forgotten for good.
    edge.keygate.kill9();
    edge.config(&toml(&blue, &green, [1, 0], "four"));
    edge.start_again();
    assert!(!edge.keygate.stderr().contains(said), "{}", edge.keygate.stderr());
    assert_eq!(edge.status()["differences"], json!([]));
}

#[test]
fn listeners_come_and_go() {
    let origin = Origin::start("blue");
    let simple = Simple { servers: &[origin.server()], ..Simple::default() };
    let edge = simple.start();
    let (second, third) = (free_port(), free_port());
    let mut client = edge.client();
    assert_eq!(client.get("/").status, 200);
    let with = |more: &str| edge.config(&format!("{}\n{more}", simple.toml()));
    with(&format!("[listeners.second]\nbind = [\"127.0.0.1:{second}\", \"[::1]:{third}\"]\n"));
    edge.home.run(["reload"]).success();
    let mut at_second = Client::connect(second);
    assert_eq!(at_second.get("/").status, 200);
    assert_eq!(crate::support::curl([format!("http://[::1]:{third}/")]).status, 200);

    // One address goes, another comes: the connection to the one that is gone goes on.
    with(&format!("[listeners.second]\nbind = [\"127.0.0.1:{third}\"]\n"));
    edge.home.run(["reload"]).success();
    assert_eq!(Client::connect(third).get("/").status, 200);
    wait_until(SOON, "the old address is closed", || {
        try_curl([format!("http://127.0.0.1:{second}/")]).is_err_and(|failure| failure.code == 7).then_some(())
    });
    assert_eq!(at_second.get("/").status, 200);

    // Renamed, it keeps its socket; removed, it refuses.
    with(&format!("[listeners.renamed]\nbind = [\"127.0.0.1:{third}\"]\n"));
    edge.home.run(["reload"]).success();
    assert_eq!(Client::connect(third).get("/").status, 200);
    with("");
    edge.home.run(["reload"]).success();
    wait_until(SOON, "the listener is closed", || {
        try_curl([format!("http://127.0.0.1:{third}/")]).is_err_and(|failure| failure.code == 7).then_some(())
    });
    assert_eq!(edge.status()["listeners"].as_array().map(Vec::len), Some(1));
    assert_eq!((client.get("/").status, at_second.get("/").status), (200, 200));
}

#[test]
fn an_address_that_is_our_own_in_another_width_is_refused_and_said() {
    let origin = Origin::start("blue");
    let simple = Simple { servers: &[origin.server()], ..Simple::default() };
    let edge = simple.start();
    let (narrow, wide) = (format!("127.0.0.1:{}", edge.http), format!("0.0.0.0:{}", edge.http));
    edge.config(&simple.toml().replace("127.0.0.1:$HTTP", &wide));
    let refused = edge.home.run(["reload"]);
    assert_eq!(refused.code, 1, "{}", refused.output());
    let said =
        format!("cannot bind {wide}: this gateway's listener \"http\" is bound to {narrow}, and gives it up with");
    assert!(refused.stderr.contains(&said), "{}", refused.stderr);
    assert_eq!(edge.client().get("/").status, 200);
    // Somebody else's is not ours.
    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = other.local_addr().expect("bound");
    edge.config(&format!("{}\n[listeners.other]\nbind = [\"{taken}\"]\n", simple.toml()));
    let refused = edge.home.run(["reload"]);
    assert!(refused.stderr.contains(&format!("cannot bind {taken}: Address already in use")), "{}", refused.stderr);
}

#[test]
fn a_listener_renamed_under_load_loses_no_connection() {
    let origin = Origin::start("blue");
    let simple = Simple { servers: &[origin.server()], ..Simple::default() };
    let edge = simple.start();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut asked = 0;
                    while !stop.load(Ordering::Relaxed) {
                        assert_eq!(edge.client().get("/").status, 200);
                        asked += 1;
                    }
                    asked
                })
            })
            .collect();
        for turn in 0..30 {
            edge.config(&simple.toml().replace("[listeners.http]", &format!("[listeners.name{turn}]")));
            edge.home.run(["reload"]).success();
        }
        stop.store(true, Ordering::Relaxed);
        let asked: usize = asking.into_iter().map(|thread| thread.join().expect("every answer is 200")).sum();
        assert!(asked > 100, "{asked}");
    });
}

#[test]
fn what_only_a_restart_changes_is_said() {
    let origin = Origin::start("blue");
    let simple = Simple { servers: &[origin.server()], ..Simple::default() };
    let edge = simple.start();
    edge.config(&format!("{}\n[process]\nworkers = 7\n", simple.toml()));
    edge.home.run(["reload"]).success();
    let notes = edge.status()["last_reload"]["notes"].clone();
    assert!(notes[0].as_str().is_some_and(|note| note.contains("change with a restart only")), "{notes}");
}

#[test]
fn limits_and_connections_of_the_old_file_end_with_it() {
    // A connection that is kept follows the new file with its next request.
    let origin = Origin::start("blue");
    let simple = Simple { servers: &[origin.server()], ..Simple::default() };
    let edge = simple.start();
    let mut client = edge.client();
    assert_eq!(client.get("/").status, 200);
    let stricter = Simple { listener: "limits.header_count = 1", route: "path = \"/only\"", ..simple };
    edge.config(&stricter.toml());
    edge.home.run(["reload"]).success();
    client.get("/").is_problem(404, "no-route");
    assert_eq!(client.get("/only").status, 200);
    client.send("GET /only HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n");
    client.reply().is_problem(431, "malformed-request");
}
