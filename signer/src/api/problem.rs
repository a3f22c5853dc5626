//! Errors as RFC 9457 writes them.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;

use crate::key::KeyError;
use crate::policy::Denied;
use crate::signing::Refusal;
use crate::strict::FieldError;

/// An error, before it is known which request it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    /// The end of `type`: what kind of error this is, for programs.
    pub(super) kind: &'static str,
    title: &'static str,
    pub(super) detail: String,
    pub(super) rule: Option<&'static str>,
    pub(super) field: Option<String>,
    /// Seconds after which trying again makes sense.
    retry_after: Option<u16>,
    /// Which keys are ready, where that is the answer.
    keys: Option<Box<Value>>,
}

/// The body.
#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<&'a Value>,
}

impl Problem {
    fn new(status: StatusCode, kind: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self { status, kind, title, detail: detail.into(), rule: None, field: None, retry_after: None, keys: None }
    }

    fn retry_after(self, seconds: u16) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", "The request is not understood", detail)
    }

    pub(super) fn unauthenticated() -> Self {
        let detail = "no caller has this token, user id or certificate";
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", "The caller is not known", detail)
    }

    /// For a request that a web page may have had a browser make.
    pub(super) fn from_a_page(detail: &'static str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "from-a-page", "Web pages may not ask", detail)
    }

    /// The same for a key that there is not: callers learn nothing about others' keys.
    pub(super) fn key_not_allowed() -> Self {
        let detail = "the caller may use no key of this name";
        Self::new(StatusCode::FORBIDDEN, "key-not-allowed", "The key is not the caller's", detail)
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "There is nothing here", detail)
    }

    pub(super) fn not_approver(detail: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "not-approver", "The caller may not approve this", detail)
    }

    pub(super) fn decided(detail: &str) -> Self {
        Self::new(StatusCode::CONFLICT, "already-decided", "That is decided already", detail)
    }

    pub(super) fn expired() -> Self {
        let detail = "nobody decided about it in time: whoever asked has to ask again, with another idempotency key";
        Self::new(StatusCode::GONE, "approval-expired", "That is expired", detail)
    }

    pub(super) fn not_requester() -> Self {
        let detail = "only the caller who asked for it withdraws it; who may approve it may reject it";
        Self::new(StatusCode::FORBIDDEN, "not-requester", "The caller did not ask for this", detail)
    }

    pub(super) fn method_not_allowed() -> Self {
        let detail = "this resource does not have this method";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "The method is not allowed", detail)
    }

    pub(super) fn too_slow() -> Self {
        let detail = "the request's body did not arrive in time";
        Self::new(StatusCode::REQUEST_TIMEOUT, "request-timeout", "The request is too slow", detail)
    }

    pub(super) fn too_large(limit: usize) -> Self {
        let detail = format!("a body has at most {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large", detail)
    }

    pub(super) fn wrong_content_type() -> Self {
        let detail = "expected Content-Type: application/json, and no Content-Encoding";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "The body is not JSON", detail)
    }

    /// For a connection, or a large body, that has no place: another may have one soon.
    pub(super) fn busy() -> Self {
        let detail = "every place for a connection, or for a body as large as this, is taken";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "Too many ask at once", detail).retry_after(1)
    }

    /// Some key would not sign.
    pub(super) fn key_not_ready(detail: String, keys: Value) -> Self {
        let title = "A key cannot sign";
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "key-not-ready", title, detail);
        Self { keys: Some(keys.into()), ..problem }
    }

    /// What is asked for is not as it must be.
    pub(super) fn invalid(kind: &'static str, title: &'static str, error: FieldError) -> Self {
        let problem = Self::new(StatusCode::BAD_REQUEST, kind, title, error.to_string());
        Self { field: error.field, ..problem }
    }

    pub(super) fn internal(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Something is wrong in keygate", detail)
    }

    /// Its `type`.
    pub(super) fn urn(&self) -> String {
        format!("urn:keygate:problem:{}", self.kind)
    }

    /// As an answer to the request `request_id`.
    pub(super) fn into_response(self, request_id: &str) -> Response {
        let body = Body {
            kind: self.urn(),
            title: self.title,
            status: self.status.as_u16(),
            detail: &self.detail,
            request_id,
            rule: self.rule,
            field: self.field.as_deref(),
            keys: self.keys.as_deref(),
        };
        // Strings and a number: nothing that JSON cannot write.
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Why a nonce has to be given.
pub(crate) const NO_NONCE: &str = "missing: the chain has no rpc, so that nobody here knows which comes next";

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let detail = refusal.to_string();
        match refusal {
            Refusal::Encoders(_) | Refusal::Sidecar(_) => Self::internal(detail),
            Refusal::Conflict => {
                Self::new(StatusCode::CONFLICT, "idempotency-conflict", "The idempotency key is taken", detail)
            }
            Refusal::Crowded => {
                let title = "The request is under way";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "request-in-flight", title, detail).retry_after(1)
            }
            Refusal::Abandoned => Self::internal(detail),
            Refusal::Denied(denied) => {
                let title = "The policy does not allow this";
                let problem = Self::new(StatusCode::FORBIDDEN, "policy-denied", title, denied.detail);
                Self { rule: Some(denied.rule), ..problem }
            }
            Refusal::Held(held) => {
                let title = "Somebody else must approve this first";
                let detail = format!("{detail}; it is approval {}", held.approval);
                Self::new(StatusCode::FORBIDDEN, "approval-needed", title, detail)
            }
            Refusal::NoNonce => {
                let error = FieldError { field: Some("nonce".to_owned()), problem: NO_NONCE.to_owned() };
                Self::invalid("invalid-transaction", "The transaction is not valid", error)
            }
            Refusal::TooLittleGas(_) => {
                let error = FieldError { field: Some("gas".to_owned()), problem: detail };
                Self::invalid("invalid-transaction", "The transaction is not valid", error)
            }
            Refusal::NoRpc | Refusal::BlobsNotKept => Self::bad_request(detail),
            Refusal::Chain(_) => {
                let title = "The chain does not answer";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "chain-unavailable", title, detail).retry_after(1)
            }
            Refusal::TooOften(too_often) => {
                let title = "The caller has too much signed";
                let Denied { rule, detail } = too_often.denied;
                // Up to the next second: just before, there is no room yet.
                let seconds = too_often.retry_after.as_secs().saturating_add(1);
                let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate-limited", title, detail);
                Self { rule: Some(rule), ..problem }.retry_after(seconds.try_into().unwrap_or(u16::MAX))
            }
            Refusal::ClockBehind(_) => {
                let title = "The clock is behind the ledger";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "clock-behind", title, detail).retry_after(60)
            }
            Refusal::Key(error) => key(&error, detail),
            Refusal::Ledger(_) => {
                let title = "The ledger does not answer";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "ledger-unavailable", title, detail).retry_after(1)
            }
        }
    }
}

fn key(error: &KeyError, detail: String) -> Problem {
    // Whole seconds, and not so many that nobody would come back.
    let seconds = |wait: &Duration| wait.as_secs_f64().ceil().clamp(1.0, 3600.0) as u16;
    match error {
        KeyError::Busy { retry_after } => {
            let title = "Too many wait for the key";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "key-busy", title, detail).retry_after(seconds(retry_after))
        }
        KeyError::Unavailable { retry_after } => {
            let title = "The key is not available";
            let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "key-unavailable", title, detail);
            problem.retry_after(seconds(retry_after))
        }
        KeyError::Throttled => {
            let title = "The key is asked too often";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "key-throttled", title, detail).retry_after(1)
        }
        KeyError::TimedOut(_) => {
            Problem::new(StatusCode::GATEWAY_TIMEOUT, "key-timed-out", "The key did not answer in time", detail)
        }
        KeyError::Unreachable(_) => {
            Problem::new(StatusCode::BAD_GATEWAY, "key-unreachable", "The key cannot be reached", detail)
        }
        KeyError::AccessDenied(_) => {
            Problem::new(StatusCode::BAD_GATEWAY, "key-access-denied", "KMS does not let keygate sign", detail)
        }
        KeyError::Unusable(_) => {
            Problem::new(StatusCode::BAD_GATEWAY, "key-unusable", "The key cannot be used", detail)
        }
        KeyError::BadAnswer(_) => {
            Problem::new(StatusCode::BAD_GATEWAY, "key-bad-answer", "The key's answer is wrong", detail)
        }
        KeyError::Other(_) => Problem::new(StatusCode::BAD_GATEWAY, "key-failed", "The key failed", detail),
    }
}
