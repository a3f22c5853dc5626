//! Header lines, read strictly, and what their names mean here.

use std::ops::Range;

/// A header line of a head. Places are offsets into the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    start: u32,
    colon: u32,
    value: (u32, u32),
    end: u32,
    /// What its name means here.
    pub name: Name,
}

/// Names that mean something here. The others are passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// Nothing in particular.
    Other,
    /// `Host`.
    Host,
    /// `Content-Length`.
    ContentLength,
    /// `Transfer-Encoding`.
    TransferEncoding,
    /// `Content_Length` or `Transfer_Encoding`: CGI, WSGI and their kin read them as what they look like.
    Disguised,
    /// `Connection`.
    Connection,
    /// `Keep-Alive`, `Proxy-Connection`, `Proxy-Authorization`, `TE`: between two neighbours only, whether `Connection`
    /// names them or not.
    HopByHop,
    /// `Upgrade`.
    Upgrade,
    /// `Expect`.
    Expect,
    /// `Date`.
    Date,
    /// `Set-Cookie`.
    SetCookie,
    /// `User-Agent`.
    UserAgent,
}

impl Name {
    /// What a name means here.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
        match name.len() {
            2 if is("te") => Self::HopByHop,
            4 if is("host") => Self::Host,
            4 if is("date") => Self::Date,
            6 if is("expect") => Self::Expect,
            7 if is("upgrade") => Self::Upgrade,
            10 if is("connection") => Self::Connection,
            10 if is("user-agent") => Self::UserAgent,
            10 if is("set-cookie") => Self::SetCookie,
            10 if is("keep-alive") => Self::HopByHop,
            14 if is("content-length") => Self::ContentLength,
            14 if is("content_length") => Self::Disguised,
            16 if is("proxy-connection") => Self::HopByHop,
            19 if is("proxy-authorization") => Self::HopByHop,
            17 if is("transfer-encoding") => Self::TransferEncoding,
            17 if is("transfer_encoding") => Self::Disguised,
            _ => Self::Other,
        }
    }
}

impl Field {
    /// Reads the line at `range` of `head`, which ends before its CRLF. `None` when it is no `name: value`: folded, with
    /// a space before the colon, or with bytes that no name or value may have (RFC 9110, 5.1 and 5.5).
    #[must_use]
    pub fn read(head: &[u8], range: Range<usize>) -> Option<Self> {
        let line = &head[range.clone()];
        // A folded line begins with a space, and a space before the colon is in the name: neither is a token.
        let colon = line.iter().position(|b| !TOKEN[usize::from(*b)])?;
        if colon == 0 || line[colon] != b':' {
            return None;
        }
        let value = &line[colon + 1..];
        if !value.iter().all(|b| VALUE[usize::from(*b)]) {
            return None;
        }
        let leading = value.len() - value.trim_ascii_start().len();
        let trimmed = value.trim_ascii().len();
        let at = |n: usize| u32::try_from(range.start + n).unwrap_or(u32::MAX);
        let value = at(colon + 1 + leading);
        Some(Self {
            start: at(0),
            colon: at(colon),
            value: (value, value + u32::try_from(trimmed).unwrap_or(0)),
            end: at(line.len() + 2),
            name: Name::of(&line[..colon]),
        })
    }

    /// Its name, as it was written.
    #[must_use]
    pub fn name<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        &head[self.start as usize..self.colon as usize]
    }

    /// Its value, without the white space around it.
    #[must_use]
    pub fn value<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        &head[self.value.0 as usize..self.value.1 as usize]
    }

    /// The whole line, with its end.
    #[must_use]
    pub fn line<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        &head[self.start as usize..self.end as usize]
    }
}

/// Lines that end in CRLF and hold no other CR or LF.
pub(super) struct Lines<'a> {
    pub(super) buf: &'a [u8],
    pub(super) at: usize,
}

/// Why there is no next line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoLine {
    /// It has not arrived yet.
    More,
    /// The head is larger than it may be.
    TooLarge,
    /// A bare CR or LF.
    BareEnd,
}

impl Lines<'_> {
    /// The next line without its end.
    pub(super) fn next(&mut self, limit: usize) -> Result<Range<usize>, NoLine> {
        let rest = &self.buf[self.at..];
        let Some(end) = memchr::memchr2(b'\r', b'\n', rest) else {
            return Err(if self.buf.len() >= limit { NoLine::TooLarge } else { NoLine::More });
        };
        if self.at + end + 2 > limit {
            return Err(NoLine::TooLarge);
        }
        match (rest[end], rest.get(end + 1)) {
            (b'\r', Some(b'\n')) => {
                let line = self.at..self.at + end;
                self.at += end + 2;
                Ok(line)
            }
            (b'\r', None) => Err(NoLine::More),
            _ => Err(NoLine::BareEnd),
        }
    }
}

/// Whether every byte is one that a token may have (RFC 9110, 5.6.2).
pub(super) fn is_token(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| TOKEN[usize::from(*b)])
}

/// Members of a comma-separated list, without white space and empty members.
pub(super) fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut b = 0u8;
    while b < 128 {
        table[b as usize] = b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            );
        b += 1;
    }
    table
};

/// Visible characters, space, tab, and bytes above ASCII.
const VALUE: [bool; 256] = {
    let mut table = [true; 256];
    let mut b = 0;
    while b < 32 {
        table[b] = b == 9;
        b += 1;
    }
    table[0x7f] = false;
    table
};
