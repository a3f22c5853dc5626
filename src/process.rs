//! What the long-running commands share: runtime, log, signals.

use std::io::{self, IsTerminal};

use rustix::process::{
    Resource, Rlimit, Signal as UnixSignal, getppid, getrlimit, set_parent_process_death_signal, setrlimit,
};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// A runtime for everything but requests, which the gateway serves on threads of its own.
pub fn runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(2).enable_all().build()
}

/// The process' own log goes to standard error: standard output is the access log's. `KEYGATE_LOG` sets the level.
pub fn log(default: &str) {
    let filter = EnvFilter::try_from_env("KEYGATE_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let ansi = io::stderr().is_terminal();
    // At its chattiest, the AWS SDK prints requests with all their headers, the metadata service's token among them.
    let no_tokens = filter_fn(|metadata| *metadata.level() < Level::TRACE || !metadata.target().starts_with("aws_"));
    let to_stderr = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(ansi);
    // A second call, from a test or the demo, changes nothing.
    let _ = tracing_subscriber::registry().with(filter).with(no_tokens).with(to_stderr).try_init();
}

/// Raises the limit on open files as far as the system lets it. Answers how many there may be, if that is bounded.
pub fn raise_open_files() -> io::Result<Option<u64>> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    Ok(maximum)
}

/// Who started this process, when it was `keygate run`: its process id.
pub const SUPERVISOR: &str = "KEYGATE_SUPERVISOR";

/// Has this process asked to end when the one that supervises it does, if there is one.
///
/// Here and not before the program was started: that of a file with capabilities forgets it at its start.
pub fn end_with_supervisor() -> io::Result<()> {
    let Ok(supervisor) = std::env::var(SUPERVISOR) else { return Ok(()) };
    set_parent_process_death_signal(Some(UnixSignal::TERM))?;
    // It may have ended before.
    let parent = getppid().map(|parent| parent.as_raw_nonzero().to_string());
    if parent.as_deref() == Some(&*supervisor) { Ok(()) } else { Err(io::Error::other("keygate run has ended")) }
}

/// SIGTERM and SIGINT: the first asks for an orderly end, the second for an end.
pub struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    /// Listens for them from now on.
    pub fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for one.
    pub async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Waits for one, and from then on ends the process at the next.
    pub async fn wait_then_exit_at_the_next(mut self) {
        self.wait().await;
        tokio::spawn(async move {
            self.wait().await;
            tracing::warn!("stopped before the drain was over");
            std::process::exit(1);
        });
    }
}
