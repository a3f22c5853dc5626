//! `keygate run` with a signer: two processes, so that the one that parses the internet has neither the key nor the
//! credentials for it. This one starts both, hands signals on, and starts the signer again when it ends by itself.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, timeout};

use crate::output::Failed;
use crate::process::{self, Stop};

/// A signer that ends by itself is started again, after a pause that doubles from the first to the second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// What ran for so long was well: the next pause is the shortest again.
const WELL: Duration = Duration::from_secs(60);
/// The signer answers what it has begun, which its keys' own time-outs bound; after so long it is ended.
const SIGNER_ENDS: Duration = Duration::from_secs(30);

/// Runs both until told to stop, or until the gateway ends.
pub async fn supervise(path: &Path) -> Result<(), Failed> {
    let mut stop = Stop::new()?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut reopen = signal(SignalKind::user_defined1())?;
    let mut signer = Some(spawn("signer", path)?);
    let mut gateway = spawn("gateway", path)?;
    let mut started = Instant::now();
    let mut pause = PAUSES.0;
    let status = loop {
        tokio::select! {
            () = stop.wait() => break drain(&mut gateway, &mut stop).await?,
            _ = hangup.recv() => {
                tell(&gateway, Signal::HUP);
                if let Some(signer) = &signer {
                    tell(signer, Signal::HUP);
                }
            }
            _ = reopen.recv() => tell(&gateway, Signal::USR1),
            status = gateway.wait() => {
                let status = status?;
                tracing::error!(%status, "the gateway has ended");
                break status;
            }
            ended = ended(&mut signer) => {
                if started.elapsed() > WELL {
                    pause = PAUSES.0;
                }
                tracing::error!(status = ended, ?pause, "the signer has ended; it is started again");
                signer = None;
            }
            () = tokio::time::sleep(pause), if signer.is_none() => {
                pause = (pause * 2).min(PAUSES.1);
                started = Instant::now();
                match spawn("signer", path) {
                    Ok(child) => signer = Some(child),
                    Err(error) => tracing::error!(%error, "the signer cannot be started"),
                }
            }
        }
    };
    if let Some(mut signer) = signer {
        tell(&signer, Signal::TERM);
        if timeout(SIGNER_ENDS, signer.wait()).await.is_err() {
            tracing::error!("the signer does not end: it is killed");
            signer.kill().await?;
        }
    }
    // It has said why.
    if status.success() { Ok(()) } else { Err(Failed(None)) }
}

/// Asks the gateway to drain, and waits for it; a second signal asks it to end at once.
async fn drain(gateway: &mut Child, stop: &mut Stop) -> std::io::Result<ExitStatus> {
    tell(gateway, Signal::TERM);
    tokio::select! {
        status = gateway.wait() => return status,
        () = stop.wait() => tell(gateway, Signal::TERM),
    }
    gateway.wait().await
}

/// Waits for a child's end; for ever, when there is none.
async fn ended(child: &mut Option<Child>) -> String {
    match child {
        Some(child) => child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string()),
        None => std::future::pending().await,
    }
}

fn tell(child: &Child, signal: Signal) {
    if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
        // It may just have ended, which is noticed elsewhere.
        let _ = kill_process(pid, signal);
    }
}

/// Starts this program as one of the two. Signals of a terminal reach this process alone, which hands them on.
fn spawn(part: &str, path: &Path) -> std::io::Result<Child> {
    // This very program, though its file may have been replaced since.
    let mut command = Command::new("/proc/self/exe");
    command.args([part, "--config"]).arg(path).stdin(Stdio::null()).process_group(0).kill_on_drop(true);
    if part == "gateway" {
        // The credentials for KMS are the signer's.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")) {
            command.env_remove(name);
        }
    }
    command.env(process::SUPERVISOR, std::process::id().to_string());
    command.spawn()
}
