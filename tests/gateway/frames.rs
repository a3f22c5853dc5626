//! Just enough of HTTP/2 to send what no client would: any bytes as names and values.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;

use super::client::{Client, TlsStream};

/// What becomes of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is answered with this status.
    Answered(u16),
    /// It is reset, or the connection ends.
    Reset,
}

/// A frame, as it came or goes.
#[derive(Debug, Clone)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RESET: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// On [`DATA`] and [`HEADERS`].
pub const END_STREAM: u8 = 1;
/// On [`SETTINGS`] and [`PING`].
pub const ACK: u8 = 1;
/// On [`HEADERS`] and [`CONTINUATION`].
pub const END_HEADERS: u8 = 4;

impl Frame {
    /// Why a stream or the connection ends (RFC 9113, 7), of a [`RESET`] or [`GOAWAY`].
    pub fn reason(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("four bytes"))
    }

    /// Of a [`HEADERS`].
    pub fn status(&self) -> u16 {
        status(&self.payload)
    }

    pub fn ends(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }
}

/// One connection, which answers nothing by itself: neither settings nor pings.
pub struct Http2 {
    pub client: Client<TlsStream>,
    next: u32,
}

impl Http2 {
    /// To a port of 127.0.0.1, with these settings: pairs of an identifier and a value.
    #[track_caller]
    pub fn connect(port: u16, config: &Arc<ClientConfig>, settings: &[(u16, u32)]) -> Self {
        Self::new(Client::connect_tls(port, "example.com", config), settings)
    }

    #[track_caller]
    fn new(mut client: Client<TlsStream>, settings: &[(u16, u32)]) -> Self {
        let settings: Vec<u8> = settings
            .iter()
            .flat_map(|(id, value)| id.to_be_bytes().into_iter().chain(value.to_be_bytes()).collect::<Vec<_>>())
            .collect();
        client.send([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", frame(SETTINGS, 0, 0, &settings).as_slice()].concat());
        Self { client, next: 1 }
    }

    /// The head of a request with this method and path, and more fields; its stream.
    #[track_caller]
    pub fn request(&mut self, method: &str, path: &str, fields: &[(&str, &str)], end: bool) -> u32 {
        let stream = self.reserve();
        let flags = END_HEADERS | if end { END_STREAM } else { 0 };
        self.client.send(frame(HEADERS, flags, stream, &head(method, path, fields)));
        stream
    }

    #[track_caller]
    pub fn get(&mut self, path: &str) -> u32 {
        self.request("GET", path, &[], true)
    }

    /// The number of a stream that is about to begin.
    pub fn reserve(&mut self) -> u32 {
        self.next += 2;
        self.next - 2
    }

    #[track_caller]
    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.client.send(frame(kind, flags, stream, payload));
    }

    pub fn try_frame(&mut self) -> io::Result<Frame> {
        let head = self.client.try_bytes(9)?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let stream = u32::from_be_bytes(head[5..9].try_into().expect("four bytes"));
        Ok(Frame { kind: head[3], flags: head[4], stream, payload: self.client.try_bytes(length)? })
    }

    /// The next frame that is this.
    #[track_caller]
    pub fn wait(&mut self, what: &str, is: impl Fn(&Frame) -> bool) -> Frame {
        loop {
            match self.try_frame() {
                Ok(frame) if is(&frame) => return frame,
                Ok(frame) => assert_ne!(frame.kind, GOAWAY, "{what}: {frame:?}"),
                Err(error) => panic!("{what}: {error}"),
            }
        }
    }

    /// Waits until all that was sent has been read.
    #[track_caller]
    pub fn settle(&mut self) {
        self.send(PING, 0, 0, b"settled?");
        self.wait("a ping's answer", |frame| frame.kind == PING && frame.flags == ACK);
    }

    /// A whole answer: its head, its body, and the frame that it ended with.
    #[track_caller]
    pub fn answer(&mut self, stream: u32) -> (Frame, Vec<u8>, Frame) {
        let of = |frame: &Frame| frame.stream == stream && matches!(frame.kind, DATA | HEADERS | RESET);
        let head = self.wait("an answer", of);
        let (mut body, mut last) = (Vec::new(), head.clone());
        while !last.ends() && last.kind != RESET {
            last = self.wait("more of an answer", of);
            if last.kind == DATA {
                body.extend_from_slice(&last.payload);
            }
        }
        (head, body, last)
    }

    /// Reads to the connection's end. Why it ended, where that is seen: what is unread on the other side takes the
    /// farewell with it.
    pub fn end(&mut self) -> Option<u32> {
        let mut reason = None;
        loop {
            match self.try_frame() {
                Ok(frame) if frame.kind == GOAWAY => reason = Some(frame.reason()),
                Ok(_) => {}
                Err(error) => {
                    let open = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
                    assert!(!open, "the connection stays open");
                    return reason;
                }
            }
        }
    }
}

/// The block of a request's head.
pub fn head(method: &str, path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let pseudo = [(":method", method), (":scheme", "https"), (":path", path), (":authority", "example.com")];
    block(pseudo.iter().chain(fields).copied())
}

/// A block of fields.
pub fn block<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
    fields.into_iter().flat_map(|(name, value)| literal(name.as_bytes(), value.as_bytes())).collect()
}

/// One request, as these fields in this order, and what becomes of it.
pub fn ask(client: Client<TlsStream>, fields: &[(Vec<u8>, Vec<u8>)], body: &[u8]) -> Outcome {
    let block: Vec<u8> = fields.iter().flat_map(|(name, value)| literal(name, value)).collect();
    let mut http2 = Http2::new(client, &[]);
    let end = if body.is_empty() { END_STREAM } else { 0 };
    let mut sent = frame(HEADERS, END_HEADERS | end, 1, &block);
    if !body.is_empty() {
        sent.extend(frame(DATA, END_STREAM, 1, body));
    }
    if http2.client.try_send(sent).is_err() {
        return Outcome::Reset;
    }
    loop {
        match http2.try_frame() {
            Ok(frame) if (frame.kind, frame.stream) == (HEADERS, 1) => return Outcome::Answered(frame.status()),
            Ok(frame) if frame.kind == GOAWAY || (frame.kind, frame.stream) == (RESET, 1) => return Outcome::Reset,
            Ok(_) => {}
            Err(_) => return Outcome::Reset,
        }
    }
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A field that is not indexed, without Huffman coding (RFC 7541, 6.2.2).
pub fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    let text = |text: &[u8]| {
        let mut coded = Vec::new();
        let mut rest = text.len();
        if rest < 127 {
            coded.push(u8::try_from(rest).expect("seven bits"));
        } else {
            coded.push(127);
            rest -= 127;
            while rest > 127 {
                coded.push(u8::try_from(rest % 128).expect("seven bits") | 128);
                rest /= 128;
            }
            coded.push(u8::try_from(rest).expect("seven bits"));
        }
        coded.extend_from_slice(text);
        coded
    };
    [vec![0], text(name), text(value)].concat()
}

/// The status at the start of a block: from the static table, or three digits, perhaps by Huffman's code.
fn status(block: &[u8]) -> u16 {
    // An update of the dynamic table's size may come first.
    let block = &block[block.iter().take_while(|b| **b & 0xe0 == 0x20).count()..];
    if let Some(known) = [200, 204, 206, 304, 400, 404, 500].get(usize::from(block[0]).wrapping_sub(0x88)) {
        return *known;
    }
    let text = &block[2..2 + usize::from(block[1] & 0x7f)];
    if block[1] & 0x80 == 0 {
        return text.iter().fold(0, |n, digit| n * 10 + u16::from(digit - b'0'));
    }
    let (mut bits, mut status) = (text.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)) << (32 - 8 * text.len()), 0);
    for _ in 0..3 {
        // 0 to 2 have five bits, the other digits six.
        let (digit, length) = if bits >> 27 < 3 { (bits >> 27, 5) } else { ((bits >> 26) - 22, 6) };
        (bits, status) = (bits << length, status * 10 + u16::try_from(digit).expect("a digit"));
    }
    status
}
