//! The express lane: HTTP/1 from clients to HTTP/1.1 servers. One task a connection, on the worker that accepted it;
//! no channels, no task a request; a head is read once and passed on with edits; memory is held only while bytes are in
//! it.

mod attempt;
mod both_ways;
mod client;
mod exchange;
mod pool;
mod refuse;
mod relay;
mod write;

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use arc_swap::Cache;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::fields::Field;
use super::head::{Head, Limits};
use crate::listen::{ClientStream, Connection};
use crate::live::{ListenerPolicy, Live, Snapshot};
pub(crate) use client::Timer;
use client::{Client, NoHead};
pub(crate) use exchange::{After, run};
use pool::Pool;
pub(crate) use refuse::refuse;
pub(crate) use relay::{Sink, Source, Stop};
use write::Lines;
pub(crate) use write::{AnswerHead, status_line};

/// What is read at a time.
const BUFFER: usize = 64 << 10;
/// Buffers a worker keeps for the next who needs one.
const SPARE: usize = 256;
/// Connections to servers whose time is over are closed this often.
const SWEEP: Duration = Duration::from_secs(5);

/// What the connections of one worker share.
pub(crate) struct Lane {
    live: Arc<Live>,
    view: Mutex<View>,
    pool: Pool,
    pub(crate) buffers: Buffers,
}

/// The live snapshot as a worker knows it.
struct View {
    cache: Cache<Arc<arc_swap::ArcSwap<Snapshot>>, Arc<Snapshot>>,
    ours: Arc<Ours>,
}

/// One worker's hold on a snapshot: workers that all counted their references to it would fight for its counter.
struct Ours(Arc<Snapshot>);

/// A request's head.
pub(crate) struct Asked {
    pub(crate) head: Head,
    /// The bytes that it was read from.
    pub(crate) input: Vec<u8>,
    pub(crate) fields: Vec<Field>,
}

impl Asked {
    fn lines(&self) -> Lines<'_> {
        Lines { head: &self.input[..self.head.len], fields: &self.fields }
    }
}

/// Who asks: a connection of HTTP/1, or a stream of HTTP/2.
pub(crate) trait Downstream {
    /// What bodies come by and go by.
    type Io: Source + Sink;
    /// The head of an answer.
    type Head: AnswerHead;
    /// Whether it is a stream of HTTP/2, which frames bodies by itself.
    const HTTP2: bool;

    /// The body's way, and what was read beyond the request.
    fn io(&mut self) -> (&mut Self::Io, &mut Vec<u8>);

    /// What it waits with.
    fn timer(&mut self) -> &mut Timer;

    /// Whether it is still there, while it is not read from for another reason.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> io::Result<()>;

    /// Since when it sends no more, and may be gone.
    fn half_closed(&self) -> Option<Instant>;

    /// Whether another request is wanted by this connection.
    fn is_wanted(&self, drain: &watch::Receiver<bool>) -> bool;

    /// Begins to put an answer together.
    fn head(&mut self, status: u16, reason: &[u8]) -> Self::Head;

    /// Begins an answer; what is to be written first is answered. `last`: the body ends with that.
    fn begin(&mut self, head: Self::Head, last: bool) -> io::Result<Vec<u8>>;

    /// Takes back what was written.
    fn spare(&mut self, buffer: Vec<u8>);
}

/// Writes an answer's head and what its body begins with, or fails when the client takes nothing for so long. `last`: the
/// body ends with that.
async fn send<D: Downstream>(client: &mut D, head: D::Head, wait: Duration, last: bool) -> io::Result<()> {
    let out = client.begin(head, last)?;
    let written = write(client, &out, wait, last).await;
    client.spare(out);
    written
}

/// Waits for what is not the client's doing, while the client is there. `whole`: its request has been read.
async fn unless_gone<D: Downstream, T>(client: &mut D, whole: bool, what: impl Future<Output = T>) -> io::Result<T> {
    let mut what = pin!(what);
    poll_fn(|cx| {
        // A connection of HTTP/1 is read from to know, which is not done in the middle of a body.
        if D::HTTP2 || whole {
            client.poll_gone(cx)?;
        }
        what.as_mut().poll(cx).map(Ok)
    })
    .await
}

async fn write<D: Downstream>(client: &mut D, bytes: &[u8], wait: Duration, last: bool) -> io::Result<()> {
    let mut at = 0;
    let mut by = None;
    poll_fn(|cx| {
        loop {
            let io = client.io().0;
            let done = if at < bytes.len() {
                io.poll_send(cx, &bytes[at..], last)
            } else if last {
                io.poll_end(cx, &[]).map_ok(|()| 0)
            } else {
                io.poll_flush(cx).map_ok(|()| 0)
            };
            match done {
                Poll::Ready(Ok(_)) if at == bytes.len() => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => (at, by) = (at + n, None),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    let by = *by.get_or_insert_with(|| Instant::now() + wait);
                    ready!(client.timer().poll(cx, by));
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
        }
    })
    .await
}

/// Buffers that wait to be used again.
#[derive(Default)]
pub(crate) struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    pub(crate) fn take(&self) -> Vec<u8> {
        self.0.lock().pop().unwrap_or_else(|| Vec::with_capacity(BUFFER))
    }

    pub(crate) fn put(&self, mut buffer: Vec<u8>) {
        if buffer.capacity() < BUFFER || buffer.capacity() > BUFFER * 2 {
            return;
        }
        buffer.clear();
        let mut spare = self.0.lock();
        if spare.len() < SPARE {
            spare.push(buffer);
        }
    }
}

impl Lane {
    pub(crate) fn new(live: Arc<Live>) -> Arc<Self> {
        let mut cache = Cache::new(live.shared_snapshot());
        let ours = Arc::new(Ours(cache.load().clone()));
        let view = Mutex::new(View { cache, ours });
        Arc::new(Self { live, view, pool: Pool::default(), buffers: Buffers::default() })
    }

    /// Closes what waits for too long, for as long as the worker runs.
    pub(crate) async fn sweep(self: Arc<Self>) {
        loop {
            tokio::time::sleep(SWEEP).await;
            self.pool.sweep();
        }
    }

    fn snapshot(&self) -> Arc<Ours> {
        let mut view = self.view.lock();
        let View { cache, ours } = &mut *view;
        let live = cache.load();
        if !Arc::ptr_eq(live, &ours.0) {
            *ours = Arc::new(Ours(live.clone()));
        }
        ours.clone()
    }

    /// Counts what is refused before it is anybody's request.
    pub(crate) fn count_refused(&self, reason: &str) {
        self.live.metrics.refused.with_label_values(&[reason]).inc();
    }

    /// The policy of a connection's listener, as it is now.
    pub(crate) fn listener(&self, connection: &Connection) -> Arc<ListenerPolicy> {
        self.snapshot().0.listener(connection)
    }

    /// Serves a connection of HTTP/1 to its end.
    pub(crate) async fn serve(&self, io: ClientStream, connection: &Connection, drain: watch::Receiver<bool>) {
        let mut client = Client::new(io, drain.clone(), &self.buffers);
        loop {
            let listener = self.listener(connection);
            let (limits, timeouts) = (Limits::of(&listener.limits), listener.timeouts);
            drop(listener);
            match client.next_head(limits, timeouts.idle.0, timeouts.request_head.0).await {
                Ok(head) => {
                    let input = std::mem::take(&mut client.input);
                    let mut asked = Asked { head, input, fields: std::mem::take(&mut client.fields) };
                    let after = run(self, &mut client, connection, &mut asked, &drain).await;
                    self.buffers.put(asked.input);
                    client.fields = asked.fields;
                    match after {
                        After::Next => {}
                        After::Close { unread } => return client.close(unread).await,
                        After::Gone => return,
                    }
                }
                Err(NoHead::Closed) => return client.close(false).await,
                Err(NoHead::Refused(refusal)) => {
                    return match refuse(self, &mut client, connection, refusal).await {
                        After::Gone => {}
                        _ => client.close(true).await,
                    };
                }
            }
        }
    }
}
