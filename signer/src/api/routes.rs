use std::sync::Arc;
use std::time::{Duration, SystemTime};

use alloy_primitives::Address;
use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use http_body_util::BodyExt;
use serde::Serialize;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

use super::callers::{Caller, Proof};
use super::listen::{Peer, Place};
use super::problem::Problem;
use super::{approvals, json_rpc, lifecycle, statements};
use crate::failpoint::failpoint;
use crate::gauges::Gauges;
use crate::in_flight::Part;
use crate::key::Key;
use crate::ledger::{Held, RequestId, Signed};
use crate::live::Live;
use crate::signing::{Answer, Before, Prepared, Refusal, Signing};
use crate::transaction::{MAX_BODY, MAX_BODY_WITH_BLOBS, Sidecar, Transaction};

/// A request's body must be there within this time.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// So many bodies of more than [`MAX_BODY`] are read and answered at once.
pub(crate) const LARGE: usize = 8;

/// What the API serves.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) signing: Signing,
    pub(crate) live: Arc<Live>,
    pub(crate) gauges: Gauges,
    /// Places for bodies that are large.
    pub(crate) large: Arc<Semaphore>,
    /// Signings in flight, which go on when their client goes away.
    pub(crate) tasks: TaskTracker,
}

type Shared = State<Arc<Api>>;

/// The API's routes: what `openapi()` describes.
pub(super) fn routes() -> [(&'static str, Method, MethodRouter<Arc<Api>>); 16] {
    [
        ("/", Method::POST, post(json_rpc::any_chain)),
        ("/chains/{chain}", Method::POST, post(json_rpc::chain)),
        ("/health", Method::GET, get(health)),
        ("/metrics", Method::GET, get(metrics)),
        ("/v1/keys", Method::GET, get(keys)),
        ("/v1/keys/{key}/transactions", Method::POST, post(sign)),
        ("/v1/keys/{key}/transactions/{idempotency_key}", Method::GET, get(signed)),
        ("/v1/keys/{key}/transactions/{idempotency_key}/replacements", Method::POST, post(lifecycle::replace)),
        ("/v1/keys/{key}/nonces/{chain}", Method::GET, get(lifecycle::nonces)),
        ("/v1/keys/{key}/nonces/{chain}/fill", Method::POST, post(lifecycle::fill)),
        ("/v1/approvals", Method::GET, get(approvals::list)),
        ("/v1/approvals/{approval}", Method::GET, get(approvals::one)),
        ("/v1/approvals/{approval}/decision", Method::POST, post(approvals::decide)),
        ("/v1/keys/{key}/messages", Method::POST, post(statements::message)),
        ("/v1/keys/{key}/typed-data", Method::POST, post(statements::typed_data)),
        ("/v1/keys/{key}/authorizations", Method::POST, post(statements::authorization)),
    ]
}

/// What there is for a connection that has a place.
pub(crate) fn router(api: Arc<Api>) -> Router {
    let routes = routes().into_iter();
    routes
        .fold(Router::new(), |router, (path, _, handler)| router.route(path, handler))
        .fallback(async || answer(&request_id(), Err(Problem::not_found("no resource has this path"))))
        .method_not_allowed_fallback(async || answer(&request_id(), Err(Problem::method_not_allowed())))
        .with_state(api)
}

/// What there is for a connection beyond those that have a place: what tells operators that all places are taken.
pub(crate) fn spare_router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .fallback(async || answer(&request_id(), Err(Problem::busy())))
        .with_state(api)
}

/// Healthy is who can ask its ledger, and whose keys can sign, as far as is known. Nothing is signed to find out.
async fn health(State(api): Shared) -> Response {
    let nobody = request_of("", "", Address::ZERO, String::new());
    let found = api.signing.ledger.lookup(nobody).await;
    let troubles = api.signing.keys.iter().map(|(name, key)| (name, key.trouble()));
    let (mut keys, mut why) = (serde_json::Map::new(), Vec::new());
    for (name, trouble) in troubles {
        keys.insert(name.clone(), json!({ "ready": trouble.is_none() }));
        why.extend(trouble.map(|trouble| format!("key {name:?}: {trouble}")));
    }
    let healthy = match found {
        Err(error) => Err(Refusal::Ledger(error).into()),
        Ok(_) if why.is_empty() => Ok(json_body(&json!({ "status": "ok", "keys": keys }))),
        Ok(_) => Err(Problem::key_not_ready(why.join("; "), keys.into())),
    };
    answer(&request_id(), healthy)
}

async fn metrics(State(api): Shared) -> Response {
    if let Err(error) = api.gauges.look(&api.signing, &api.live.snapshot().callers).await {
        // All else is said all the same.
        tracing::warn!(%error, "windows and nonces could not be looked at for the metrics");
    }
    let text = api.signing.metrics.render().map_err(|error| Problem::internal(error.to_string()));
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    answer(&request_id(), text.map(|text| (content_type, text).into_response()))
}

async fn keys(State(api): Shared, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let keys = authenticate(&api.live, &parts).map(|caller| {
        let keys = api.signing.keys.values().filter(|key| caller.may_use(key.name())).map(|key| {
            let info = key.info();
            let public_key = format!("0x{}", info.public_key);
            json!({ "name": info.name, "kind": info.kind, "address": info.address, "publicKey": public_key })
        });
        json_body(&json!({ "keys": keys.collect::<Vec<_>>() }))
    });
    answer(&request_id(), keys)
}

async fn sign(State(api): Shared, path: Result<Path<String>, PathRejection>, request: Request) -> Response {
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
        Ok((Part::Conflict, _)) => Some(told(Err(Refusal::Conflict))),
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
fn told(api: &Api, request_id: &str, id: &RequestId, result: &Result<Answer, Refusal>) {
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
    let key = key_of(&api.signing, &caller, path)?;
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

/// The answer to a transaction that somebody else must approve first.
pub(super) fn held_back(held: &Held) -> Response {
    let place = format!("/v1/approvals/{}", held.approval);
    let body = json!({
        "state": "held", "approval": held.approval, "rule": held.rule, "digest": format!("0x{}", hex::encode(held.digest)),
    });
    (StatusCode::ACCEPTED, [(header::LOCATION, place)], json_body(&body)).into_response()
}

pub(super) fn respond(answer: &Answer) -> Response {
    let mut response = json_body(&Body::new(answer, None));
    if answer.replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

async fn signed(State(api): Shared, path: Result<Path<(String, String)>, PathRejection>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let found = async {
        let caller = authenticate(&api.live, &parts)?;
        let (path, idempotency_key) = match path {
            Ok(Path((key, idempotency_key))) => (Ok(key), idempotency_key),
            Err(rejection) => (Err(rejection), String::new()),
        };
        let key = key_of(&api.signing, &caller, path)?;
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

pub(super) fn request_of(caller: &str, key: &str, address: Address, idempotency_key: String) -> RequestId {
    RequestId { caller: caller.to_owned(), key: key.to_owned(), address, idempotency_key }
}

/// The key of this name, if the caller may use it.
pub(super) fn key_of<'a>(
    signing: &'a Signing,
    caller: &Caller,
    name: Result<String, PathRejection>,
) -> Result<&'a Arc<Key>, Problem> {
    let name = name.map_err(|_| Problem::bad_request("the path is not UTF-8"))?;
    let key = signing.keys.get(&name).filter(|_| caller.may_use(&name));
    key.ok_or_else(Problem::key_not_allowed)
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
            | Refusal::NoNonce),
        ) => {
            tracing::warn!(request_id, caller, key, idempotency_key, outcome, why = %refusal, "not signed");
        }
        Err(refusal) => {
            tracing::error!(request_id, caller, key, idempotency_key, outcome, why = %refusal, "not signed");
        }
    }
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
/// Set on an answer that was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
