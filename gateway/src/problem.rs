//! Errors as clients see them: RFC 9457 `application/problem+json`.

use serde::Serialize;

/// The media type.
pub const CONTENT_TYPE: &str = "application/problem+json";

/// An error, as a client sees it.
#[derive(Debug, Clone, Serialize)]
pub struct Problem<'a> {
    /// A URN that names the kind of error.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind, in words.
    pub title: &'a str,
    /// The status.
    pub status: u16,
    /// This occurrence, in words.
    pub detail: &'a str,
    /// The request's id, as in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<&'a str>,
}

impl<'a> Problem<'a> {
    /// A problem with the status' own title.
    #[must_use]
    pub fn new(status: u16, kind: &str, detail: &'a str, request_id: Option<&'a str>) -> Self {
        let reason = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
        let title = reason.unwrap_or("Error");
        Self { kind: format!("urn:keygate:problem:{kind}"), title, status, detail, request_id }
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let mut body = serde_json::to_vec(self).unwrap_or_default();
        body.push(b'\n');
        body
    }
}
