//! What there is, and what serves it; health, metrics and keys here.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::problem::Problem;
use super::request::{answer, authenticate, json_body, request_id};
use super::{approvals, json_rpc, lifecycle, statements, transactions};
use crate::gauges::Gauges;
use crate::live::Live;
use crate::signing::{Refusal, Signing};

/// So many bodies of more than [`MAX_BODY`](crate::transaction::MAX_BODY) are read and answered at once.
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

pub(super) type Shared = State<Arc<Api>>;

/// The API's routes: what `openapi()` describes.
pub(super) fn routes() -> [(&'static str, Method, MethodRouter<Arc<Api>>); 17] {
    [
        ("/", Method::POST, post(json_rpc::any_chain)),
        ("/chains/{chain}", Method::POST, post(json_rpc::chain)),
        ("/health", Method::GET, get(health)),
        ("/metrics", Method::GET, get(metrics)),
        ("/v1/keys", Method::GET, get(keys)),
        ("/v1/keys/{key}/transactions", Method::POST, post(transactions::sign)),
        ("/v1/keys/{key}/transactions/{idempotency_key}", Method::GET, get(transactions::signed)),
        ("/v1/keys/{key}/transactions/{idempotency_key}/replacements", Method::POST, post(lifecycle::replace)),
        ("/v1/keys/{key}/nonces/{chain}", Method::GET, get(lifecycle::nonces)),
        ("/v1/keys/{key}/nonces/{chain}/fill", Method::POST, post(lifecycle::fill)),
        ("/v1/approvals", Method::GET, get(approvals::list)),
        ("/v1/approvals/{approval}", Method::GET, get(approvals::one)),
        ("/v1/approvals/{approval}", Method::DELETE, delete(approvals::withdraw)),
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
    let ledger = api.signing.ledger.works().await;
    let troubles = api.signing.keys.iter().map(|(name, key)| (name, key.trouble()));
    let (mut keys, mut why) = (serde_json::Map::new(), Vec::new());
    for (name, trouble) in troubles {
        keys.insert(name.clone(), json!({ "ready": trouble.is_none() }));
        why.extend(trouble.map(|trouble| format!("key {name:?}: {trouble}")));
    }
    let healthy = match ledger {
        Err(error) => Err(Refusal::Ledger(error).into()),
        Ok(()) if why.is_empty() => Ok(json_body(&json!({ "status": "ok", "keys": keys }))),
        Ok(()) => Err(Problem::key_not_ready(why.join("; "), keys.into())),
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
