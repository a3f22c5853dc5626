//! A request's head as a server gets it: the client's own lines, but for what is between neighbours and what only a proxy
//! may say.

use super::fields::{Field, Name, members};
use super::head::Head;
use crate::policy::Fields;
use crate::policy::forward::{self, Origin};

/// A head's lines, as policy sees them.
pub struct Lines<'a> {
    /// The head.
    pub head: &'a [u8],
    /// Where its lines are.
    pub fields: &'a [Field],
}

impl Fields for Lines<'_> {
    /// Not those that `Connection` names: they go no further, and must not count for anything here.
    fn each(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let options = self.has_options();
        let stays = move |field: &&Field| !options || !self.names(field);
        self.fields.iter().filter(stays).map(|field| (field.name(self.head), field.value(self.head)))
    }
}

impl Lines<'_> {
    pub(crate) fn of(&self, name: Name) -> impl Iterator<Item = &[u8]> {
        self.fields.iter().filter(move |field| field.name == name).map(|field| field.value(self.head))
    }

    /// The first line of this name.
    pub(crate) fn first(&self, name: Name) -> Option<&[u8]> {
        self.of(name).next()
    }

    /// Whether `Connection` has this option.
    pub(crate) fn connection(&self, option: &[u8]) -> bool {
        self.of(Name::Connection).any(|value| members(value).any(|member| member.eq_ignore_ascii_case(option)))
    }

    /// Whether there is a protocol to change to that is no other HTTP, or TLS: their requests would pass through the tunnel
    /// unseen ("h2c smuggling").
    pub(crate) fn may_upgrade(&self) -> bool {
        let hides_requests = |protocol: &[u8]| {
            let begins =
                |with: &str| protocol.get(..with.len()).is_some_and(|p| p.eq_ignore_ascii_case(with.as_bytes()));
            begins("h2") || begins("h3") || begins("http") || begins("tls")
        };
        let mut protocols = self.of(Name::Upgrade).flat_map(members).peekable();
        protocols.peek().is_some() && !protocols.any(hides_requests)
    }

    /// Whether `Connection` names this field, which then is between two neighbours only (RFC 9110, 7.6.1).
    pub(crate) fn names(&self, field: &Field) -> bool {
        self.of(Name::Connection)
            .any(|value| members(value).any(|member| member.eq_ignore_ascii_case(field.name(self.head))))
    }

    /// Whether `Connection` has options beyond the usual, and may name a field.
    pub(crate) fn has_options(&self) -> bool {
        let usual = |member: &[u8]| {
            [&b"close"[..], b"keep-alive", b"upgrade", b"te"].iter().any(|usual| member.eq_ignore_ascii_case(usual))
        };
        self.of(Name::Connection).any(|value| !members(value).all(usual))
    }
}

/// Appends the head of a request as a server gets it. `server` names it where the client named no host; `upgrade`: the
/// client asks for another protocol, and may have it.
pub fn request(
    out: &mut Vec<u8>,
    head: &Head,
    lines: &Lines<'_>,
    origin: &Origin,
    request_id: &str,
    server: &str,
    upgrade: bool,
) {
    out.extend_from_slice(&lines.head[head.method.clone()]);
    out.push(b' ');
    out.extend_from_slice(&lines.head[head.path()]);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let options = lines.has_options();
    for field in lines.fields {
        let drop = match field.name {
            Name::Connection | Name::HopByHop => true,
            Name::Upgrade => !upgrade,
            Name::Host => false,
            // As they were judged, however they were written.
            Name::ContentLength | Name::TransferEncoding => {
                let (name, value) = framing(field, lines.head);
                put(out, name, value);
                true
            }
            _ => forward::is_forged(field.name(lines.head)) || options && lines.names(field),
        };
        if !drop {
            out.extend_from_slice(field.line(lines.head));
        }
    }
    let host = lines.first(Name::Host);
    if host.is_none() {
        put(out, "host", server.as_bytes());
    }
    if upgrade {
        put(out, "connection", b"upgrade");
    }
    forward::headers(origin, host, request_id, lines, |name, value| put(out, name, value));
    out.extend_from_slice(b"\r\n");
}

/// The line that frames a body, which has been judged: of the ways that it may be written, one.
pub(crate) fn framing<'a>(field: &Field, head: &'a [u8]) -> (&'static str, &'a [u8]) {
    if field.name == Name::TransferEncoding {
        return ("transfer-encoding", b"chunked");
    }
    let digits = field.value(head);
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count().min(digits.len().saturating_sub(1));
    ("content-length", &digits[zeros..])
}

/// Appends a header line.
pub(crate) fn put(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}
