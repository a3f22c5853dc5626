//! One connection: its socket, perhaps TLS, and HTTP/1.1 or HTTP/2 over it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use rustls::{ClientConnection, HandshakeKind};
use socket2::{Domain, Socket, Type};

use super::http1::Http1;
use super::http2::Http2;
use super::{Job, Target};

/// A request's answer: when the request was due, and the length of the body or what was wrong.
pub type Answer = (Duration, Result<usize, String>);

pub struct Connection {
    socket: TcpStream,
    tls: Option<ClientConnection>,
    http: Http,
    out: Out,
    one_request: bool,
    asked: bool,
    waits_for_room: bool,
    /// Whether epoll knows that it does.
    epoll_knows: bool,
    /// Why it ended in the middle of something.
    pub broken: Option<String>,
    ended: bool,
    /// Since they were last taken.
    pub answers: Vec<Answer>,
    /// A handshake was completed, and whether it resumed a session.
    pub new_handshake: Option<bool>,
    shakes_hands: bool,
    /// Whether it is on the list of those that can take a request.
    pub is_free: bool,
}

enum Http {
    One(Http1),
    Two(Http2),
}

/// Bytes to send: some of its own, then a body that all requests share.
#[derive(Default)]
pub struct Out {
    pub bytes: Vec<u8>,
    pub body: &'static [u8],
    sent: usize,
}

impl Connection {
    pub fn open(target: &Target) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((source(), 0)).into())?;
        socket.set_tcp_nodelay(true)?;
        socket.connect(&target.address.into())?;
        socket.set_nonblocking(true)?;
        let tls = target.tls.as_ref().map(|config| {
            ClientConnection::new(config.clone(), super::tls::NAME.try_into().expect("a name"))
                .expect("a configuration")
        });
        let mut out = Out::default();
        let http = match target.streams {
            1 => Http::One(Http1::default()),
            streams => Http::Two(Http2::new(streams, &mut out.bytes)),
        };
        let mut connection = Self {
            socket: socket.into(),
            shakes_hands: tls.is_some(),
            tls,
            http,
            out,
            one_request: target.one_request_each,
            asked: false,
            waits_for_room: false,
            epoll_knows: false,
            broken: None,
            ended: false,
            answers: Vec::new(),
            new_handshake: None,
            is_free: true,
        };
        connection.write();
        Ok(connection)
    }

    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Sends the job's next request; there [is room](Self::has_room) for one.
    pub fn ask(&mut self, job: &mut Job, scheduled: Duration) {
        self.asked = true;
        self.is_free = false;
        match &mut self.http {
            Http::One(http) => http.ask(&job.next(), scheduled, &mut self.out),
            Http::Two(http) => http.ask(&job.next(), scheduled, &mut self.out.bytes),
        }
        self.write();
    }

    /// Goes on after epoll said so.
    pub fn go_on(&mut self, buffer: &mut [u8]) {
        if self.waits_for_room {
            self.write();
        }
        if let Err(error) = self.read(buffer) {
            self.ended = true;
            if self.in_flight() > 0 {
                self.broken = Some(error.to_string());
            }
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let Some(tls) = &mut self.tls else {
            return match self.socket.read(buffer) {
                Ok(0) => Err(io::Error::new(ErrorKind::UnexpectedEof, "the connection was closed")),
                Ok(read) => {
                    self.http.take(&buffer[..read], &mut self.answers, &mut self.out.bytes)?;
                    self.write();
                    Ok(())
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
                Err(error) => Err(error),
            };
        };
        match tls.read_tls(&mut self.socket) {
            Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "the connection was closed")),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
        let state = tls.process_new_packets().map_err(io::Error::other)?;
        if self.shakes_hands && !tls.is_handshaking() {
            self.shakes_hands = false;
            self.new_handshake = Some(tls.handshake_kind() == Some(HandshakeKind::Resumed));
        }
        let mut left = state.plaintext_bytes_to_read();
        while left > 0 {
            let read = tls.reader().read(buffer)?;
            self.http.take(&buffer[..read], &mut self.answers, &mut self.out.bytes)?;
            left -= read;
        }
        self.write();
        Ok(())
    }

    fn write(&mut self) {
        if let Err(error) = self.try_write() {
            self.waits_for_room = error.kind() == ErrorKind::WouldBlock;
            if !self.waits_for_room {
                self.ended = true;
                self.broken = Some(error.to_string());
            }
        } else {
            self.waits_for_room = false;
        }
    }

    fn try_write(&mut self) -> io::Result<()> {
        let out = &mut self.out;
        let Some(tls) = &mut self.tls else {
            while out.sent < out.bytes.len() {
                out.sent += self.socket.write(&out.bytes[out.sent..])?;
            }
            while out.sent < out.bytes.len() + out.body.len() {
                out.sent += self.socket.write(&out.body[out.sent - out.bytes.len()..])?;
            }
            *out = Out { bytes: std::mem::take(&mut out.bytes), ..Out::default() };
            out.bytes.clear();
            return Ok(());
        };
        assert!(out.body.is_empty(), "no workload sends bodies over TLS");
        if !out.bytes.is_empty() {
            tls.writer().write_all(&out.bytes)?;
            out.bytes.clear();
        }
        while tls.wants_write() {
            tls.write_tls(&mut self.socket)?;
        }
        Ok(())
    }

    pub fn in_flight(&self) -> usize {
        match &self.http {
            Http::One(http) => http.in_flight(),
            Http::Two(http) => http.in_flight(),
        }
    }

    /// Whether it can take another request.
    pub fn has_room(&self) -> bool {
        match &self.http {
            _ if self.one_request && self.asked => false,
            Http::One(http) => http.in_flight() == 0,
            Http::Two(http) => http.has_room(),
        }
    }

    /// Whether another has to take its place.
    pub fn is_over(&self) -> bool {
        let idle = self.in_flight() == 0;
        let closing = match &self.http {
            Http::One(http) => http.is_closing,
            Http::Two(http) => http.is_closing,
        };
        self.ended || idle && (closing || self.one_request && self.asked)
    }

    /// What epoll should watch for from now on, if that has changed.
    pub fn new_interest(&mut self) -> Option<EventFlags> {
        if self.waits_for_room == self.epoll_knows {
            return None;
        }
        self.epoll_knows = self.waits_for_room;
        Some(if self.waits_for_room { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN })
    }
}

impl Http {
    fn take(&mut self, bytes: &[u8], answers: &mut Vec<Answer>, out: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::One(http) => http.take(bytes, answers),
            Self::Two(http) => http.take(bytes, answers, out),
        }
        .map_err(io::Error::other)
    }
}

/// Another address of this machine for each connection: ports of connections that have just ended are not used again
/// at once, and one address has not enough of them.
fn source() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed) % 250;
    Ipv4Addr::new(127, 0, 1, u8::try_from(next + 1).expect("below 251"))
}
