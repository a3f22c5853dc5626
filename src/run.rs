//! `keygate run`, `keygate gateway`, `keygate signer`

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use keygate_config::Loaded;
use keygate_gateway::{Control, Drained, Gateway};
use keygate_signer::Signer;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::output::{self, Failed};
use crate::process::{self, Stop};

/// A signer that ends by itself is started again, after a pause that doubles up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

pub fn gateway(path: &Path) -> Result<(), Failed> {
    process::log("info");
    let loaded = output::load(path)?;
    process::runtime()?.block_on(async {
        let stop = Stop::new()?;
        serve_gateway(loaded, stop.wait_then_exit_at_the_next()).await
    })
}

pub fn signer(path: &Path) -> Result<(), Failed> {
    process::log("info");
    let loaded = output::load(path)?;
    let Some(config) = loaded.config.signer else {
        return Err(Failed(Some(format!("{} has no [signer]", path.display()))));
    };
    keygate_signer::harden()?;
    process::runtime()?.block_on(async {
        let stop = Stop::new()?;
        let signer = Signer::start(&config).await?;
        signer.serve(stop.wait_then_exit_at_the_next()).await;
        Ok(())
    })
}

/// Both: the gateway here, the signer as a child, so that the process that parses the internet has no key.
pub fn run(path: &Path) -> Result<(), Failed> {
    process::log("info");
    let loaded = output::load(path)?;
    match (loaded.config.listeners.is_empty(), loaded.config.signer.is_some()) {
        (true, true) => return signer(path),
        (_, false) => return gateway(path),
        (false, true) => {}
    }
    process::runtime()?.block_on(async {
        let mut stop = Stop::new()?;
        let (stopping, stopped) = watch::channel(false);
        let child = spawn_signer(path)?;
        let keeper = tokio::spawn(keep_signer(path.to_owned(), child, stopped));
        let served = serve_gateway(loaded, async move {
            stop.wait().await;
            let _ = stopping.send(true);
            tokio::spawn(async move {
                stop.wait().await;
                std::process::exit(1);
            });
        })
        .await;
        // A gateway that could not start takes the signer with it: the channel is closed then.
        let _ = keeper.await;
        served
    })
}

async fn serve_gateway(loaded: Loaded, shutdown: impl Future<Output = ()>) -> Result<(), Failed> {
    let gateway = Gateway::start(loaded).await?;
    for (listener, address) in gateway.addresses().await {
        tracing::info!(listener, %address, "listening");
    }
    let signals = tokio::spawn(on_signals(gateway.control()));
    let drained = gateway.run(shutdown).await;
    signals.abort();
    match drained {
        Drained::Complete => tracing::info!("drained: every request has ended"),
        Drained::Cut(connections) => tracing::warn!(connections, "drain_timeout is over: connections are cut"),
    }
    Ok(())
}

/// SIGHUP reloads, SIGUSR1 opens the access log again.
async fn on_signals(control: Arc<Control>) {
    let (Ok(mut hangup), Ok(mut user1)) = (signal(SignalKind::hangup()), signal(SignalKind::user_defined1())) else {
        tracing::error!("SIGHUP and SIGUSR1 cannot be listened for");
        return;
    };
    loop {
        tokio::select! {
            // What came of it is logged there.
            _ = hangup.recv() => drop(control.reload().await),
            _ = user1.recv() => control.live.access_log.load().reopen(),
        }
    }
}

fn spawn_signer(path: &Path) -> std::io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["signer", "--config"]).arg(path).stdin(Stdio::null()).kill_on_drop(true);
    // SAFETY: prctl is async-signal-safe. A signer must not outlive the process that would stop it.
    unsafe {
        command.pre_exec(|| {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM)).map_err(Into::into)
        });
    }
    command.spawn()
}

/// Starts the signer again when it ends by itself, until told to stop; then asks it to end, and waits.
async fn keep_signer(path: std::path::PathBuf, mut child: Child, mut stopped: watch::Receiver<bool>) {
    let mut pause = Duration::from_millis(500);
    loop {
        tokio::select! {
            ended = child.wait() => {
                let status = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
                tracing::error!(status, ?pause, "the signer has ended; it is started again");
            }
            _ = stopped.wait_for(|stop| *stop) => break,
        }
        let spawned = tokio::select! {
            () = tokio::time::sleep(pause) => spawn_signer(&path),
            _ = stopped.wait_for(|stop| *stop) => return,
        };
        pause = (pause * 2).min(LONGEST_PAUSE);
        match spawned {
            Ok(started) => child = started,
            Err(error) => tracing::error!(%error, "the signer cannot be started"),
        }
    }
    if let Some(pid) = child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    let _ = child.wait().await;
}
