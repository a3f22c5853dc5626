//! What comes after signing: how far a transaction has come, what takes its place, and nonces.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::callers::Caller;
use super::listen::Place;
use super::problem::Problem;
use super::request::{
    answer, authenticate, content_type, idempotency_key, json_body, key_of, read, request_id, request_of,
};
use super::routes::Api;
use super::transactions::{Run, before, held_back, replayed, respond, run};
use crate::chain::fees::{Chosen, Fees, fees};
use crate::chain::node::Moment;
use crate::chain::rpc::Rpc;
use crate::chain::{Chain, Chains};
use crate::key::Key;
use crate::ledger::{Progress, RequestId, WithNonce};
use crate::policy::{self, Denied};
use crate::sending::{STUCK, UNSEEN};
use crate::signing::{Numbering, Prepared, Purpose, Refusal, asked_digest};
use crate::strict::{FieldError, Fields, quantity, text, wrong};
use crate::transaction::Transaction;

/// The longest request here.
const MAX_REQUEST: usize = 4096;
/// A node takes a transaction's place for one that offers a tenth more; this is an eighth.
const BUMP: (u128, u128) = (9, 8);
/// The fields of a transaction that say what it costs, as far as a replacement's are others.
const FEES: [&str; 3] = ["gasPrice", "maxFeePerGas", "maxPriorityFeePerGas"];
/// What it takes to do nothing.
const TRANSFER: u64 = 21_000;

type KeyAnd<T> = Result<Path<(String, T)>, PathRejection>;

/// How far a transaction has come, as JSON.
pub(super) fn progress(progress: &Progress) -> Value {
    json!({
        "state": progress.state.name(), "attempts": progress.attempts, "firstSentAt": progress.first_sent_at,
        "lastSentAt": progress.last_sent_at, "block": progress.block, "succeeded": progress.succeeded,
        "stuck": progress.note.as_deref().is_some_and(|note| [STUCK, UNSEEN].contains(&note)), "note": progress.note,
        "replacedBy": progress.replaced_by,
    })
}

/// What is known of a key's nonces on a chain: by its nodes, and here.
pub(super) async fn nonces(State(api): State<Arc<Api>>, path: KeyAnd<String>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let found = async {
        let caller = authenticate(&api.live, &parts)?;
        let (key, chain) = key_and(path);
        let key = key_of(&api.signing, &caller, key).await?;
        let chains = api.signing.post.chains();
        let (chain, rpc) = chain_of(&chains, &caller, &chain)?;
        let ask = |moment| async move { rpc.transaction_count(key.address(), moment).await.map_err(Refusal::from) };
        let (latest, pending) = (ask(Moment::Latest).await?, ask(Moment::Pending).await?);
        let known = api.signing.ledger.nonces(key.address(), chain.id, pending).await.map_err(Refusal::Ledger)?;
        Ok(json_body(&json!({
            "address": key.address().to_checksum(None), "chainId": chain.id, "latest": latest, "pending": pending,
            "next": known.next.unwrap_or(pending).max(pending), "gaps": known.gaps, "unsigned": known.unsigned,
            "unsent": known.unsent, "signed": known.signed,
        })))
    };
    answer(&request_id(), found.await)
}

/// `{"nonce": 7}`: a transaction that does nothing, for a nonce that others wait behind.
pub(super) async fn fill(State(api): State<Arc<Api>>, path: KeyAnd<String>, request: Request) -> Response {
    let request_id = request_id();
    let place = request.extensions().get::<Place>().cloned();
    let filled = async {
        let (parts, body) = request.into_parts();
        let caller = authenticate(&api.live, &parts)?;
        let (key, chain) = key_and(path);
        let key = key_of(&api.signing, &caller, key).await?;
        let chains = api.signing.post.chains();
        let (chain, rpc) = chain_of(&chains, &caller, &chain)?;
        let name = idempotency_key(&parts.headers)?;
        content_type(&parts.headers)?;
        let (body, _) = read(body, MAX_REQUEST, &api.large).await?;
        let asked = Offer::read(&body, &["nonce"])
            .and_then(|(mut fields, offer)| Ok((fields.required("nonce", crate::strict::nonce)?, offer)));
        let (nonce, offer) = asked.map_err(invalid)?;
        let id = request_of(&caller.name, key.name(), key.address(), name);
        let asked = [b"fill\0", chain.id.to_string().as_bytes(), b"\0", &body].concat();
        let digest = asked_digest(key.address(), &asked, true);
        let before = before(&api, &request_id, &id, digest).await?;
        if let Some(known) = replayed(&api, &request_id, &id, &before) {
            return Ok(respond(&known));
        }
        let tx = nothing(key, chain, &offer.fees(rpc, &[]).await?)?;
        let policy = caller.policy.as_ref().ok_or_else(|| Refusal::Denied(Denied::no_policy()))?;
        judged(&api, key, &id, &tx, policy::judge_filled(policy, &tx)).await?;
        let prepared = Prepared::new(key, tx, None, None).map(|prepared| Prepared {
            numbering: Numbering::Gap(nonce),
            purpose: Purpose::Nothing,
            send: true,
            ..prepared.asked(digest)
        });
        let run_it = Run { caller: Arc::clone(&caller), key: Arc::clone(key), id, prepared };
        Ok(respond(&run(&api, &request_id, run_it, place).await?))
    };
    let filled = filled.await;
    answer(&request_id, filled)
}

/// `{"action": "speed-up" | "cancel"}`, and fees, if they are not to be chosen here.
pub(super) async fn replace(State(api): State<Arc<Api>>, path: KeyAnd<String>, request: Request) -> Response {
    let request_id = request_id();
    let place = request.extensions().get::<Place>().cloned();
    let replaced = async {
        let (parts, body) = request.into_parts();
        let caller = authenticate(&api.live, &parts)?;
        let (key, original) = key_and(path);
        let key = key_of(&api.signing, &caller, key).await?;
        let name = idempotency_key(&parts.headers)?;
        content_type(&parts.headers)?;
        let (body, _) = read(body, MAX_REQUEST, &api.large).await?;
        let (cancel, offer) = action(&body).map_err(invalid)?;
        let id = request_of(&caller.name, key.name(), key.address(), name);
        let asked = [b"replace\0", original.as_bytes(), b"\0", body.as_slice()].concat();
        let digest = asked_digest(key.address(), &asked, true);
        let before = before(&api, &request_id, &id, digest).await?;
        if let Some(known) = replayed(&api, &request_id, &id, &before) {
            return Ok(respond(&known));
        }
        let original = request_of(&caller.name, key.name(), key.address(), original);
        let prepared = match before.reserved() {
            // It is finished as it was reserved, and is not one more.
            Some((body, nonce)) => {
                let purpose = if cancel { Purpose::Nothing } else { Purpose::Again { approved_by: BTreeSet::new() } };
                replacing(key, Transaction::from_body(body).map_err(invalid)?, nonce, purpose)
            }
            None => {
                // What somebody approves is what was shown, though the chain's fees are others by now.
                let wanted = Wanted { cancel, offer, filled: before.body().map(str::to_owned) };
                replacement(&api, &caller, key, &id, original, wanted).await?
            }
        };
        let prepared = prepared.map(|prepared| Prepared { send: true, ..prepared.asked(digest) });
        let run_it = Run { caller: Arc::clone(&caller), key: Arc::clone(key), id, prepared };
        match run(&api, &request_id, run_it, place).await {
            Err(Refusal::Held(held)) => Ok(held_back(&held)),
            answer => Ok(respond(&answer?)),
        }
    };
    let replaced = replaced.await;
    answer(&request_id, replaced)
}

/// What is to take a transaction's place.
struct Wanted {
    /// To do nothing; else the same.
    cancel: bool,
    offer: Offer,
    /// What it was filled in with before, if it was.
    filled: Option<String>,
}

/// What takes the place of a transaction that was signed under this name.
async fn replacement(
    api: &Api,
    caller: &Caller,
    key: &Key,
    id: &RequestId,
    original: RequestId,
    Wanted { cancel, offer, filled }: Wanted,
) -> Result<Result<Prepared, Refusal>, Problem> {
    let ledger = &api.signing.ledger;
    let record = ledger.lookup(original).await.map_err(Refusal::Ledger)?;
    let record = record.filter(|record| record.signed.is_some());
    let record =
        record.ok_or_else(|| Problem::not_found("the caller had nothing signed under this idempotency key"))?;
    let progress = ledger.progress(record.reservation).await.map_err(Refusal::Ledger)?;
    if progress.is_some_and(|progress| progress.state.is_final()) {
        return Err(Problem::decided("the transaction is final"));
    }
    let chains = api.signing.post.chains();
    let chain = chains.by_id(record.chain_id).ok_or(Refusal::NoRpc)?;
    let rpc = chain.rpc.as_ref().ok_or(Refusal::NoRpc)?;
    let read = |body: Option<&String>| body.and_then(|body| Transaction::from_body(body).ok());
    let all = match ledger.with_nonce(key.address(), chain.id, record.nonce).await.map_err(Refusal::Ledger)? {
        Ok(all) => all,
        Err(denied) => {
            let denied = Refusal::Denied(denied);
            return Err(match read(record.body.as_ref()) {
                Some(tx) => api.signing.refuse(key, id, &tx, denied, true).await.into(),
                None => denied.into(),
            });
        }
    };
    // What nodes have is one of them, whichever was asked to be replaced.
    let before: Vec<_> = all.iter().filter_map(|of| read(of.body.as_ref())).collect();
    let first = all.iter().find(|of| of.reservation == record.reservation);
    let (Some(Some(_)), Some(first)) = (all.last().map(|of| &of.body), read(first.and_then(|of| of.body.as_ref())))
    else {
        return Err(Problem::decided("it is of an older keygate, which did not keep what could be replaced"));
    };
    let tx = match &filled {
        Some(body) => Transaction::from_body(body).map_err(invalid)?,
        None => {
            let fees = offer.fees(rpc, &before).await?;
            if cancel { nothing(key, chain, &fees)? } else { with_fees(&first, &fees)? }
        }
    };
    let policy = caller.policy.as_ref().ok_or_else(|| Refusal::Denied(Denied::no_policy()))?;
    judged(api, key, id, &tx, policy::judge_filled(policy, &tx)).await?;
    let same = |of: &&WithNonce| {
        of.caller == caller.name && read(of.body.as_ref()).is_some_and(|before| before.same_call(&tx))
    };
    let approved_by = all.iter().filter(same).filter_map(|of| of.approved_by.clone()).collect();
    let purpose = if cancel { Purpose::Nothing } else { Purpose::Again { approved_by } };
    Ok(replacing(key, tx, record.nonce, purpose))
}

fn replacing(key: &Key, tx: Transaction, nonce: u64, purpose: Purpose) -> Result<Prepared, Refusal> {
    let numbering = Numbering::Replacing(nonce);
    Prepared::new(key, tx, None, None).map(|prepared| Prepared { numbering, purpose, ..prepared })
}

/// What is denied is in the audit trail.
async fn judged(
    api: &Api,
    key: &Key,
    id: &RequestId,
    tx: &Transaction,
    verdict: Result<(), Denied>,
) -> Result<(), Problem> {
    match verdict {
        Ok(()) => Ok(()),
        Err(denied) => Err(api.signing.refuse(key, id, tx, denied.into(), true).await.into()),
    }
}

/// A transaction that sends nothing to its own sender.
fn nothing(key: &Key, chain: &Chain, fees: &Fees) -> Result<Transaction, Problem> {
    let mut body = json!({
        "chainId": chain.id, "to": key.address().to_checksum(None), "value": 0, "gas": TRANSFER, "data": "0x",
    });
    put(&mut body, fees, true);
    draft(&body)
}

/// The same transaction for other fees.
fn with_fees(tx: &Transaction, fees: &Fees) -> Result<Transaction, Problem> {
    let mut body: Value = serde_json::from_str(&tx.body()).map_err(|error| Problem::internal(error.to_string()))?;
    put(&mut body, fees, false);
    draft(&body)
}

fn put(body: &mut Value, fees: &Fees, with_type: bool) {
    let kind = match fees {
        Fees::Legacy { gas_price } => {
            body["gasPrice"] = gas_price.to_string().into();
            0
        }
        Fees::Eip1559 { max_fee, max_priority_fee } => {
            body["maxFeePerGas"] = max_fee.to_string().into();
            body["maxPriorityFeePerGas"] = max_priority_fee.to_string().into();
            2
        }
    };
    if with_type {
        body["type"] = kind.into();
    }
}

fn draft(body: &Value) -> Result<Transaction, Problem> {
    Transaction::from_body(&body.to_string()).map_err(invalid)
}

/// The fees that a caller names; what it leaves out is chosen here.
struct Offer {
    gas_price: Option<u128>,
    chosen: Chosen,
}

impl Offer {
    fn read(body: &[u8], more: &[&str]) -> Result<(Fields, Self), FieldError> {
        let known = [&FEES, more].concat();
        let mut fields = Fields::read(body, MAX_REQUEST, &known)?;
        let gas_price = fields.optional("gasPrice", quantity)?;
        let max_fee = fields.optional("maxFeePerGas", quantity)?;
        let max_priority_fee = fields.optional("maxPriorityFeePerGas", quantity)?;
        Ok((fields, Self { gas_price, chosen: Chosen { max_fee, max_priority_fee } }))
    }

    /// What to offer: as the market is, and an eighth more than the highest of those `before`, the last of which is to be
    /// replaced, unless the caller says otherwise.
    async fn fees(&self, rpc: &Rpc, before: &[Transaction]) -> Result<Fees, Problem> {
        let latest = rpc.latest_block().await.map_err(Refusal::from)?;
        let market = rpc.market(latest).await.map_err(Refusal::from)?;
        let bumped = |fee: u128| fee.saturating_mul(BUMP.0).div_ceil(BUMP.1).saturating_add(1);
        let highest = |fee: fn(&Transaction) -> u128| before.iter().map(fee).max().map(bumped).unwrap_or_default();
        let old_fee = highest(Transaction::max_gas_price);
        let old_priority_fee = highest(Transaction::max_priority_fee);
        let legacy = before.last().is_some_and(|tx| !tx.has_priority_fee());
        Ok(match fees(market, self.chosen) {
            Fees::Legacy { gas_price } => {
                Fees::Legacy { gas_price: self.gas_price.unwrap_or_else(|| gas_price.max(old_fee)) }
            }
            Fees::Eip1559 { max_fee, .. } if legacy => {
                Fees::Legacy { gas_price: self.gas_price.unwrap_or_else(|| max_fee.max(old_fee)) }
            }
            Fees::Eip1559 { max_fee, max_priority_fee } => Fees::Eip1559 {
                max_fee: self.chosen.max_fee.unwrap_or_else(|| max_fee.max(old_fee)),
                max_priority_fee: self
                    .chosen
                    .max_priority_fee
                    .unwrap_or_else(|| max_priority_fee.max(old_priority_fee)),
            },
        })
    }
}

fn action(body: &[u8]) -> Result<(bool, Offer), FieldError> {
    let (mut fields, offer) = Offer::read(body, &["action"])?;
    let cancel = fields.required("action", |at, value| match text(at, value)?.as_str() {
        "speed-up" => Ok(false),
        "cancel" => Ok(true),
        _ => wrong(at, "expected speed-up or cancel"),
    })?;
    Ok((cancel, offer))
}

/// The chain of this name, and its nodes, if the caller's policy allows it.
fn chain_of<'a>(chains: &'a Chains, caller: &Caller, name: &str) -> Result<(&'a Chain, &'a Rpc), Problem> {
    let chain = chains.named(name).filter(|chain| caller.may_use_chain(chain.id));
    let chain = chain.ok_or_else(|| Problem::not_found("the caller's policy allows no chain of this name"))?;
    Ok((chain, chain.rpc.as_ref().ok_or(Refusal::NoRpc)?))
}

fn key_and<T: Default>(path: KeyAnd<T>) -> (Result<String, PathRejection>, T) {
    match path {
        Ok(Path((key, other))) => (Ok(key), other),
        Err(rejection) => (Err(rejection), T::default()),
    }
}

fn invalid(error: FieldError) -> Problem {
    Problem::invalid("invalid-transaction", "The transaction is not valid", error)
}
