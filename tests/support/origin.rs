use std::io::{self, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::json;
use sha2::{Digest, Sha256};

use super::{Process, SOON, Seen, free_port, python, read_request};

/// An HTTP/1.1 service with keep-alive, in this process. It answers what arrived, as JSON, with `x-origin: NAME`.
///
/// The query steers it: `status=503`, `delay_ms=100` (before the answer), `bytes=1000` (of body instead of JSON),
/// `chunked=1`, `pause_ms=10` (between two chunks), `close=1` (end the connection), `set_cookie=a%3Db` (as it is,
/// not decoded, but for `%3D` and `%3B`), `header=NAME:VALUE`, `cut=1` (end the connection in the middle of the body).
///
/// Dropped, it no longer accepts, and ends what is open.
pub struct Origin {
    pub name: String,
    pub addr: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    requests: AtomicU64,
    connections: AtomicU64,
    malformed: AtomicU64,
    ended: AtomicBool,
    seen: Mutex<Vec<Seen>>,
    open: Mutex<Vec<TcpStream>>,
}

/// So many requests are remembered.
const REMEMBERED: usize = 1000;

impl Origin {
    /// On a port of its own.
    pub fn start(name: &str) -> Self {
        Self::start_at(name, free_port())
    }

    /// On a given port, for one that comes back.
    pub fn start_at(name: &str, port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared::default());
        let (own, name) = (Arc::clone(&shared), name.to_owned());
        let origin = Self { name: name.clone(), addr, shared };
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if own.ended.load(Ordering::SeqCst) {
                    return;
                }
                own.connections.fetch_add(1, Ordering::SeqCst);
                lock(&own.open).extend(stream.try_clone());
                let (own, name) = (Arc::clone(&own), name.clone());
                std::thread::spawn(move || serve(&stream, &name, &own));
            }
        });
        origin
    }

    /// "127.0.0.1:PORT", as an upstream's server.
    pub fn server(&self) -> String {
        self.addr.to_string()
    }

    /// Requests that arrived whole.
    pub fn hits(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Connections that were opened to it.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Requests that were no HTTP, or ended early.
    pub fn malformed(&self) -> u64 {
        self.shared.malformed.load(Ordering::SeqCst)
    }

    /// The first thousand requests, bodies included.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.shared.seen).clone()
    }

    /// The latest request.
    #[track_caller]
    pub fn last(&self) -> Seen {
        self.seen().pop().expect("a request")
    }

    /// Ends every open connection, as a restart does.
    pub fn cut(&self) {
        for stream in lock(&self.shared.open).drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // The accepting thread sees it when it wakes.
        let _ = TcpStream::connect(self.addr);
        self.cut();
    }
}

/// A test that panics while it holds the lock has failed already.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(stream: &TcpStream, name: &str, shared: &Shared) {
    let _ = stream.set_nodelay(true);
    let mut reader = BufReader::new(stream);
    loop {
        let request = match read_request(&mut reader) {
            Ok(Some(request)) => request,
            Ok(None) => break,
            Err(error) => {
                if error.kind() == io::ErrorKind::InvalidData || error.kind() == io::ErrorKind::UnexpectedEof {
                    shared.malformed.fetch_add(1, Ordering::SeqCst);
                }
                break;
            }
        };
        shared.requests.fetch_add(1, Ordering::SeqCst);
        {
            let mut seen = lock(&shared.seen);
            if seen.len() < REMEMBERED {
                seen.push(request.clone());
            }
        }
        match answer(stream, name, &request) {
            Ok(true) => {}
            Ok(false) | Err(_) => break,
        }
    }
    let _ = stream.shutdown(std::net::Shutdown::Both);
}

/// Answers one request; whether the connection goes on.
fn answer(mut stream: &TcpStream, name: &str, request: &Seen) -> io::Result<bool> {
    let pause = |parameter| {
        let millis = request.query(parameter).and_then(|ms| ms.parse().ok()).unwrap_or(0);
        std::thread::sleep(Duration::from_millis(millis));
    };
    pause("delay_ms");
    let asks_close = request.header("connection").is_some_and(|c| c.eq_ignore_ascii_case("close"));
    let close = request.query("close").is_some() || request.version == "HTTP/1.0" || asks_close;
    let body = match request.query("bytes").and_then(|n| n.parse().ok()) {
        Some(bytes) => vec![b'x'; bytes],
        None => describe(name, request).into_bytes(),
    };
    let status = request.query("status").unwrap_or("200");
    let mut head =
        format!("HTTP/1.1 {status} Status\r\nx-origin: {name}\r\nserver: origin/1\r\nx-powered-by: tests\r\n");
    head += "content-type: application/json\r\n";
    if let Some(cookie) = request.query("set_cookie") {
        head += &format!("set-cookie: {}\r\n", cookie.replace("%3D", "=").replace("%3B", ";"));
    }
    if let Some((name, value)) = request.query("header").and_then(|header| header.split_once(':')) {
        head += &format!("{name}: {value}\r\n");
    }
    if close {
        head += "connection: close\r\n";
    }
    let bodiless = request.method == "HEAD" || matches!(status, "204" | "304");
    let cut = request.query("cut").is_some();
    if request.query("chunked").is_some() && !bodiless {
        stream.write_all(format!("{head}transfer-encoding: chunked\r\n\r\n").as_bytes())?;
        for chunk in body.chunks(8192) {
            stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes())?;
            stream.write_all(chunk)?;
            if cut {
                return Ok(false);
            }
            stream.write_all(b"\r\n")?;
            pause("pause_ms");
        }
        stream.write_all(b"0\r\n\r\n")?;
    } else {
        if status != "204" {
            head += &format!("content-length: {}\r\n", body.len());
        }
        let mut message = format!("{head}\r\n").into_bytes();
        if !bodiless {
            message.extend_from_slice(if cut { &body[..body.len() / 2] } else { &body });
        }
        stream.write_all(&message)?;
    }
    Ok(!close && !cut)
}

fn describe(name: &str, request: &Seen) -> String {
    json!({
        "origin": name,
        "method": request.method,
        "target": request.target,
        "version": request.version,
        "headers": request.headers,
        "body_bytes": request.body.len(),
        "body_sha256": hex::encode(Sha256::digest(&request.body)),
    })
    .to_string()
}

/// A service in a process of its own, which can be killed and come back.
///
/// It answers `{"origin": NAME}` with `x-origin: NAME`, and knows `status`, `delay_ms` and `bytes`.
pub struct OriginProcess {
    pub name: String,
    pub port: u16,
    process: Option<Process>,
}

impl OriginProcess {
    pub fn start(name: &str) -> Self {
        let mut origin = Self { name: name.to_owned(), port: free_port(), process: None };
        origin.start_again();
        origin
    }

    pub fn server(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// SIGKILL.
    pub fn kill9(&mut self) {
        self.process = None;
    }

    /// After [`Self::kill9`], on the same port.
    pub fn start_again(&mut self) {
        let mut command = python("origin.py");
        let mut process = Process::spawn(&self.name, command.args([&self.name, &self.port.to_string()]));
        process.wait_until(SOON, "the origin listens", |p| p.stdout().contains("listening").then_some(()));
        self.process = Some(process);
    }
}
