//! Heads between HTTP/2 and HTTP/1: a request is written down as the HTTP/1 head that a server will get, and read by the
//! front door's own parser, so that there is one judge for both.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode};

use crate::http1::body::{MAX_TRAILER_LINES, MAX_TRAILERS, check_trailer};
use crate::http1::fields::Field;
use crate::http1::head::{self, Head, Limits, Refusal};
use crate::http1::rewrite::put;
use crate::lane::AnswerHead;
use crate::policy::headers::HeaderPolicy;

/// Writes a request down as a head of HTTP/1, and reads that. `ended`: it has no body.
///
/// # Errors
/// Why the request is refused.
pub(super) fn request(
    parts: &Parts,
    ended: bool,
    limits: Limits,
    out: &mut Vec<u8>,
    fields: &mut Vec<Field>,
) -> Result<Head, Refusal> {
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    let path = parts.uri.path_and_query().map_or(&b""[..], |path| path.as_str().as_bytes());
    // RFC 9113, 8.5: CONNECT has no path. It is refused later, with a status of its own.
    let target = if parts.method == Method::CONNECT { authority.unwrap_or_default() } else { path };
    // An HTTP/1 head may have an absolute target, which no `:path` is.
    if parts.method != Method::CONNECT && !target.starts_with(b"/") && target != b"*" {
        return Err(Refusal::Target);
    }
    for part in [parts.method.as_str().as_bytes(), b" ", target, b" HTTP/1.1\r\n"] {
        out.extend_from_slice(part);
    }
    if let Some(authority) = authority {
        // RFC 9113, 8.3.1: it comes before any `Host`, and they must agree.
        let mut hosts = parts.headers.get_all(header::HOST).iter();
        if !hosts.all(|host| host.as_bytes().eq_ignore_ascii_case(authority)) {
            return Err(Refusal::Host);
        }
        put(out, "host", authority);
    }
    let mut cookies = false;
    for (name, value) in &parts.headers {
        match *name {
            header::HOST if authority.is_some() => {}
            // RFC 9113, 8.2.2: HTTP/2 frames by itself.
            header::TRANSFER_ENCODING => return Err(Refusal::Framing),
            // RFC 9113, 8.2.3: clients may send cookies a line each, servers of HTTP/1 know one line only.
            header::COOKIE => {
                if !std::mem::replace(&mut cookies, true) {
                    let all: Vec<&[u8]> =
                        parts.headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
                    put(out, "cookie", &all.join(&b"; "[..]));
                }
            }
            _ => put(out, name.as_str(), value.as_bytes()),
        }
    }
    let mut limits = limits;
    if !ended && !parts.headers.contains_key(header::CONTENT_LENGTH) {
        const CHUNKED: &[u8] = b"transfer-encoding: chunked\r\n";
        out.extend_from_slice(CHUNKED);
        // This one is ours.
        limits = Limits { size: limits.size + CHUNKED.len(), headers: limits.headers + 1 };
    }
    out.extend_from_slice(b"\r\n");
    // It is whole: more of it would only be wanted if a line had no end.
    head::parse(out, limits, fields)?.ok_or(Refusal::Header)
}

/// A request's trailers, as header lines.
///
/// # Errors
/// [`Refusal::Trailer`] for one that may not be a trailer, and for too many: h2 drops what is beyond its bound.
pub(super) fn request_trailers(trailers: &HeaderMap) -> Result<Vec<u8>, Refusal> {
    let mut out = Vec::new();
    if trailers.len() > MAX_TRAILER_LINES {
        return Err(Refusal::Trailer);
    }
    for (name, value) in trailers {
        let start = out.len();
        if start + name.as_str().len() + value.len() > MAX_TRAILERS {
            return Err(Refusal::Trailer);
        }
        put(&mut out, name.as_str(), value.as_bytes());
        check_trailer(&out[start..out.len() - 2])?;
    }
    Ok(out)
}

/// Trailers, which have been judged as header lines.
pub(crate) fn answer_trailers(lines: &[u8]) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n') {
        if let Some(field) = Field::read(line, 0..line.len().saturating_sub(1)) {
            append(&mut trailers, field.name(line), field.value(line));
        }
    }
    trailers
}

/// The head of an answer that is being put together.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) fields: HeaderMap,
    /// What the body begins with.
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn new(status: u16, body: Vec<u8>) -> Self {
        // Servers' statuses have been judged, ours are constants.
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
        Self { status, fields: HeaderMap::with_capacity(24), body }
    }
}

impl AnswerHead for Answer {
    fn put(&mut self, name: &str, value: &[u8]) {
        append(&mut self.fields, name.as_bytes(), value);
    }

    fn pass(&mut self, field: &Field, head: &[u8]) {
        append(&mut self.fields, field.name(head), field.value(head));
    }

    fn set(&mut self, policy: &HeaderPolicy, https: bool) {
        for (name, value) in policy.set(https) {
            self.fields.append(name.clone(), value.clone());
        }
    }

    fn end(&mut self) -> &mut Vec<u8> {
        &mut self.body
    }
}

/// Appends a field that has been judged: what `http` does not take is none.
fn append(fields: &mut HeaderMap, name: &[u8], value: &[u8]) {
    if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
        fields.append(name, value);
    }
}
