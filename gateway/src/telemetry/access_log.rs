//! The access log: one JSON object a line, written by a thread of its own.
//!
//! A request hands its line over and goes on. When the disk or the reader of stdout cannot keep up, lines are dropped
//! and counted; requests never wait.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use serde::Serialize;

/// Lines that may wait for the writer.
const QUEUE: usize = 16_384;
/// At the end, what was handed over may take so long to be written: a reader that has stopped must not keep the
/// process from ending.
const LAST_LINES: Duration = Duration::from_secs(2);

/// One request, as the log tells it. The query is left out: it may hold secrets.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    /// When the request began, RFC 3339.
    pub time: String,
    /// Its id.
    pub request_id: &'a str,
    /// The client's address.
    pub client: std::net::IpAddr,
    /// The listener it came in by.
    pub listener: &'a str,
    /// "HTTP/1.1", "HTTP/2"...
    pub protocol: &'a str,
    /// "TLSv1.3"...
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<&'a str>,
    /// The method.
    pub method: &'a str,
    /// The host asked for.
    pub host: &'a str,
    /// The path, as it came.
    pub path: &'a str,
    /// The status answered; 0 when the client was gone before.
    pub status: u16,
    /// The route taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<&'a str>,
    /// The upstream that was chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<&'a str>,
    /// The server that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<std::net::SocketAddr>,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// From the head to the answer's last byte, in milliseconds.
    pub duration_ms: f64,
    /// From the head to the upstream's first byte, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_ms: Option<f64>,
    /// `User-Agent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<&'a str>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'a str>,
}

/// Where lines are handed over.
#[derive(Debug)]
pub struct AccessLog {
    lines: Option<SyncSender<Vec<u8>>>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    lost: AtomicU64,
    reopen: AtomicBool,
    /// How often the writer has written all there was when it was asked to.
    flushed: AtomicU64,
}

enum Target {
    Stdout(io::Stdout),
    File(PathBuf, File),
}

impl AccessLog {
    /// Opens the log: "stdout", "off", or a file.
    ///
    /// # Errors
    /// When the file cannot be opened, with its name.
    pub fn open(path: &str) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let target = match path {
            "off" => return Ok(Self { lines: None, shared }),
            "stdout" => Target::Stdout(io::stdout()),
            path => Target::File(path.into(), open(path.as_ref())?),
        };
        let (lines, queue) = sync_channel(QUEUE);
        std::thread::Builder::new().name("access-log".into()).spawn({
            let shared = shared.clone();
            move || write(&queue, target, &shared)
        })?;
        Ok(Self { lines: Some(lines), shared })
    }

    /// Whether lines are wanted at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.lines.is_some()
    }

    /// Hands a line over; never waits.
    pub fn log(&self, line: &Line<'_>) {
        let Some(lines) = &self.lines else { return };
        let Ok(mut bytes) = serde_json::to_vec(line) else { return };
        bytes.push(b'\n');
        if lines.try_send(bytes).is_err() {
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lines that were dropped because the writer could not keep up, or the disk would not take them.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// Waits until what was handed over is written, but not for ever. Blocks.
    pub fn flush(&self) {
        let Some(lines) = &self.lines else { return };
        let deadline = Instant::now() + LAST_LINES;
        let before = self.shared.flushed.load(Ordering::Acquire);
        let mut asked = false;
        while self.shared.flushed.load(Ordering::Acquire) == before {
            // An empty line asks the writer to say that it has come so far.
            asked = asked || lines.try_send(Vec::new()).is_ok();
            if Instant::now() > deadline {
                tracing::warn!("the last access log lines are lost: nobody takes them");
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Opens the file again before the next line, for log rotation.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
    }
}

fn open(path: &std::path::Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot open the access log {}: {error}", path.display()))
    })
}

fn write(queue: &Receiver<Vec<u8>>, mut target: Target, shared: &Shared) {
    let mut batch = Vec::new();
    while let Ok(first) = queue.recv() {
        batch.clear();
        let (mut lines, mut flushes) = (0, 0);
        let mut next = Some(first);
        while let Some(line) = next {
            if line.is_empty() {
                flushes += 1
            } else {
                lines += 1
            }
            batch.extend_from_slice(&line);
            next = if batch.len() < 64 << 10 { queue.try_recv().ok() } else { None };
        }
        if shared.reopen.swap(false, Ordering::Acquire)
            && let Target::File(path, file) = &mut target
        {
            match open(path) {
                Ok(fresh) => *file = fresh,
                Err(error) => tracing::error!(%error, "the access log goes on in the old file"),
            }
        }
        let written = match &mut target {
            Target::Stdout(out) => out.write_all(&batch).and_then(|()| out.flush()),
            Target::File(_, file) => file.write_all(&batch),
        };
        if let Err(error) = written
            && shared.lost.fetch_add(lines, Ordering::Relaxed) == 0
        {
            tracing::error!(%error, "access log lines are being lost");
        }
        shared.flushed.fetch_add(flushes, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(id: &str) -> Line<'_> {
        Line {
            time: "2026-01-01T00:00:00.000Z".into(),
            request_id: id,
            client: "10.0.0.1".parse().unwrap(),
            listener: "http",
            protocol: "HTTP/1.1",
            tls: None,
            method: "GET",
            host: "a\"b",
            path: "/",
            status: 200,
            route: None,
            upstream: None,
            server: None,
            bytes_in: 0,
            bytes_out: 0,
            duration_ms: 0.5,
            upstream_ms: None,
            user_agent: None,
            error: None,
        }
    }

    #[test]
    fn every_line_is_written_and_the_file_can_be_rotated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let log = AccessLog::open(path.to_str().unwrap()).unwrap();
        for n in 0..1000 {
            log.log(&line(&n.to_string()));
        }
        log.flush();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 1000);
        for (n, line) in text.lines().enumerate() {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(value["request_id"], n.to_string());
            assert_eq!(value["host"], "a\"b");
        }
    }

    #[test]
    fn a_full_disk_loses_lines_and_counts_them() {
        let log = AccessLog::open("/dev/full").unwrap();
        log.log(&line("a"));
        let shared = log.shared.clone();
        log.flush();
        assert_eq!(shared.lost.load(Ordering::Relaxed), 1);
    }
}
