//! A response's head, read as strictly as a request's (RFC 9112): what two readers could take in two ways is no answer.

use std::ops::Range;

use super::fields::{Field, Lines, Name, NoLine, members};
use super::head::{Limits, content_length};

/// How a response's body is framed (RFC 9112, 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes; zero when the response has no body.
    Length(u64),
    /// Chunked transfer coding.
    Chunked,
    /// Until the connection ends.
    UntilClose,
}

/// A response's head that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseHead {
    /// Bytes of the head, with its empty line.
    pub len: usize,
    /// The status.
    pub status: u16,
    /// The reason phrase, within the head.
    pub reason: Range<usize>,
    /// How the body is framed.
    pub framing: Framing,
    /// Whether the server keeps the connection.
    pub keep_alive: bool,
    /// Whether it is HTTP/1.0.
    pub http10: bool,
}

/// Why a response is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Larger than the limit, or more header lines.
    #[error("head-size")]
    Size,
    /// No `HTTP/1.x SP 3DIGIT SP reason`.
    #[error("status-line")]
    StatusLine,
    /// A bare CR or LF.
    #[error("line-ending")]
    LineEnding,
    /// A header line is no `name: value`.
    #[error("header")]
    Header,
    /// Its body's length is malformed, doubled or ambiguous.
    #[error("framing")]
    Framing,
    /// A chunk of its body is malformed.
    #[error("chunk")]
    Chunk,
}

/// Reads a head from the start of `buf`: `Ok(None)` when more bytes are needed. Its header lines are put into `fields`.
/// `to_head`: it answers a HEAD request, and has no body whatever it says.
///
/// # Errors
/// Why it is no answer; the connection cannot be used any further.
pub fn parse(
    buf: &[u8],
    limits: Limits,
    to_head: bool,
    fields: &mut Vec<Field>,
) -> Result<Option<ResponseHead>, Malformed> {
    fields.clear();
    let mut lines = Lines { buf, at: 0 };
    let mut line = || match lines.next(limits.size) {
        Ok(line) => Ok(Some((line, lines.at))),
        Err(NoLine::More) => Ok(None),
        Err(NoLine::TooLarge) => Err(Malformed::Size),
        Err(NoLine::BareEnd) => Err(Malformed::LineEnding),
    };
    let Some((status_line, _)) = line()? else {
        return Ok(None);
    };
    let (http10, status, reason) = parse_status_line(buf, status_line)?;
    let (mut length, mut chunked, mut close, mut keep) = (None, false, false, false);
    let len = loop {
        let Some((range, at)) = line()? else {
            return Ok(None);
        };
        if range.is_empty() {
            break at;
        }
        if fields.len() == limits.headers {
            return Err(Malformed::Size);
        }
        let field = Field::read(buf, range).ok_or(Malformed::Header)?;
        let value = field.value(buf);
        match field.name {
            Name::ContentLength if length.replace(content_length(value).ok_or(Malformed::Framing)?).is_some() => {
                return Err(Malformed::Framing);
            }
            Name::TransferEncoding if chunked || !value.eq_ignore_ascii_case(b"chunked") => {
                return Err(Malformed::Framing);
            }
            Name::TransferEncoding => chunked = true,
            Name::Connection => {
                close |= members(value).any(|member| member.eq_ignore_ascii_case(b"close"));
                keep |= members(value).any(|member| member.eq_ignore_ascii_case(b"keep-alive"));
            }
            _ => {}
        }
        fields.push(field);
    };
    let framing = match (status, length, chunked) {
        // Both together are how one response passes for two; and 1.0 knows no chunks.
        (_, Some(_), true) => return Err(Malformed::Framing),
        (_, _, true) if http10 => return Err(Malformed::Framing),
        // No body, and none may be announced but an empty one.
        (100..200 | 204, None | Some(0), false) => Framing::Length(0),
        (100..200 | 204, _, _) => return Err(Malformed::Framing),
        (304, _, _) => Framing::Length(0),
        _ if to_head => Framing::Length(0),
        (_, Some(length), false) => Framing::Length(length),
        (_, None, true) => Framing::Chunked,
        (_, None, false) => Framing::UntilClose,
    };
    let keep_alive = !close && (!http10 || keep) && framing != Framing::UntilClose;
    Ok(Some(ResponseHead { len, status, reason, framing, keep_alive, http10 }))
}

fn parse_status_line(buf: &[u8], range: Range<usize>) -> Result<(bool, u16, Range<usize>), Malformed> {
    let line = &buf[range.clone()];
    let http10 = match line.get(..9) {
        Some(b"HTTP/1.1 ") => false,
        Some(b"HTTP/1.0 ") => true,
        _ => return Err(Malformed::StatusLine),
    };
    let digits = line.get(9..12).filter(|digits| digits.iter().all(u8::is_ascii_digit)).ok_or(Malformed::StatusLine)?;
    let status = digits.iter().fold(0, |n, b| n * 10 + u16::from(b - b'0'));
    // Many leave out the space before an empty reason.
    let reason = match line.get(12) {
        None => range.end..range.end,
        Some(b' ') => range.start + 13..range.end,
        Some(_) => return Err(Malformed::StatusLine),
    };
    let printable = buf[reason.clone()].iter().all(|b| *b >= b' ' && *b != 0x7f || *b == b'\t');
    if !(100..600).contains(&status) || !printable {
        return Err(Malformed::StatusLine);
    }
    Ok((http10, status, reason))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { size: 512, headers: 8 };

    fn read(text: &str, to_head: bool) -> Result<Option<ResponseHead>, Malformed> {
        parse(text.as_bytes(), LIMITS, to_head, &mut Vec::new())
    }

    #[test]
    fn bodies_end_where_the_rfc_says() {
        let framing = |text: &str, to_head| read(text, to_head).unwrap().unwrap().framing;
        assert_eq!(framing("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", false), Framing::Length(5));
        assert_eq!(framing("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true), Framing::Length(0));
        assert_eq!(framing("HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n", false), Framing::Chunked);
        assert_eq!(framing("HTTP/1.1 200 \r\n\r\n", false), Framing::UntilClose);
        assert_eq!(framing("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", false), Framing::Length(0));
        assert_eq!(framing("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", false), Framing::Length(0));
        assert_eq!(framing("HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", false), Framing::Length(0));
    }

    #[test]
    fn connections_are_kept_as_the_server_says() {
        let keep = |text: &str| read(text, false).unwrap().unwrap().keep_alive;
        assert!(keep("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"));
        assert!(!keep("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: x, Close\r\n\r\n"));
        assert!(!keep("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"));
        assert!(keep("HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n"));
        assert!(!keep("HTTP/1.1 200 OK\r\n\r\n"));
    }

    #[test]
    fn what_is_ambiguous_is_no_answer() {
        use Malformed::*;
        let cases = [
            ("HTTP/1.1 200 OK\nContent-Length: 0\n\n", LineEnding),
            ("HTTP/1.1 200 OK\r\nx: a\rb\r\n\r\n", LineEnding),
            ("HTTP/2 200 OK\r\n\r\n", StatusLine),
            ("HTTP/1.1 20 OK\r\n\r\n", StatusLine),
            ("HTTP/1.1 2000 OK\r\n\r\n", StatusLine),
            ("HTTP/1.1 099 OK\r\n\r\n", StatusLine),
            ("HTTP/1.1 600 OK\r\n\r\n", StatusLine),
            ("HTTP/1.1  200 OK\r\n\r\n", StatusLine),
            ("HTTP/1.1 200 O\0K\r\n\r\n", StatusLine),
            ("ICY 200 OK\r\n\r\n", StatusLine),
            ("HTTP/1.1 200 OK\r\nx : a\r\n\r\n", Header),
            ("HTTP/1.1 200 OK\r\n folded\r\n\r\n", Header),
            ("HTTP/1.1 200 OK\r\nx: a\0\r\n\r\n", Header),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", Framing),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", Framing),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", Framing),
            ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", Framing),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", Framing),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Framing),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", Framing),
            ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Framing),
            ("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", Framing),
            ("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", Framing),
            ("HTTP/1.1 101 Switching Protocols\r\nTransfer-Encoding: chunked\r\n\r\n", Framing),
        ];
        for (text, malformed) in cases {
            assert_eq!(read(text, false), Err(malformed), "{text:?}");
        }
        let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(600));
        assert_eq!(read(&long, false), Err(Size));
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), to_head: bool) {
            let _ = parse(&bytes, LIMITS, to_head, &mut Vec::new());
        }
    }
}
