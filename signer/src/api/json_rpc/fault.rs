//! What else goes wrong, as JSON-RPC says it.

use serde_json::{Value, json};

use super::envelope::{
    Fault, INVALID_PARAMS, INVALID_REQUEST, NOT_FOUND, REJECTED, SERVER_ERROR, UNAUTHORIZED, UNAVAILABLE,
};
use crate::api::problem::Problem;
use crate::chain::rpc::RpcError;
use crate::ledger::Held;

impl Fault {
    /// Not signed yet: what somebody must approve, and the name under which to ask again then.
    pub(super) fn held(held: &Held) -> Self {
        let Held { approval, rule, id, digest, .. } = held;
        let name = &id.idempotency_key;
        let message = format!(
            "{rule}: somebody else must approve it first; it is approval {approval}: ask again, with the header \
             Idempotency-Key: {name}"
        );
        let data = json!({
            "type": "urn:keygate:problem:approval-needed", "rule": rule, "approval": approval,
            "digest": format!("0x{}", hex::encode(digest)), "idempotencyKey": name,
        });
        Self { code: REJECTED, message, data: Some(data), told: false }
    }
}

impl From<Problem> for Fault {
    /// The same words as in REST, with the code that clients know.
    fn from(problem: Problem) -> Self {
        let code = match problem.status.as_u16() {
            401 => UNAUTHORIZED,
            403 if problem.rule.is_some() => REJECTED,
            403 => UNAUTHORIZED,
            404 => NOT_FOUND,
            400 if problem.kind.starts_with("invalid-") => INVALID_PARAMS,
            400..500 if problem.kind != "idempotency-conflict" => INVALID_REQUEST,
            503 | 504 => UNAVAILABLE,
            _ => SERVER_ERROR,
        };
        let message = match problem.rule {
            Some(rule) => format!("{rule}: {}", problem.detail),
            None => problem.detail.clone(),
        };
        let mut data = json!({ "type": problem.urn(), "detail": problem.detail });
        let more = [("rule", problem.rule.map(Value::from)), ("field", problem.field.map(Value::from))];
        for (name, value) in more {
            if let Some(value) = value {
                data[name] = value;
            }
        }
        Self { code, message, data: Some(data), told: false }
    }
}

impl From<RpcError> for Fault {
    /// What a node says is passed on: clients read a reverted call's reason from it.
    fn from(error: RpcError) -> Self {
        match error {
            RpcError::Refused(said) => {
                let data = said.data.and_then(|data| serde_json::from_str(data.get()).ok());
                Self { code: said.code, message: said.message, data, told: false }
            }
            other => Self::new(UNAVAILABLE, other.to_string()),
        }
    }
}
