//! Transactions: signed under a name, and found by it.

use std::sync::Arc;
use std::time::SystemTime;

use alloy_primitives::Address;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;

use super::callers::Caller;
use super::lifecycle;
use super::listen::Place;
use super::problem::Problem;
use super::request::{
    answer, authenticate, content_type, idempotency_key, json_body, key_of, read, request_id, request_of,
};
use super::routes::{Api, Shared};
use crate::failpoint::failpoint;
use crate::in_flight::Part;
use crate::key::Key;
use crate::ledger::{Held, RequestId, Signed, Standing};
use crate::signing::{Answer, Before, Prepared, Refusal};
use crate::transaction::{MAX_BODY, MAX_BODY_WITH_BLOBS, Sidecar, Transaction};

pub(super) async fn sign(State(api): Shared, path: Result<Path<String>, PathRejection>, request: Request) -> Response {
    let request_id = request_id();
    let path = path.map(|Path(key)| key);
    let place = request.extensions().get::<Place>().cloned();
    let admitted = match admit(&api, path, request).await {
        Ok(admitted) => admitted,
        Err(problem) => {
            api.signing.metrics.request(problem.kind);
            tracing::info!(request_id, outcome = problem.kind, status = problem.status.as_u16(), "not signed");
            return answer(&request_id, Err(problem));
        }
    };
    let signed = match transaction(&api, &request_id, admitted, place).await {
        Ok(signed) => Ok(respond(&signed)),
        Err(Refusal::Held(held)) => Ok(held_back(&held)),
        Err(refusal) => Err(refusal.into()),
    };
    answer(&request_id, signed)
}

/// Signs a transaction under its id, or answers what was signed under it first; once at a time, and to its end whether or
/// not its client waits, which keeps its `place` so long. The ledger keeps what was signed; what goes with it comes with
/// each request, and is part of the answer.
pub(super) async fn transaction(
    api: &Arc<Api>,
    request_id: &str,
    admitted: Admitted,
    place: Option<Place>,
) -> Result<Answer, Refusal> {
    let Admitted { caller, key, id, mut tx, nonce, asked, send, large: _large } = admitted;
    let sidecar = tx.take_sidecar();
    let prepared = Prepared::new(&key, tx, nonce, sidecar.as_ref().map(Sidecar::digest)).map(|prepared| match asked {
        Some(asked) => Prepared { send, ..prepared.asked(asked) },
        None if send => prepared.sent(),
        None => prepared,
    });
    let mut signed = run(api, request_id, Run { caller, key, id, prepared }, place).await?;
    if let Some(sidecar) = sidecar {
        signed.signed.raw = sidecar.network_form(&signed.signed.raw)?;
    }
    Ok(signed)
}

/// What is to be signed, once it is prepared.
pub(super) struct Run {
    pub(super) caller: Arc<Caller>,
    pub(super) key: Arc<Key>,
    pub(super) id: RequestId,
    pub(super) prepared: Result<Prepared, Refusal>,
}

/// Signs, and sends for the first time, what is prepared.
pub(super) async fn run(
    api: &Arc<Api>,
    request_id: &str,
    Run { caller, key, id, prepared }: Run,
    place: Option<Place>,
) -> Result<Answer, Refusal> {
    let told = |result| {
        told(api, request_id, &id, &result);
        result
    };
    failpoint("admitted");
    let joined = prepared.map(|prepared| (api.signing.in_flight.join(&id, prepared.digest), prepared));
    let result = match joined {
        Ok((Part::First(attempt, waiting), prepared)) => {
            // In a task of its own: a client that goes away does not stop it between the reservation and the ledger.
            api.tasks.spawn({
                let (api, request_id, id) = (Arc::clone(api), request_id.to_owned(), id.clone());
                async move {
                    let (policy, abandoned) = (caller.policy.as_ref(), attempt.abandoned());
                    let send = prepared.send;
                    let result = api.signing.transaction(&key, policy, id.clone(), prepared, abandoned).await;
                    self::told(&api, &request_id, &id, &result);
                    if let (true, Ok(answer)) = (send, &result) {
                        api.signing.post.send_first(&api.signing.ledger, &id, answer).await;
                    }
                    failpoint("before-answer");
                    attempt.end(result);
                    drop(place);
                }
            });
            waiting.outcome().await
        }
        // Where the client goes away, so does this.
        Ok((Part::Another(waiting), _)) => {
            let result = waiting.outcome().await;
            result.map(|result| told(result.map(|answer| Answer { replayed: true, ..answer })))
        }
        Ok((Part::Conflict, prepared)) => {
            Some(told(Err(api.signing.refuse(&key, &id, &prepared.tx, Refusal::Conflict, true).await)))
        }
        Ok((Part::Crowded, _)) => Some(told(Err(Refusal::Crowded))),
        Err(refusal) => Some(told(Err(refusal))),
    };
    result.unwrap_or(Err(Refusal::Abandoned))
}

/// What is known under this name. Where what is asked for is filled here, it is looked for first: what was signed is the
/// answer even if it could not be filled any more.
pub(super) async fn before(api: &Api, request_id: &str, id: &RequestId, digest: [u8; 32]) -> Result<Before, Refusal> {
    let before = api.signing.before(id, digest).await;
    before.inspect_err(|refusal| told(api, request_id, id, &Err(refusal.clone())))
}

/// What was signed, if it was, which is the answer.
pub(super) fn replayed(api: &Api, request_id: &str, id: &RequestId, before: &Before) -> Option<Answer> {
    before.signed(id).inspect(|answer| told(api, request_id, id, &Ok(answer.clone())))
}

/// Tells metrics and log what came of a request.
pub(super) fn told(api: &Api, request_id: &str, id: &RequestId, result: &Result<Answer, Refusal>) {
    api.signing.metrics.request(outcome(result));
    log(request_id, id, result);
}

/// What is asked for, once it is a request.
pub(super) struct Admitted {
    pub(super) caller: Arc<Caller>,
    pub(super) key: Arc<Key>,
    pub(super) id: RequestId,
    pub(super) tx: Transaction,
    /// The caller's nonce, if it gave one.
    pub(super) nonce: Option<u64>,
    /// The digest of what the caller said, where what it left out was filled.
    pub(super) asked: Option<[u8; 32]>,
    /// Whether it is to be sent, too.
    pub(super) send: bool,
    /// Kept until it is answered.
    pub(super) large: Option<OwnedSemaphorePermit>,
}

/// Everything before a request is one: who asks, with which key, under which name, for what.
async fn admit(api: &Api, path: Result<String, PathRejection>, request: Request) -> Result<Admitted, Problem> {
    let (parts, body) = request.into_parts();
    let caller = authenticate(&api.live, &parts)?;
    let key = key_of(&api.signing, &caller, path).await?;
    let send = match parts.uri.query() {
        None => false,
        Some("send=true") => true,
        Some(_) => return Err(Problem::bad_request("expected no query, or ?send=true")),
    };
    let idempotency_key = idempotency_key(&parts.headers)?;
    content_type(&parts.headers)?;
    let (body, large) = read(body, MAX_BODY_WITH_BLOBS, &api.large).await?;
    let (tx, nonce) = Transaction::parse_draft(&body).map_err(|error| match error.field {
        // Only blobs may be so large, and there are none that could be found.
        None if large.is_some() => Problem::too_large(MAX_BODY),
        _ => Problem::invalid("invalid-transaction", "The transaction is not valid", error),
    })?;
    let id = request_of(&caller.name, key.name(), key.address(), idempotency_key);
    Ok(Admitted { caller, key: Arc::clone(key), id, tx, nonce, asked: None, send, large })
}

/// The answer to a transaction that somebody else must approve first, or must have.
pub(super) fn held_back(held: &Held) -> Response {
    let place = format!("/v1/approvals/{}", held.approval);
    let standing = held.standing(SystemTime::now());
    let status = match standing {
        Standing::Held | Standing::Approved => StatusCode::ACCEPTED,
        Standing::Rejected | Standing::Withdrawn | Standing::Expired | Standing::Signed => StatusCode::OK,
    };
    let body = json!({
        "state": standing.name(), "approval": held.approval, "rule": held.rule,
        "digest": format!("0x{}", hex::encode(held.digest)),
    });
    (status, [(header::LOCATION, place)], json_body(&body)).into_response()
}

pub(super) fn respond(answer: &Answer) -> Response {
    let mut response = json_body(&Body::new(answer, None));
    if answer.replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

pub(super) async fn signed(
    State(api): Shared,
    path: Result<Path<(String, String)>, PathRejection>,
    request: Request,
) -> Response {
    let (parts, _) = request.into_parts();
    let found = async {
        let caller = authenticate(&api.live, &parts)?;
        let (path, idempotency_key) = match path {
            Ok(Path((key, idempotency_key))) => (Ok(key), idempotency_key),
            Err(rejection) => (Err(rejection), String::new()),
        };
        let key = key_of(&api.signing, &caller, path).await?;
        let id = request_of(&caller.name, key.name(), key.address(), idempotency_key);
        let record =
            api.signing.ledger.lookup(id.clone()).await.map_err(|error| Problem::from(Refusal::Ledger(error)))?;
        let Some(record) = record else {
            if let Some(held) = api.signing.ledger.held_as(id).await.map_err(Refusal::Ledger)? {
                return Ok(held_back(&held));
            }
            return Err(Problem::not_found("the caller used no such idempotency key with this key"));
        };
        // Another's, if the file gave the key's name to another key since.
        let from = record.address.unwrap_or(key.address());
        let progress = api.signing.ledger.progress(record.reservation).await.map_err(Refusal::Ledger)?;
        Ok(match record.signed {
            None => json_body(&Pending { state: "pending", from, nonce: record.nonce, chain_id: record.chain_id }),
            Some(signed) => {
                let (chain_id, nonce) = (record.chain_id, record.nonce);
                let answer = Answer { reservation: record.reservation, signed, from, chain_id, nonce, replayed: true };
                json_body(&Body {
                    send: progress.as_ref().map(lifecycle::progress),
                    ..Body::new(&answer, Some("signed"))
                })
            }
        })
    };
    answer(&request_id(), found.await)
}

/// The answer to a signed transaction. Numbers are JSON integers, as in the request; bytes are 0x hex.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    raw: String,
    hash: String,
    from: String,
    nonce: u64,
    chain_id: u64,
    /// 32 bytes.
    r: String,
    /// 32 bytes.
    s: String,
    y_parity: u8,
    /// How far it has come, if it is to be sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    send: Option<serde_json::Value>,
}

/// The answer about a transaction that is reserved, and not signed yet.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Pending {
    state: &'static str,
    #[serde(serialize_with = "checksummed")]
    from: Address,
    nonce: u64,
    chain_id: u64,
}

impl Body {
    fn new(answer: &Answer, state: Option<&'static str>) -> Self {
        let Signed { raw, hash, signature } = &answer.signed;
        Self {
            state,
            raw: format!("0x{}", hex::encode(raw)),
            hash: format!("0x{}", hex::encode(hash)),
            from: answer.from.to_checksum(None),
            nonce: answer.nonce,
            chain_id: answer.chain_id,
            r: format!("0x{}", hex::encode(&signature[..32])),
            s: format!("0x{}", hex::encode(&signature[32..64])),
            y_parity: signature[64],
            send: None,
        }
    }
}

fn checksummed<S: serde::Serializer>(address: &Address, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&address.to_checksum(None))
}

fn outcome(result: &Result<Answer, Refusal>) -> &'static str {
    match result {
        Ok(Answer { replayed: false, .. }) => "signed",
        Ok(Answer { replayed: true, .. }) => "replayed",
        Err(refusal) => refusal.outcome(),
    }
}

/// One event a request. Names and hashes: never a token, never a body.
fn log(request_id: &str, id: &RequestId, result: &Result<Answer, Refusal>) {
    let RequestId { caller, key, idempotency_key, .. } = id;
    let outcome = outcome(result);
    match result {
        Ok(Answer { signed, from, chain_id, nonce, .. }) => {
            let hash = signed.hash;
            tracing::info!(request_id, caller, key, idempotency_key, outcome, %hash, %from, chain_id, nonce, "signed");
        }
        Err(Refusal::Abandoned) => {
            tracing::info!(request_id, caller, key, idempotency_key, outcome, "not signed");
        }
        Err(Refusal::Held(held)) => {
            let approval = held.approval;
            tracing::info!(request_id, caller, key, idempotency_key, outcome, approval, "held");
        }
        Err(
            refusal @ (Refusal::Denied(_)
            | Refusal::TooOften(_)
            | Refusal::Conflict
            | Refusal::Crowded
            | Refusal::NoNonce
            | Refusal::TooLittleGas(_)),
        ) => {
            tracing::warn!(request_id, caller, key, idempotency_key, outcome, why = %refusal, "not signed");
        }
        Err(refusal) => {
            tracing::error!(request_id, caller, key, idempotency_key, outcome, why = %refusal, "not signed");
        }
    }
}

/// Set on an answer that was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
