//! Weights and files that change while traffic flows.

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use rustix::process::Signal;
use serde_json::json;

use super::{Client, Edge, TLS, client, tls_home};
use crate::support::{Ca, Origin, Process, SOON, wait_until};

/// Requests in all, at least.
const REQUESTS: u64 = 10_000;
/// Times the weights change.
const CHANGES: usize = 50;
/// Times the file is written and reloaded.
const RELOADS: usize = 20;
/// Connections that ask over HTTP/1.1, while curl does over HTTP/2.
const CLIENTS: usize = 5;
/// What a request says while the weights may be changing.
const BETWEEN: usize = usize::MAX;

fn toml(blue: &Origin, green: &Origin, turn: usize) -> String {
    // Every other file has a route more, a header more, and another limit.
    let more = match turn % 2 {
        0 => String::new(),
        _ => format!(
            "[rate_limits.many]\nkey = \"route\"\nrate = \"{}/s\"\n[security_headers.more]\npreset = \"strict\"\n\
             [[routes]]\nname = \"other-{turn}\"\npath = \"/other\"\nrate_limits = [\"many\"]\n\
             security_headers = \"more\"\nbackends = [{{ upstream = \"green\" }}]\n",
            1000 + turn
        ),
    };
    format!(
        "[listeners.http]\nbind = [\"127.0.0.1:$HTTP\"]\n{TLS}\n\
         [upstreams.blue]\nservers = [\"{}\"]\n[upstreams.green]\nservers = [\"{}\"]\n\
         [[routes]]\nname = \"all\"\nbackends = [{{ upstream = \"blue\", weight = 90 }}, {{ upstream = \"green\", weight = 10 }}]\n\
         {more}# {turn}\n",
        blue.server(),
        green.server()
    )
}

/// The weights of a period: among them all and nothing, both ways.
fn weights(period: usize) -> [u64; 2] {
    [[50, 50], [100, 0], [0, 100], [90, 10], [1, 3]][period % 5]
}

/// Requests that began, and ended, while one period's weights held: by whom they were answered.
#[derive(Default)]
struct Tally {
    blue: AtomicU64,
    green: AtomicU64,
    open: AtomicU64,
}

#[test]
#[allow(clippy::too_many_lines, reason = "one story")]
fn ten_thousand_requests_while_weights_and_file_change() {
    let (blue, green) = (Origin::start("blue"), Origin::start("green"));
    let home = tls_home(&Ca::new(), &["localhost"]);
    let mut edge = Edge::start(&home, &toml(&blue, &green, 0));
    let tallies: Vec<Tally> = (0..CHANGES).map(|_| Tally::default()).collect();
    let period = AtomicUsize::new(BETWEEN);
    let (asked, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let http = edge.http;

    let ask = || {
        let mut client = Client::connect(http);
        while !done.load(Ordering::SeqCst) {
            let now = period.load(Ordering::SeqCst);
            let tally = tallies.get(now);
            if let Some(tally) = tally {
                tally.open.fetch_add(1, Ordering::SeqCst);
                // The period may have ended before it was known that a request of it is open.
                if period.load(Ordering::SeqCst) != now {
                    tally.open.fetch_sub(1, Ordering::SeqCst);
                    continue;
                }
            }
            let reply = client.get("/");
            assert_eq!(reply.status, 200, "{}", reply.text());
            asked.fetch_add(1, Ordering::SeqCst);
            if let Some(tally) = tally {
                match reply.header("x-origin") {
                    Some("blue") => &tally.blue,
                    Some("green") => &tally.green,
                    other => panic!("answered by {other:?}"),
                }
                .fetch_add(1, Ordering::SeqCst);
                tally.open.fetch_sub(1, Ordering::SeqCst);
            }
        }
    };

    std::thread::scope(|scope| {
        // However this ends, the clients end, too.
        let _done = client::WhenDropped(&done);
        for _ in 0..CLIENTS {
            scope.spawn(ask);
        }
        let mut reloads = 0;
        for (change, tally) in tallies.iter().enumerate() {
            let [to_blue, to_green] = weights(change);
            edge.set_weights("all", &json!({ "blue": to_blue, "green": to_green }));
            period.store(change, Ordering::SeqCst);
            // 40 requests of HTTP/2, at once, in each tenth period.
            let curl = (change % 10 == 0).then(|| {
                let url = format!("https://localhost:{}/[1-40]", edge.https);
                let ca = home.path("ca.pem");
                let mut curl = Command::new("curl");
                curl.args(["-q", "-sS", "--http2", "-Z", "-o", "/dev/null", "-w", "%{http_code} %{http_version}\\n"]);
                Process::spawn("curl", curl.arg("--cacert").arg(ca).arg(url))
            });
            if change * RELOADS / CHANGES < (change + 1) * RELOADS / CHANGES {
                reloads += 1;
                edge.config(&toml(&blue, &green, reloads));
                match reloads % 3 {
                    0 => edge.keygate.signal(Signal::HUP),
                    1 => assert_eq!(edge.admin("POST", "/v1/reload", "").status, 200),
                    // The file watcher sees it by itself.
                    _ => {}
                }
                let generation = format!("other-{reloads}");
                let even = reloads % 2 == 0;
                wait_until(SOON, "the file is in force", || {
                    let routes = edge.admin("GET", "/v1/routes", "").text();
                    (routes.contains(&generation) || even && !routes.contains("other-")).then_some(())
                });
            }
            if change == 25 {
                let before = edge.status()["generation"].clone();
                edge.config("this is no TOML");
                assert_eq!(edge.admin("POST", "/v1/reload", "").status, 422);
                let status = edge.status();
                assert_eq!((&status["generation"], &status["last_reload"]["ok"]), (&before, &json!(false)));
                edge.config(&toml(&blue, &green, reloads));
            }
            let each = REQUESTS / CHANGES as u64;
            wait_until(SOON, "the period's requests", || {
                let count = tally.blue.load(Ordering::SeqCst) + tally.green.load(Ordering::SeqCst);
                (count >= each).then_some(())
            });
            if let Some(mut curl) = curl {
                assert_eq!(curl.wait(SOON).code(), Some(0), "{}", curl.logs());
                assert_eq!(curl.stdout(), "200 2\n".repeat(40), "{}", curl.logs());
            }
            period.store(BETWEEN, Ordering::SeqCst);
            wait_until(SOON, "the period's last requests", || (tally.open.load(Ordering::SeqCst) == 0).then_some(()));
        }
        assert_eq!(reloads, RELOADS);
    });

    for (change, tally) in tallies.iter().enumerate() {
        let counts = [tally.blue.load(Ordering::SeqCst), tally.green.load(Ordering::SeqCst)];
        let (total, of) = (counts.iter().sum::<u64>(), weights(change));
        // The shares of any run are exact but for one a backend. Around a period, each client has up to one request
        // that belongs to no period but had a share of it; curl's requests, too, had theirs.
        let others = if change % 10 == 0 { 40 } else { 0 };
        let slack = (2 + 2 * CLIENTS as u64 + others) as f64;
        for (count, weight) in counts.into_iter().zip(of) {
            let share = total as f64 * weight as f64 / of.iter().sum::<u64>() as f64;
            assert!((count as f64 - share).abs() <= slack, "period {change}: {counts:?}, weights {of:?}");
            // Weights that were answered 200 hold for every request after that, on every worker.
            assert!(weight > 0 || count == 0, "period {change}: {counts:?}, weights {of:?}");
        }
    }
    assert!(asked.load(Ordering::SeqCst) >= REQUESTS);
    assert_eq!(blue.malformed() + green.malformed(), 0);
    assert!(edge.metric("keygate_reloads_total", &[("result", "ok")]) >= Some(RELOADS as f64));
    assert!(edge.metric("keygate_reloads_total", &[("result", "error")]) >= Some(1.0));
    let failed = |status| edge.metric("http_requests_total", &[("status", status)]);
    assert_eq!((failed("502"), failed("503"), failed("504"), failed("499")), (None, None, None, None));
    edge.keygate.sigterm();
    assert_eq!(edge.keygate.wait(SOON).code(), Some(0));
}
