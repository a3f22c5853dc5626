//! What the command line asks for.

use std::time::Duration;

use crate::peers::Peer;
use crate::workloads::{ALL, Workload};

pub struct Options {
    pub quick: bool,
    pub docs: bool,
    pub settings: Settings,
    pub peers: Vec<Peer>,
    pub workloads: Vec<&'static Workload>,
}

/// How long, how often, how much.
pub struct Settings {
    pub rounds: u32,
    pub warm_up: Duration,
    pub window: Duration,
    pub latency_window: Duration,
    pub idle: usize,
    pub most_keys: u64,
}

const FULL: Settings = Settings {
    rounds: 3,
    warm_up: Duration::from_millis(700),
    window: Duration::from_secs(4),
    latency_window: Duration::from_secs(5),
    idle: 10_000,
    most_keys: u64::MAX,
};
const QUICK: Settings = Settings {
    rounds: 1,
    warm_up: Duration::from_millis(200),
    window: Duration::from_secs(1),
    latency_window: Duration::from_secs(1),
    idle: 500,
    most_keys: 20_000,
};

const HELP: &str = "\
benches/versus/run [--quick] [--docs] [--rounds N] [--peers A,B] [--list] [WORKLOAD...]

  --quick       windows of a second, one round: does it work? The figures mean nothing, and are kept apart
  --docs        measure nothing: write docs/versus.md and its plots from what was measured last
  --rounds N    3, if left out
  --peers A,B   of keygate, nginx, haproxy, envoy
  --list        the workloads
  WORKLOAD      by name, or the first word of it; all, if left out
";

impl Options {
    /// `None` when there is nothing more to do.
    ///
    /// # Panics
    /// When there is no such peer or workload.
    pub fn of(mut arguments: impl Iterator<Item = String>) -> Option<Self> {
        let (mut quick, mut docs, mut rounds, mut peers) = (false, false, None, Peer::ALL.to_vec());
        let mut names = Vec::new();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => quick = true,
                "--docs" => docs = true,
                "--rounds" => rounds = Some(arguments.next().and_then(|n| n.parse().ok()).expect("--rounds N")),
                "--peers" => peers = named(&arguments.next().expect("--peers A,B")),
                "--list" => {
                    ALL.iter().for_each(|workload| println!("{:15} {}", workload.name, workload.title));
                    return None;
                }
                // From cargo.
                "--bench" => {}
                name if !name.starts_with('-') => names.push(argument),
                _ => {
                    print!("{HELP}");
                    return None;
                }
            }
        }
        let mut settings = if quick { QUICK } else { FULL };
        settings.rounds = rounds.unwrap_or(settings.rounds);
        Some(Self { quick, docs, settings, peers, workloads: called(&names) })
    }
}

fn named(names: &str) -> Vec<Peer> {
    let peer = |name: &str| Peer::ALL.into_iter().find(|peer| peer.name().eq_ignore_ascii_case(name));
    names.split(',').map(|name| peer(name).unwrap_or_else(|| panic!("no peer is called {name}"))).collect()
}

fn called(names: &[String]) -> Vec<&'static Workload> {
    let is_called = |workload: &Workload, name: &String| {
        workload.name.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    for name in names {
        assert!(ALL.iter().any(|workload| is_called(workload, name)), "no workload is called {name}: see --list");
    }
    ALL.iter().filter(|workload| names.is_empty() || names.iter().any(|name| is_called(workload, name))).collect()
}
