//! Whether headers can be set and removed as the file has it.

use std::collections::BTreeSet;

use crate::Diagnostic;
use crate::model::{SameSite, SecurityHeaders, is_header_name};
use crate::place::At;

/// Headers that frame or route a message, or are of one connection only: no policy may set or remove them.
const FRAMING_HEADERS: [&str; 12] = [
    "connection",
    "content-length",
    "date",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Headers of the gateway's own: of its own answers, of limits, of every answer. A policy may take a server's away.
const OWN_HEADERS: [&str; 7] =
    ["allow", "content-type", "location", "ratelimit", "ratelimit-policy", "retry-after", "x-request-id"];

pub(crate) fn security_headers(name: &str, headers: &At<SecurityHeaders>, found: &mut Vec<Diagnostic>) {
    let mut bad =
        |why: String| found.push(Diagnostic::error(format!("security_headers {name:?}: {why}")).at(&headers.span));
    for header in headers.set.keys().chain(&headers.remove) {
        if !is_header_name(header) {
            bad(format!("{header:?} is no header name"));
        } else if FRAMING_HEADERS.contains(&header.to_ascii_lowercase().as_str()) {
            bad(format!("{header:?} is not for a policy to change"));
        }
    }
    for header in headers.set.keys().filter(|header| OWN_HEADERS.contains(&header.to_ascii_lowercase().as_str())) {
        bad(format!("{header:?} is written by the gateway itself: an answer would have it twice"));
    }
    for (header, value) in &headers.set {
        let visible = value.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b));
        if value.is_empty() || !visible || value.trim() != value {
            bad(format!("the value of {header:?} must be visible ASCII, without space around it"));
        }
        if headers.remove.iter().any(|removed| removed.eq_ignore_ascii_case(header)) {
            bad(format!("{header:?} is both set and removed"));
        }
    }
    let lower: BTreeSet<_> = headers.set.keys().map(|header| header.to_ascii_lowercase()).collect();
    if lower.len() < headers.set.len() {
        bad("a header is set twice, in different case".into());
    }
    if let Some(cookies) = headers.cookies
        && cookies.same_site == Some(SameSite::None)
        && !cookies.secure
    {
        bad("cookies with same_site \"none\" must be secure".into());
    }
}
