//! The express lane: HTTP/1 from clients to HTTP/1.1 servers. One task a connection, on the worker that accepted it;
//! no channels, no task a request; a head is read once and passed on with edits; memory is held only while bytes are in
//! it.

mod attempt;
mod both_ways;
mod client;
mod connect;
mod exchange;
mod pool;
mod relay;
mod write;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::Cache;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::head::Limits;
use crate::listen::{ClientStream, Connection};
use crate::live::{Live, Snapshot};
use client::{Client, NoHead};
use pool::Pool;

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
    buffers: Buffers,
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
struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    fn take(&self) -> Vec<u8> {
        self.0.lock().pop().unwrap_or_else(|| Vec::with_capacity(BUFFER))
    }

    fn put(&self, mut buffer: Vec<u8>) {
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

    /// Serves a connection to its end.
    pub(crate) async fn serve(&self, io: ClientStream, connection: &Connection, drain: watch::Receiver<bool>) {
        let mut client = Client::new(io, drain.clone(), &self.buffers);
        loop {
            let snapshot = self.snapshot();
            let listener = snapshot.0.listener(connection);
            let limits = Limits {
                size: usize::try_from(listener.limits.head_size.0).unwrap_or(usize::MAX),
                headers: usize::from(listener.limits.header_count),
            };
            let timeouts = listener.timeouts;
            drop((snapshot, listener));
            match client.next_head(limits, timeouts.idle.0, timeouts.request_head.0).await {
                Ok(head) => match exchange::run(self, &mut client, connection, head, &drain).await {
                    exchange::After::Next => {}
                    exchange::After::Close { unread } => return client.close(unread).await,
                    exchange::After::Gone => return,
                },
                Err(NoHead::Closed) => return client.close(false).await,
                Err(NoHead::Refused(refusal)) => {
                    let answer = crate::proxy::Edge::refuse(&self.live, connection, refusal);
                    if client.write(&answer, timeouts.send.0).await.is_ok() {
                        client.close(true).await;
                    }
                    return;
                }
            }
        }
    }
}
