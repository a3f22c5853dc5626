//! What one request costs in all: a real gateway and a real signer, started in this process.
//!
//! The gateway stands on loopback, with one worker, between a client with one kept connection and an origin of a few
//! lines. The same request straight to the origin is measured beside it: the difference is the gateway. Twice: the time
//! a client waits, and the processor time that the whole process spends (client, gateway, origin, and the kernel for
//! all of them), which tells how many requests a core can take.
//!
//! All of it runs on one core. On two, what is measured is where the scheduler puts which thread: to wake one up on a
//! core that sleeps takes a virtual machine tens of microseconds, on the same core it takes one or two; the same build
//! gave 42 us or 117 us, by turns. Under load nobody sleeps.
//!
//! The signer signs with a local key over its Unix socket. Its ledger is on the disk that the build is on: what is
//! measured is that disk's flushes, mostly.

mod http;

use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use http::{Client, origin};
use keygate_config::{Loaded, Source};
use keygate_gateway::Gateway;
use keygate_signer::Signer;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::{Builder, Runtime};

criterion_main!(benches);
criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    targets = through_the_gateway, signed
}

const REQUEST: &[u8] = b"GET /v1/accounts/42 HTTP/1.1\r\nHost: api.novabank.com\r\nUser-Agent: bench/1\r\n\
    Accept: application/json\r\n\r\n";

/// Bare: one route to one upstream. Full: what an edge is for, all of it switched on.
const BARE: &str = "access_log.path = \"off\"\n[[routes]]\nname = \"api\"\nbackends = [{ upstream = \"blue\" }]\n";
const FULL: &str = r#"
access_log.path = "access.log"
[rate_limits.api]
key = "client-ip"
rate = "1000000000/s"
[security_headers.standard]
preset = "strict"
[[routes]]
name = "api"
hosts = ["api.novabank.com"]
path = "/v1"
rate_limits = ["api"]
security_headers = "standard"
backends = [{ upstream = "blue", weight = 90 }, { upstream = "green", weight = 10 }]
"#;

fn through_the_gateway(c: &mut Criterion) {
    stay_on_one_core();
    let mut group = c.benchmark_group("request");
    let runtime = runtime();
    let (blue, green) = (origin(), origin());
    let start = |name: &str, policy: &str| {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let text = format!(
            "{policy}\n[process]\nworkers = 1\n[admin]\nlisten = \"unix:admin.sock\"\n\
             [listeners.http]\nbind = [\"127.0.0.1:0\"]\n[upstreams.blue]\nservers = [\"{blue}\"]\n\
             [upstreams.green]\nservers = [\"{green}\"]\n"
        );
        let gateway = runtime.block_on(Gateway::start(parse(dir.path(), text))).expect("it starts");
        let address = runtime.block_on(gateway.addresses())[0].1;
        (name.to_owned(), address, Some((gateway, dir)))
    };
    for (name, address, _running) in
        [("straight to the origin".to_owned(), blue, None), start("gateway, bare", BARE), start("gateway, full", FULL)]
    {
        let mut client = connect(address);
        let answer = client.ask(REQUEST).to_ascii_lowercase();
        for header in ["\r\nratelimit: ", "\r\nx-frame-options: "] {
            let found = answer.windows(header.len()).any(|part| part == header.as_bytes());
            assert_eq!(found, name.ends_with("full"), "{header:?} in the answer of {name}");
        }
        group.bench_function(&name, |b| b.iter(|| client.ask(REQUEST).len()));
        group.bench_function(format!("{name}, processor time"), |b| {
            b.iter_custom(|requests| {
                let before = processor_time();
                for _ in 0..requests {
                    client.ask(REQUEST);
                }
                processor_time() - before
            });
        });
    }
    group.finish();
}

/// This thread, and all that it starts from now on.
fn stay_on_one_core() {
    let allowed = sched_getaffinity(None).expect("a process may ask for its own");
    let last = (0..CpuSet::MAX_CPU).rfind(|core| allowed.is_set(*core)).expect("it runs on one now");
    let mut one = CpuSet::new();
    one.set(last);
    sched_setaffinity(None, &one).expect("it is among those allowed");
}

fn connect(address: SocketAddr) -> Client<TcpStream> {
    let stream = TcpStream::connect(address).expect("it listens");
    stream.set_nodelay(true).expect("it is TCP");
    Client::new(stream)
}

/// What all threads of this process have used so far, in the kernel too.
fn processor_time() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().expect("it is not negative")
}

/// One payment: from the request on the socket to the signed transaction, which was reserved and stored durably. And
/// the same payment asked for again, which is answered from the ledger.
fn signed(c: &mut Criterion) {
    stay_on_one_core();
    let mut group = c.benchmark_group("signer");
    // A socket's path is short; a build's may be long.
    let dir = tempfile::tempdir().expect("a folder");
    let disk = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    keygate_signer::create_local_key(&dir.path().join("dev.key")).expect("a key");
    let uid = rustix::process::geteuid().as_raw();
    let text = format!(
        "[signer]\nlisten = \"unix:signer.sock\"\nledger = \"sqlite:{}\"\nallow_local_keys = true\n\
         [signer.keys.dev]\nlocal = {{ path = \"dev.key\" }}\n[signer.chains.polygon]\nid = 137\n\
         [signer.policies.payouts]\nchains = [\"polygon\"]\nmax_value = \"1 ether\"\ndaily_value = \"1000000 ether\"\n\
         max_fee = \"0.05 ether\"\n[signer.callers.payments]\nuid = {uid}\nkeys = [\"dev\"]\npolicy = \"payouts\"\n",
        disk.path().join("ledger.db").display()
    );
    let config = parse(dir.path(), text).config.signer.expect("it has a signer");
    let runtime = runtime();
    let signer = runtime.block_on(Signer::start(&config)).expect("it starts");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = runtime.spawn(signer.serve(async move { drop(stopped.await) }));

    let mut client = Client::new(UnixStream::connect(dir.path().join("signer.sock")).expect("it listens"));
    let mut payment = 0;
    group.bench_function("transaction, signed and stored", |b| {
        b.iter(|| {
            payment += 1;
            client.ask(&request(payment)).len()
        });
    });
    let again = request(payment);
    group.bench_function("transaction, asked for again", |b| b.iter(|| client.ask(&again).len()));
    group.finish();

    drop((client, stop));
    runtime.block_on(serving).expect("it ends");
}

fn request(payment: u64) -> Vec<u8> {
    let body = format!(
        r#"{{"chainId": 137, "type": 2, "nonce": {payment}, "to": "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
            "value": "1000000000000", "gas": 21000, "maxFeePerGas": "40000000000",
            "maxPriorityFeePerGas": "30000000000"}}"#
    );
    let head = format!(
        "POST /v1/keys/dev/transactions HTTP/1.1\r\nHost: signer\r\nContent-Type: application/json\r\n\
         Idempotency-Key: payout-{payment}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    (head + &body).into_bytes()
}

fn parse(dir: &Path, text: String) -> Loaded {
    keygate_config::parse(Source { path: dir.join("keygate.toml"), text }).expect("the file is right")
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}
