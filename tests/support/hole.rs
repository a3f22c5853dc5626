use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A server that never ends an answer, and counts what becomes of its connections.
pub struct Hole {
    pub addr: SocketAddr,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    opened: AtomicU64,
    ended: AtomicU64,
    sent: AtomicU64,
}

impl Hole {
    /// Reads, and says nothing.
    pub fn silent() -> Self {
        Self::start("", false)
    }

    /// Answers the first head with this, and no more.
    pub fn begins(answer: &'static str) -> Self {
        Self::start(answer, false)
    }

    /// Answers the first head with this, and a body for as long as it is taken.
    pub fn endless(head: &'static str) -> Self {
        Self::start(head, true)
    }

    fn start(head: &'static str, endless: bool) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", super::free_port())).expect("a free port");
        let (addr, counts) = (listener.local_addr().expect("bound"), Arc::new(Counts::default()));
        let own = Arc::clone(&counts);
        // It ends with the tests: a listener costs nothing.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let own = Arc::clone(&own);
                own.opened.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    play(stream, head, endless, &own.sent);
                    own.ended.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        Self { addr, counts }
    }

    pub fn server(&self) -> String {
        self.addr.to_string()
    }

    /// Connections that were opened to it.
    pub fn opened(&self) -> u64 {
        self.counts.opened.load(Ordering::SeqCst)
    }

    /// Connections that have ended.
    pub fn ended(&self) -> u64 {
        self.counts.ended.load(Ordering::SeqCst)
    }

    /// Bytes of bodies that it got rid of.
    pub fn sent(&self) -> u64 {
        self.counts.sent.load(Ordering::SeqCst)
    }
}

fn play(mut stream: TcpStream, head: &str, endless: bool, sent: &AtomicU64) {
    let mut buffer = [0; 16 << 10];
    if !stream.read(&mut buffer).is_ok_and(|n| n > 0) || stream.write_all(head.as_bytes()).is_err() {
        return;
    }
    if !endless {
        while stream.read(&mut buffer).is_ok_and(|n| n > 0) {}
        return;
    }
    while let Ok(n @ 1..) = stream.write(&buffer) {
        sent.fetch_add(n as u64, Ordering::SeqCst);
    }
}
