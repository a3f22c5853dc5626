//! How a route's requests are shared out.

use std::process::Command;

use serde_json::json;

use super::Edge;
use crate::support::{Home, Origin, run};

fn toml(servers: &[&Origin], weights: &[u32]) -> String {
    let mut toml = "[listeners.http]\nbind = [\"127.0.0.1:$HTTP\"]\n".to_owned();
    let mut backends = Vec::new();
    for (origin, weight) in servers.iter().zip(weights) {
        toml += &format!("[upstreams.{}]\nservers = [\"{}\"]\n", origin.name, origin.server());
        backends.push(format!("{{ upstream = \"{}\", weight = {weight} }}", origin.name));
    }
    toml + &format!("[[routes]]\nname = \"all\"\nbackends = [{}]\n", backends.join(", "))
}

/// The origins that answered so many requests of the real curl, in order.
fn answers(edge: &Edge, count: usize) -> Vec<String> {
    let url = edge.url(&format!("/[1-{count}]"));
    let args = ["-q", "-sS", "-o", "/dev/null", "-w", "%{http_code} %header{x-origin}\\n", &url];
    let done = run(Command::new("curl").args(args), b"");
    let lines = done.success().lines();
    lines.map(|line| line.strip_prefix("200 ").expect("200").to_owned()).collect()
}

fn share(answers: &[String], name: &str) -> usize {
    answers.iter().filter(|answer| *answer == name).count()
}

#[test]
fn shares_are_exact_and_smooth() {
    let (blue, green) = (Origin::start("blue"), Origin::start("green"));
    let edge = Edge::start(&Home::new(""), &toml(&[&blue, &green], &[90, 10]));
    let all = answers(&edge, 1000);
    assert_eq!((share(&all, "blue"), share(&all, "green")), (900, 100));
    assert_eq!((blue.hits(), green.hits()), (900, 100));
    // Not in bunches: every ten in a row have one.
    for ten in all.windows(10) {
        assert_eq!(share(ten, "green"), 1, "{ten:?}");
    }
}

#[test]
fn weight_zero_gets_nothing_and_the_one_left_gets_all() {
    let origins = ["blue", "green", "grey"].map(Origin::start);
    let edge = Edge::start(&Home::new(""), &toml(&origins.iter().collect::<Vec<_>>(), &[3, 0, 1]));
    let all = answers(&edge, 200);
    assert_eq!((share(&all, "blue"), share(&all, "green"), share(&all, "grey")), (150, 0, 50));
    edge.set_weights("all", &json!({ "blue": 0, "green": 7, "grey": 0 }));
    assert_eq!(share(&answers(&edge, 100), "green"), 100);
    edge.set_weights("all", &json!({ "blue": 1, "green": 1, "grey": 1 }));
    let all = answers(&edge, 300);
    assert_eq!(["blue", "green", "grey"].map(|name| share(&all, name)), [100, 100, 100]);
}

#[test]
fn concurrent_requests_are_shared_exactly_too() {
    let (blue, green) = (Origin::start("blue"), Origin::start("green"));
    let edge = Edge::start(&Home::new(""), &toml(&[&blue, &green], &[3, 1]));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = edge.client();
                for _ in 0..100 {
                    assert_eq!(client.get("/").status, 200);
                }
            });
        }
    });
    assert_eq!((blue.hits(), green.hits()), (300, 100));
}

#[test]
fn all_zero_is_refused_everywhere() {
    let (blue, green) = (Origin::start("blue"), Origin::start("green"));
    let good = toml(&[&blue, &green], &[90, 10]);
    let edge = Edge::start(&Home::new(""), &good);
    let set = edge.home.run(["weights", "set", "all", "blue=0", "green=0"]);
    assert_eq!(set.code, 1);
    assert!(set.stderr.contains("all weights are 0"), "{}", set.stderr);
    let put = edge.admin("PUT", "/v1/routes/all/weights", r#"{"blue":0,"green":0}"#);
    assert_eq!((put.status, put.json()["type"].as_str()), (400, Some("urn:keygate:problem:bad-weights")));

    edge.config(&toml(&[&blue, &green], &[0, 0]));
    let checked = edge.home.run(["check"]);
    assert_eq!(checked.code, 1);
    assert!(checked.stderr.contains("all its weights are 0"), "{}", checked.stderr);
    assert!(checked.stderr.contains("weight = 0"), "the line is quoted: {}", checked.stderr);
    let reloaded = edge.home.run(["reload"]);
    assert_eq!(reloaded.code, 1);
    assert!(reloaded.stderr.contains("all its weights are 0"), "{}", reloaded.stderr);
    let all = answers(&edge, 100);
    assert_eq!((share(&all, "blue"), share(&all, "green")), (90, 10), "nothing has changed");
}

#[test]
fn weights_that_are_none_are_refused() {
    let (blue, green) = (Origin::start("blue"), Origin::start("green"));
    let edge = Edge::start(&Home::new(""), &toml(&[&blue, &green], &[90, 10]));
    for (args, why, code) in [
        (&["blue=1"][..], "\"green\" is missing", 1),
        (&["blue=1", "green=1", "grey=1"], "\"grey\" is no backend of the route, which has: blue, green", 1),
        (&["blue=1", "blue=2", "green=1"], "blue is given twice", 1),
        (&["blue=10001", "green=1"], "the weight of \"blue\" is above 10000", 1),
        (&["blue=-1", "green=1"], "is not a weight", 2),
        (&["blue=1.5", "green=1"], "is not a weight", 2),
        (&["blue", "green=1"], "expected UPSTREAM=WEIGHT", 2),
        (&[], "required", 2),
    ] {
        let set = edge.home.run(["weights", "set", "all"].iter().chain(args));
        assert!(set.code == code && set.stderr.contains(why), "{args:?}: {} {}", set.code, set.stderr);
    }
    let set = edge.home.run(["weights", "set", "nosuch", "blue=1", "green=1"]);
    assert!(set.code == 1 && set.stderr.contains("no route is named \"nosuch\""), "{}", set.stderr);
    for body in ["", "[]", "{\"blue\":\"1\",\"green\":1}", "{\"blue\":1.5,\"green\":1}", "{\"blue\":-1,\"green\":1}"] {
        assert_eq!(edge.admin("PUT", "/v1/routes/all/weights", body).status, 400, "{body}");
    }
    assert_eq!(edge.admin("PUT", "/v1/routes/nosuch/weights", "{}").status, 404);
    assert_eq!(edge.status()["differences"], json!([]));
}
