//! keygate's gateway: the data path, live routing, and the admin API.
//!
//! [`Gateway::start`] takes a configuration, binds its listeners and serves; [`Gateway::run`] waits for the end and
//! drains. The gateway keeps its threads to itself, so it can be embedded beside anything.
//!
//! The folders are the stations a request meets, in order: `listen` (sockets, TLS), `http1` and `http2` (the front door),
//! `lane` (one exchange, whatever the protocol), `policy` (what is decided), `upstream` (who answers), `telemetry`.

mod admin;
mod aside;
mod clock;
mod control;
pub mod http1;
mod http2;
mod lane;
pub mod listen;
pub mod live;
pub mod policy;
mod problem;
pub mod telemetry;
pub mod upstream;
mod watch;
mod weights;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use keygate_config::{Loaded, Workers};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{oneshot, watch as watch_channel};
use tokio_util::task::TaskTracker;

pub use control::{Control, Reloaded, WeightsError};
use listen::Worker;

/// A gateway that is serving.
pub struct Gateway {
    control: Arc<Control>,
    admin: admin::Bound,
    drain: watch_channel::Sender<bool>,
    connections: TaskTracker,
    threads: Vec<WorkerThread>,
    state: weights::Lock,
}

struct WorkerThread {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// Why a gateway could not start, in one line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(String);

/// How a gateway ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// The last request ended.
    Complete,
    /// `drain_timeout` was over before; so many connections were cut.
    Cut(usize),
}

/// Does with the file what a start does, short of making, locking and binding anything: that it could start, as far
/// as the file and what it names go.
///
/// # Errors
/// The first thing that a start would refuse.
pub fn check(loaded: Loaded) -> Result<(), StartError> {
    let mut weights =
        weights::Weights::load(&loaded.config.process.state_dir).map_err(|error| StartError(error.to_string()))?;
    weights.reconcile(&loaded.config);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    live::Carried::new(provider).build(Arc::new(loaded), &weights, None).map_err(StartError)?;
    Ok(())
}

impl Gateway {
    /// Binds the configuration's listeners and serves. Needs a tokio runtime for the admin API; requests are served by
    /// threads of the gateway's own.
    ///
    /// # Errors
    /// The first thing that cannot be had: a certificate, an address, the state folder.
    pub async fn start(loaded: Loaded) -> Result<Self, StartError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let workers = match loaded.config.process.workers {
            Workers::Count(count) => usize::from(count),
            Workers::Auto => std::thread::available_parallelism().map_or(1, usize::from),
        };
        let address = loaded.config.admin.listen.value.clone();
        let (prepared, state) = control::prepare(loaded, live::Carried::new(provider)).await.map_err(StartError)?;
        for note in &prepared.notes {
            tracing::warn!("{note}");
        }
        let admin = admin::bind(&address).await.map_err(|error| StartError(error.to_string()))?;
        let (drain, draining) = watch_channel::channel(false);
        let connections = TaskTracker::new();
        let (mut threads, mut handles) = (Vec::new(), Vec::new());
        for n in 0..workers {
            let (handle, thread) = worker_thread(n).map_err(|error| StartError(error.to_string()))?;
            let lane = lane::Lane::new(prepared.live.clone());
            handle.spawn(lane.clone().sweep());
            let worker =
                Worker { lane, live: prepared.live.clone(), drain: draining.clone(), connections: connections.clone() };
            handles.push((handle, worker));
            threads.push(thread);
        }
        let control = Arc::new(Control::new(prepared, handles).map_err(StartError)?);
        Ok(Self { control, admin, drain, connections, threads, state })
    }

    /// For changing what is live.
    #[must_use]
    pub fn control(&self) -> Arc<Control> {
        self.control.clone()
    }

    /// Where clients can connect: listener and address, with the port that port 0 became.
    pub async fn addresses(&self) -> Vec<(String, SocketAddr)> {
        self.control.addresses().await
    }

    /// Serves until `shutdown`, then drains: no connection is accepted any more, requests in flight end, and when the
    /// last has, or `drain_timeout` is over, so does this.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Drained {
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(watch::watch(self.control.clone()));
        tasks.spawn(resolve(self.control.live.clone()));
        tasks.spawn(admin::serve(self.admin, self.control.clone(), self.drain.subscribe()));
        shutdown.await;
        let patience = self.control.live.snapshot().loaded.config.process.drain_timeout.0;
        tracing::info!(?patience, "draining");
        let _ = self.drain.send(true);
        self.control.stop_listening().await;
        self.connections.close();
        let drained = match tokio::time::timeout(patience, self.connections.wait()).await {
            Ok(()) => Drained::Complete,
            Err(_) => Drained::Cut(self.connections.len()),
        };
        tasks.shutdown().await;
        // A reload that has begun is done before the state folder is anybody else's.
        let _ = self.control.aside.run(|| ()).await;
        drop(self.threads);
        self.control.live.access_log.load().flush();
        // The next gateway may have it.
        drop(self.state);
        drained
    }
}

impl Drop for WorkerThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A thread that runs a runtime of its own: a connection stays on the thread that accepted it.
fn worker_thread(n: usize) -> io::Result<(tokio::runtime::Handle, WorkerThread)> {
    let runtime: Runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let (stop, stopped) = oneshot::channel::<()>();
    let thread = std::thread::Builder::new().name(format!("worker-{n}")).spawn(move || {
        let _ = runtime.block_on(stopped);
        runtime.shutdown_background();
    })?;
    Ok((handle, WorkerThread { stop: Some(stop), thread: Some(thread) }))
}

/// Asks again, every few seconds, what addresses servers' names have.
async fn resolve(live: Arc<live::Live>) {
    let mut every = tokio::time::interval(Duration::from_secs(5));
    loop {
        every.tick().await;
        for upstream in live.snapshot().upstreams.values() {
            for server in &upstream.servers {
                if let Err(error) = server.resolve().await {
                    tracing::debug!(server = server.server.as_str(), %error, "cannot resolve");
                }
            }
        }
    }
}
