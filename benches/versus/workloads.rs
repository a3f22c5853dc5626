//! What the peers are asked to do.

use rustls::version::{TLS12, TLS13};

use crate::load::{Job, Keys, Random, Target, tls};
use crate::origin::SMALL;
use crate::peers::{Edge, Running};

pub struct Workload {
    pub name: &'static str,
    pub title: &'static str,
    pub kind: Kind,
}

#[derive(Clone, Copy)]
pub enum Kind {
    /// As much as it takes, then a fixed rate.
    Requests { http: Http, answer: usize, body: usize },
    /// A connection for each request.
    Handshakes { tls13: bool, resume: bool },
    /// Connections that have asked once, and are kept.
    Idle,
    /// So many routes, all of them asked for.
    Routes(usize),
    /// So many clients by key, each with a limit of its own.
    Keys(u64),
    /// What is asked of the kernel, counted by strace: slower by far, and timed by nobody.
    Syscalls,
    /// So many routes read again under load.
    Reload(usize),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Http {
    Plain,
    Tls,
    Two,
}

const fn requests(name: &'static str, title: &'static str, http: Http, answer: usize, body: usize) -> Workload {
    Workload { name, title, kind: Kind::Requests { http, answer, body } }
}

const fn other(name: &'static str, title: &'static str, kind: Kind) -> Workload {
    Workload { name, title, kind }
}

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

pub const ALL: &[Workload] = &[
    requests("http", "small GET, HTTP/1.1", Http::Plain, SMALL, 0),
    requests("https", "small GET, HTTP/1.1 over TLS", Http::Tls, SMALL, 0),
    requests("h2", "small GET, HTTP/2", Http::Two, SMALL, 0),
    requests("get-16k", "GET of 16 KiB", Http::Plain, 16 * KIB, 0),
    requests("get-1m", "GET of 1 MiB", Http::Plain, MIB, 0),
    requests("post-4k", "POST of 4 KiB", Http::Plain, SMALL, 4 * KIB),
    requests("post-1m", "POST of 1 MiB", Http::Plain, SMALL, MIB),
    other("tls13-full", "TLS 1.3, full handshake", Kind::Handshakes { tls13: true, resume: false }),
    other("tls13-resumed", "TLS 1.3, resumed", Kind::Handshakes { tls13: true, resume: true }),
    other("tls12-full", "TLS 1.2, full handshake", Kind::Handshakes { tls13: false, resume: false }),
    other("tls12-resumed", "TLS 1.2, resumed", Kind::Handshakes { tls13: false, resume: true }),
    other("syscalls", "system calls of a small GET, HTTP/1.1", Kind::Syscalls),
    other("idle", "idle TLS connections", Kind::Idle),
    other("routes-10", "10", Kind::Routes(10)),
    other("routes-1000", "1,000", Kind::Routes(1000)),
    other("routes-10000", "10,000", Kind::Routes(10_000)),
    other("keys-1", "1", Kind::Keys(1)),
    other("keys-1000", "1,000", Kind::Keys(1000)),
    other("keys-1000000", "1,000,000", Kind::Keys(1_000_000)),
    other("reload", "reload of 10,000 routes", Kind::Reload(10_000)),
];

impl Workload {
    /// How the peers are set up for it.
    pub fn edge(&self) -> Edge {
        match self.kind {
            Kind::Routes(routes) | Kind::Reload(routes) => Edge::with_routes(routes),
            Kind::Keys(_) => Edge { limits_by_key: true, ..Edge::with_routes(1) },
            _ => Edge::with_routes(1),
        }
    }

    pub fn job(&self) -> Job {
        let edge = self.edge();
        let (answer_len, body) = match self.kind {
            Kind::Requests { answer, body, .. } => (answer, body),
            _ => (SMALL, 0),
        };
        let rest = if answer_len == SMALL { "v1/accounts/42".to_owned() } else { format!("v1/files/b{answer_len}") };
        Job {
            paths: edge.paths.iter().map(|path| format!("{}/{rest}", path.trim_end_matches('/'))).collect(),
            hosts: edge.hosts,
            keys: Keys::None,
            // Once a workload, and used to the end.
            body: Box::leak(vec![b'x'; body].into_boxed_slice()),
            answer_len,
            random: Random::default(),
        }
    }

    /// How this peer is asked, and over how many connections.
    pub fn target(&self, running: &Running) -> (Target, usize) {
        let plain = Target { address: running.http, tls: None, streams: 1, one_request_each: false };
        let secure = |tls| Target { address: running.https, tls: Some(tls), ..plain.clone() };
        match self.kind {
            Kind::Requests { http: Http::Tls, .. } => (secure(tls::config(&TLS13, false, false)), 64),
            Kind::Requests { http: Http::Two, .. } => {
                (Target { streams: 8, ..secure(tls::config(&TLS13, true, false)) }, 16)
            }
            Kind::Requests { answer, body, .. } => (plain, if answer.max(body) >= MIB { 8 } else { 64 }),
            // As many as a client keeps tickets for at a time: with more, some would have none.
            Kind::Handshakes { tls13, resume } => {
                let version = if tls13 { &TLS13 } else { &TLS12 };
                (Target { one_request_each: true, ..secure(tls::config(version, false, resume)) }, 8)
            }
            Kind::Idle => (secure(tls::config(&TLS13, false, false)), 0),
            _ => (plain, 64),
        }
    }
}
