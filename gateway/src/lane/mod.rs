//! The express lane: requests of every protocol, to HTTP/1.1 servers. One task a connection, on the worker that accepted
//! it; no channels, no task a request; a head is read once and passed on with edits; memory is held only while bytes are
//! in it.

mod attempt;
mod both_ways;
mod connect;
mod downstream;
mod exchange;
mod pool;
mod refuse;
mod relay;
mod server;
mod timer;
mod write;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::Cache;
use parking_lot::Mutex;

use crate::listen::Connection;
use crate::live::{ListenerPolicy, Live, Snapshot};
use crate::upstream::http2::Http2Pool;
pub(crate) use downstream::{Asked, Downstream};
use downstream::{send, unless_gone};
pub(crate) use exchange::{After, run};
use pool::Pool;
pub(crate) use refuse::refuse;
pub(crate) use relay::{Sink, Source, Stop};
pub(crate) use timer::Timer;
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
    http2: Http2Pool,
    pub(crate) buffers: Buffers,
}

/// The live snapshot as a worker knows it.
struct View {
    cache: Cache<Arc<arc_swap::ArcSwap<Snapshot>>, Arc<Snapshot>>,
    ours: Arc<Ours>,
}

/// One worker's hold on a snapshot: workers that all counted their references to it would fight for its counter.
struct Ours(Arc<Snapshot>);

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
        Arc::new(Self { live, view, pool: Pool::default(), http2: Http2Pool::default(), buffers: Buffers::default() })
    }

    /// Closes what waits for too long, for as long as the worker runs.
    pub(crate) async fn sweep(self: Arc<Self>) {
        loop {
            tokio::time::sleep(SWEEP).await;
            self.pool.sweep();
            self.http2.sweep();
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
}
