//! What was measured, as it is kept in results.json.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::peers::Peer;

#[derive(Serialize, Deserialize, Default)]
pub struct Results {
    pub machine: String,
    pub date: String,
    pub versions: BTreeMap<String, String>,
    pub runs: Vec<Run>,
    pub logs: Vec<Log>,
}

/// One window of one peer.
#[derive(Serialize, Deserialize, Clone, Default)]
pub struct Run {
    pub workload: String,
    pub peer: String,
    pub measure: Measure,
    pub round: u32,
    pub seconds: f64,
    /// Answered with 200, and whole.
    pub answered: u64,
    /// Not so.
    pub failed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_failure: Option<String>,
    /// Of the proxy, in microseconds for each request answered.
    pub cpu_user: f64,
    pub cpu_system: f64,
    /// Of one core, 1 is all of it: the proxy's, and the one of load and origin.
    pub proxy_busy: f64,
    pub load_busy: f64,
    /// Of all its processes, in bytes.
    pub resident: u64,
    pub proportional: u64,
    /// The rate asked for, and what it gave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
    /// TLS handshakes: full and resumed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handshakes: Option<[u64; 2]>,
    /// Bytes for each idle connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub each_idle: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reload: Option<Reload>,
    /// System calls for each request, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub syscalls: BTreeMap<String, f64>,
}

#[derive(Serialize, Deserialize, Clone, Copy, Default, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// As many requests as it takes.
    #[default]
    Saturated,
    /// A fixed rate below that.
    FixedRate,
    Idle,
    Reload,
    Syscalls,
}

/// In microseconds.
#[derive(Serialize, Deserialize, Clone, Copy, Default)]
pub struct Latency {
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

#[derive(Serialize, Deserialize, Clone, Copy)]
pub struct Reload {
    /// From when it is told to the first answer under the new configuration, in milliseconds.
    pub milliseconds: f64,
    /// Of the load, before and from then on.
    pub before: Latency,
    pub after: Latency,
}

/// Whether the access log has what was asked.
#[derive(Serialize, Deserialize)]
pub struct Log {
    pub workload: String,
    pub peer: String,
    pub requests: u64,
    pub lines: u64,
}

impl Latency {
    pub fn of(mut latencies: Vec<Duration>) -> Self {
        latencies.sort_unstable();
        let micros = |share: f64| {
            let place = ((latencies.len() as f64 * share).ceil() as usize).clamp(1, latencies.len().max(1)) - 1;
            latencies.get(place).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e6)
        };
        Self { p50: micros(0.5), p99: micros(0.99), p999: micros(0.999), max: micros(1.0) }
    }
}

impl Run {
    pub fn cpu(&self) -> f64 {
        self.cpu_user + self.cpu_system
    }

    pub fn requests_per_second(&self) -> f64 {
        self.answered as f64 / self.seconds
    }
}

impl Results {
    /// Where they are kept: those of quick runs are not mixed with the others.
    pub fn path(quick: bool) -> PathBuf {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("versus");
        target.join(if quick { "quick.json" } else { "results.json" })
    }

    pub fn load(path: &Path) -> Option<Self> {
        serde_json::from_str(&fs::read_to_string(path).ok()?).ok()
    }

    pub fn save(&self, path: &Path) {
        fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder in target");
        fs::write(path, serde_json::to_string_pretty(self).expect("JSON")).expect("a file in target");
    }

    /// Takes out what an earlier run found for a workload and these peers.
    pub fn forget(&mut self, workload: &str, peers: &[Peer]) {
        let stays = |name: &str, peer: &str| name != workload || peers.iter().all(|other| other.name() != peer);
        self.runs.retain(|run| stays(&run.workload, &run.peer));
        self.logs.retain(|log| stays(&log.workload, &log.peer));
    }

    pub fn of<'a>(&'a self, workload: &'a str, peer: &'a str, measure: Measure) -> impl Iterator<Item = &'a Run> {
        self.runs.iter().filter(move |run| run.workload == workload && run.peer == peer && run.measure == measure)
    }

    /// The middle one, and the least and greatest, over the rounds. `None` without any.
    pub fn middle(
        &self,
        workload: &str,
        peer: &str,
        measure: Measure,
        what: impl Fn(&Run) -> Option<f64>,
    ) -> Option<Middle> {
        let mut values: Vec<f64> = self.of(workload, peer, measure).filter_map(what).collect();
        values.sort_by(f64::total_cmp);
        let last = values.len().checked_sub(1)?;
        Some(Middle {
            middle: (values[last / 2] + values[last.div_ceil(2)]) / 2.0,
            least: values[0],
            most: values[last],
        })
    }
}

#[derive(Clone, Copy)]
pub struct Middle {
    pub middle: f64,
    pub least: f64,
    pub most: f64,
}
