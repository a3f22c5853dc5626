//! Heads as they are passed on to clients: what is kept of them, and what is put in.

use std::sync::Arc;
use std::time::SystemTime;

use crate::clock::{HttpDate, http_date};
use crate::http1::fields::Name;
use crate::http1::response::ResponseHead;
pub(super) use crate::http1::rewrite::{Lines, put, request};
use crate::policy::forward::X_REQUEST_ID;
use crate::policy::headers::HeaderPolicy;
use crate::policy::limit::{Limit, Verdict};

/// What every answer is given.
pub(super) struct Edits<'a> {
    pub(super) policy: &'a HeaderPolicy,
    pub(super) https: bool,
    pub(super) limit: Option<&'a (Arc<Limit>, Verdict)>,
    pub(super) request_id: &'a str,
}

impl Edits<'_> {
    /// Appends the lines that are set on every answer.
    pub(super) fn set(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.policy.lines(self.https));
        if let Some((limit, verdict)) = self.limit {
            limit.headers(*verdict, |name, value| put(out, name, value));
        }
        put(out, X_REQUEST_ID, self.request_id.as_bytes());
    }

    /// Whether a server's line gives way to one of these, or is taken off.
    fn replaces(&self, name: &[u8]) -> bool {
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        is(X_REQUEST_ID)
            || self.limit.is_some_and(|(_, verdict)| {
                is("ratelimit") || is("ratelimit-policy") || !verdict.allowed && is("retry-after")
            })
            || self.policy.replaces(name, self.https)
    }
}

/// What a client is told of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// Nothing: in HTTP/1.1, it stays.
    Nothing,
    /// That it stays, in HTTP/1.0.
    KeepAlive,
    /// That it ends.
    Close,
    /// That it is a tunnel from here on.
    Upgrade,
}

impl Told {
    /// Of a connection that stays, or ends.
    pub(super) fn of(keep: bool, http10: bool) -> Self {
        match (keep, http10) {
            (false, _) => Self::Close,
            (true, true) => Self::KeepAlive,
            (true, false) => Self::Nothing,
        }
    }

    pub(super) fn put(self, out: &mut Vec<u8>) {
        match self {
            Self::Nothing => {}
            Self::KeepAlive => put(out, "connection", b"keep-alive"),
            Self::Close => put(out, "connection", b"close"),
            Self::Upgrade => put(out, "connection", b"upgrade"),
        }
    }
}

/// Appends the head of a server's answer as the client gets it. `framing`: the line that frames its body anew.
pub(super) fn response(
    out: &mut Vec<u8>,
    head: &ResponseHead,
    lines: &Lines<'_>,
    edits: &Edits<'_>,
    told: Told,
    framing: Option<&[u8]>,
) {
    status_line(out, head.status, &lines.head[head.reason.clone()]);
    let options = lines.has_options();
    let mut dated = false;
    for field in lines.fields {
        let drop = match field.name {
            Name::Connection | Name::HopByHop => true,
            Name::Upgrade => told != Told::Upgrade,
            Name::TransferEncoding => framing.is_some(),
            // RFC 9110, 8.6: none with a status that has no body.
            Name::ContentLength => matches!(head.status, 100..200 | 204),
            Name::SetCookie => {
                if let Some(cookie) = edits.policy.cookie(field.value(lines.head)) {
                    put(out, "set-cookie", &cookie);
                    continue;
                }
                edits.replaces(b"set-cookie")
            }
            Name::Date => {
                dated = true;
                edits.replaces(b"date")
            }
            _ => edits.replaces(field.name(lines.head)) || options && lines.names(field),
        };
        if !drop {
            out.extend_from_slice(field.line(lines.head));
        }
    }
    out.extend_from_slice(framing.unwrap_or_default());
    if !dated {
        // RFC 9110, 6.6.1.
        put(out, "date", &date());
    }
    edits.set(out);
    told.put(out);
    out.extend_from_slice(b"\r\n");
}

/// Appends the head of an interim answer (RFC 9110, 15.2): as it came, but for what is between neighbours.
pub(super) fn interim(out: &mut Vec<u8>, head: &ResponseHead, lines: &Lines<'_>) {
    status_line(out, head.status, &lines.head[head.reason.clone()]);
    for field in lines.fields {
        if !matches!(field.name, Name::Connection | Name::HopByHop | Name::Upgrade | Name::ContentLength)
            && !lines.names(field)
        {
            out.extend_from_slice(field.line(lines.head));
        }
    }
    out.extend_from_slice(b"\r\n");
}

pub(super) fn status_line(out: &mut Vec<u8>, status: u16, reason: &[u8]) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend([status / 100 % 10, status / 10 % 10, status % 10].map(|digit| b'0' + digit as u8));
    out.push(b' ');
    out.extend_from_slice(reason);
    out.extend_from_slice(b"\r\n");
}

/// Has nobody keep an answer of the gateway's own, unless the policy says who may.
pub(super) fn no_store(out: &mut Vec<u8>, edits: &Edits<'_>) {
    if !edits.replaces(b"cache-control") {
        put(out, "cache-control", b"no-store");
    }
}

/// The time, as `Date` has it.
pub(super) fn date() -> HttpDate {
    http_date(SystemTime::now())
}
