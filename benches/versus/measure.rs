//! Measures one workload: all peers, in turn, round after round.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::check;
use crate::load::{Client, Job, Keys, Outcome, Pace};
use crate::options::Settings;
use crate::origin::Origin;
use crate::peers::{Edge, Peer, Running};
use crate::process::CpuTime;
use crate::results::{Latency, Log, Measure, Reload, Results, Run};
use crate::workloads::{Kind, Workload};

/// The fixed rate, of what the slowest peer can take.
const SHARE: f64 = 0.6;
/// Requests a second during a reload.
const RELOAD_RATE: f64 = 2000.0;
/// How often a new connection looks whether the new configuration is in force.
const PROBE: Duration = Duration::from_millis(2);

pub struct Measuring<'a> {
    pub settings: &'a Settings,
    /// The proxies'.
    pub core: usize,
    pub origin: &'a Origin,
    pub results: &'a mut Results,
}

/// A peer under one workload.
struct Fleet {
    peers: Vec<Running>,
    /// Requests that each was sent, and which its log must have.
    sent: Vec<u64>,
}

impl Measuring<'_> {
    pub fn workload(&mut self, workload: &Workload, peers: &[Peer]) {
        eprintln!("\n{}: {}", workload.name, workload.title);
        self.results.forget(workload.name, peers);
        let edge = workload.edge();
        let start = |peer: &Peer| Running::start(*peer, self.core, self.origin.ports, &edge);
        let peers: Vec<Running> = peers.iter().map(start).collect();
        for running in &peers {
            check::same_job(running, &edge);
        }
        let sent = vec![2; peers.len()];
        let mut fleet = Fleet { peers, sent };
        match workload.kind {
            Kind::Requests { .. } => {
                self.rounds(workload, &mut fleet, Measure::Saturated, None);
                let slowest = fleet.peers.iter().filter_map(|running| {
                    self.results.middle(workload.name, running.peer.name(), Measure::Saturated, |run| {
                        Some(run.requests_per_second())
                    })
                });
                let slowest = slowest.map(|rate| rate.middle).fold(f64::INFINITY, f64::min);
                self.rounds(workload, &mut fleet, Measure::FixedRate, Some((slowest * SHARE).round()));
            }
            Kind::Handshakes { .. } | Kind::Routes(_) => {
                self.rounds(workload, &mut fleet, Measure::Saturated, None);
            }
            Kind::Keys(keys) => self.keys(workload, &mut fleet, keys.min(self.settings.most_keys)),
            Kind::Idle => self.idle(workload, &mut fleet),
            Kind::Syscalls => self.syscalls(workload, &mut fleet),
            Kind::Reload(_) => self.reload(workload, &mut fleet, &edge),
        }
        self.logs(workload, &fleet);
    }

    fn rounds(&mut self, workload: &Workload, fleet: &mut Fleet, measure: Measure, rate: Option<f64>) {
        let job = workload.job();
        for round in 0..self.settings.rounds {
            for place in 0..fleet.peers.len() {
                self.window(workload, fleet, place, round, measure, rate, job.clone());
            }
        }
    }

    /// Warms up, then measures.
    #[expect(clippy::too_many_arguments, reason = "all of it is what a window is")]
    fn window(
        &mut self,
        workload: &Workload,
        fleet: &mut Fleet,
        place: usize,
        round: u32,
        measure: Measure,
        rate: Option<f64>,
        job: Job,
    ) {
        let running = &fleet.peers[place];
        let (target, connections) = workload.target(running);
        let mut client = Client::connect(target, job, connections).expect("it listens");
        let pace = rate.map_or(Pace::Closed, Pace::Rate);
        let warm = client.run(pace, self.settings.warm_up);
        let window = if rate.is_some() { self.settings.latency_window } else { self.settings.window };
        let split = self.origin.answered();
        let used = Used::now(running);
        let outcome = client.run(pace, window);
        let mut run = used.until_now(running, &outcome);
        let now = self.origin.answered();
        // With many routes, each has too few requests for its own split to show.
        if !matches!(workload.kind, Kind::Routes(_)) {
            let split = check::split(running.peer.name(), [now[0] - split[0], now[1] - split[1]]);
            run.first_failure = run.first_failure.or(split.err());
        }
        run.round = round;
        run.measure = measure;
        run.rate = rate;
        run.latency = rate.map(|_| Latency::of(outcome.latencies.iter().map(|(_, took)| *took).collect()));
        run.handshakes = matches!(workload.kind, Kind::Handshakes { .. }).then_some(outcome.handshakes);
        fleet.sent[place] += warm.answered + outcome.answered;
        self.add(workload, run);
    }

    /// First each key once, so that all are known; then any of them.
    fn keys(&mut self, workload: &Workload, fleet: &mut Fleet, keys: u64) {
        for place in 0..fleet.peers.len() {
            let (target, connections) = workload.target(&fleet.peers[place]);
            let job = Job { keys: Keys::InTurn { next: 0, of: keys }, ..workload.job() };
            let mut client = Client::connect(target, job, connections).expect("it listens");
            let mut known = 0;
            while known < keys {
                let outcome = client.run(Pace::Closed, Duration::from_millis(if keys > 1000 { 1000 } else { 200 }));
                assert_eq!(outcome.failures(), 0, "{:?}", outcome.first_wrong);
                known += outcome.answered;
            }
            fleet.sent[place] += known;
        }
        let job = Job { keys: Keys::Any { of: keys }, ..workload.job() };
        for round in 0..self.settings.rounds {
            for place in 0..fleet.peers.len() {
                self.window(workload, fleet, place, round, Measure::Saturated, None, job.clone());
            }
        }
    }

    /// Memory before and after, by the connections between.
    fn idle(&mut self, workload: &Workload, fleet: &mut Fleet) {
        for (running, sent) in fleet.peers.iter().zip(&mut fleet.sent) {
            let (target, _) = workload.target(running);
            // The first connections make room that the others share.
            let mut client = Client::connect(target.clone(), workload.job(), 64).expect("it listens");
            *sent += client.run(Pace::Closed, self.settings.warm_up).answered;
            drop(client);
            std::thread::sleep(Duration::from_secs(1));
            let before = running.process.memory().proportional;
            let used = Used::now(running);
            let mut idle = Vec::new();
            let mut outcome = Outcome::default();
            for _ in 0..self.settings.idle / 100 {
                let mut client = Client::connect(target.clone(), workload.job(), 100).expect("it listens");
                let part = client.run(Pace::Once, Duration::ZERO);
                idle.push(client);
                outcome.answered += part.answered;
                outcome.lost += part.lost;
                outcome.wrong += part.wrong;
                outcome.first_wrong = outcome.first_wrong.or(part.first_wrong);
            }
            std::thread::sleep(Duration::from_secs(1));
            let mut run = used.until_now(running, &outcome);
            run.measure = Measure::Idle;
            run.each_idle = Some(run.proportional.saturating_sub(before) as f64 / outcome.answered.max(1) as f64);
            *sent += outcome.answered;
            self.add(workload, run);
        }
    }

    /// What is asked of the kernel for a request.
    fn syscalls(&mut self, workload: &Workload, fleet: &mut Fleet) {
        for (running, sent) in fleet.peers.iter().zip(&mut fleet.sent) {
            let (target, connections) = workload.target(running);
            let mut client = Client::connect(target, workload.job(), connections).expect("it listens");
            *sent += client.run(Pace::Closed, self.settings.warm_up).answered;
            let used = Used::now(running);
            let window = self.settings.window;
            let counted = running.process.count_syscalls(|| client.run(Pace::Closed, window));
            let Some((calls, outcome)) = counted else {
                eprintln!("  {}: not counted, for want of strace", running.peer.name());
                continue;
            };
            let mut run = used.until_now(running, &outcome);
            run.measure = Measure::Syscalls;
            let each = |(name, calls): (String, u64)| (name, calls as f64 / outcome.answered.max(1) as f64);
            run.syscalls = calls.into_iter().map(each).collect();
            *sent += outcome.answered;
            self.add(workload, run);
        }
    }

    /// A new configuration with as many routes, while requests go on at a rate.
    fn reload(&mut self, workload: &Workload, fleet: &mut Fleet, edge: &Edge) {
        let mut edge = edge.clone();
        for round in 0..self.settings.rounds {
            edge.frame_options = if edge.frame_options == "DENY" { "SAMEORIGIN" } else { "DENY" };
            for (running, sent) in fleet.peers.iter().zip(&mut fleet.sent) {
                running.prepare(&edge);
                let (target, connections) = workload.target(running);
                let mut client = Client::connect(target, workload.job(), connections).expect("it listens");
                *sent += client.run(Pace::Rate(RELOAD_RATE), self.settings.warm_up).answered;
                let (before, all) = (self.settings.latency_window / 2, self.settings.latency_window * 2);
                let used = Used::now(running);
                let begin = Instant::now();
                let (tell, told) = mpsc::channel();
                let edge = &edge;
                let outcome = std::thread::scope(|scope| {
                    scope.spawn(move || {
                        std::thread::sleep(before);
                        let start = begin.elapsed();
                        running.reload();
                        let probes = in_force(running, edge);
                        tell.send((start, begin.elapsed(), probes)).expect("it waits");
                    });
                    client.run(Pace::Rate(RELOAD_RATE), all)
                });
                let (start, end, probes) = told.recv().expect("the thread above");
                let of = |is_before: bool| {
                    let due = |due: &Duration| (*due < start) == is_before;
                    let part = outcome.latencies.iter().filter(|(scheduled, _)| due(scheduled));
                    Latency::of(part.map(|(_, took)| *took).collect())
                };
                let mut run = used.until_now(running, &outcome);
                run.measure = Measure::Reload;
                run.round = round;
                run.rate = Some(RELOAD_RATE);
                run.reload = Some(Reload {
                    milliseconds: (end - start).as_secs_f64() * 1e3,
                    before: of(true),
                    after: of(false),
                });
                *sent += outcome.answered + probes;
                self.add(workload, run);
            }
        }
    }

    fn add(&mut self, workload: &Workload, mut run: Run) {
        run.workload = workload.name.to_owned();
        eprintln!("  {}", crate::report::line(&run));
        self.results.runs.push(run);
    }

    /// Counts the lines of the access logs: all are on, and drop nothing.
    fn logs(&mut self, workload: &Workload, fleet: &Fleet) {
        // All write what they have at least once a second.
        std::thread::sleep(Duration::from_millis(1300));
        for (running, requests) in fleet.peers.iter().zip(&fleet.sent) {
            let lines = lines(&running.access_log());
            if lines < *requests {
                eprintln!("  {}: {lines} lines in the access log for {requests} requests", running.peer.name());
            }
            let (workload, peer) = (workload.name.to_owned(), running.peer.name().to_owned());
            self.results.logs.push(Log { workload, peer, requests: *requests, lines });
        }
    }
}

/// Waits until answers are under the new configuration. Answers how many it took.
fn in_force(running: &Running, edge: &Edge) -> u64 {
    let deadline = Instant::now() + Duration::from_secs(30);
    for probes in 1.. {
        let stream = std::net::TcpStream::connect(running.http).expect("it listens");
        let answer = check::get(stream, &edge.hosts[0], &edge.paths[0]).unwrap_or_default();
        if check::header(&answer, "x-frame-options") == Some(edge.frame_options) {
            return probes;
        }
        assert!(Instant::now() < deadline, "{} has not reloaded: {answer}", running.peer.name());
        std::thread::sleep(PROBE);
    }
    unreachable!("it counts for ever")
}

fn lines(path: &std::path::Path) -> u64 {
    let mut file = std::fs::File::open(path).expect("the access log");
    let mut buffer = vec![0; 1 << 20];
    let mut lines = 0;
    while let Ok(read @ 1..) = std::io::Read::read(&mut file, &mut buffer) {
        lines += buffer[..read].iter().filter(|byte| **byte == b'\n').count() as u64;
    }
    lines
}

/// What had been used of both cores when a window began.
struct Used {
    begin: Instant,
    proxy: CpuTime,
    load: Duration,
}

impl Used {
    fn now(running: &Running) -> Self {
        Self { proxy: running.process.cpu(), load: own_cpu(), begin: Instant::now() }
    }

    fn until_now(&self, running: &Running, outcome: &Outcome) -> Run {
        let elapsed = self.begin.elapsed().as_secs_f64();
        let load = (own_cpu() - self.load).as_secs_f64();
        let proxy = running.process.cpu().since(self.proxy);
        let memory = running.process.memory();
        let per_request = |time: Duration| time.as_secs_f64() * 1e6 / outcome.answered.max(1) as f64;
        Run {
            peer: running.peer.name().to_owned(),
            seconds: elapsed,
            answered: outcome.answered,
            failed: outcome.failures(),
            first_failure: outcome.first_wrong.clone(),
            cpu_user: per_request(proxy.user),
            cpu_system: per_request(proxy.system),
            proxy_busy: proxy.total().as_secs_f64() / elapsed,
            load_busy: load / elapsed,
            resident: memory.resident,
            proportional: memory.proportional,
            ..Run::default()
        }
    }
}

/// Of load and origin.
fn own_cpu() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().expect("it is not negative")
}
