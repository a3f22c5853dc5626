//! The origin behind all proxies: one thread, kept connections, answers made before.
//!
//! A path that ends in `/b16384` is answered with so many bytes, `/headers` with the request's own head, any other with
//! a small JSON body. A request's body is read to its end before the answer.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::event::epoll::{self, EventData, EventFlags};

/// A running origin, which stands for two: blue and green.
pub struct Origin {
    pub ports: [u16; 2],
    answered: Arc<[AtomicU64; 2]>,
}

pub const SMALL: usize = 32;
const BODY: &[u8; SMALL] = b"{\"account\":42,\"balance\":\"17.23\"}";

impl Origin {
    /// Starts it on the core that this thread runs on.
    pub fn start() -> Self {
        let listeners = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port"));
        let ports = [&listeners[0], &listeners[1]].map(|l| l.local_addr().expect("it is bound").port());
        let answered = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let counters = answered.clone();
        std::thread::Builder::new()
            .name("origin".into())
            .spawn(move || serve(&listeners, &counters))
            .expect("a thread");
        Self { ports, answered }
    }

    /// Requests that blue and green have answered so far.
    pub fn answered(&self) -> [u64; 2] {
        [&self.answered[0], &self.answered[1]].map(|counter| counter.load(Ordering::Relaxed))
    }
}

struct Connection {
    stream: TcpStream,
    /// 0 blue, 1 green.
    side: usize,
    head: Vec<u8>,
    /// Of the request's body, still to come.
    body_left: usize,
    /// The answer to give after the body.
    answer: Answer,
    sent: usize,
    /// Told to say when there is room to write.
    waits_for_room: bool,
}

type Answer = Arc<[u8]>;

fn serve(listeners: &[TcpListener; 2], answered: &[AtomicU64; 2]) {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("an epoll");
    for (side, listener) in listeners.iter().enumerate() {
        listener.set_nonblocking(true).expect("a socket");
        epoll::add(&poll, listener, EventData::new_u64(side as u64), EventFlags::IN).expect("a socket");
    }
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut answers = Answers::default();
    let mut buffer = vec![0; 256 << 10];
    let mut events = Vec::with_capacity(256);
    loop {
        events.clear();
        if epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None).is_err() {
            continue;
        }
        for event in &events {
            let token = usize::try_from(event.data.u64()).expect("ours");
            if let Some(listener) = listeners.get(token) {
                let Ok((stream, _)) = listener.accept() else { continue };
                stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true)).expect("a socket");
                let place = connections.iter().position(Option::is_none).unwrap_or_else(|| {
                    connections.push(None);
                    connections.len() - 1
                });
                epoll::add(&poll, &stream, EventData::new_u64(place as u64 + 2), EventFlags::IN).expect("a socket");
                connections[place] = Some(Connection {
                    stream,
                    side: token,
                    head: Vec::new(),
                    body_left: 0,
                    answer: Arc::new([]),
                    sent: 0,
                    waits_for_room: false,
                });
                continue;
            }
            let place = &mut connections[token - 2];
            let Some(connection) = place else { continue };
            match connection.go_on(&mut buffer, &mut answers, &answered[connection.side]) {
                Ok(()) => {
                    let wants_room = connection.sent < connection.answer.len();
                    if wants_room != connection.waits_for_room {
                        connection.waits_for_room = wants_room;
                        let flags = if wants_room { EventFlags::OUT } else { EventFlags::IN };
                        epoll::modify(&poll, &connection.stream, event.data, flags).expect("a socket");
                    }
                }
                Err(_) => *place = None,
            }
        }
    }
}

impl Connection {
    /// Writes what there is to write, or else reads what there is to read. An error is the connection's end.
    fn go_on(&mut self, buffer: &mut [u8], answers: &mut Answers, answered: &AtomicU64) -> io::Result<()> {
        if self.sent < self.answer.len() {
            return self.write();
        }
        let read = match self.stream.read(buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut bytes = &buffer[..read];
        if self.body_left == 0 {
            self.head.extend_from_slice(bytes);
            let Some(head_len) = self.head.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4) else {
                return Ok(());
            };
            (self.answer, self.body_left) = answers.to(&self.head[..head_len]);
            self.sent = self.answer.len();
            bytes = &bytes[read - (self.head.len() - head_len)..];
            if self.body_left == 0 {
                assert!(bytes.is_empty(), "a request came before its time");
                return self.answer_now(answered);
            }
        }
        self.body_left = self.body_left.checked_sub(bytes.len()).expect("no more than the body");
        if self.body_left == 0 {
            return self.answer_now(answered);
        }
        Ok(())
    }

    fn answer_now(&mut self, answered: &AtomicU64) -> io::Result<()> {
        answered.fetch_add(1, Ordering::Relaxed);
        self.head.clear();
        self.sent = 0;
        self.write()
    }

    fn write(&mut self) -> io::Result<()> {
        while self.sent < self.answer.len() {
            match self.stream.write(&self.answer[self.sent..]) {
                Ok(written) => self.sent += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Answers by the length of their body.
#[derive(Default)]
struct Answers(HashMap<usize, Answer>);

impl Answers {
    /// The answer to a request, and how long its body is.
    fn to(&mut self, head: &[u8]) -> (Answer, usize) {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut headers);
        request.parse(head).expect("a proxy speaks HTTP/1.1");
        let mut body = 0;
        for header in &*request.headers {
            assert!(!header.name.eq_ignore_ascii_case("transfer-encoding"), "bodies come with their length");
            if header.name.eq_ignore_ascii_case("content-length") {
                body = std::str::from_utf8(header.value).expect("digits").parse().expect("digits");
            }
        }
        let path = request.path.expect("a request has one");
        if path.ends_with("/headers") {
            return (answer(head), body);
        }
        let wanted = path.rsplit_once("/b").and_then(|(_, digits)| digits.parse().ok()).unwrap_or(SMALL);
        let made = || if wanted == SMALL { answer(BODY) } else { answer(&vec![b'x'; wanted]) };
        (self.0.entry(wanted).or_insert_with(made).clone(), body)
    }
}

fn answer(body: &[u8]) -> Answer {
    let head = format!(
        "HTTP/1.1 200 OK\r\nServer: origin\r\nX-Powered-By: Express\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat().into()
}
