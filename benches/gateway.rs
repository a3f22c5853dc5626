//! What the gateway decides about a request, each decision alone.
//!
//! A request pays for these once each: reading its head, finding its route, counting it against a limit, choosing a
//! backend, the headers an upstream gets and those an answer gets, taking the snapshot. They are measured apart so
//! that a change to one of them shows, which it would not in the tens of microseconds that a whole request takes; that
//! is `request.rs`. What changes the snapshot is measured too: it must not slow down those who read it.
//!
//! Lookups go round a list of inputs, so that neither the branch predictor nor the cache learns one of them by heart.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use ipnet::IpNet;
use keygate_config::{Config, HostPattern, Loaded, PathPattern, Source};
use keygate_gateway::http1::fields::{Field, Name};
use keygate_gateway::http1::head::{self, Limits};
use keygate_gateway::http1::response;
use keygate_gateway::policy::forward;
use keygate_gateway::policy::headers::HeaderPolicy;
use keygate_gateway::policy::limit::Limit;
use keygate_gateway::policy::path::Readings;
use keygate_gateway::policy::route::Router;
use keygate_gateway::policy::split::Split;
use keygate_gateway::{Control, Gateway};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

criterion_main!(benches);
criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = head_parse, route_match, limit_check, split_pick, forwarding, header_edits, snapshot_load, weights_change,
        answered, reload
}

const SHORT: &str = "GET /v1/accounts/42 HTTP/1.1\r\nHost: api.novabank.com\r\n\r\n";
/// As a browser sends it.
const BROWSER: &str = "GET /v1/accounts/42/transactions?from=2026-01-01&to=2026-02-01 HTTP/1.1\r\n\
    Host: api.novabank.com\r\n\
    Connection: keep-alive\r\n\
    sec-ch-ua: \"Chromium\";v=\"140\", \"Not=A?Brand\";v=\"24\", \"Google Chrome\";v=\"140\"\r\n\
    sec-ch-ua-mobile: ?0\r\n\
    sec-ch-ua-platform: \"Linux\"\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n\
    Accept: application/json, text/plain, */*\r\n\
    Origin: https://www.novabank.com\r\n\
    Sec-Fetch-Site: same-site\r\n\
    Sec-Fetch-Mode: cors\r\n\
    Sec-Fetch-Dest: empty\r\n\
    Referer: https://www.novabank.com/accounts\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n\
    Cookie: session=6f1c0a9be2f94b7a8f2d5c1e0b3a4d57; theme=dark\r\n\r\n";

/// The strict reader of the front door. httparse beside it reads the lines and leaves open what they mean: it judges
/// neither the framing nor the Host.
fn head_parse(c: &mut Criterion) {
    let mut group = c.benchmark_group("head");
    let limits = Limits { size: 32 << 10, headers: 100 };
    for (name, text) in [("short", SHORT), ("browser", BROWSER)] {
        assert!(head::parse(text.as_bytes(), limits, &mut Vec::new()).is_ok_and(|head| head.is_some()));
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(format!("keygate, {name}"), |b| {
            let mut fields = Vec::new();
            b.iter(|| head::parse(black_box(text.as_bytes()), black_box(limits), &mut fields));
        });
        group.bench_function(format!("httparse, {name}"), |b| {
            b.iter(|| {
                let mut headers = [const { MaybeUninit::uninit() }; 100];
                let mut request = httparse::Request::new(&mut []);
                let status = request.parse_with_uninit_headers(black_box(text.as_bytes()), &mut headers);
                black_box(request.headers.len());
                status
            });
        });
    }
    group.finish();
}

/// The first routes have a host each, as on an edge for many services; the path is a prefix of two segments. The worst
/// case is a host of seven labels, of which each suffix has a wildcard route and none of those has the path, which is
/// eight segments deep: every suffix is asked for every prefix, before a route for any host takes the request.
fn route_match(c: &mut Criterion) {
    let mut group = c.benchmark_group("route");
    for count in [10, 1_000, 10_000] {
        let hosts: Vec<_> = (0..count).map(|n| HostPattern::Exact(format!("service-{n}.novabank.com"))).collect();
        let path = PathPattern::Prefix("/v1/accounts".into());
        let router = Router::new(hosts.iter().enumerate().map(|(n, host)| (vec![host], &path, n))).expect("no regex");
        let asked: Vec<_> = spread(count).map(|n| format!("service-{n}.novabank.com")).collect();
        group.bench_function(format!("host and prefix, {count}"), |b| {
            let mut asked = asked.iter().cycle();
            b.iter(|| router.find(black_box(asked.next().expect("it is endless")), black_box("/v1/accounts/42")));
        });

        let patterns: Vec<_> = worst_case(count);
        let routes = patterns.iter().enumerate().map(|(n, (host, path))| (host.iter().collect(), path, n));
        let router = Router::new(routes).expect("no regex");
        let (host, path) = ("a.b.c.d.e.novabank.com", "/1/2/3/4/5/6/7/8");
        assert_eq!(router.find(host, path), Some(0), "the last to be asked");
        group.bench_function(format!("wildcards, worst case, {count}"), |b| {
            b.iter(|| router.find(black_box(host), black_box(path)));
        });
    }
    for (name, path) in [("plain", "/v1/accounts/42/transactions"), ("encoded", "/v1/accounts/J%C3%B6rg//files%2Fa")] {
        group.bench_function(format!("canonical path, {name}"), |b| b.iter(|| Readings::new(black_box(path))));
    }
    group.finish();
}

/// Numbers below `count`, in no order that memory is laid out in.
fn spread(count: usize) -> impl Iterator<Item = usize> {
    (0..count.max(1024)).map(move |n| n.wrapping_mul(0x9e37_79b9) % count)
}

fn worst_case(count: usize) -> Vec<(Vec<HostPattern>, PathPattern)> {
    let wildcard = |name: &str| vec![HostPattern::Wildcard(name.to_owned())];
    let elsewhere = || PathPattern::Prefix("/elsewhere".into());
    let mut routes = vec![(Vec::new(), PathPattern::Prefix("/".into()))];
    let mut rest = "a.b.c.d.e.novabank.com";
    while let Some((_, parent)) = rest.split_once('.') {
        routes.push((wildcard(parent), elsewhere()));
        rest = parent;
    }
    routes.extend((routes.len()..count).map(|n| (wildcard(&format!("zone-{n}.novabank.com")), elsewhere())));
    routes
}

/// Each with the clock that requests are counted by. A million keys are asked for in random order: what is measured is
/// a cache miss, mostly.
fn limit_check(c: &mut Criterion) {
    let mut group = c.benchmark_group("limit");
    let limit = |rate: &str| -> Limit {
        let text = format!("[rate_limits.x]\nkey = \"client-ip\"\nrate = \"{rate}\"\nmax_keys = 2000000");
        Limit::new("x", &config(&text).rate_limits["x"], Default::default())
    };
    let client = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));
    let open = limit("1000000000/s");
    group.bench_function("1 key", |b| b.iter(|| open.check(black_box(client), None, "route")));
    // Two keys are in two sets, mostly; that workers share the table must not show.
    let stop = AtomicBool::new(false);
    let other = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                open.check(black_box(other), None, "route");
            }
        });
        group.bench_function("1 key, while a thread asks for another", |b| {
            b.iter(|| open.check(black_box(client), None, "route"));
        });
        stop.store(true, Ordering::Relaxed);
    });
    let shut = limit("1/366d");
    while shut.check(client, None, "route").allowed {}
    group.bench_function("1 key, refused", |b| b.iter(|| shut.check(black_box(client), None, "route")));
    let verdict = open.check(client, None, "route");
    group.bench_function("RateLimit headers", |b| {
        let mut out = Vec::new();
        b.iter(|| {
            out.clear();
            open.headers(black_box(verdict), |name, value| line(&mut out, name, value));
        });
    });

    let keys: Vec<IpAddr> =
        spread(1_000_000).map(|n| IpAddr::V4(Ipv4Addr::from_bits(0x0b00_0000 + n as u32))).collect();
    for key in &keys {
        open.check(*key, None, "route");
    }
    group.bench_function("1,000,000 keys", |b| {
        let mut keys = keys.iter().cycle();
        b.iter(|| open.check(black_box(*keys.next().expect("it is endless")), None, "route"));
    });
    group.finish();
}

/// With the shared count that hands out the tickets, as a request takes one.
fn split_pick(c: &mut Criterion) {
    let mut group = c.benchmark_group("split");
    for (name, weights) in [("90/10", [90, 10].as_slice()), ("997/2/1", &[997, 2, 1])] {
        let split = Split::new(weights).expect("not all are zero");
        let turn = AtomicU64::new(0);
        group.bench_function(format!("pick, {name}"), |b| {
            b.iter(|| black_box(&split).pick(turn.fetch_add(1, Ordering::Relaxed)));
        });
    }
    group.finish();
}

/// Who asks, what of the request is forged, and what the upstream is told: for a stranger who forges, and for a proxy
/// that is trusted.
fn forwarding(c: &mut Criterion) {
    let mut group = c.benchmark_group("forwarding");
    let mut received = browser_headers();
    for (name, value) in [
        ("x-forwarded-for", "198.51.100.7, 10.1.1.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "api.novabank.com"),
        ("x-request-id", "0199d3a2-7c41-7b0e-9d7e-4f8e2a9c6b10"),
    ] {
        received.insert(name, HeaderValue::from_static(value));
    }
    let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().expect("a network")];
    let fresh = "0199d3a2-7c41-7b0e-9d7e-4f8e2a9c6b11";
    let mut out = Vec::new();
    for (name, peer) in [("stranger", "203.0.113.9"), ("trusted proxy", "10.0.0.2")] {
        let peer: IpAddr = peer.parse().expect("an address");
        group.bench_function(name, |b| {
            b.iter(|| {
                let received = black_box(&received);
                let origin = forward::origin(black_box(peer), true, received, &trusted);
                let forged = received.keys().filter(|name| forward::is_forged(name.as_str().as_bytes())).count();
                let id = origin.request_id.as_deref().unwrap_or(fresh);
                let host = received.get(header::HOST).map(HeaderValue::as_bytes);
                out.clear();
                forward::headers(&origin, host, id, received, |name, value| line(&mut out, name, value));
                forged
            });
        });
    }
    group.finish();
}

fn line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

fn browser_headers() -> HeaderMap {
    let lines = BROWSER.lines().skip(1).filter_map(|line| line.split_once(": "));
    let header = |(name, value): (&'static str, &'static str)| {
        (name.parse::<HeaderName>().expect("a name"), HeaderValue::from_static(value))
    };
    lines.map(header).collect()
}

/// Reading the head of an Express service's answer behind nginx, and what the strict preset makes of its lines; and the
/// same when cookies are edited too, of which the answer sets two.
fn header_edits(c: &mut Criterion) {
    let mut group = c.benchmark_group("headers");
    let policy = |more: &str| {
        let text = format!("[security_headers.x]\npreset = \"strict\"\n{more}");
        HeaderPolicy::new(&config(&text).security_headers["x"])
    };
    let cookies = policy("cookies = { secure = true, http_only = true, same_site = \"lax\" }");
    let (mut fields, mut out) = (Vec::new(), Vec::new());
    for (name, policy) in [("strict", &policy("")), ("strict and cookies", &cookies)] {
        group.bench_function(name, |b| b.iter(|| edit(black_box(policy), &mut fields, &mut out)));
    }
    for (name, value) in [("bare", "session=6f1c0a9be2f94b7a8f2d5c1e0b3a4d57; Path=/"), ("complete", COOKIE)] {
        group.bench_function(format!("a cookie, {name}"), |b| b.iter(|| cookies.cookie(black_box(value.as_bytes()))));
    }
    group.finish();
}

const COOKIE: &str = "session=6f1c0a9be2f94b7a8f2d5c1e0b3a4d57; Path=/; Secure; HttpOnly; SameSite=Strict";

const UPSTREAM: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Server: nginx/1.27.1\r\n\
    Date: Tue, 03 Feb 2026 10:00:00 GMT\r\n\
    Content-Type: application/json; charset=utf-8\r\n\
    Content-Length: 1042\r\n\
    Connection: keep-alive\r\n\
    X-Powered-By: Express\r\n\
    Cache-Control: private, no-cache\r\n\
    ETag: W/\"412-8rQkM1vXo4dHqH0zq9m2Y2mS0Vc\"\r\n\
    Vary: Origin, Accept-Encoding\r\n\
    Set-Cookie: session=6f1c0a9be2f94b7a8f2d5c1e0b3a4d57; Path=/\r\n\
    Set-Cookie: theme=dark; Path=/; Max-Age=31536000; SameSite=Lax\r\n\r\n";

/// As the lane does it for a client of HTTP/1.
fn edit(policy: &HeaderPolicy, fields: &mut Vec<Field>, out: &mut Vec<u8>) {
    let limits = Limits { size: 16 << 10, headers: 100 };
    let head = response::parse(black_box(UPSTREAM), limits, false, fields);
    assert!(matches!(head, Ok(Some(_))));
    out.clear();
    for field in fields.iter() {
        let cookie = (field.name == Name::SetCookie).then(|| policy.cookie(field.value(UPSTREAM))).flatten();
        match cookie {
            Some(cookie) => out.extend_from_slice(&cookie),
            None if policy.replaces(field.name(UPSTREAM), true) => {}
            None => out.extend_from_slice(field.line(UPSTREAM)),
        }
    }
    out.extend_from_slice(policy.lines(true));
}

/// Taking the live snapshot of a real gateway, as each request does once: undisturbed, and while another thread sets
/// weights, and so swaps the snapshot, as fast as it can. That state is kept in memory, so that the disk does not slow
/// the writer down.
fn snapshot_load(c: &mut Criterion) {
    let mut group = c.benchmark_group("snapshot");
    let memory = Path::new("/dev/shm");
    let edge = Idle::start(if memory.is_dir() { memory } else { env!("CARGO_TARGET_TMPDIR").as_ref() }, 10);
    let live = &edge.control.live;
    group.bench_function("load", |b| b.iter(|| black_box(live).snapshot()));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let runtime = current_thread();
            for blue in (1..=100).cycle() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                runtime.block_on(edge.set_weights("route-3", blue));
            }
        });
        let (start, before) = (std::time::Instant::now(), live.snapshot().generation);
        group.bench_function("load, while it is swapped", |b| b.iter(|| black_box(live).snapshot()));
        let swaps = live.snapshot().generation - before;
        stop.store(true, Ordering::Relaxed);
        println!("                        ({:.0} swaps a second)", swaps as f64 / start.elapsed().as_secs_f64());
    });
    group.finish();
}

/// A change of one route's weights among 10,000: the new snapshot alone, and the whole change as the admin API makes
/// it, durable on disk and in force before it is answered.
fn weights_change(c: &mut Criterion) {
    let mut group = c.benchmark_group("weights");
    group.sample_size(10);
    for count in [10, 10_000] {
        let edge = Idle::start(env!("CARGO_TARGET_TMPDIR").as_ref(), count);
        let snapshot = edge.control.live.snapshot();
        let last = format!("route-{}", count - 1);
        group.bench_function(format!("new snapshot, {count} routes"), |b| {
            b.iter(|| snapshot.with_weights(black_box(&last), black_box(&[50, 50]), String::new()));
        });
        group.bench_function(format!("in all, {count} routes"), |b| {
            let mut blue = (1..=100).cycle();
            b.iter(|| edge.runtime.block_on(edge.set_weights(&last, blue.next().expect("it is endless"))));
        });
    }
    group.finish();
}

/// Counting a request at its end: of 1,000 routes, asked for in no order; alone, and while another thread counts as well.
/// Beside it, what a look-up by labels and counters for all threads would take.
fn answered(c: &mut Criterion) {
    let mut group = c.benchmark_group("metrics");
    let edge = Idle::start(env!("CARGO_TARGET_TMPDIR").as_ref(), 1000);
    let live = &edge.control.live;
    let snapshot = live.snapshot();
    let routes: Vec<_> = spread(1000).map(|n| &*snapshot.routes[n]).collect();
    let of = |n: usize| {
        let route = routes[n % routes.len()];
        (route, &*route.backends[n & 1].upstream.name, Duration::from_micros(100 * (n as u64 % 40)))
    };
    let count = |n: usize| {
        let (route, upstream, took) = of(n);
        live.metrics.answered(Some(route), Some(upstream), black_box("GET"), black_box(200), took);
    };
    let labels = ["route", "upstream", "method", "status"];
    let total = IntCounterVec::new(Opts::new("total", "total"), &labels).expect("its names are right");
    let duration = HistogramVec::new(HistogramOpts::new("duration", "duration"), &labels[..2]).expect("so are these");
    let by_labels = |n: usize| {
        let (route, upstream, took) = of(n);
        total.with_label_values(&[route.name.as_str(), upstream, black_box("GET"), black_box("200")]).inc();
        duration.with_label_values(&[route.name.as_str(), upstream]).observe(took.as_secs_f64());
    };
    let counting: [(&str, &(dyn Fn(usize) + Sync)); 2] = [("a request counted", &count), ("by labels", &by_labels)];
    for (name, count) in counting {
        for (name, busy) in [(name.to_owned(), false), (format!("{name}, by two threads"), true)] {
            let stop = AtomicBool::new(!busy);
            std::thread::scope(|scope| {
                scope.spawn(|| (0..).take_while(|_| !stop.load(Ordering::Relaxed)).for_each(count));
                let mut n = 0;
                group.bench_function(name, |b| {
                    b.iter(|| {
                        n += 1;
                        count(n);
                    });
                });
                stop.store(true, Ordering::Relaxed);
            });
        }
    }
    group.finish();
}

/// 10,000 routes that are read again: the text alone, read and checked; and all of it, until it is in force.
fn reload(c: &mut Criterion) {
    let mut group = c.benchmark_group("reload");
    group.sample_size(10);
    let edge = Idle::start(env!("CARGO_TARGET_TMPDIR").as_ref(), 10_000);
    let source = edge.control.live.snapshot().loaded.source.clone();
    group.bench_function("10,000 routes, read and checked", |b| {
        b.iter_batched(|| source.clone(), keygate_config::parse, BatchSize::LargeInput);
    });
    group.bench_function("10,000 routes, in all", |b| {
        b.iter(|| edge.runtime.block_on(edge.control.reload()).expect("the file is right"));
    });
    group.finish();
}

/// A gateway whose live configuration is changed and read, and that nobody connects to.
struct Idle {
    control: Arc<Control>,
    runtime: Runtime,
    _gateway: Gateway,
    _dir: TempDir,
}

impl Idle {
    fn start(under: &Path, routes: usize) -> Self {
        let dir = tempfile::tempdir_in(under).expect("a folder");
        let mut text = "[process]\nworkers = 1\n[admin]\nlisten = \"unix:admin.sock\"\n[access_log]\npath = \"off\"\n\
            [listeners.http]\nbind = [\"127.0.0.1:0\"]\n\
            [upstreams.blue]\nservers = [\"127.0.0.1:9\"]\n[upstreams.green]\nservers = [\"127.0.0.1:9\"]\n"
            .to_owned();
        for n in 0..routes {
            let _ = writeln!(
                text,
                "[[routes]]\nname = \"route-{n}\"\nhosts = [\"service-{n}.novabank.com\"]\nbackends = \
                 [{{ upstream = \"blue\", weight = 90 }}, {{ upstream = \"green\", weight = 10 }}]"
            );
        }
        std::fs::write(dir.path().join("keygate.toml"), &text).expect("a folder of our own");
        let runtime = current_thread();
        let gateway = runtime.block_on(Gateway::start(parse(dir.path(), text))).expect("it starts");
        Self { control: gateway.control(), runtime, _gateway: gateway, _dir: dir }
    }

    async fn set_weights(&self, route: &str, blue: u32) {
        let weights = BTreeMap::from([("blue".to_owned(), blue), ("green".to_owned(), 100)]);
        self.control.set_weights(route, weights, None).await.expect("the weights are right");
    }
}

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn config(text: &str) -> Config {
    parse(Path::new("."), text.to_owned()).config
}

fn parse(dir: &Path, text: String) -> Loaded {
    keygate_config::parse(Source { path: dir.join("keygate.toml"), text }).expect("the file is right")
}
