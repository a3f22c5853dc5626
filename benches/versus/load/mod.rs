//! The load: clients on one thread, over epoll, with as little cost of their own as can be.
//!
//! It runs in one of two ways. *Closed*: each connection asks again as soon as it is answered, which finds out how much
//! a proxy can take. *At a rate*: requests are due at times drawn beforehand, like those of many strangers who do not
//! wait for each other, and latency counts from when a request was due, not from when a connection was free for it;
//! else a proxy that stalls would be forgiven for all the requests that it kept from being sent.
//!
//! Of every answer the status and the length are checked.

mod connection;
mod http1;
mod http2;
mod job;
pub mod tls;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use connection::Connection;
pub use job::{Job, Keys, Random};
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustls::ClientConfig;

/// Whom to ask, and how.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    pub tls: Option<Arc<ClientConfig>>,
    /// Requests a connection may have under way: 1 speaks HTTP/1.1, more HTTP/2.
    pub streams: usize,
    /// A connection of its own for each request.
    pub one_request_each: bool,
}

#[derive(Clone, Copy)]
pub enum Pace {
    /// Each connection asks again when it is answered.
    Closed,
    /// So many requests a second, at random times.
    Rate(f64),
    /// One request on each connection.
    Once,
}

/// What came of a run.
#[derive(Default)]
pub struct Outcome {
    /// Answers that were 200 and complete.
    pub answered: u64,
    /// Requests on connections that ended before the answer.
    pub lost: u64,
    /// Answers that were wrong, and what was wrong with the first.
    pub wrong: u64,
    pub first_wrong: Option<String>,
    /// Of each answer that was right: when the request was due, since the beginning, and how long it then took.
    pub latencies: Vec<(Duration, Duration)>,
    /// TLS handshakes: full, and of sessions resumed.
    pub handshakes: [u64; 2],
}

/// Connections to one target.
pub struct Client {
    target: Target,
    job: Job,
    poll: rustix::fd::OwnedFd,
    connections: Vec<Connection>,
    /// Those that can take a request, each once.
    free: VecDeque<usize>,
}

/// Answers under way at the end may take so long.
const PATIENCE: Duration = Duration::from_secs(20);

impl Client {
    pub fn connect(target: Target, job: Job, connections: usize) -> io::Result<Self> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let open = |place| {
            let connection = Connection::open(&target)?;
            epoll::add(&poll, connection.socket(), EventData::new_u64(place), EventFlags::IN)?;
            Ok(connection)
        };
        let connections = (0..connections as u64).map(open).collect::<io::Result<Vec<_>>>()?;
        let free = (0..connections.len()).collect();
        Ok(Self { target, job, poll, connections, free })
    }

    /// Asks for `time`, and then waits for what is still under way.
    pub fn run(&mut self, pace: Pace, time: Duration) -> Outcome {
        let mut run = Run { begin: Instant::now(), outcome: Outcome::default() };
        let mut due = VecDeque::new();
        let mut next = Duration::ZERO;
        let mut in_flight = 0;
        let mut once = matches!(pace, Pace::Once).then_some(self.free.len());
        let mut events = Vec::with_capacity(512);
        let mut buffer = vec![0; 256 << 10];
        loop {
            let now = run.begin.elapsed();
            if let Pace::Rate(rate) = pace {
                while next <= now && next < time {
                    due.push_back(next);
                    next += Duration::from_secs_f64(self.job.random.exponential() / rate);
                }
            }
            loop {
                let scheduled = match pace {
                    Pace::Closed if now < time => now,
                    Pace::Once if once.is_some_and(|left| left > 0) => now,
                    Pace::Rate(_) if !due.is_empty() => due[0],
                    _ => break,
                };
                let Some(place) = self.free.pop_front() else { break };
                due.pop_front();
                once = once.map(|left| left - 1);
                in_flight += 1;
                self.connections[place].ask(&mut self.job, scheduled);
                in_flight -= self.after(place, &mut run);
            }
            let over = match pace {
                Pace::Closed => now >= time,
                Pace::Rate(_) => next >= time && due.is_empty(),
                Pace::Once => once == Some(0),
            };
            if over && in_flight == 0 {
                break;
            }
            if now > time + PATIENCE {
                run.outcome.lost += in_flight + due.len() as u64;
                run.outcome.first_wrong.get_or_insert(format!("no answer within {PATIENCE:?}"));
                for place in 0..self.connections.len() {
                    if self.connections[place].in_flight() > 0 {
                        self.reopen(place);
                    }
                }
                break;
            }
            let until = if matches!(pace, Pace::Rate(_)) && next < time { next } else { now + PATIENCE / 4 };
            let wait = until.saturating_sub(run.begin.elapsed());
            let wait = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
            events.clear();
            let _ = epoll::wait(&self.poll, rustix::buffer::spare_capacity(&mut events), Some(&wait));
            for event in &events {
                let place = usize::try_from(event.data.u64()).expect("ours");
                self.connections[place].go_on(&mut buffer);
                in_flight -= self.after(place, &mut run);
            }
        }
        run.outcome
    }

    /// Books what came of a connection's going on, and sees to it that it can go on. Answers how many requests are no
    /// longer under way.
    fn after(&mut self, place: usize, run: &mut Run) -> u64 {
        let connection = &mut self.connections[place];
        let now = run.begin.elapsed();
        let outcome = &mut run.outcome;
        let mut ended = 0;
        for (scheduled, answer) in connection.answers.drain(..) {
            ended += 1;
            match answer {
                Ok(len) if len == self.job.answer_len => {
                    outcome.answered += 1;
                    outcome.latencies.push((scheduled, now.saturating_sub(scheduled)));
                }
                Ok(len) => outcome.is_wrong(format!("{len} bytes, not {}", self.job.answer_len)),
                Err(wrong) => outcome.is_wrong(wrong),
            }
        }
        if let Some(resumed) = connection.new_handshake.take() {
            outcome.handshakes[usize::from(resumed)] += 1;
        }
        if connection.is_over() {
            let lost = connection.in_flight() as u64;
            outcome.lost += lost;
            ended += lost;
            if let Some(why) = connection.broken.take() {
                outcome.first_wrong.get_or_insert(why);
            }
            self.reopen(place);
        } else if let Some(flags) = connection.new_interest() {
            let data = EventData::new_u64(place as u64);
            epoll::modify(&self.poll, connection.socket(), data, flags).expect("a socket");
        }
        self.is_free(place);
        ended
    }

    /// Puts another connection in one's place.
    fn reopen(&mut self, place: usize) {
        let connection = &mut self.connections[place];
        let is_free = connection.is_free;
        *connection = Connection::open(&self.target).expect("it listens");
        connection.is_free = is_free;
        let data = EventData::new_u64(place as u64);
        epoll::add(&self.poll, connection.socket(), data, EventFlags::IN).expect("a socket");
        self.is_free(place);
    }

    /// Puts a connection on the list of those that can take a request, if it can.
    fn is_free(&mut self, place: usize) {
        let connection = &mut self.connections[place];
        if connection.has_room() && !connection.is_free {
            connection.is_free = true;
            self.free.push_back(place);
        }
    }
}

struct Run {
    begin: Instant,
    outcome: Outcome,
}

impl Outcome {
    fn is_wrong(&mut self, what: String) {
        self.wrong += 1;
        self.first_wrong.get_or_insert(what);
    }

    /// Requests that were not answered rightly.
    pub fn failures(&self) -> u64 {
        self.lost + self.wrong
    }
}
