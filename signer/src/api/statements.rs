//! Signing what is no transaction: messages, typed data, authorizations. No idempotency key is needed: to sign one
//! again is to say the same again.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::callers::Caller;
use super::problem::Problem;
use super::request::{answer, authenticate, content_type, json_body, key_of, read, request_id};
use super::routes::Api;
use crate::authorization::Authorization;
use crate::key::Key;
use crate::message::Message;
use crate::signing::{Refusal, Said};
use crate::statement::Statement;
use crate::strict::FieldError;
use crate::transaction::MAX_BODY;
use crate::typed_data::TypedData;

type KeyPath = Result<Path<String>, PathRejection>;

pub(super) async fn message(State(api): State<Arc<Api>>, path: KeyPath, request: Request) -> Response {
    let read = |body: &[u8]| Message::parse(body).map(Statement::Message);
    sign(&api, path, request, "invalid-message", "The message is not valid", read).await
}

pub(super) async fn typed_data(State(api): State<Arc<Api>>, path: KeyPath, request: Request) -> Response {
    let read = |body: &[u8]| TypedData::parse(body).map(|data| Statement::TypedData(Box::new(data)));
    sign(&api, path, request, "invalid-typed-data", "The typed data is not valid", read).await
}

pub(super) async fn authorization(State(api): State<Arc<Api>>, path: KeyPath, request: Request) -> Response {
    let read = |body: &[u8]| Authorization::parse(body).map(Statement::Authorization);
    sign(&api, path, request, "invalid-authorization", "The authorization is not valid", read).await
}

async fn sign(
    api: &Api,
    path: KeyPath,
    request: Request,
    kind: &'static str,
    title: &'static str,
    parse: fn(&[u8]) -> Result<Statement, FieldError>,
) -> Response {
    let request_id = request_id();
    let admitted = admit(api, path, request, |body| parse(body).map_err(|error| Problem::invalid(kind, title, error)));
    let (caller, key, statement) = match admitted.await {
        Ok(admitted) => admitted,
        Err(problem) => {
            api.signing.metrics.request(problem.kind);
            tracing::info!(request_id, outcome = problem.kind, status = problem.status.as_u16(), "not signed");
            return answer(&request_id, Err(problem));
        }
    };
    let said = say(api, &request_id, &caller, &key, &statement).await;
    answer(&request_id, said.map(|said| json_body(&body(&statement, &said))).map_err(Problem::from))
}

/// Signs a statement for a caller, and writes its line in the log.
pub(super) async fn say(
    api: &Api,
    request_id: &str,
    caller: &Caller,
    key: &Key,
    statement: &Statement,
) -> Result<Said, Refusal> {
    let result = api.signing.statement(key, caller.policy.as_ref(), &caller.name, statement).await;
    api.signing.metrics.request(result.as_ref().map_or_else(Refusal::outcome, |_| "signed"));
    log(request_id, caller, key, statement, &result);
    result
}

async fn admit(
    api: &Api,
    path: KeyPath,
    request: Request,
    parse: impl FnOnce(&[u8]) -> Result<Statement, Problem>,
) -> Result<(Arc<Caller>, Arc<Key>, Statement), Problem> {
    let (parts, body) = request.into_parts();
    let caller = authenticate(&api.live, &parts)?;
    let key = key_of(&api.signing, &caller, path.map(|Path(key)| key)).await?;
    content_type(&parts.headers)?;
    let (body, _) = read(body, MAX_BODY, &api.large).await?;
    let key = Arc::clone(key);
    Ok((caller, key, parse(&body)?))
}

/// An authorization is answered as type 4 takes it; everything else with r, s and v in one.
fn body(statement: &Statement, said: &Said) -> Value {
    let Said { signature, digest, address } = said;
    let hex = |bytes: &[u8]| format!("0x{}", hex::encode(bytes));
    match statement {
        Statement::Authorization(authorization) => json!({
            "chainId": authorization.chain_id(), "address": authorization.delegate().to_checksum(None),
            "nonce": authorization.nonce(), "yParity": u8::from(signature.y_odd()), "r": hex(signature.r()),
            "s": hex(signature.s()), "digest": hex(&digest.0), "authority": address.to_checksum(None),
        }),
        Statement::Message(_) | Statement::TypedData(_) => json!({
            "signature": hex(&signature.to_bytes()), "digest": hex(&digest.0), "address": address.to_checksum(None),
        }),
    }
}

/// One event a request. Names and hashes: never what is signed.
fn log(request_id: &str, caller: &Caller, key: &Key, statement: &Statement, result: &Result<Said, Refusal>) {
    let (caller, key, what) = (&caller.name, key.name(), statement.kind());
    match result {
        Ok(Said { digest, address, .. }) => {
            tracing::info!(request_id, caller, key, what, outcome = "signed", %digest, from = %address, "signed");
        }
        Err(refusal @ (Refusal::Denied(_) | Refusal::TooOften(_))) => {
            tracing::warn!(request_id, caller, key, what, outcome = refusal.outcome(), why = %refusal, "not signed");
        }
        Err(refusal) => {
            tracing::error!(request_id, caller, key, what, outcome = refusal.outcome(), why = %refusal, "not signed");
        }
    }
}
