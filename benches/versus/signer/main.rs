//! keygate's signer beside what people use instead: ethers with the AWS SDK in Node, and alloy-signer-aws.
//!
//! All three are servers on a Unix socket that take the same request, a payment, and have the same KMS stub sign it.
//! keygate does more: it judges, and writes down durably, twice, before it answers. They take turns, window by window,
//! with all cores for everybody. Every answer is looked at when its window is over: it must decode, be the payment that
//! was asked for, and have the key's address as its sender.
//!
//! Started by `benches/versus/signer/run`, which installs and builds the others first.

mod check;
mod connection;
mod load;
mod peers;
#[path = "../process.rs"]
#[allow(dead_code, reason = "what the gateway's comparison uses")]
mod process;

use std::process::ExitCode;
use std::time::Duration;

use load::{Load, Window};
use peers::{Kms, Peer, Running};

/// What is asked of each, and what for.
struct Workload {
    name: &'static str,
    title: &'static str,
    /// What KMS takes for a signature, in milliseconds.
    kms: u64,
    load: Load,
}

/// So many ask at once, where nobody counts the requests a second.
const AT_ONCE: usize = 64;

const WORKLOADS: [Workload; 4] = [
    Workload { name: "one", title: "as many as it can, one at a time, KMS at once", kms: 0, load: Load::Closed(1) },
    Workload {
        name: "many",
        title: "as many as it can, 64 at a time, KMS at once",
        kms: 0,
        load: Load::Closed(AT_ONCE),
    },
    Workload { name: "500", title: "500 a second, KMS at once", kms: 0, load: Load::Open(500) },
    Workload { name: "1000", title: "1,000 a second, KMS takes 20 ms", kms: 20, load: Load::Open(1000) },
];

struct Options {
    rounds: u32,
    warm_up: Duration,
    window: Duration,
    peers: Vec<Peer>,
    /// Names of workloads; none are all.
    workloads: Vec<String>,
}

const HELP: &str = "\
benches/versus/signer/run [--quick] [--rounds N] [--seconds N] [--peers A,B] [WORKLOAD...]

  --quick       windows of a second, one round: does it work? The figures mean nothing
  --rounds N    3, if left out
  --seconds N   of a window; 5, if left out
  --peers A,B   of keygate, alloy, node, kms
  WORKLOAD      of one, many, 500, 1000; all, if left out
";

impl Options {
    fn of(mut arguments: impl Iterator<Item = String>) -> Option<Self> {
        let second = Duration::from_secs(1);
        let mut options =
            Self { rounds: 3, warm_up: second, window: 5 * second, peers: Peer::ALL.to_vec(), workloads: Vec::new() };
        while let Some(argument) = arguments.next() {
            let mut number = || arguments.next().and_then(|n| n.parse().ok()).expect("a number");
            match argument.as_str() {
                "--quick" => (options.rounds, options.warm_up, options.window) = (1, second / 5, second),
                "--rounds" => options.rounds = number(),
                "--seconds" => options.window = number() * second,
                "--peers" => options.peers = Peer::named(&arguments.next().expect("--peers A,B")),
                // From cargo.
                "--bench" => {}
                name if WORKLOADS.iter().any(|workload| workload.name == name) => options.workloads.push(argument),
                _ => {
                    print!("{HELP}");
                    return None;
                }
            }
        }
        Some(options)
    }
}

fn main() -> ExitCode {
    // `cargo bench` runs all benches; this one takes long, and needs what its script installs.
    if std::env::var_os("VERSUS_KMS_STUB").is_none() {
        eprintln!("versus-signer: benches/versus/signer/run measures keygate's signer beside others");
        return ExitCode::SUCCESS;
    }
    let Some(options) = Options::of(std::env::args().skip(1)) else { return ExitCode::SUCCESS };
    let kms = Kms::start();
    let peers: Vec<Running> = options.peers.iter().map(|peer| Running::start(*peer, &kms)).collect();
    // Requests are due to the microsecond; timers are late by 50 by default. Only ours: those who sign are started.
    rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1)).expect("Linux");
    let mut failures = 0;
    let wanted = |name: &str| options.workloads.is_empty() || options.workloads.iter().any(|wanted| wanted == name);
    for workload in WORKLOADS.iter().filter(|workload| wanted(workload.name)) {
        let mut windows: Vec<Vec<Measured>> = peers.iter().map(|_| Vec::new()).collect();
        kms.latency(workload.kms);
        for round in 1..=options.rounds {
            for (peer, windows) in peers.iter().zip(&mut windows) {
                load::run(peer, &kms, &workload.load, options.warm_up);
                let before = (peer.cpu(), kms.cpu());
                let window = load::run(peer, &kms, &workload.load, options.window);
                let cpu = (peer.cpu() - before.0, kms.cpu() - before.1);
                let wrong = check::wrong(peer, &kms, &window);
                let (answers, not_asked) = (window.answers.len(), window.given_up.len());
                let (title, who) = (workload.title, peer.peer.title());
                eprintln!("{title}, round {round}: {who}: {answers} answers, {wrong} wrong, {not_asked} given up");
                failures += wrong;
                windows.push(Measured::of(&window, cpu, workload.kms));
            }
        }
        print_table(workload, &peers, &windows);
    }
    if failures == 0 {
        println!("\nEvery answer was right.");
        return ExitCode::SUCCESS;
    }
    println!("\n{failures} answers were wrong.");
    ExitCode::FAILURE
}

/// What a window tells. Times are in milliseconds, processor time in microseconds an answer.
struct Measured {
    rate: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    worst: f64,
    cpu: f64,
    kms_cpu: f64,
    /// Most at once that were due and not answered, in each third of the window.
    in_flight: [usize; 3],
}

impl Measured {
    fn of(window: &Window, cpu: (Duration, Duration), kms: u64) -> Self {
        let mut waits: Vec<Duration> = window.answers.iter().map(|answer| answer.done - answer.due).collect();
        waits.sort_unstable();
        let wait = |share: f64| {
            let at = ((waits.len() as f64 * share) as usize).min(waits.len().saturating_sub(1));
            waits.get(at).map_or(f64::NAN, |wait| wait.as_secs_f64() * 1e3 - kms as f64)
        };
        let each = |time: Duration| time.as_secs_f64() * 1e6 / waits.len() as f64;
        Self {
            rate: window.rate(),
            p50: wait(0.5),
            p90: wait(0.9),
            p99: wait(0.99),
            worst: wait(1.0),
            cpu: each(cpu.0),
            kms_cpu: each(cpu.1),
            in_flight: window.in_flight(),
        }
    }
}

/// Of each figure, the middle one of the rounds.
fn print_table(workload: &Workload, peers: &[Running], windows: &[Vec<Measured>]) {
    println!("\n### {}\n", workload.title);
    println!(
        "| | signatures a second | p50, ms | p90, ms | p99, ms | worst, ms | its processor time, µs | the stub's, µs | most in flight, by thirds |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for (peer, windows) in peers.iter().zip(windows) {
        let middle = |figure: fn(&Measured) -> f64| {
            let mut figures: Vec<f64> = windows.iter().map(figure).collect();
            figures.sort_by(f64::total_cmp);
            figures[figures.len() / 2]
        };
        println!(
            "| {} | {:.0} | {:.2} | {:.2} | {:.2} | {:.2} | {:.0} | {:.0} | {:.0}, {:.0}, {:.0} |",
            peer.peer.title(),
            middle(|w| w.rate),
            middle(|w| w.p50),
            middle(|w| w.p90),
            middle(|w| w.p99),
            middle(|w| w.worst),
            middle(|w| w.cpu),
            middle(|w| w.kms_cpu),
            middle(|w| w.in_flight[0] as f64),
            middle(|w| w.in_flight[1] as f64),
            middle(|w| w.in_flight[2] as f64),
        );
    }
    if workload.kms > 0 {
        println!("\nTimes are what comes on top of the {} ms that KMS takes.", workload.kms);
    }
}
