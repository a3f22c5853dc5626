//! The admin API's routes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use subtle::ConstantTimeEq;
use tokio::sync::watch;
use tokio::time::timeout;

use super::views;
use crate::control::{Control, WeightsError};
use crate::problem::{CONTENT_TYPE, Problem};

/// A request's body, in bytes: the weights of 64 backends are far below.
const BODY_SIZE: usize = 64 << 10;

#[derive(Clone)]
struct Api {
    control: Arc<Control>,
    draining: watch::Receiver<bool>,
    needs_token: bool,
}

pub(super) fn router(
    control: Arc<Control>,
    draining: watch::Receiver<bool>,
    needs_token: bool,
    body: Duration,
) -> Router {
    let api = Api { control, draining, needs_token };
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/routes", get(routes))
        .route("/v1/routes/{name}", get(route))
        .route("/v1/routes/{name}/weights", get(route).put(set_weights))
        .route("/v1/certificates", get(certificates))
        .route("/v1/reload", post(reload))
        .route("/metrics", get(metrics))
        .layer(middleware::from_fn_with_state(body, whole_body))
        .layer(middleware::from_fn_with_state(api.clone(), authorise))
        // A probe carries no token.
        .route("/health", get(health))
        .route("/ready", get(ready))
        .fallback(async || problem(StatusCode::NOT_FOUND, "not-found", "there is nothing here"))
        .method_not_allowed_fallback(async || {
            problem(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "not with this method")
        })
        .with_state(api)
}

fn problem(status: StatusCode, kind: &str, detail: &str) -> Response {
    let body = Problem::new(status.as_u16(), kind, detail, None).body();
    (status, [(header::CONTENT_TYPE, CONTENT_TYPE)], body).into_response()
}

async fn authorise(State(api): State<Api>, request: Request, next: Next) -> Response {
    if api.needs_token {
        let shown = request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
        let shown = shown.strip_prefix(b"Bearer ").unwrap_or_default();
        let known = api.control.admin_token();
        let matches = known.is_some_and(|token| bool::from(shown.ct_eq(token.as_bytes())));
        if !matches {
            let refused = problem(StatusCode::UNAUTHORIZED, "unauthorised", "a bearer token is needed");
            return ([(header::WWW_AUTHENTICATE, "Bearer")], refused).into_response();
        }
    }
    next.run(request).await
}

/// Has a request's body before it is looked at: no caller keeps a connection by sending it for ever.
async fn whole_body(State(patience): State<Duration>, request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    match timeout(patience, to_bytes(body, BODY_SIZE)).await {
        Ok(Ok(body)) => next.run(Request::from_parts(head, Body::from(body))).await,
        Ok(Err(_)) => problem(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "a body has 64 KiB at most"),
        Err(_) => problem(StatusCode::REQUEST_TIMEOUT, "timeout", "the body took too long"),
    }
}

async fn status(State(api): State<Api>) -> Response {
    let draining = *api.draining.borrow();
    Json(views::status(&api.control, draining).await).into_response()
}

async fn routes(State(api): State<Api>) -> Response {
    Json(views::routes(&api.control.live.snapshot())).into_response()
}

async fn route(State(api): State<Api>, Path(name): Path<String>) -> Response {
    let snapshot = api.control.live.snapshot();
    match snapshot.routes.iter().find(|route| route.name == name) {
        Some(route) => {
            let view = views::route(route);
            let etag = format!("\"{}\"", view.version);
            ([(header::ETAG, etag)], Json(view)).into_response()
        }
        None => no_route(&name),
    }
}

fn no_route(name: &str) -> Response {
    problem(StatusCode::NOT_FOUND, "no-route", &WeightsError::NoRoute(name.to_owned()).to_string())
}

/// A weight for each upstream. Of two weights for one upstream, neither is meant.
struct Weights(BTreeMap<String, u32>);

impl<'de> Deserialize<'de> for Weights {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Weights;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of upstreams and weights")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Weights, A::Error> {
                let mut weights = BTreeMap::new();
                while let Some((name, weight)) = map.next_entry::<String, u32>()? {
                    if weights.contains_key(&name) {
                        return Err(de::Error::custom(format_args!("{name:?} is there twice")));
                    }
                    weights.insert(name, weight);
                }
                Ok(Weights(weights))
            }
        }
        deserializer.deserialize_map(Each)
    }
}

/// The version that `If-Match` asks for: one entity tag, or `*`. A condition that cannot be read is not left out.
fn if_match(headers: &HeaderMap) -> Result<Option<&str>, &'static str> {
    let mut lines = headers.get_all(header::IF_MATCH).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    let version = line.to_str().ok().map(|text| text.trim_matches('"')).filter(|text| !text.contains(['"', ',']));
    match (version, lines.next()) {
        (Some(version), None) => Ok(Some(version)),
        _ => Err("expected one entity tag in If-Match"),
    }
}

async fn set_weights(State(api): State<Api>, Path(name): Path<String>, headers: HeaderMap, body: Bytes) -> Response {
    let wanted: Weights = match serde_json::from_slice(&body) {
        Ok(wanted) => wanted,
        Err(error) => {
            let detail = format!("expected an object of upstreams and weights: {error}");
            return problem(StatusCode::BAD_REQUEST, "bad-weights", &detail);
        }
    };
    let if_match = match if_match(&headers) {
        Ok(version) => version,
        Err(detail) => return problem(StatusCode::BAD_REQUEST, "bad-if-match", detail),
    };
    match api.control.set_weights(&name, wanted.0, if_match).await {
        Ok(_) => route(State(api), Path(name)).await,
        Err(error) => {
            let detail = error.to_string();
            match error {
                WeightsError::NoRoute(_) => problem(StatusCode::NOT_FOUND, "no-route", &detail),
                WeightsError::Invalid(_) => problem(StatusCode::BAD_REQUEST, "bad-weights", &detail),
                WeightsError::Changed(_) => problem(StatusCode::CONFLICT, "weights-changed", &detail),
                WeightsError::NotKept(_) => problem(StatusCode::INTERNAL_SERVER_ERROR, "state-not-written", &detail),
            }
        }
    }
}

async fn certificates(State(api): State<Api>) -> Response {
    Json(views::certificates(&api.control.live.snapshot(), SystemTime::now())).into_response()
}

async fn reload(State(api): State<Api>) -> Response {
    match api.control.reload().await {
        Ok(reloaded) => Json(reloaded).into_response(),
        Err(error) => problem(StatusCode::UNPROCESSABLE_ENTITY, "not-reloaded", &error),
    }
}

async fn metrics(State(api): State<Api>) -> Response {
    let text = api.control.live.metrics.render(api.control.live.access_log.load().lost());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

async fn health() -> &'static str {
    "ok\n"
}

async fn ready(State(api): State<Api>) -> Response {
    if *api.draining.borrow() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response()
    } else {
        "ready\n".into_response()
    }
}
