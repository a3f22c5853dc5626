//! `keygate run`, `keygate gateway`, `keygate signer`

use std::path::Path;
use std::sync::Arc;

use keygate_config::Loaded;
use keygate_gateway::{Control, Drained, Gateway};
use keygate_signer::{Signer, Sockets, Watch};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::output::{self, Failed};
use crate::process::{self, Stop};
use crate::supervise::supervise;

pub fn gateway(path: &Path) -> Result<(), Failed> {
    process::log("info");
    process::end_with_supervisor()?;
    let loaded = output::load(path)?;
    // The certificates' keys are in this process' memory.
    keygate_signer::harden()?;
    process::runtime()?.block_on(async { serve_gateway(loaded, Stop::new()?).await })
}

pub fn signer(path: &Path) -> Result<(), Failed> {
    process::log("info");
    process::end_with_supervisor()?;
    let loaded = output::load(path)?;
    let watch = Watch::new(&loaded);
    let Some(config) = loaded.config.signer else {
        return Err(Failed(Some(format!("{} has no [signer]", path.display()))));
    };
    keygate_signer::harden()?;
    let sockets = Sockets::bind(&config)?;
    // Before there are other threads, which would not be held to it.
    keygate_signer::confine(&config, watch.path())?;
    // The kernel forgets it with the user.
    process::end_with_supervisor()?;
    process::runtime()?.block_on(async {
        let stop = Stop::new()?;
        // What opens a gateway's log again would end a process that does not listen for it.
        let Signals { hangup, mut reopen } = Signals::new()?;
        tokio::spawn(async move {
            while reopen.recv().await.is_some() {
                tracing::info!("the signer has no log to open again");
            }
        });
        let signer = Signer::start_on(sockets, &config).await?;
        let reloads = tokio::spawn(signer.reloader(watch).follow(hangup));
        signer.serve(stop.wait_then_exit_at_the_next()).await;
        reloads.abort();
        Ok(())
    })
}

/// Both, as the file configures: each in a process of its own.
pub fn run(path: &Path) -> Result<(), Failed> {
    process::log("info");
    let loaded = output::load(path)?;
    match (loaded.config.listeners.is_empty(), loaded.config.signer.is_some()) {
        (true, true) => signer(path),
        (_, false) => gateway(path),
        // One thread: a child is ended with the thread that started it.
        (false, true) => {
            // The credentials are in this process' environment, which others of its user could read otherwise.
            keygate_signer::harden()?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(supervise(path))
        }
    }
}

async fn serve_gateway(loaded: Loaded, stop: Stop) -> Result<(), Failed> {
    // Before anything is served: until somebody listens for it, SIGHUP ends a process.
    let signals = Signals::new()?;
    let open_files = process::raise_open_files()?;
    let connections = loaded.config.listeners.values().map(|l| u64::from(l.limits.connections)).sum::<u64>();
    let gateway = Gateway::start(loaded).await?;
    // Each may need a connection to a server, and there are files, sockets and logs besides.
    let wanted = connections * 2 + 256;
    if let Some(limit) = open_files.filter(|limit| *limit < wanted) {
        tracing::warn!(
            limit,
            wanted,
            "the limit on open files is below what the listeners' connections may need: raise it (LimitNOFILE, ulimit -n), \
             or lower limits.connections"
        );
    }
    for (listener, address) in gateway.addresses().await {
        tracing::info!(listener, %address, "listening");
    }
    let signals = tokio::spawn(signals.follow(gateway.control()));
    let drained = gateway.run(stop.wait_then_exit_at_the_next()).await;
    signals.abort();
    match drained {
        Drained::Complete => tracing::info!("drained: every request has ended"),
        Drained::Cut(connections) => tracing::warn!(connections, "drain_timeout is over: connections are cut"),
    }
    Ok(())
}

/// SIGHUP reloads, SIGUSR1 opens the access log again.
struct Signals {
    hangup: Signal,
    reopen: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { hangup: signal(SignalKind::hangup())?, reopen: signal(SignalKind::user_defined1())? })
    }

    async fn follow(mut self, control: Arc<Control>) {
        loop {
            tokio::select! {
                // What came of it is logged there.
                _ = self.hangup.recv() => drop(control.reload().await),
                _ = self.reopen.recv() => control.live.access_log.load().reopen(),
            }
        }
    }
}
