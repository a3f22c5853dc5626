//! What all requests have in common: who asks, with which key, under which name; what is read, and how it is answered.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use alloy_primitives::Address;
use axum::extract::rejection::PathRejection;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use serde::Serialize;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::callers::{Caller, Proof};
use super::listen::Peer;
use super::problem::Problem;
use crate::key::Key;
use crate::ledger::RequestId;
use crate::live::Live;
use crate::signing::{Signing, beginning};
use crate::transaction::MAX_BODY;

/// A request's body must be there within this time.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The caller, by its token; by its user id or certificate only when it shows nothing else. It is that of the snapshot
/// in force now, whatever was when its connection began.
pub(super) fn authenticate(live: &Live, parts: &Parts) -> Result<Arc<Caller>, Problem> {
    let now = live.snapshot();
    let peer = parts.extensions.get::<Peer>();
    // A certificate that is good no more is worse than none.
    if let Some(Peer::Tls(Some(certificate))) = peer
        && !now.tls.as_ref().is_some_and(|tls| certificate.is_good(tls, SystemTime::now()))
    {
        return Err(Problem::unauthenticated());
    }
    let mut shown = parts.headers.get_all(header::AUTHORIZATION).iter();
    let proof = match (shown.next(), shown.next()) {
        (None, _) => match peer {
            Some(Peer::Unix { uid }) => Some(Proof::Uid(*uid)),
            Some(Peer::Tls(Some(certificate))) => Some(Proof::Names(&certificate.names)),
            Some(Peer::Tls(None) | Peer::Http) | None => None,
        },
        (Some(value), None) => match value.as_bytes().split_at_checked(7) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => Some(Proof::Token(token)),
            _ => None,
        },
        (Some(_), Some(_)) => None,
    };
    proof.and_then(|proof| now.callers.find(proof)).map(Arc::clone).ok_or_else(Problem::unauthenticated)
}

/// So many bytes of a name that nobody has are told.
const MOST_NAMED: usize = 128;

pub(super) fn request_of(caller: &str, key: &str, address: Address, idempotency_key: String) -> RequestId {
    RequestId { caller: caller.to_owned(), key: key.to_owned(), address, idempotency_key }
}

/// The key of this name, if the caller may use it.
pub(super) async fn key_of<'a>(
    signing: &'a Signing,
    caller: &Caller,
    name: Result<String, PathRejection>,
) -> Result<&'a Arc<Key>, Problem> {
    let name = name.map_err(|_| Problem::bad_request("the path is not UTF-8"))?;
    let key = signing.keys.get(&name).filter(|_| caller.may_use(&name));
    if let Some(key) = key {
        return Ok(key);
    }
    let (caller, key, problem) = (&caller.name, beginning(&name, MOST_NAMED), Problem::key_not_allowed());
    tracing::warn!(caller, key, "the caller may use no key of this name");
    signing.tell_refusal(caller, problem.kind, json!({ "key": key })).await;
    Err(problem)
}

pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<String, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    match (values.next().map(HeaderValue::as_bytes), values.next()) {
        (Some(key), None) if (1..=255).contains(&key.len()) && key.iter().all(u8::is_ascii_graphic) => {
            Ok(key.iter().copied().map(char::from).collect())
        }
        (None, _) => Err(Problem::bad_request("the header Idempotency-Key is missing")),
        _ => Err(Problem::bad_request("expected one header Idempotency-Key, of 1 to 255 visible ASCII characters")),
    }
}

pub(super) fn content_type(headers: &HeaderMap) -> Result<(), Problem> {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = value.split(';').next().unwrap_or_default().trim();
    let plain = !headers.contains_key(header::CONTENT_ENCODING);
    if plain && media_type.eq_ignore_ascii_case("application/json") {
        Ok(())
    } else {
        Err(Problem::wrong_content_type())
    }
}

/// Reads a body of `most` bytes at most. One that is large has one of the places for such, or is told to come back:
/// all connections at once with the largest would take the memory.
pub(super) async fn read(
    mut body: axum::body::Body,
    most: usize,
    large: &Arc<Semaphore>,
) -> Result<(Vec<u8>, Option<OwnedSemaphorePermit>), Problem> {
    let reading = async {
        let (mut read, mut place) = (Vec::new(), None);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Problem::bad_request("the body broke off"))?;
            let Ok(data) = frame.into_data() else { continue };
            let length = read.len() + data.len();
            if length > most {
                return Err(Problem::too_large(most));
            }
            if length > MAX_BODY && place.is_none() {
                place = Some(Arc::clone(large).try_acquire_owned().map_err(|_| Problem::busy())?);
            }
            read.extend_from_slice(&data);
        }
        Ok((read, place))
    };
    tokio::time::timeout(BODY_TIMEOUT, reading).await.unwrap_or_else(|_| Err(Problem::too_slow()))
}

pub(super) fn json_body(body: &impl Serialize) -> Response {
    // Strings and numbers: nothing that JSON cannot write.
    let body = serde_json::to_vec(body).unwrap_or_default();
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// Every answer carries its request's id, and none is for a cache.
pub(super) fn answer(request_id: &str, result: Result<Response, Problem>) -> Response {
    let mut response = result.unwrap_or_else(|problem| problem.into_response(request_id));
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

pub(super) fn request_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
