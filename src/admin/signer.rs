//! A signer without a gateway: it has no admin API. What it says of itself, it says to anybody who gets to connect; it
//! reads its file again on SIGHUP, and counts how that went.

use std::time::{Duration, Instant};

use keygate_config::{Address, SignerAddress};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::Target;
use super::client::Client;
use crate::output::{self, Failed};

/// A reload has happened after this time, or is not going to.
const PATIENCE: Duration = Duration::from_secs(30);
/// It is looked for this often.
const LOOK: Duration = Duration::from_millis(50);

/// A signer that runs, as far as the file says.
pub struct Running(Client);

impl Running {
    /// At the first of these that can be asked: its Unix socket, or plain HTTP.
    pub fn at(listen: &[SignerAddress]) -> Result<Self, Failed> {
        let unix = listen.iter().find_map(|address| match address {
            SignerAddress::Unix(path) => Some(Address::Unix(path.clone())),
            _ => None,
        });
        let http = || {
            listen.iter().find_map(|address| match address {
                SignerAddress::Http(address) => Some(Address::Tcp(*address)),
                _ => None,
            })
        };
        match unix.or_else(http) {
            Some(address) => Ok(Self(Client { part: "signer", address, token: None })),
            None => Err(Failed(Some(
                "the signer listens for TLS alone, and takes nobody without a certificate or token of a caller: ask its \
                 /health as one; it takes over its file by itself when that changes, and on SIGHUP"
                    .into(),
            ))),
        }
    }

    /// Tells it to read its file again, and waits for what comes of it.
    pub fn reload(&self, target: &Target) -> Result<(), Failed> {
        // What is wrong with the file is said here, with its place; the signer would say it in its log.
        output::load(&target.config)?;
        let before = self.reloads()?;
        let pid = self.0.pid()?.ok_or_else(|| {
            Failed(Some(
                "the signer's process cannot be told from here, as it listens on no Unix socket or runs in another \
                 container: send it SIGHUP there; it takes over its file by itself when that changes"
                    .into(),
            ))
        })?;
        // It has answered as the signer does: to another program, the signal might be its end.
        hang_up(pid)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = self.reloads()?;
            if now.failed > before.failed {
                return Err(Failed(Some("not reloaded, nothing has changed: the signer's log says why".into())));
            }
            if now.done > before.done {
                break;
            }
            if Instant::now() > deadline {
                return Err(Failed(Some(format!("the signer, process {pid}, was sent SIGHUP, and does not reload"))));
            }
            std::thread::sleep(LOOK);
        }
        if target.json {
            return output::json(&json!({ "pid": pid.as_raw_nonzero() }));
        }
        output::line("reloaded: the signer's log names what has changed, and what takes a restart");
        Ok(())
    }

    /// Shows whether it is well, and which keys could sign. Fails where it is not.
    pub fn status(&self, target: &Target) -> Result<(), Failed> {
        let (healthy, body) = self.0.ask("GET", "/health", None, None)?;
        let said: Value = serde_json::from_slice(&body)?;
        let pid = self.0.pid()?.map(Pid::as_raw_nonzero);
        let why = if healthy { None } else { said["detail"].as_str().or(said["title"].as_str()) };
        // There are none where it is the ledger that cannot be asked.
        let keys = said["keys"].as_object().cloned().unwrap_or_default();
        if target.json {
            let listen = self.0.address.to_string();
            output::json(&json!({ "listen": listen, "pid": pid, "healthy": healthy, "why": why, "keys": keys }))?;
            return if healthy { Ok(()) } else { Err(Failed(None)) };
        }
        let process = pid.map(|pid| format!(", pid {pid}")).unwrap_or_default();
        let health = if healthy { "healthy".into() } else { format!("NOT HEALTHY: {}", why.unwrap_or_default()) };
        output::line(format!("signer at {}{process}, {health}", self.0.address));
        output::line("");
        let rows: Vec<_> = keys
            .iter()
            .map(|(name, key)| vec![name.clone(), if key["ready"] == true { "yes" } else { "NO" }.to_owned()])
            .collect();
        output::table(&["KEY", "CAN SIGN"], &rows);
        if healthy { Ok(()) } else { Err(Failed(None)) }
    }

    /// How many times it has reloaded.
    fn reloads(&self) -> Result<Reloads, Failed> {
        match self.0.ask("GET", "/metrics", None, None)? {
            (true, body) => Ok(Reloads::read(&String::from_utf8_lossy(&body))),
            (false, _) => Err(Failed(Some(format!("{} does not answer as a signer does", self.0.address)))),
        }
    }
}

fn hang_up(pid: Pid) -> Result<(), Failed> {
    kill_process(pid, Signal::HUP)
        .map_err(|error| Failed(Some(format!("the signer, process {pid}, cannot be sent SIGHUP: {error}"))))
}

/// Reloads that succeeded, and that did not.
#[derive(Debug, PartialEq, Eq)]
struct Reloads {
    done: u64,
    failed: u64,
}

impl Reloads {
    /// Reads them from the metrics' text; what was not counted yet is not there.
    fn read(metrics: &str) -> Self {
        let count = |outcome| {
            let name = format!("keygate_signer_reloads_total{{outcome=\"{outcome}\"}} ");
            metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or_default()
        };
        Self { done: count("ok"), failed: count("error") }
    }
}
