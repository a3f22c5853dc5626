//! The access log: one JSON object a line, written by a thread of its own.
//!
//! A request leaves its line in a buffer of its worker and goes on; the thread gathers the buffers now and then, and
//! writes them as one. When the disk or the reader of stdout cannot keep up, lines are dropped and counted; requests
//! never wait.

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use serde::Serialize;

pub use crate::clock::Timestamp;

/// Buffers; workers beyond them share.
const SHARDS: usize = 16;
/// Bytes that may wait in one of them.
const WAITING: usize = 2 << 20;
/// After a line has come, others may join it for so long before it is written.
const GATHER: Duration = Duration::from_millis(25);
/// A file that could not be opened again is tried again after so long.
const AGAIN: Duration = Duration::from_secs(1);
/// At the end, what was handed over may take so long to be written: a reader that has stopped must not keep the
/// process from ending.
const LAST_LINES: Duration = Duration::from_secs(2);

/// One request, as the log tells it. The query is left out: it may hold secrets.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    /// When the request began, RFC 3339.
    pub time: Timestamp,
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

/// A time as [`Line`] has it.
pub(crate) fn timestamp(time: SystemTime) -> Timestamp {
    time.into()
}

/// Milliseconds as [`Line`] has them: to the microsecond.
pub(crate) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// Where lines are handed over.
#[derive(Debug)]
pub struct AccessLog {
    /// None: no lines are wanted.
    shared: Option<Arc<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    shards: [Shard; SHARDS],
    lost: AtomicU64,
    reopen: AtomicBool,
    /// Nobody hands lines over any more.
    closed: AtomicBool,
    /// The writer sleeps until it is woken.
    asleep: AtomicBool,
    writer: OnceLock<Thread>,
    /// How often lines were asked to be written at once, and how often they have been.
    flush: AtomicU64,
    flushed: AtomicU64,
}

/// A buffer on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    lines: u64,
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
        let target = match path {
            "off" => return Ok(Self { shared: None }),
            "stdout" => Target::Stdout(io::stdout()),
            path => Target::File(path.into(), open(path.as_ref())?),
        };
        let shared = Arc::new(Shared::default());
        let writer = std::thread::Builder::new().name("access-log".into()).spawn({
            let shared = shared.clone();
            move || write(target, &shared)
        })?;
        let _ = shared.writer.set(writer.thread().clone());
        Ok(Self { shared: Some(shared) })
    }

    /// Whether lines are wanted at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.shared.is_some()
    }

    /// Hands a line over; never waits for the disk.
    pub fn log(&self, line: &Line<'_>) {
        let Some(shared) = &self.shared else { return };
        let mut waiting = shared.shards[shard()].0.lock();
        if waiting.bytes.len() > WAITING || serde_json::to_writer(&mut waiting.bytes, line).is_err() {
            shared.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.bytes.push(b'\n');
        waiting.lines += 1;
        drop(waiting);
        if shared.asleep.load(Ordering::SeqCst) && shared.asleep.swap(false, Ordering::SeqCst) {
            shared.wake();
        }
    }

    /// Lines that were dropped because the writer could not keep up, or the disk would not take them.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.shared.as_ref().map_or(0, |shared| shared.lost.load(Ordering::Relaxed))
    }

    /// Waits until what was handed over is written, but not for ever. Blocks.
    pub fn flush(&self) {
        let Some(shared) = &self.shared else { return };
        let deadline = Instant::now() + LAST_LINES;
        let wanted = shared.flush.fetch_add(1, Ordering::SeqCst) + 1;
        shared.wake();
        while shared.flushed.load(Ordering::Acquire) < wanted {
            if Instant::now() > deadline {
                tracing::warn!("the last access log lines are lost: nobody takes them");
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Opens the file again, for log rotation: soon, whether or not there are lines. While it cannot be opened, lines wait.
    pub fn reopen(&self) {
        if let Some(shared) = &self.shared {
            shared.reopen.store(true, Ordering::SeqCst);
            shared.wake();
        }
    }
}

impl Drop for AccessLog {
    /// The writer writes what it was handed, and ends.
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            shared.closed.store(true, Ordering::SeqCst);
            shared.wake();
        }
    }
}

impl Shared {
    fn wake(&self) {
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }
}

/// This thread's buffer.
fn shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static OURS: Cell<Option<usize>> = const { Cell::new(None) });
    OURS.with(|ours| {
        ours.get().unwrap_or_else(|| {
            let next = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
            ours.set(Some(next));
            next
        })
    })
}

fn open(path: &std::path::Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot open the access log {}: {error}", path.display()))
    })
}

fn write(mut target: Target, shared: &Shared) {
    let (mut batch, mut torn, mut reopening) = (Waiting::default(), false, Reopening::default());
    loop {
        let flush = shared.flush.load(Ordering::SeqCst);
        let closed = shared.closed.load(Ordering::SeqCst);
        let is_open = reopening.is_done(&mut target, &mut torn, shared);
        // What is asked for now goes into the old file rather than nowhere.
        if !is_open && !closed && shared.flushed.load(Ordering::Acquire) == flush {
            std::thread::park_timeout(AGAIN);
            continue;
        }
        let mut any = false;
        for shard in &shared.shards {
            std::mem::swap(&mut batch, &mut shard.0.lock());
            if batch.lines > 0 {
                any = true;
                put(&mut target, &batch, &mut torn, shared);
                batch.bytes.clear();
                batch.lines = 0;
            }
        }
        shared.flushed.store(flush, Ordering::Release);
        if any {
            if shared.flush.load(Ordering::SeqCst) == flush {
                std::thread::park_timeout(GATHER);
            }
            continue;
        }
        if closed {
            return;
        }
        if !shared.asleep.swap(true, Ordering::SeqCst) {
            // A line that came before is looked for once more.
            continue;
        }
        if shared.flush.load(Ordering::SeqCst) == flush && !shared.closed.load(Ordering::SeqCst) {
            std::thread::park();
        }
    }
}

/// Whether the file is to be opened again, and could not be yet.
#[derive(Default)]
struct Reopening {
    failed: bool,
}

impl Reopening {
    /// Opens the file again if that is asked for, or has failed before. False: it cannot be opened now.
    fn is_done(&mut self, target: &mut Target, torn: &mut bool, shared: &Shared) -> bool {
        let asked = shared.reopen.swap(false, Ordering::SeqCst);
        let Target::File(path, file) = target else { return true };
        if !asked && !self.failed {
            return true;
        }
        match open(path) {
            Ok(fresh) => {
                (*file, *torn) = (fresh, false);
                if std::mem::take(&mut self.failed) {
                    tracing::info!(path = %path.display(), "the access log is open again");
                }
                true
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failed, true) {
                    tracing::error!(%error, "the access log is tried again; its lines wait");
                }
                false
            }
        }
    }
}

/// Writes a batch. `torn`: whether what was written last ends in the middle of a line.
fn put(target: &mut Target, batch: &Waiting, torn: &mut bool, shared: &Shared) {
    let out: &mut dyn Write = match target {
        Target::Stdout(out) => out,
        Target::File(_, file) => file,
    };
    if let Err((lost, error)) = write_lines(out, &batch.bytes, torn)
        && shared.lost.fetch_add(lost, Ordering::Relaxed) == 0
    {
        tracing::error!(%error, "access log lines are being lost");
    }
}

/// Writes lines; a line that broke off is ended first. An error comes with how many lines are not written whole.
fn write_lines(out: &mut (impl Write + ?Sized), lines: &[u8], torn: &mut bool) -> Result<(), (u64, io::Error)> {
    let mut at = 0;
    let mut write = || {
        if *torn {
            out.write_all(b"\n")?;
            *torn = false;
        }
        while at < lines.len() {
            match out.write(&lines[at..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => at += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        out.flush()
    };
    write().map_err(|error| {
        *torn |= at > 0 && lines[at - 1] != b'\n';
        (lines[at..].iter().filter(|b| **b == b'\n').count() as u64, error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(id: &str) -> Line<'_> {
        Line {
            time: SystemTime::UNIX_EPOCH.into(),
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

    /// Waits for what another thread is about to do.
    fn eventually(what: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !what() {
            assert!(Instant::now() < deadline, "it does not come about");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_rotated_file_is_there_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let log = AccessLog::open(path.to_str().unwrap()).unwrap();
        log.log(&line("old"));
        log.flush();
        std::fs::rename(&path, dir.path().join("old.log")).unwrap();
        log.reopen();
        eventually(|| path.exists());
        log.log(&line("new"));
        log.flush();
        assert!(std::fs::read_to_string(&path).unwrap().contains("\"new\""));
        assert_eq!(std::fs::read_to_string(dir.path().join("old.log")).unwrap().lines().count(), 1);
    }

    #[test]
    fn lines_wait_for_a_file_that_cannot_be_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("logs");
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join("access.log");
        let log = AccessLog::open(path.to_str().unwrap()).unwrap();
        std::fs::rename(&folder, dir.path().join("moved")).unwrap();
        log.reopen();
        // Taken note of before the lines come.
        eventually(|| !log.shared.as_ref().unwrap().reopen.load(Ordering::SeqCst));
        for n in 0..100 {
            log.log(&line(&n.to_string()));
        }
        std::fs::create_dir(&folder).unwrap();
        eventually(|| std::fs::read_to_string(&path).is_ok_and(|text| text.lines().count() == 100));
        assert_eq!((log.lost(), std::fs::read(dir.path().join("moved/access.log")).unwrap().len()), (0, 0));
        // At the end, they go where they can.
        std::fs::rename(&folder, dir.path().join("again")).unwrap();
        log.reopen();
        log.log(&line("last"));
        log.flush();
        assert!(std::fs::read_to_string(dir.path().join("again/access.log")).unwrap().contains("\"last\""));
    }

    #[test]
    fn a_line_that_broke_off_spoils_no_other() {
        /// Takes so many bytes, and then no more.
        struct Full(Vec<u8>, usize);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let n = bytes.len().min(self.1 - self.0.len());
                self.0.extend_from_slice(&bytes[..n]);
                if n == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(n) }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut disk = Full(Vec::new(), 7);
        let mut torn = false;
        assert_eq!(write_lines(&mut disk, b"one\ntwo\nthree\n", &mut torn).unwrap_err().0, 2);
        assert!(torn);
        assert_eq!(write_lines(&mut disk, b"four\n", &mut torn).unwrap_err().0, 1);
        disk.1 = 100;
        write_lines(&mut disk, b"five\n", &mut torn).unwrap();
        write_lines(&mut disk, b"six\n", &mut torn).unwrap();
        assert_eq!(String::from_utf8(disk.0).unwrap(), "one\ntwo\nfive\nsix\n");
    }

    #[test]
    fn a_full_disk_loses_lines_and_counts_them() {
        let log = AccessLog::open("/dev/full").unwrap();
        log.log(&line("a"));
        log.flush();
        assert_eq!(log.lost(), 1);
    }
}
