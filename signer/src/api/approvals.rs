//! What is held until a second identity approves it, who asked withdraws it, or it expires.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::callers::Caller;
use super::problem::Problem;
use super::request::{answer, authenticate, content_type, json_body, read, request_id};
use super::routes::Api;
use crate::ledger::{Decided, Held, Standing};
use crate::signing::Refusal;
use crate::strict::{FieldError, Fields, fixed_bytes, wrong};

/// The longest decision.
const MAX_DECISION: usize = 1024;

/// Those that wait for the caller.
pub(super) async fn list(State(api): State<Arc<Api>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let found = async {
        let caller = authenticate(&api.live, &parts)?;
        let now = SystemTime::now();
        let undecided = api.signing.ledger.undecided(now).await.map_err(Refusal::Ledger)?;
        let mine = undecided.iter().filter(|held| may_decide(&api, &caller, held));
        let approvals: Vec<_> = mine.map(|held| shown(held, now)).collect();
        Ok(json_body(&json!({ "approvals": approvals })))
    };
    answer(&request_id(), found.await)
}

/// One of them, whatever was decided: for who may decide, and for who asked.
pub(super) async fn one(
    State(api): State<Arc<Api>>,
    path: Result<Path<u64>, PathRejection>,
    request: Request,
) -> Response {
    let (parts, _) = request.into_parts();
    let found = async {
        let caller = authenticate(&api.live, &parts)?;
        find(&api, &caller, path).await.map(|held| json_body(&shown(&held, SystemTime::now())))
    };
    answer(&request_id(), found.await)
}

/// `{"decision": "approve" | "reject", "digest": "0x..."}`: the digest is that of what the caller has seen.
pub(super) async fn decide(
    State(api): State<Arc<Api>>,
    path: Result<Path<u64>, PathRejection>,
    request: Request,
) -> Response {
    let request_id = request_id();
    let decided = async {
        let (parts, body) = request.into_parts();
        let caller = authenticate(&api.live, &parts)?;
        content_type(&parts.headers)?;
        let (body, _) = read(body, MAX_DECISION, &api.large).await?;
        let (approved, digest) = decision(&body)
            .map_err(|error| Problem::invalid("invalid-decision", "The decision is not valid", error))?;
        let held = find(&api, &caller, path).await?;
        if approved && !may_decide(&api, &caller, &held) {
            let problem = Problem::not_approver("the policy does not let this caller approve it");
            return Err(refused(&api, &caller, held.approval, problem).await);
        }
        say(&api, &request_id, &caller, held.approval, digest, approved).await
    };
    let decided = decided.await;
    answer(&request_id, decided)
}

/// Who asked for it does not want it any more.
pub(super) async fn withdraw(
    State(api): State<Arc<Api>>,
    path: Result<Path<u64>, PathRejection>,
    request: Request,
) -> Response {
    let request_id = request_id();
    let (parts, _) = request.into_parts();
    let withdrawn = async {
        let caller = authenticate(&api.live, &parts)?;
        let held = find(&api, &caller, path).await?;
        if held.id.caller != caller.name {
            return Err(refused(&api, &caller, held.approval, Problem::not_requester()).await);
        }
        say(&api, &request_id, &caller, held.approval, held.digest, false).await
    };
    let withdrawn = withdrawn.await;
    answer(&request_id, withdrawn)
}

/// What a caller says of what is held; who asked for it withdraws it by not approving it.
async fn say(
    api: &Api,
    request_id: &str,
    caller: &Caller,
    approval: u64,
    digest: [u8; 32],
    approved: bool,
) -> Result<Response, Problem> {
    let now = SystemTime::now();
    let decided = api.signing.ledger.decide(approval, digest, caller.name.clone(), approved, now);
    match decided.await.map_err(Refusal::Ledger)? {
        Decided::Done(held) => {
            let standing = held.standing(now).name();
            tracing::info!(request_id, caller = caller.name, approval, standing, "decided");
            Ok(json_body(&shown(&held, now)))
        }
        // To say the same again changes nothing.
        Decided::Already(held) if held.decision.as_ref().is_some_and(|said| said.approved == approved) => {
            Ok(json_body(&shown(&held, now)))
        }
        Decided::Already(_) => Err(Problem::decided("it was decided otherwise before")),
        Decided::UnderWay => Err(Problem::decided(
            "it is signed, or has a nonce and may be at any moment: ask for the transaction under its idempotency key",
        )),
        Decided::Expired(_) => Err(Problem::expired()),
        Decided::Own => {
            let problem = Problem::not_approver("who asks for something does not approve it");
            Err(refused(api, caller, approval, problem).await)
        }
        Decided::Other => Err(Problem::decided("what is held has another digest")),
        Decided::Unknown => Err(unknown()),
    }
}

/// Who may not say so is in the log and in the audit trail.
async fn refused(api: &Api, caller: &Caller, approval: u64, problem: Problem) -> Problem {
    tracing::warn!(caller = caller.name, approval, outcome = problem.kind, "not decided");
    api.signing.tell_refusal(&caller.name, problem.kind, json!({ "approval": approval })).await;
    problem
}

fn decision(body: &[u8]) -> Result<(bool, [u8; 32]), FieldError> {
    let mut fields = Fields::read(body, MAX_DECISION, &["decision", "digest"])?;
    let approved = fields.required("decision", |at, value| match crate::strict::text(at, value)?.as_str() {
        "approve" => Ok(true),
        "reject" => Ok(false),
        _ => wrong(at, "expected approve or reject"),
    })?;
    Ok((approved, fields.required("digest", fixed_bytes::<32>)?.0))
}

async fn find(api: &Api, caller: &Caller, path: Result<Path<u64>, PathRejection>) -> Result<Held, Problem> {
    let Ok(Path(approval)) = path else { return Err(unknown()) };
    let held = api.signing.ledger.held(approval).await.map_err(Refusal::Ledger)?;
    // Others learn nothing of it, not even that it is there.
    held.filter(|held| held.id.caller == caller.name || may_decide(api, caller, held)).ok_or_else(unknown)
}

/// Whether the policy of who asked, as it is now, lets this caller decide.
fn may_decide(api: &Api, caller: &Caller, held: &Held) -> bool {
    let now = api.live.snapshot();
    let policy = now.callers.named(&held.id.caller).and_then(|asked| asked.policy.as_ref());
    policy.is_some_and(|policy| policy.may_approve(&caller.name, &held.id.caller))
}

fn unknown() -> Problem {
    Problem::not_found("there is no such approval that would be the caller's affair")
}

fn shown(held: &Held, now: SystemTime) -> Value {
    let standing = held.standing(now);
    let state = match standing {
        Standing::Held | Standing::Expired | Standing::Signed => standing.name(),
        Standing::Approved | Standing::Rejected | Standing::Withdrawn => "decided",
    };
    let decision = held.decision.as_ref();
    let decision = decision.map(|said| json!({ "decision": standing.name(), "by": said.by, "at": said.at }));
    json!({
        "approval": held.approval, "state": state, "expiresAt": held.expires_at, "replaces": held.replaces,
        "caller": held.id.caller, "key": held.id.key, "address": held.id.address.to_checksum(None),
        "idempotencyKey": held.id.idempotency_key, "policy": held.policy, "rule": held.rule,
        "digest": format!("0x{}", hex::encode(held.digest)), "askedAt": held.asked_at, "decision": decision,
        "transaction": serde_json::from_str::<Value>(&held.body).unwrap_or_default(),
    })
}
