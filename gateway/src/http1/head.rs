//! A request's head, read strictly (RFC 9112): what two servers could read in two ways is refused.

use std::ops::Range;

use super::fields::{Field, Lines, Name, NoLine, is_token};

/// Bytes of a method, at most.
const MAX_METHOD: usize = 32;

/// How a request's body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes; zero when the request has no body.
    Length(u64),
    /// Chunked transfer coding.
    Chunked,
}

/// A head that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the head, with its empty line.
    pub len: usize,
    /// The method, within the head.
    pub method: Range<usize>,
    /// The request target, within the head.
    pub target: Range<usize>,
    /// Where the target's origin form begins, when the target is in absolute form (RFC 9112, 3.2.2).
    pub origin_form: Option<Range<usize>>,
    /// How the body is framed.
    pub framing: Framing,
    /// Whether it is HTTP/1.0.
    pub http10: bool,
}

impl Head {
    /// The target's origin form, within the head: path and query.
    #[must_use]
    pub fn path(&self) -> Range<usize> {
        self.origin_form.clone().unwrap_or_else(|| self.target.clone())
    }
}

/// What a head may not exceed.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes in all.
    pub size: usize,
    /// Header lines.
    pub headers: usize,
}

/// Why a request is refused before it is anybody's request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// Larger than the limit.
    #[error("the request head is too large")]
    HeadSize,
    /// A target that leaves no room for the rest of the request line.
    #[error("the request target is too long")]
    TargetSize,
    /// More header lines than the limit.
    #[error("the request has too many headers")]
    HeaderCount,
    /// The request line is not `METHOD SP TARGET SP VERSION CRLF`.
    #[error("the request line is malformed")]
    RequestLine,
    /// The target has bytes it must not have, or a form the method does not allow.
    #[error("the request target is malformed")]
    Target,
    /// A version other than 1.0 and 1.1.
    #[error("the HTTP version is not supported")]
    Version,
    /// A line ends in a bare LF, or holds a bare CR.
    #[error("a line does not end in CRLF")]
    LineEnding,
    /// A header line is no `name: value`: folded, a space before the colon, bytes no name or value may have.
    #[error("a header line is malformed")]
    Header,
    /// No `Host` in 1.1, more than one, an empty or malformed one, or one that differs from the target's.
    #[error("the Host header is missing, doubled or malformed")]
    Host,
    /// `Content-Length` is malformed or doubled.
    #[error("the Content-Length header is malformed or doubled")]
    ContentLength,
    /// `Transfer-Encoding` in 1.0, doubled, or beside `Content-Length`.
    #[error("the body's framing is ambiguous")]
    Framing,
    /// A transfer coding other than chunked alone.
    #[error("the transfer coding is not supported")]
    TransferCoding,
    /// A chunk of the body is malformed.
    #[error("the chunked body is malformed")]
    Chunk,
    /// A trailer is no header line, or one that no trailer may be.
    #[error("a trailer is malformed, or may not be one")]
    Trailer,
    /// The head did not arrive in time.
    #[error("the request head did not arrive in time")]
    Timeout,
}

impl Refusal {
    /// The status it is answered with.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::TargetSize => 414,
            Self::HeadSize | Self::HeaderCount => 431,
            Self::Version => 505,
            Self::TransferCoding => 501,
            Self::Timeout => 408,
            _ => 400,
        }
    }

    /// A short name, for metrics.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::HeadSize => "head-size",
            Self::TargetSize => "target-size",
            Self::HeaderCount => "header-count",
            Self::RequestLine => "request-line",
            Self::Target => "target",
            Self::Version => "version",
            Self::LineEnding => "line-ending",
            Self::Header => "header",
            Self::Host => "host",
            Self::ContentLength => "content-length",
            Self::Framing => "framing",
            Self::TransferCoding => "transfer-coding",
            Self::Chunk => "chunk",
            Self::Trailer => "trailer",
            Self::Timeout => "head-timeout",
        }
    }
}

/// Reads a head from the start of `buf`: `Ok(None)` when more bytes are needed. Its header lines are put into `fields`.
///
/// # Errors
/// Why the request is refused; the connection cannot be used any further.
pub fn parse(buf: &[u8], limits: Limits, fields: &mut Vec<Field>) -> Result<Option<Head>, Refusal> {
    fields.clear();
    let mut lines = Lines { buf, at: 0 };
    let mut line = || match lines.next(limits.size) {
        Ok(line) => Ok(Some((line, lines.at))),
        Err(NoLine::More) => Ok(None),
        Err(NoLine::TooLarge) => Err(Refusal::HeadSize),
        Err(NoLine::BareEnd) => Err(Refusal::LineEnding),
    };
    let request_line = match line() {
        // RFC 9112, 3: what does not fit is the target, if there is a method in front of it.
        Err(Refusal::HeadSize) if begins_with_method(buf) => return Err(Refusal::TargetSize),
        line => line?,
    };
    let Some((request_line, _)) = request_line else {
        return Ok(None);
    };
    let request = parse_request_line(buf, request_line)?;
    let mut framed = Framed::default();
    let len = loop {
        let Some((range, at)) = line()? else {
            return Ok(None);
        };
        if range.is_empty() {
            break at;
        }
        if fields.len() == limits.headers {
            return Err(Refusal::HeaderCount);
        }
        let field = Field::read(buf, range).ok_or(Refusal::Header)?;
        framed.take(&field, buf)?;
        fields.push(field);
    };
    let RequestLine { method, target, origin_form, authority, http10 } = request;
    let framing = framed.framing(http10)?;
    framed.check_host(http10, authority.map(|range| &buf[range]))?;
    Ok(Some(Head { len, method, target, origin_form, framing, http10 }))
}

fn begins_with_method(buf: &[u8]) -> bool {
    let end = buf.iter().take(MAX_METHOD + 1).position(|b| *b == b' ');
    end.is_some_and(|end| end > 0 && is_token(&buf[..end]))
}

struct RequestLine {
    method: Range<usize>,
    target: Range<usize>,
    origin_form: Option<Range<usize>>,
    authority: Option<Range<usize>>,
    http10: bool,
}

fn parse_request_line(buf: &[u8], range: Range<usize>) -> Result<RequestLine, Refusal> {
    let start = range.start;
    let line = &buf[range.clone()];
    let method_end = memchr::memchr(b' ', line).ok_or(Refusal::RequestLine)?;
    let version_start = memchr::memrchr(b' ', line).ok_or(Refusal::RequestLine)? + 1;
    if method_end == 0 || method_end > MAX_METHOD || !is_token(&line[..method_end]) || version_start <= method_end + 2 {
        return Err(Refusal::RequestLine);
    }
    let http10 = match &line[version_start..] {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        version if version.starts_with(b"HTTP/") => return Err(Refusal::Version),
        _ => return Err(Refusal::RequestLine),
    };
    let target = start + method_end + 1..start + version_start - 1;
    let (origin_form, authority) = parse_target(buf, target.clone(), &line[..method_end])?;
    Ok(RequestLine { method: start..start + method_end, target, origin_form, authority, http10 })
}

/// Where the origin form and the authority are, when the target is in absolute form.
type Absolute = (Option<Range<usize>>, Option<Range<usize>>);

fn parse_target(buf: &[u8], range: Range<usize>, method: &[u8]) -> Result<Absolute, Refusal> {
    let target = &buf[range.clone()];
    if !target.iter().all(is_uri) {
        return Err(Refusal::Target);
    }
    if is_origin_form(target, method) {
        return Ok((None, None));
    }
    if method == b"CONNECT" {
        // Authority form: refused later, with a status of its own.
        return if parse_authority(target) { Ok((None, None)) } else { Err(Refusal::Target) };
    }
    let scheme = [&b"http://"[..], b"https://"]
        .into_iter()
        .find(|scheme| target.len() > scheme.len() && target[..scheme.len()].eq_ignore_ascii_case(scheme))
        .ok_or(Refusal::Target)?;
    let rest = &target[scheme.len()..];
    let authority_len = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
    let authority = range.start + scheme.len()..range.start + scheme.len() + authority_len;
    // "http://host?q" has an empty path, which only a rewrite could forward.
    if authority_len == rest.len() || rest[authority_len] == b'?' || !parse_authority(&rest[..authority_len]) {
        return Err(Refusal::Target);
    }
    Ok((Some(authority.end..range.end), Some(authority)))
}

/// RFC 3986: visible ASCII, without those that no URI has, and without a fragment.
fn is_uri(b: &u8) -> bool {
    const URI: [bool; 256] = {
        let mut table = [false; 256];
        let mut b = 0u8;
        while b < 128 {
            let never = matches!(b, b'"' | b'#' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}');
            table[b as usize] = b.is_ascii_graphic() && !never;
            b += 1;
        }
        table
    };
    URI[usize::from(*b)]
}

/// Whether this is a path, or the server as a whole.
fn is_origin_form(target: &[u8], method: &[u8]) -> bool {
    target.starts_with(b"/") || target == b"*" && method == b"OPTIONS"
}

/// Whether this is `host` or `host:port` (RFC 3986, 3.2.2), without user information.
fn parse_authority(authority: &[u8]) -> bool {
    let (host, port) = match authority.iter().rposition(|b| *b == b':') {
        Some(colon) if !authority[colon..].contains(&b']') => (&authority[..colon], Some(&authority[colon + 1..])),
        _ => (authority, None),
    };
    let port_ok = port.is_none_or(|p| {
        !p.is_empty()
            && p.len() <= 5
            && p.iter().all(u8::is_ascii_digit)
            && std::str::from_utf8(p).is_ok_and(|p| p.parse::<u16>().is_ok())
    });
    let host_ok = match host.strip_prefix(b"[").and_then(|h| h.strip_suffix(b"]")) {
        Some(v6) => std::str::from_utf8(v6).is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok()),
        None => {
            !host.is_empty()
                && host.len() <= 253
                && host.iter().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(b))
        }
    };
    port_ok && host_ok
}

/// The header lines that frame or route a message.
#[derive(Default)]
struct Framed<'a> {
    host: Option<&'a [u8]>,
    length: Option<u64>,
    chunked: bool,
}

impl<'a> Framed<'a> {
    fn take(&mut self, field: &Field, head: &'a [u8]) -> Result<(), Refusal> {
        let value = field.value(head);
        match field.name {
            Name::Host if self.host.replace(value).is_some() => return Err(Refusal::Host),
            Name::ContentLength => {
                let length = content_length(value).ok_or(Refusal::ContentLength)?;
                if self.length.replace(length).is_some() {
                    return Err(Refusal::ContentLength);
                }
            }
            Name::TransferEncoding if self.chunked => return Err(Refusal::Framing),
            Name::TransferEncoding if !value.eq_ignore_ascii_case(b"chunked") => return Err(Refusal::TransferCoding),
            Name::TransferEncoding => self.chunked = true,
            Name::Disguised => return Err(Refusal::Header),
            _ => {}
        }
        Ok(())
    }

    fn framing(&self, http10: bool) -> Result<Framing, Refusal> {
        match (self.chunked, self.length) {
            (true, None) if !http10 => Ok(Framing::Chunked),
            (true, _) => Err(Refusal::Framing),
            (false, length) => Ok(Framing::Length(length.unwrap_or(0))),
        }
    }

    fn check_host(&self, http10: bool, authority: Option<&[u8]>) -> Result<(), Refusal> {
        match (self.host, authority) {
            (None, _) if !http10 => Err(Refusal::Host),
            (None, None) => Ok(()),
            (None, Some(_)) => Err(Refusal::Host),
            (Some(host), _) if !parse_authority(host) => Err(Refusal::Host),
            (Some(host), Some(authority)) if !host.eq_ignore_ascii_case(authority) => Err(Refusal::Host),
            (Some(_), _) => Ok(()),
        }
    }
}

/// Digits, and no more of them than a body can have bytes.
pub(crate) fn content_length(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.len() <= 18 && value.iter().all(u8::is_ascii_digit);
    digits.then(|| value.iter().fold(0, |n, b| n * 10 + u64::from(b - b'0')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { size: 512, headers: 8 };

    fn read(text: &str) -> Result<Option<Head>, Refusal> {
        parse(text.as_bytes(), LIMITS, &mut Vec::new())
    }

    fn framing(text: &str) -> Result<Framing, Refusal> {
        read(text).map(|head| head.expect("the head is whole").framing)
    }

    #[test]
    fn plain_requests() {
        assert_eq!(framing("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), Ok(Framing::Length(0)));
        assert_eq!(framing("GET /a?b=%20 HTTP/1.0\r\n\r\n"), Ok(Framing::Length(0)));
        assert_eq!(
            framing("POST / HTTP/1.1\r\nHost: [::1]:8080\r\ncontent-length:\t7 \r\n\r\n"),
            Ok(Framing::Length(7))
        );
        assert_eq!(framing("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n"), Ok(Framing::Chunked));
        assert_eq!(framing("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"), Ok(Framing::Length(0)));
        assert_eq!(framing("GET / HTTP/1.1\r\nHost: a\r\nx: \u{e9}\r\nempty:\r\n\r\n"), Ok(Framing::Length(0)));
    }

    #[test]
    fn absolute_form_must_agree_with_host() {
        let text = "GET http://a.test:80/x?y HTTP/1.1\r\nHost: A.test:80\r\n\r\n";
        let head = read(text).unwrap().unwrap();
        assert_eq!(&text[head.origin_form.unwrap()], "/x?y");
        assert_eq!(read("GET http://a.test/ HTTP/1.1\r\nHost: b.test\r\n\r\n"), Err(Refusal::Host));
        assert_eq!(read("GET http://u@a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n"), Err(Refusal::Target));
    }

    #[test]
    fn what_is_ambiguous_is_refused() {
        use Refusal::*;
        let cases: &[(&str, Refusal)] = &[
            ("GET / HTTP/1.1\r\n\r\n", Host),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Host),
            ("GET / HTTP/1.1\r\nHost:\r\n\r\n", Host),
            ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", Host),
            ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", Host),
            ("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", Host),
            ("GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n", Host),
            ("GET / HTTP/1.1\nHost: a\n\n", LineEnding),
            ("GET / HTTP/1.1\r\nHost: a\r\nx: a\rb\r\n\r\n", LineEnding),
            ("GET / HTTP/1.1\r\nHost: a\r\nx: a\n\r\n", LineEnding),
            ("GET / HTTP/1.1\r\nHost: a\r\nx: a\0b\r\n\r\n", Header),
            ("GET / HTTP/1.1\r\nHost: a\r\nx : a\r\n\r\n", Header),
            ("GET / HTTP/1.1\r\nHost: a\r\n x: a\r\n\r\n", Header),
            ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", Header),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent_Length: 1\r\n\r\n", Header),
            ("GET / HTTP/1.1\r\nHost: a\r\nTRANSFER_ENCODING: chunked\r\n\r\n", Header),
            ("GET / HTTP/1.1\r\nHost: a\r\nnocolon\r\n\r\n", Header),
            ("GET / HTTP/1.1\r\nHost: a\r\n: empty\r\n\r\n", Header),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", ContentLength),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n", ContentLength),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", ContentLength),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", ContentLength),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n", Framing),
            ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", Framing),
            ("GET / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", Framing),
            ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n", TransferCoding),
            ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", TransferCoding),
            ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", TransferCoding),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Target),
            ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", RequestLine),
            ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", Target),
            ("GET /#f HTTP/1.1\r\nHost: a\r\n\r\n", Target),
            ("GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n", Target),
            ("GET a/b HTTP/1.1\r\nHost: a\r\n\r\n", Target),
            ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", Target),
            ("GET /\r\nHost: a\r\n\r\n", RequestLine),
            ("G@T / HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
            (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", Version),
            ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", Version),
            ("GET / http/1.1\r\nHost: a\r\n\r\n", RequestLine),
        ];
        for (text, refusal) in cases {
            assert_eq!(read(text), Err(*refusal), "{text:?}");
        }
    }

    #[test]
    fn size_and_count_are_bounded() {
        let head = |n: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(n));
        let overhead = head(0).len();
        assert!(read(&head(512 - overhead)).unwrap().is_some());
        assert_eq!(read(&head(513 - overhead)), Err(Refusal::HeadSize));
        assert_eq!(read(&head(513)), Err(Refusal::TargetSize));
        assert_eq!(read(&"x".repeat(513)), Err(Refusal::HeadSize));
        let headers = |n: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "a: b\r\n".repeat(n));
        assert!(read(&headers(7)).unwrap().is_some());
        assert_eq!(read(&headers(8)), Err(Refusal::HeaderCount));
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = parse(&bytes, LIMITS, &mut Vec::new());
        }

        #[test]
        fn a_head_is_read_the_same_however_it_arrives(cut in 0usize..60) {
            let text = b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello";
            let whole = parse(text, LIMITS, &mut Vec::new()).unwrap().unwrap();
            let part = parse(&text[..cut.min(text.len())], LIMITS, &mut Vec::new()).unwrap();
            prop_assert_eq!(part, (cut >= whole.len).then_some(whole));
        }
    }
}
