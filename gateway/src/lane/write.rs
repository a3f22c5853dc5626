//! Heads as they are passed on to clients: what is kept of them, and what is put in.

use std::sync::Arc;
use std::time::SystemTime;

use super::Downstream;
use crate::clock::{HttpDate, http_date};
use crate::http1::fields::{Field, Name};
use crate::http1::response::ResponseHead;
use crate::http1::rewrite::framing;
pub(super) use crate::http1::rewrite::{Lines, put, request};
use crate::policy::forward::X_REQUEST_ID;
use crate::policy::headers::HeaderPolicy;
use crate::policy::limit::{Limit, Verdict};
use crate::problem::CONTENT_TYPE;

/// The head of an answer that is being put together.
pub(crate) trait AnswerHead {
    /// Appends a header line.
    fn put(&mut self, name: &str, value: &[u8]);

    /// Appends a line of the server's.
    fn pass(&mut self, field: &Field, head: &[u8]);

    /// Appends what the policy sets.
    fn set(&mut self, policy: &HeaderPolicy, https: bool);

    /// Ends the head. What the body begins with can be appended to what this answers.
    fn end(&mut self) -> &mut Vec<u8>;
}

impl AnswerHead for Vec<u8> {
    fn put(&mut self, name: &str, value: &[u8]) {
        put(self, name, value);
    }

    fn pass(&mut self, field: &Field, head: &[u8]) {
        self.extend_from_slice(field.line(head));
    }

    fn set(&mut self, policy: &HeaderPolicy, https: bool) {
        self.extend_from_slice(policy.lines(https));
    }

    fn end(&mut self) -> &mut Vec<u8> {
        self.extend_from_slice(b"\r\n");
        self
    }
}

/// What every answer is given.
pub(super) struct Edits<'a> {
    pub(super) policy: &'a HeaderPolicy,
    pub(super) https: bool,
    pub(super) limit: Option<&'a (Arc<Limit>, Verdict)>,
    pub(super) request_id: &'a str,
}

impl Edits<'_> {
    /// Appends the lines that are set on every answer.
    pub(super) fn set(&self, out: &mut impl AnswerHead) {
        out.set(self.policy, self.https);
        if let Some((limit, verdict)) = self.limit {
            limit.headers(*verdict, |name, value| out.put(name, value));
        }
        out.put(X_REQUEST_ID, self.request_id.as_bytes());
    }

    /// Whether a server's line gives way to one of these, or is taken off.
    fn replaces(&self, name: &[u8]) -> bool {
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        // RFC 6797, 7.2: not over http, whoever says it.
        is(X_REQUEST_ID)
            || !self.https && is("strict-transport-security")
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
    /// Of a connection that stays, or ends. HTTP/2 has frames to say so.
    pub(super) fn of<D: Downstream>(keep: bool, http10: bool) -> Self {
        match (keep, http10) {
            _ if D::HTTP2 => Self::Nothing,
            (false, _) => Self::Close,
            (true, true) => Self::KeepAlive,
            (true, false) => Self::Nothing,
        }
    }

    pub(super) fn put(self, out: &mut impl AnswerHead) {
        match self {
            Self::Nothing => {}
            Self::KeepAlive => out.put("connection", b"keep-alive"),
            Self::Close => out.put("connection", b"close"),
            Self::Upgrade => out.put("connection", b"upgrade"),
        }
    }
}

/// How an answer's body is framed for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framed {
    /// As the server framed it.
    Same,
    /// In chunks, which the server did not make.
    Chunks,
    /// By the connection's end, or by HTTP/2: no header line says it.
    Beneath,
}

/// Appends the header lines of a server's answer as the client gets them.
pub(super) fn response(
    out: &mut impl AnswerHead,
    head: &ResponseHead,
    lines: &Lines<'_>,
    edits: &Edits<'_>,
    told: Told,
    framed: Framed,
) {
    let options = lines.has_options();
    let (mut dated, mut upgrade) = (false, false);
    for field in lines.fields {
        let drop = match field.name {
            Name::Connection | Name::HopByHop => true,
            // RFC 9110, 15.5.22: with 426, it is what the answer is about.
            Name::Upgrade if head.status == 426 && told != Told::Nothing => {
                upgrade = true;
                false
            }
            Name::Upgrade => told != Told::Upgrade,
            // RFC 9110, 8.6: no length with a status that has no body.
            Name::ContentLength if matches!(head.status, 100..200 | 204) => true,
            Name::TransferEncoding if framed != Framed::Same => true,
            // As they were judged, however they were written.
            Name::ContentLength | Name::TransferEncoding => {
                let (name, value) = framing(field, lines.head);
                out.put(name, value);
                true
            }
            Name::SetCookie => {
                if let Some(cookie) = edits.policy.cookie(field.value(lines.head)) {
                    out.put("set-cookie", &cookie);
                    continue;
                }
                edits.replaces(b"set-cookie")
            }
            // One, as RFC 9110 (6.6.1) has it.
            Name::Date => std::mem::replace(&mut dated, true) || edits.replaces(b"date"),
            _ => edits.replaces(field.name(lines.head)) || options && lines.names(field),
        };
        if !drop {
            out.pass(field, lines.head);
        }
    }
    if framed == Framed::Chunks {
        out.put("transfer-encoding", b"chunked");
    }
    if !dated {
        // RFC 9110, 6.6.1.
        out.put("date", &date());
    }
    edits.set(out);
    if upgrade {
        out.put("connection", b"upgrade");
    }
    told.put(out);
}

/// Appends the header lines of an interim answer (RFC 9110, 15.2): as they came, but for what is between neighbours and
/// what the policy takes off or sets, which the answer itself will have.
pub(super) fn interim(out: &mut impl AnswerHead, lines: &Lines<'_>, edits: &Edits<'_>) {
    use Name::{Connection, ContentLength, HopByHop, SetCookie, TransferEncoding, Upgrade};
    for field in lines.fields {
        let never =
            matches!(field.name, Connection | ContentLength | HopByHop | SetCookie | TransferEncoding | Upgrade);
        if !never && !lines.names(field) && !edits.replaces(field.name(lines.head)) {
            out.pass(field, lines.head);
        }
    }
}

pub(crate) fn status_line(out: &mut Vec<u8>, status: u16, reason: &[u8]) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend([status / 100 % 10, status / 10 % 10, status % 10].map(|digit| b'0' + digit as u8));
    out.push(b' ');
    out.extend_from_slice(reason);
    out.extend_from_slice(b"\r\n");
}

/// Appends the header lines of an answer of the gateway's own: a problem of so many bytes, or nothing at all.
pub(super) fn own(
    out: &mut impl AnswerHead,
    problem: Option<usize>,
    besides: Option<(&str, &str)>,
    edits: &Edits<'_>,
    told: Told,
) {
    if let Some(length) = problem {
        out.put("content-type", CONTENT_TYPE.as_bytes());
        out.put("content-length", length.to_string().as_bytes());
        // Nobody is to keep it, unless the policy says who may.
        if !edits.replaces(b"cache-control") {
            out.put("cache-control", b"no-store");
        }
    }
    if let Some((name, value)) = besides {
        out.put(name, value.as_bytes());
    }
    out.put("date", &date());
    edits.set(out);
    told.put(out);
}

/// The time, as `Date` has it.
fn date() -> HttpDate {
    http_date(SystemTime::now())
}
