//! As much of HTTP/2 as a client needs that asks for small things: no library is as cheap as one that knows that.

use std::time::Duration;

use super::connection::Answer;
use super::job::Ask;

pub struct Http2 {
    streams: usize,
    next: u32,
    open: Vec<Stream>,
    /// Bytes of a frame that has not come whole.
    inbox: Vec<u8>,
    /// The other side takes no more requests.
    pub is_closing: bool,
}

struct Stream {
    id: u32,
    scheduled: Duration,
    ok: bool,
    len: usize,
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// For every stream, and the connection: more than any run takes, so that windows need no more thought.
const WINDOW: u32 = 0x7fff_0000;

impl Http2 {
    pub fn new(streams: usize, out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let setting = |id: u16, value: u32| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
        // No pushes; and windows.
        frame(out, SETTINGS, 0, 0, &[setting(2, 0), setting(4, WINDOW)].concat());
        frame(out, WINDOW_UPDATE, 0, 0, &(WINDOW - 65_535).to_be_bytes());
        Self { streams, next: 1, open: Vec::new(), inbox: Vec::new(), is_closing: false }
    }

    pub fn ask(&mut self, ask: &Ask<'_>, scheduled: Duration, out: &mut Vec<u8>) {
        assert!(ask.body.is_empty(), "no workload sends bodies over HTTP/2");
        // RFC 7541: indexed fields (GET, https), and literals that are not to be indexed, with their static names.
        let mut block = vec![0x82, 0x87];
        literal(&mut block, &[0x04], ask.path);
        literal(&mut block, &[0x01], ask.host);
        literal(&mut block, &[0x0f, 58 - 15], "versus/1");
        literal(&mut block, &[0x0f, 19 - 15], "application/json");
        if let Some(key) = ask.key {
            literal(&mut block, b"\x00\x09x-api-key", &format!("key-{key:012}"));
        }
        frame(out, HEADERS, END_STREAM | END_HEADERS, self.next, &block);
        self.open.push(Stream { id: self.next, scheduled, ok: false, len: 0 });
        self.next += 2;
        // Ids are used up some time; another connection has fresh ones.
        self.is_closing |= self.next > 0x3fff_ffff;
    }

    pub fn in_flight(&self) -> usize {
        self.open.len()
    }

    pub fn has_room(&self) -> bool {
        !self.is_closing && self.open.len() < self.streams
    }

    pub fn take(&mut self, bytes: &[u8], answers: &mut Vec<Answer>, out: &mut Vec<u8>) -> Result<(), String> {
        let mut inbox = std::mem::take(&mut self.inbox);
        inbox.extend_from_slice(bytes);
        let mut rest = &inbox[..];
        while let Some((head, after)) = rest.split_at_checked(9) {
            let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let Some((payload, after)) = after.split_at_checked(len) else { break };
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
            self.frame(head[3], head[4], stream, payload, answers, out)?;
            rest = after;
        }
        let taken = inbox.len() - rest.len();
        inbox.drain(..taken);
        self.inbox = inbox;
        Ok(())
    }

    fn frame(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
        answers: &mut Vec<Answer>,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        match kind {
            DATA | HEADERS => {
                let place = self.open.iter().position(|open| open.id == stream).ok_or("an answer to nothing")?;
                let open = &mut self.open[place];
                if flags & PADDED != 0 {
                    return Err("padding, which is not understood here".into());
                }
                if kind == DATA {
                    open.len += payload.len();
                } else if !open.ok {
                    open.ok = is_200(payload);
                    if flags & END_HEADERS == 0 {
                        return Err("a head in parts, which is not understood here".into());
                    }
                }
                if flags & END_STREAM != 0 {
                    let done = self.open.swap_remove(place);
                    answers.push((done.scheduled, if done.ok { Ok(done.len) } else { Err("not status 200".into()) }));
                }
            }
            RST_STREAM => {
                if let Some(place) = self.open.iter().position(|open| open.id == stream) {
                    let reset = self.open.swap_remove(place);
                    answers.push((reset.scheduled, Err("the stream was reset".into())));
                }
            }
            SETTINGS if flags & ACK == 0 => frame(out, SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => frame(out, PING, ACK, 0, payload),
            GOAWAY => self.is_closing = true,
            _ => {}
        }
        Ok(())
    }
}

/// Whether a block of headers begins with `:status: 200`, which is in HPACK's static table, after perhaps some changes
/// of the dynamic table's size.
fn is_200(block: &[u8]) -> bool {
    let first = block.iter().find(|byte| *byte & 0xe0 != 0x20);
    first == Some(&0x88)
}

fn literal(block: &mut Vec<u8>, name: &[u8], value: &str) {
    block.extend_from_slice(name);
    block.push(u8::try_from(value.len()).ok().filter(|len| *len < 127).expect("a short value"));
    block.extend_from_slice(value.as_bytes());
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let len = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    out.extend_from_slice(&[len[1], len[2], len[3], kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}
