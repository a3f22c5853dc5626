//! The smallest client and origin that speak HTTP/1.1: what they cost is in every figure, so they cost little.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

/// Starts an origin that answers every request with a small JSON body, on threads that end with the process.
pub fn origin() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer_all(stream));
        }
    });
    address
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nServer: origin\r\nX-Powered-By: Express\r\n\
    Content-Type: application/json\r\nContent-Length: 32\r\n\r\n{\"account\":42,\"balance\":\"17.23\"}";

/// Until the client is gone. Requests have no body, and come one after another.
fn answer_all(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = [0; 4096];
    let mut len = 0;
    loop {
        match stream.read(&mut buffer[len..])? {
            0 => return Ok(()),
            read => len += read,
        }
        if buffer[..len].ends_with(b"\r\n\r\n") {
            stream.write_all(ANSWER)?;
            len = 0;
        }
    }
}

/// One connection that is kept.
pub struct Client<S> {
    stream: S,
    buffer: Vec<u8>,
}

impl<S: Read + Write> Client<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, buffer: vec![0; 16 << 10] }
    }

    /// Sends a request and reads its answer, which must be 200. Answers the head and body.
    pub fn ask(&mut self, request: &[u8]) -> &[u8] {
        self.stream.write_all(request).expect("the connection is kept");
        let mut len = 0;
        let whole = loop {
            let read = self.stream.read(&mut self.buffer[len..]).expect("the connection is kept");
            assert!(read > 0, "the connection is kept");
            len += read;
            if let Some(whole) = answer_len(&self.buffer[..len]) {
                break whole;
            }
        };
        assert!(len == whole && self.buffer.starts_with(b"HTTP/1.1 200 "), "{}", self.buffer[..len].escape_ascii());
        &self.buffer[..len]
    }
}

/// The length of the answer that `bytes` begins with, if it is there whole.
fn answer_len(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let length = bytes[..head].split(|b| *b == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked("content-length:".len())?;
        name.eq_ignore_ascii_case(b"content-length:").then(|| value.trim_ascii())
    });
    let length = length.and_then(|length| std::str::from_utf8(length).ok()?.parse::<usize>().ok());
    let whole = head + length.expect("every answer says its length");
    (bytes.len() >= whole).then_some(whole)
}
