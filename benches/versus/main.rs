//! keygate beside nginx, HAProxy and Envoy, each with the same job and the same features, on one core.
//!
//! The proxy has the first core to itself. Load and origin, which are this process, have the last. What is compared
//! before all is the processor time that a proxy takes for a request: requests a second depend on what the other core
//! can ask for, processor time does not. Peers take turns, window by window, so that what drifts drifts for all.
//!
//! Started by `benches/versus/run`, which installs the peers first.

mod check;
mod load;
mod measure;
mod origin;
mod peers;
mod process;
mod report;
mod results;
mod svg;
mod template;
mod workloads;

use std::fs;
use std::num::NonZeroU64;
use std::process::Command;
use std::time::Duration;

use measure::Measuring;
use origin::Origin;
use peers::Peer;
use results::Results;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity, set_current_timer_slack};

/// How long, how often, how much.
pub struct Settings {
    rounds: u32,
    warm_up: Duration,
    window: Duration,
    latency_window: Duration,
    idle: usize,
    most_keys: u64,
}

const HELP: &str = "\
benches/versus/run [--quick] [--docs] [--rounds N] [--peers A,B] [--list] [WORKLOAD...]

  --quick       windows of a second, one round: does it work? The figures mean nothing, and are kept apart
  --docs        measure nothing: write docs/versus.md and its plots from what was measured last
  --rounds N    3, if left out
  --peers A,B   of keygate, nginx, haproxy, envoy
  --list        the workloads
  WORKLOAD      by name, or the first word of it; all, if left out
";

fn main() {
    // `cargo bench` runs all benches; this one takes long, and needs what its script installs.
    if std::env::var_os("VERSUS_NGINX").is_none() {
        eprintln!("versus: benches/versus/run measures keygate beside nginx, HAProxy and Envoy");
        return;
    }
    let mut settings = Settings {
        rounds: 3,
        warm_up: Duration::from_millis(700),
        window: Duration::from_secs(4),
        latency_window: Duration::from_secs(5),
        idle: 10_000,
        most_keys: u64::MAX,
    };
    let (mut quick, mut docs, mut peers, mut wanted) = (false, false, Peer::ALL.to_vec(), Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => {
                quick = true;
                settings = Settings {
                    rounds: 1,
                    warm_up: Duration::from_millis(200),
                    window: Duration::from_secs(1),
                    latency_window: Duration::from_secs(1),
                    idle: 500,
                    most_keys: 20_000,
                };
            }
            "--docs" => docs = true,
            "--rounds" => settings.rounds = arguments.next().and_then(|n| n.parse().ok()).expect("--rounds N"),
            "--peers" => {
                let names = arguments.next().expect("--peers A,B").to_lowercase();
                peers.retain(|peer| names.split(',').any(|name| name == peer.name().to_lowercase()));
            }
            "--list" => return workloads::ALL.iter().for_each(|w| println!("{:15} {}", w.name, w.title)),
            // From cargo.
            "--bench" => {}
            name if !name.starts_with('-') => wanted.push(argument),
            _ => return print!("{HELP}"),
        }
    }
    let path = Results::path(quick);
    if docs {
        let results = Results::load(&path).unwrap_or_else(|| panic!("nothing was measured: {}", path.display()));
        return report::docs(&results);
    }
    let is_wanted = |name: &str| {
        let is_called = |wanted: &String| name.strip_prefix(wanted).is_some_and(|r| r.is_empty() || r.starts_with('-'));
        wanted.is_empty() || wanted.iter().any(is_called)
    };
    let chosen = workloads::ALL.iter().filter(|workload| is_wanted(workload.name)).collect::<Vec<_>>();
    assert!(!chosen.is_empty(), "no workload is called {wanted:?}: see --list");

    let core = take_places();
    let mut results = Results::load(&path).unwrap_or_default();
    results.machine = machine();
    results.date = command("date", "-uI");
    for peer in &peers {
        results.versions.insert(peer.name().to_owned(), peer.version());
        eprintln!("{} {}: {}", peer.name(), results.versions[peer.name()], peer.program().display());
    }
    let origin = Origin::start();
    for workload in chosen {
        Measuring { settings: &settings, core, origin: &origin, results: &mut results }.workload(workload, &peers);
        results.save(&path);
    }
    println!("\n{}", report::markdown(&results));
    eprintln!("all of it: {}", path.display());
}

/// This thread, and those it will start, on the last core, and open files as many as there may be. Answers the proxies'
/// core.
fn take_places() -> usize {
    let allowed = sched_getaffinity(None).expect("a process may ask for its own");
    let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
    let proxy = cores.next().expect("it runs on one now");
    let load = cores.next_back().expect("two cores: one for the proxy, one for load and origin");
    let mut one = CpuSet::new();
    one.set(load);
    sched_setaffinity(None, &one).expect("it is among those allowed");
    // Requests are due to the microsecond; timers are late by 50 by default.
    set_current_timer_slack(NonZeroU64::new(1)).expect("Linux");
    let files = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: files, maximum: files }).expect("up to the maximum");
    let busy = fs::read_to_string("/proc/loadavg").expect("Linux");
    let busy: f64 = busy.split(' ').next().and_then(|load| load.parse().ok()).expect("a load");
    if busy > 0.5 {
        eprintln!("versus: the load of this machine is {busy} before it has begun: figures will be noisy");
    }
    proxy
}

/// How many files a process may have open.
pub fn open_files() -> u64 {
    getrlimit(Resource::Nofile).maximum.unwrap_or(1 << 20)
}

fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").expect("Linux");
    let name = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let count = cpus.lines().filter(|line| line.starts_with("processor")).count();
    format!("{count} cores of {}, Linux {}", name.trim_start_matches(['\t', ':', ' ']), command("uname", "-r"))
}

fn command(program: &str, argument: &str) -> String {
    let output = Command::new(program).arg(argument).output().expect("coreutils");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
