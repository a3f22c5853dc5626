//! Those who ask: a thread and a connection each, and what they waited for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::connection::Connection;
use crate::peers::{Kms, Running};

/// When requests are made.
pub enum Load {
    /// So many at once, each when the one before it is answered.
    Closed(usize),
    /// So many a second, whatever becomes of those before.
    Open(u64),
}

/// So many connections share what is due each second: with KMS at 20 ms, 1,000 a second take 20 of them.
const CONNECTIONS: usize = 256;
/// What is not asked for when a window is over by this much is not asked for any more.
const GRACE: Duration = Duration::from_secs(2);

/// What came of a request.
pub struct Answer {
    /// From the start of the window.
    pub due: Duration,
    pub done: Duration,
    /// The payment's nonce.
    pub nonce: u64,
    pub status: u16,
    pub body: Vec<u8>,
}

/// What came of all.
pub struct Window {
    pub length: Duration,
    pub answers: Vec<Answer>,
    /// When those were due that were never asked for: so far behind was the one who signs.
    pub given_up: Vec<Duration>,
}

/// Over all windows: no payment is made twice.
static NONCE: AtomicU64 = AtomicU64::new(0);

/// Asks for payments for so long.
pub fn run(peer: &Running, kms: &Kms, load: &Load, length: Duration) -> Window {
    let (threads, rate) = match load {
        Load::Closed(threads) => (*threads, None),
        Load::Open(rate) => (CONNECTIONS, Some(*rate)),
    };
    let connections: Vec<Connection> = (0..threads).map(|_| peer.connect(kms)).collect();
    let start = Instant::now() + Duration::from_millis(50);
    let turn = AtomicU64::new(0);
    let one = |mut connection: Connection| {
        let mut answers = Vec::new();
        let mut given_up = Vec::new();
        sleep_until(start);
        loop {
            let due = match rate {
                None => start.elapsed(),
                Some(rate) => Duration::from_nanos(turn.fetch_add(1, Ordering::Relaxed) * 1_000_000_000 / rate),
            };
            if due >= length {
                return (answers, given_up);
            }
            if start.elapsed() > length + GRACE {
                given_up.push(due);
                continue;
            }
            sleep_until(start + due);
            let nonce = NONCE.fetch_add(1, Ordering::Relaxed);
            let (status, body) = connection.ask(&peer.request(kms, nonce)).expect("the connection is kept");
            answers.push(Answer { due, done: start.elapsed(), nonce, status, body });
        }
    };
    let one = &one;
    let mut window = Window { length, answers: Vec::new(), given_up: Vec::new() };
    std::thread::scope(|scope| {
        let threads: Vec<_> = connections.into_iter().map(|connection| scope.spawn(move || one(connection))).collect();
        for thread in threads {
            let (answers, given_up) = thread.join().expect("it asks to the end");
            window.answers.extend(answers);
            window.given_up.extend(given_up);
        }
    });
    window
}

fn sleep_until(moment: Instant) {
    std::thread::sleep(moment.saturating_duration_since(Instant::now()));
}

impl Window {
    /// Answers a second, of those that were given within the window.
    pub fn rate(&self) -> f64 {
        self.answers.iter().filter(|answer| answer.done <= self.length).count() as f64 / self.length.as_secs_f64()
    }

    /// Most that were due at once and not answered, in each third of the window.
    pub fn in_flight(&self) -> [usize; 3] {
        let mut changes: Vec<(Duration, bool)> =
            self.answers.iter().flat_map(|answer| [(answer.due, true), (answer.done, false)]).collect();
        changes.extend(self.given_up.iter().map(|due| (*due, true)));
        changes.sort_unstable();
        let (mut most, mut now) = ([0; 3], 0_usize);
        for (moment, due) in changes {
            now = if due { now + 1 } else { now - 1 };
            let third = (3 * moment.as_nanos() / self.length.as_nanos()) as usize;
            if let Some(most) = most.get_mut(third) {
                *most = now.max(*most);
            }
        }
        most
    }
}
