//! What a policy would say of a request: a dry run, by the file alone. No key is asked, no ledger is opened.

use std::time::SystemTime;

use keygate_config::units::Rate;

use crate::api::problem::NO_NONCE;
use crate::authorization::Authorization;
use crate::message::Message;
use crate::policy::{self, Allowed, Denied, Policy, Signable};
use crate::strict::FieldError;
use crate::transaction::Transaction;
use crate::typed_data::TypedData;

/// Who asks to have what signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question<'a> {
    /// The caller's name in the file.
    pub caller: &'a str,
    /// The signing key's name in the file.
    pub key: &'a str,
    /// What is to be signed.
    pub kind: Signable,
    /// It, as the API takes it.
    pub request: &'a [u8],
    /// When.
    pub now: SystemTime,
}

/// What the policy says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The caller's policy, if it has one.
    pub policy: Option<String>,
    /// What would be counted and approved; or the rule that says no. What was spent before, and how often something was
    /// signed, is no part of that.
    pub judged: Result<Allowed, Denied>,
    /// What the caller's signatures are limited to.
    pub rate: Option<Rate>,
    /// Who may approve it, if it must be approved.
    pub approvers: Vec<String>,
}

/// Why there is no verdict.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuestionError {
    /// The file names no such caller.
    #[error("the file has no caller {0:?}; it has {1}")]
    Caller(String, String),
    /// The file names no such key.
    #[error("the file has no key {0:?}; it has {1}")]
    Key(String, String),
    /// The API would answer 400.
    #[error("the request is not valid: {0}")]
    Request(#[from] FieldError),
}

/// Judges a request by the policy that the file gives the caller.
///
/// # Errors
/// [`QuestionError`]: there is nothing to judge.
pub fn check_policy(config: &keygate_config::Signer, question: Question<'_>) -> Result<Verdict, QuestionError> {
    let Question { caller: name, key, kind, request, now } = question;
    let Some(caller) = config.callers.get(name) else {
        return Err(QuestionError::Caller(name.to_owned(), listed(config.callers.keys())));
    };
    if !config.keys.contains_key(key) {
        return Err(QuestionError::Key(key.to_owned(), listed(config.keys.keys())));
    }
    let named = caller.policy.as_ref().and_then(|policy| Some((&policy.value, config.policies.get(&policy.value)?)));
    let policy = named.map(|(name, policy)| Policy::new(name, policy, &config.chains));
    let judged = match kind {
        Signable::Transaction => {
            let (tx, nonce) = Transaction::parse_draft(request)?;
            // Where there are nodes to ask, keygate chooses nonces.
            let mut chain = config.chains.values().filter(|chain| chain.id == tx.chain_id());
            let chosen_here = chain.next().is_some_and(|chain| chain.rpc.is_some() || chain.rpc_file.is_some());
            if nonce.is_none() && !chosen_here {
                return Err(FieldError { field: Some("nonce".to_owned()), problem: NO_NONCE.to_owned() }.into());
            }
            by(policy.as_ref(), |policy| match policy::judge(policy, &tx, now)? {
                _ if nonce.is_some() && chosen_here && !policy.allow_nonce => Err(Denied::nonce_given()),
                allowed => Ok(allowed),
            })
        }
        Signable::Message => {
            let message = Message::parse(request)?;
            by(policy.as_ref(), |policy| policy::judge_message(policy, &message, now))
        }
        Signable::TypedData => {
            let data = TypedData::parse(request)?;
            by(policy.as_ref(), |policy| policy::judge_typed_data(policy, &data, now))
        }
        Signable::Authorization => {
            let authorization = Authorization::parse(request)?;
            by(policy.as_ref(), |policy| policy::judge_authorization(policy, &authorization, now))
        }
    };
    let judged = if caller.keys.iter().any(|allowed| allowed.value == key) {
        judged
    } else {
        Err(Denied { rule: "keys", detail: format!("the caller may not use key {key:?}") })
    };
    let held = judged.as_ref().is_ok_and(|allowed| allowed.approval.is_some());
    let may = |policy: &Policy| {
        policy.approvers.iter().filter(|approver| policy.may_approve(approver, name)).cloned().collect()
    };
    Ok(Verdict {
        rate: policy.as_ref().and_then(|policy| policy.rate),
        approvers: policy.as_ref().filter(|_| held).map(may).unwrap_or_default(),
        policy: policy.map(|policy| policy.name),
        judged,
    })
}

fn listed<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<_> = names.map(String::as_str).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn by(policy: Option<&Policy>, judge: impl FnOnce(&Policy) -> Result<Allowed, Denied>) -> Result<Allowed, Denied> {
    policy.map_or_else(|| Err(Denied::no_policy()), judge)
}
