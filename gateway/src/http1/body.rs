//! Where a request's body ends: the strict reading of `Content-Length` and of the chunked coding (RFC 9112, 7.1).

use super::fields::{Field, Name};
use super::head::{Framing, Refusal};
use crate::policy::forward;

/// Follows a body through the bytes of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    state: State,
    /// Bytes of trailers so far.
    trailers: usize,
    /// The trailer that is being read.
    trailer: Vec<u8>,
    /// Those that were read, as lines.
    kept: Vec<u8>,
    /// How many lines those are.
    lines: usize,
    /// Bytes of content so far, without what frames it.
    content: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Length(u64),
    ChunkSize { size: u64, digits: u8 },
    ChunkSizeLf(u64),
    ChunkData(u64),
    ChunkDataCr,
    ChunkDataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
    Done,
}

/// Bytes of trailers that are accepted; they are forwarded as they come.
pub(crate) const MAX_TRAILERS: usize = 8 << 10;
/// Lines of trailers that are accepted: fewer than any server takes (hyper refuses the hundredth).
pub(crate) const MAX_TRAILER_LINES: usize = 64;

impl Body {
    /// A body framed like this.
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::ChunkSize { size: 0, digits: 0 },
        };
        Self { state, trailers: 0, trailer: Vec::new(), kept: Vec::new(), lines: 0, content: 0 }
    }

    /// Whether the body has ended.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Bytes of content so far, without what frames it.
    #[must_use]
    pub fn content(&self) -> u64 {
        self.content
    }

    /// Trailers so far, as header lines.
    #[must_use]
    pub fn trailers(&self) -> &[u8] {
        &self.kept
    }

    /// How many of `bytes` belong to the body.
    ///
    /// # Errors
    /// [`Refusal::Chunk`] where the chunked coding is not exactly as the RFC has it. Chunk extensions are refused:
    /// no client sends them, and servers disagree where they end. [`Refusal::Trailer`] for a trailer that is no header
    /// line, or one that may not stand there.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<usize, Refusal> {
        self.advance_with(bytes, |_| {})
    }

    /// As [`Self::advance`]; `content` is given the content, part by part, without what frames it.
    ///
    /// # Errors
    /// As [`Self::advance`].
    pub fn advance_with(&mut self, bytes: &[u8], content: impl FnMut(&[u8])) -> Result<usize, Refusal> {
        self.advance_up_to(bytes, usize::MAX, content)
    }

    /// As [`Self::advance_with`], but no further than `most` bytes of content and what frames them.
    ///
    /// # Errors
    /// As [`Self::advance`].
    pub fn advance_up_to(
        &mut self,
        bytes: &[u8],
        mut most: usize,
        mut content: impl FnMut(&[u8]),
    ) -> Result<usize, Refusal> {
        let mut at = 0;
        while at < bytes.len() {
            match &mut self.state {
                State::Done => break,
                State::Length(_) | State::ChunkData(_) if most == 0 => break,
                State::Length(left) | State::ChunkData(left) => {
                    let step = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len() - at).min(most);
                    most -= step;
                    *left -= step as u64;
                    let left = *left;
                    content(&bytes[at..at + step]);
                    at += step;
                    self.content += step as u64;
                    if left == 0 {
                        let counted = matches!(self.state, State::Length(_));
                        self.state = if counted { State::Done } else { State::ChunkDataCr };
                    }
                }
                _ => {
                    self.step(bytes[at])?;
                    at += 1;
                }
            }
        }
        Ok(at)
    }

    fn step(&mut self, byte: u8) -> Result<(), Refusal> {
        self.state = match (&self.state, byte) {
            (State::ChunkSize { size, digits }, byte) if byte.is_ascii_hexdigit() && *digits < 15 => {
                let digit = (byte as char).to_digit(16).unwrap_or_default();
                State::ChunkSize { size: size << 4 | u64::from(digit), digits: digits + 1 }
            }
            (State::ChunkSize { size, digits: 1.. }, b'\r') => State::ChunkSizeLf(*size),
            (State::ChunkSizeLf(0), b'\n') => State::TrailerStart,
            (State::ChunkSizeLf(size), b'\n') => State::ChunkData(*size),
            (State::ChunkDataCr, b'\r') => State::ChunkDataLf,
            (State::ChunkDataLf, b'\n') => State::ChunkSize { size: 0, digits: 0 },
            (State::TrailerStart, b'\r') => State::EndLf,
            (State::EndLf, b'\n') => State::Done,
            (State::TrailerLf, b'\n') => {
                self.check_trailer()?;
                State::TrailerStart
            }
            (State::Trailer, b'\r') => State::TrailerLf,
            (State::TrailerStart | State::Trailer, byte) if byte != b'\n' => {
                self.trailers += 1;
                if self.trailers > MAX_TRAILERS {
                    return Err(Refusal::Trailer);
                }
                self.trailer.push(byte);
                State::Trailer
            }
            (State::Trailer | State::TrailerLf, _) => return Err(Refusal::Trailer),
            _ => return Err(Refusal::Chunk),
        };
        Ok(())
    }

    fn check_trailer(&mut self) -> Result<(), Refusal> {
        self.lines += 1;
        if self.lines > MAX_TRAILER_LINES {
            return Err(Refusal::Trailer);
        }
        check_trailer(&self.trailer)?;
        self.kept.append(&mut self.trailer);
        self.kept.extend_from_slice(b"\r\n");
        Ok(())
    }
}

/// Judges a trailer, without its line's end.
///
/// # Errors
/// [`Refusal::Trailer`] for what is no header line, or one that may not stand there.
pub fn check_trailer(line: &[u8]) -> Result<(), Refusal> {
    let field = Field::read(line, 0..line.len()).ok_or(Refusal::Trailer)?;
    if may_trail(&field, line) { Ok(()) } else { Err(Refusal::Trailer) }
}

/// RFC 9110, 6.5.1: not what frames, routes or authenticates a message, or says how it is to be read. Servers that merge
/// trailers into the head would take it for a part of that.
fn may_trail(field: &Field, line: &[u8]) -> bool {
    const NEVER: [&str; 15] = [
        "authorization",
        "cache-control",
        "content-encoding",
        "content-range",
        "content-type",
        "cookie",
        "max-forwards",
        "pragma",
        "proxy-authenticate",
        "range",
        "retry-after",
        "trailer",
        "vary",
        "via",
        "www-authenticate",
    ];
    let name = field.name(line);
    let never = |never: &str| name.eq_ignore_ascii_case(never.as_bytes());
    field.name == Name::Other && !forward::is_forged(name) && !NEVER.into_iter().any(never)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(framing: Framing, bytes: &[u8]) -> Result<(usize, bool), Refusal> {
        let mut body = Body::new(framing);
        let taken = body.advance(bytes)?;
        Ok((taken, body.is_done()))
    }

    #[test]
    fn bodies_end_where_they_say() {
        assert_eq!(read(Framing::Length(0), b"GET"), Ok((0, true)));
        assert_eq!(read(Framing::Length(3), b"abcGET"), Ok((3, true)));
        assert_eq!(read(Framing::Length(9), b"abc"), Ok((3, false)));
        assert_eq!(read(Framing::Chunked, b"3\r\nabc\r\n0\r\n\r\nGET"), Ok((13, true)));
        assert_eq!(read(Framing::Chunked, b"0A\r\n0123456789\r\n00\r\nx: y\r\n\r\n"), Ok((28, true)));
        assert_eq!(read(Framing::Chunked, b"3\r\nab"), Ok((5, false)));
    }

    #[test]
    fn chunks_are_read_strictly() {
        let bad: [&[u8]; 12] = [
            b"\r\n",
            b";\r\n",
            b"3;ext\r\nabc\r\n",
            b"3 \r\nabc\r\n",
            b" 3\r\nabc\r\n",
            b"0x3\r\nabc\r\n",
            b"-1\r\n",
            b"3\nabc\r\n",
            b"3\r\nabcd\r\n",
            b"3\r\nabc\n",
            b"3\r\nabc\r\r\n",
            b"1000000000000000\r\n",
        ];
        for bytes in bad {
            assert_eq!(read(Framing::Chunked, bytes), Err(Refusal::Chunk), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn trailers_are_header_lines_that_may_stand_there() {
        let read = |trailers: &str| read(Framing::Chunked, format!("0\r\n{trailers}\r\n").as_bytes());
        for good in ["", "X-Sum: 1\r\n", "Digest: a\r\nx:\r\n", "!: \u{e9}\r\n"] {
            assert_eq!(read(good), Ok((good.len() + 5, true)), "{good:?}");
        }
        let bad = [
            " folded: 1\r\n",
            "x: 1\r\n folded\r\n",
            "x: \0\r\n",
            "no colon\r\n",
            "x : 1\r\n",
            ": 1\r\n",
            "x: 1\n",
            "x: a\rb\r\n",
            "Content-Length: 5\r\n",
            "transfer-encoding: chunked\r\n",
            "Content_Length: 5\r\n",
            "Host: a\r\n",
            "Connection: close\r\n",
            "Authorization: x\r\n",
            "Cookie: a=b\r\n",
            "X-Forwarded-For: 1.2.3.4\r\n",
            "x_real_ip: 1.2.3.4\r\n",
        ];
        for bad in bad {
            assert_eq!(read(bad), Err(Refusal::Trailer), "{bad:?}");
        }
        assert_eq!(read(&"x:\r\n".repeat(MAX_TRAILER_LINES)), Ok((4 * MAX_TRAILER_LINES + 5, true)));
        assert_eq!(read(&"x:\r\n".repeat(MAX_TRAILER_LINES + 1)), Err(Refusal::Trailer));
    }

    #[test]
    fn what_only_frames_content_needs_no_room() {
        let mut body = Body::new(Framing::Chunked);
        assert_eq!(body.advance_up_to(b"3\r\nabc\r\n0\r\n\r\n", 2, |part| assert_eq!(part, b"ab")), Ok(5));
        assert_eq!(body.advance_up_to(b"c\r\n0\r\n\r\n", 0, |_| {}), Ok(0));
        assert_eq!(body.advance_up_to(b"c\r\n0\r\n\r\n", 1, |part| assert_eq!(part, b"c")), Ok(8));
        assert!(body.is_done());
    }

    proptest! {
        #[test]
        fn however_it_is_cut(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6), cut in 1usize..16) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend(format!("{:x}\r\n", chunk.len()).bytes());
                wire.extend(chunk);
                wire.extend(b"\r\n");
            }
            wire.extend(b"0\r\n\r\n");
            let length = wire.len();
            wire.extend(b"GET / HTTP/1.1\r\n");
            let mut body = Body::new(Framing::Chunked);
            let (mut taken, mut seen) = (0, Vec::new());
            for part in wire.chunks(cut) {
                taken += body.advance_with(part, |content| seen.extend_from_slice(content)).unwrap();
            }
            prop_assert!(body.is_done());
            prop_assert_eq!(taken, length);
            prop_assert_eq!(body.content(), seen.len() as u64);
            prop_assert_eq!(seen, chunks.concat());
        }
    }
}
