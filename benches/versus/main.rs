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
mod options;
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
use std::path::Path;
use std::process::{Command, ExitCode};

use measure::Measuring;
use options::Options;
use origin::Origin;
use peers::Peer;
use results::Results;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity, set_current_timer_slack};

fn main() -> ExitCode {
    // `cargo bench` runs all benches; this one takes long, and needs what its script installs.
    if std::env::var_os("VERSUS_NGINX").is_none() {
        eprintln!("versus: benches/versus/run measures keygate beside nginx, HAProxy and Envoy");
        return ExitCode::SUCCESS;
    }
    let Some(options) = Options::of(std::env::args().skip(1)) else { return ExitCode::SUCCESS };
    let path = Results::path(options.quick);
    let folder = path.parent().expect("it is in target");
    if options.docs {
        assert!(!options.quick, "the figures of quick runs are not for the docs");
        let results = Results::load(&path).unwrap_or_else(|| panic!("nothing was measured: {}", path.display()));
        report::write(&results, &Path::new(env!("CARGO_MANIFEST_DIR")).join("docs"));
        return ExitCode::SUCCESS;
    }
    peers::tidy();
    let core = take_places();
    let mut results = Results::load(&path).unwrap_or_default();
    results.machine = machine();
    results.date = command("date", &["-uI"]);
    for peer in &options.peers {
        let mut version = peer.version();
        if *peer == Peer::Keygate && std::env::var_os("VERSUS_KEYGATE").is_none() {
            version += &format!(" ({})", command("git", &["rev-parse", "--short", "HEAD"]));
        }
        results.versions.insert(peer.name().to_owned(), version);
        eprintln!("{} {}: {}", peer.name(), results.versions[peer.name()], peer.program().display());
    }
    let origin = Origin::start();
    for workload in &options.workloads {
        let mut measuring = Measuring { settings: &options.settings, core, origin: &origin, results: &mut results };
        measuring.workload(workload, &options.peers);
        results.save(&path);
    }
    report::write(&results, folder);
    println!("\n{}", report::markdown(&results));
    eprintln!("all figures: {}; with plots: {}", path.display(), folder.join("versus.md").display());
    let failures = report::failures(&results);
    if failures == report::NOTHING {
        return ExitCode::SUCCESS;
    }
    eprintln!("versus: not every answer was 200 and whole, or not every one is in the log:\n{failures}");
    ExitCode::FAILURE
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
    format!("{count} cores of {}, Linux {}", name.trim_start_matches(['\t', ':', ' ']), command("uname", &["-r"]))
}

fn command(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("coreutils and git");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
