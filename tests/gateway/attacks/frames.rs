//! Just enough of HTTP/2 to send what no client would: any bytes as names and values.

use std::io;

use super::super::client::{Client, TlsStream};

/// What becomes of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is answered with this status.
    Answered(u16),
    /// It is reset, or the connection ends.
    Reset,
}

/// One request, as these fields in this order, and what becomes of it.
pub fn ask(client: &mut Client<TlsStream>, fields: &[(Vec<u8>, Vec<u8>)], body: &[u8]) -> Outcome {
    let block: Vec<u8> = fields.iter().flat_map(|(name, value)| literal(name, value)).collect();
    let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    sent.extend(frame(4, 0, 0, &[]));
    // END_HEADERS, and END_STREAM where there is no body.
    sent.extend(frame(1, if body.is_empty() { 5 } else { 4 }, 1, &block));
    if !body.is_empty() {
        sent.extend(frame(0, 1, 1, body));
    }
    if client.try_send(sent).is_err() {
        return Outcome::Reset;
    }
    outcome(client).unwrap_or(Outcome::Reset)
}

fn outcome(client: &mut Client<TlsStream>) -> io::Result<Outcome> {
    loop {
        let head = client.try_bytes(9)?;
        let payload =
            client.try_bytes(usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]))?;
        match (head[3], head[8]) {
            (1, 1) => return Ok(Outcome::Answered(status(&payload))),
            (3, 1) | (7, _) => return Ok(Outcome::Reset),
            _ => {}
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame").to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

/// A field that is not indexed, without Huffman coding (RFC 7541, 6.2.2).
fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
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
