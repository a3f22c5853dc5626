//! JSON-RPC 2.0 at `POST /` and `POST /chains/{chain}`: what clients of a node's own accounts expect, under the caller's
//! policy. The same callers, limits, signing and log as REST.
//!
//! Every answer is JSON-RPC, what HTTP has to say against a request too. Notifications are not carried out: nobody would
//! see what came of them.

mod envelope;
mod fault;
mod transaction;
mod wanted;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use alloy_primitives::Address;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use keygate_config::ReadMethod;
use serde::Serialize;
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use self::envelope::{
    Call, Fault, INVALID_PARAMS, INVALID_REQUEST, Incoming, METHOD_NOT_FOUND, NOT_FOUND, Reply, SERVER_ERROR,
    UNAUTHORIZED, UNAVAILABLE, UNSUPPORTED,
};
use self::wanted::Wanted;
use super::callers::Caller;
use super::listen::Place;
use super::problem::Problem;
use super::request::{answer, authenticate, content_type, idempotency_key, read, request_id, request_of};
use super::routes::Api;
use super::statements::say;
use super::transactions::{Admitted, before, replayed, told, transaction as sign};
use crate::chain::rpc::MAX_ANSWER;
use crate::chain::{Chain, Chains};
use crate::key::Key;
use crate::ledger::RequestId;
use crate::message::Message;
use crate::policy::{self, Denied};
use crate::signing::{Before, Numbering, Purpose, Refusal, asked_digest};
use crate::statement::Statement;
use crate::strict::{FieldError, address, wrong};
use crate::transaction::{MAX_BODY, MAX_BODY_WITH_BLOBS, Transaction};
use crate::typed_data::TypedData;

/// After this time, what is left of a batch is not carried out.
const BATCH_TIME: Duration = Duration::from_secs(30);

type ChainPath = Result<Path<String>, PathRejection>;

/// For the chain of the path.
pub(super) async fn chain(State(api): State<Arc<Api>>, path: ChainPath, request: Request) -> Response {
    serve(&api, Some(path.map(|Path(chain)| chain).unwrap_or_default()), request).await
}

/// For the chain that the caller's policy allows, if there is one.
pub(super) async fn any_chain(State(api): State<Arc<Api>>, request: Request) -> Response {
    serve(&api, None, request).await
}

async fn serve(api: &Arc<Api>, chain: Option<String>, request: Request) -> Response {
    let request_id = request_id();
    let place = request.extensions().get::<Place>().cloned();
    let response = match admit(api, request).await {
        Err(problem) => {
            tracing::info!(request_id, outcome = problem.kind, status = problem.status.as_u16(), "no JSON-RPC");
            refuse(problem, &request_id)
        }
        Ok((caller, idempotency_key, (body, large))) => {
            let chains = api.signing.post.chains();
            let caller = Asking { api, caller, chains, chain, idempotency_key, place, request_id: &request_id };
            let response = caller.body(&body).await;
            drop(large);
            response
        }
    };
    answer(&request_id, Ok(response))
}

type Body = (Vec<u8>, Option<tokio::sync::OwnedSemaphorePermit>);

async fn admit(api: &Api, request: Request) -> Result<(Arc<Caller>, Option<String>, Body), Problem> {
    let (parts, body) = request.into_parts();
    let caller = authenticate(&api.live, &parts)?;
    content_type(&parts.headers)?;
    let named = parts.headers.contains_key("idempotency-key");
    let idempotency_key = named.then(|| idempotency_key(&parts.headers)).transpose()?;
    Ok((caller, idempotency_key, read(body, MAX_BODY_WITH_BLOBS, &api.large).await?))
}

/// What HTTP has to say against a request, with a body that clients of JSON-RPC read.
fn refuse(problem: Problem, request_id: &str) -> Response {
    let fault = Fault::from(problem.clone());
    let (mut parts, _) = problem.into_response(request_id).into_parts();
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    parts.headers.remove(header::CONTENT_LENGTH);
    (parts, json(&Reply::new(None, Err(fault)))).into_response()
}

/// Who asks, how and of which chain.
struct Asking<'a> {
    api: &'a Arc<Api>,
    caller: Arc<Caller>,
    /// Of the file, as it was at the start of the request.
    chains: Arc<Chains>,
    /// As the path has it.
    chain: Option<String>,
    idempotency_key: Option<String>,
    place: Option<Place>,
    request_id: &'a str,
}

impl Asking<'_> {
    async fn body(&self, body: &[u8]) -> Response {
        match envelope::read(body) {
            Err(fault) | Ok(Incoming::One(Err(fault))) => respond(&Reply::new(None, Err(fault))),
            Ok(Incoming::One(Ok(call))) => match call.id {
                Some(id) => respond(&Reply::new(Some(id), self.call(&call).await)),
                None => StatusCode::NO_CONTENT.into_response(),
            },
            Ok(Incoming::Batch(calls)) => self.batch(&calls).await,
        }
    }

    /// One after the other, as they stand in the batch.
    async fn batch(&self, calls: &[Result<Call<'_>, Fault>]) -> Response {
        let (start, mut length) = (Instant::now(), 0);
        let signing = calls.iter().flatten().filter(|call| is_transaction(call)).count();
        let mut replies = Vec::new();
        for call in calls {
            let reply = match call {
                Err(fault) => Reply::new(None, Err(fault.clone())),
                Ok(Call { id: None, .. }) => continue,
                Ok(call) if signing > 1 && self.idempotency_key.is_some() && is_transaction(call) => {
                    let why = "a header Idempotency-Key is for one transaction, and the batch has several";
                    Reply::new(call.id, Err(Fault::new(INVALID_REQUEST, why)))
                }
                Ok(call) if start.elapsed() > BATCH_TIME || length > MAX_ANSWER => Reply::new(
                    call.id,
                    Err(Fault::new(
                        UNAVAILABLE,
                        "the batch takes too long, or its answer is too long: ask for less at once",
                    )),
                ),
                Ok(call) => Reply::new(call.id, self.call(call).await),
            };
            length += reply.length();
            replies.push(reply);
        }
        if replies.is_empty() { StatusCode::NO_CONTENT.into_response() } else { respond(&replies) }
    }

    async fn call(&self, call: &Call<'_>) -> Result<Box<RawValue>, Fault> {
        match call.method.as_str() {
            "web3_clientVersion" => result(concat!("keygate/", env!("CARGO_PKG_VERSION"))),
            "eth_accounts" | "eth_requestAccounts" => {
                let keys = self.api.signing.keys.values().filter(|key| self.caller.may_use(key.name()));
                result(&keys.map(|key| key.address().to_checksum(None)).collect::<Vec<_>>())
            }
            "eth_chainId" => result(&format!("{:#x}", self.chain()?.id)),
            "net_version" => result(&self.chain()?.id.to_string()),
            "eth_signTransaction" => Box::pin(self.sign_transaction(call, false)).await,
            "eth_sendTransaction" => Box::pin(self.sign_transaction(call, true)).await,
            "personal_sign" => self.personal_sign(call).await,
            "eth_signTypedData_v4" => self.sign_typed_data(call).await,
            "eth_sign" => unsupported("it signs what may be a transaction's digest: use personal_sign"),
            "eth_signTypedData" | "eth_signTypedData_v1" | "eth_signTypedData_v3" => {
                unsupported("these are older than EIP-712 as it stands: use eth_signTypedData_v4")
            }
            "eth_sendRawTransaction" => unsupported("keygate passes on what it has signed itself, and nothing else"),
            name => match ReadMethod::named(name) {
                Some(method) => self.read(method, call).await,
                None => Err(Fault::new(METHOD_NOT_FOUND, format!("there is no method {}", call.shown()))),
            },
        }
    }

    /// The chain that is asked about.
    fn chain(&self) -> Result<&Chain, Fault> {
        let chains = &self.chains;
        let allowed = |chain: &&Chain| self.caller.may_use_chain(chain.id);
        match &self.chain {
            Some(name) => chains.named(name).filter(allowed).ok_or_else(|| {
                Fault::new(NOT_FOUND, "the caller's policy allows no chain of the name that the path has")
            }),
            None => {
                let ids = self.caller.policy.iter().flat_map(|policy| &policy.chains);
                let mut allowed = ids.filter_map(|id| chains.by_id(*id));
                match (allowed.next(), allowed.next()) {
                    (Some(chain), None) => Ok(chain),
                    (None, _) => Err(Fault::new(NOT_FOUND, "the caller's policy allows no chain")),
                    (Some(_), Some(_)) => Err(Fault::new(
                        INVALID_PARAMS,
                        "the caller's policy allows several chains: name one in the path, as in POST /chains/polygon",
                    )),
                }
            }
        }
    }

    /// The caller's key with this address.
    fn key(&self, address: Address) -> Result<&Arc<Key>, Fault> {
        let mut keys = self.api.signing.keys.values().filter(|key| self.caller.may_use(key.name()));
        keys.find(|key| key.address() == address).ok_or_else(|| Problem::key_not_allowed().into())
    }

    /// Signs a transaction, and sends it if it is to be sent. What it leaves out is filled: its nonce by the ledger, and all
    /// else by the chain's nodes.
    async fn sign_transaction(&self, call: &Call<'_>, send: bool) -> Result<Box<RawValue>, Fault> {
        let signed = async {
            let params = call.params(1, 1)?;
            let mut wanted = Wanted::read(params[0]).map_err(Fault::field)?;
            let key = self.key(wanted.from)?;
            let Some(policy) = &self.caller.policy else {
                return Err(Problem::from(Refusal::Denied(Denied::no_policy())).into());
            };
            let chain = self.chain_of(&wanted)?;
            wanted.of(chain);
            // The same request is the same whatever it is filled with.
            let digest = asked_digest(key.address(), &wanted.asked(), send);
            // Every call is a request of its own, where nothing says which it is.
            let named = self.idempotency_key.is_some();
            let name = self.idempotency_key.clone().unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
            let id = request_of(&self.caller.name, key.name(), key.address(), name);
            // What has a sidecar needs it for its answer.
            let before = if named {
                before(self.api, self.request_id, &id, digest).await.map_err(Problem::from)?
            } else {
                Before::default()
            };
            if !wanted.has_sidecar()
                && let Some(known) = replayed(self.api, self.request_id, &id, &before)
            {
                return Ok((wanted, Err(known)));
            }
            if let Some(body) = before.body() {
                wanted.fill_as(body).map_err(Fault::field)?;
            }
            let missing = wanted.missing().map_err(Fault::field)?;
            if let Some(missing) = missing {
                // What is denied whatever nodes say, they are not asked for.
                let (tx, nonce) = wanted.unfilled().map_err(Fault::field)?;
                let numbering = nonce.map_or(Numbering::Chosen, Numbering::Given);
                let judged = self.api.signing.judge(policy, &tx, &Purpose::Call, numbering, SystemTime::now());
                self.allowed(key, &id, &tx, judged.map(drop)).await?;
                wanted.fill(chain, missing).await.map_err(|fault| {
                    told(self.api, self.request_id, &id, &Err(Refusal::Chain(fault.message.clone())));
                    Fault { told: true, ..fault }
                })?;
            }
            let (tx, nonce) = wanted.transaction().map_err(Fault::field)?;
            if missing.is_some() {
                self.allowed(key, &id, &tx, policy::judge_filled(policy, &tx)).await?;
            }
            let (caller, key) = (Arc::clone(&self.caller), Arc::clone(key));
            Ok((wanted, Ok(Admitted { caller, key, id, tx, nonce, asked: Some(digest), send, large: None })))
        };
        let (wanted, admitted) = self.noted(call, signed.await).await?;
        let signed = match admitted {
            Err(known) => known,
            Ok(admitted) => {
                // Boxed: it is large, and a batch may have many.
                let signing = sign(self.api, self.request_id, admitted, self.place.clone());
                match Box::pin(signing).await {
                    Err(Refusal::Held(held)) => return Err(Fault::held(&held)),
                    signed => signed.map_err(Problem::from)?,
                }
            }
        };
        if send { result(&signed.signed.hash) } else { result(&wanted.signed(&signed)) }
    }

    /// What is denied is in the audit trail, the log and the metrics, as what is denied later is.
    async fn allowed(
        &self,
        key: &Key,
        id: &RequestId,
        tx: &Transaction,
        judged: Result<(), Denied>,
    ) -> Result<(), Fault> {
        let Err(denied) = judged else { return Ok(()) };
        let refused = Err(self.api.signing.refuse(key, id, tx, denied.into(), true).await);
        told(self.api, self.request_id, id, &refused);
        refused.map(drop).map_err(|refusal| Fault { told: true, ..Problem::from(refusal).into() })
    }

    /// The chain of a transaction, to be asked for what it leaves out: the one that it names, and no other than the path's.
    fn chain_of(&self, wanted: &Wanted) -> Result<Option<&Chain>, Fault> {
        let Some(id) = wanted.chain_id().map_err(Fault::field)? else { return self.chain().map(Some) };
        if self.chain.is_some() && self.chain()?.id != id {
            return Err(Fault::field(FieldError {
                field: Some("chainId".into()),
                problem: "the path has another chain".into(),
            }));
        }
        Ok(self.chains.by_id(id).filter(|_| self.caller.may_use_chain(id)))
    }

    /// ethers, viem and web3.py give the message first, as it was specified; some give the address first.
    async fn personal_sign(&self, call: &Call<'_>) -> Result<Box<RawValue>, Fault> {
        let read = || {
            // A third is a password, which no key here has.
            let params = call.params(2, 3)?;
            let texts = [text("params[0]", params[0]), text("params[1]", params[1])];
            let [first, second] = texts.map(|text| text.map_err(Fault::field));
            let (first, second) = (first?, second?);
            let [as_first, as_second] =
                [&first, &second].map(|text| address("", crate::json::Json::String(text.clone())).ok());
            let own = |address: Option<Address>| address.filter(|address| self.key(*address).is_ok());
            let (message, address, at) = match (own(as_first), own(as_second)) {
                (Some(address), None) => (second, address, 1),
                (_, Some(address)) => (first, address, 0),
                (None, None) if as_first.is_some() || as_second.is_some() => {
                    return Err(Problem::key_not_allowed().into());
                }
                (None, None) => {
                    let why = "expected [data, address]: bytes as 0x and hex digits, and one of the addresses of eth_accounts";
                    return Err(Fault::new(INVALID_PARAMS, why));
                }
            };
            let body = json!({ "message": message, "encoding": "hex" }).to_string();
            let message = Message::parse(body.as_bytes()).map_err(|error| {
                Fault::field(FieldError { field: error.field.map(|_| format!("params[{at}]")), ..error })
            })?;
            Ok((self.key(address)?, Statement::Message(message)))
        };
        let (key, statement) = self.noted(call, read()).await?;
        self.say(key, &statement).await
    }

    async fn sign_typed_data(&self, call: &Call<'_>) -> Result<Box<RawValue>, Fault> {
        let read = || {
            let params = call.params(2, 2)?;
            let address =
                text("params[0]", params[0]).and_then(|text| address("params[0]", crate::json::Json::String(text)));
            let key = self.key(address.map_err(Fault::field)?)?;
            // An object, or its text.
            let data = match params[1].get() {
                text if text.starts_with('"') => serde_json::from_str::<String>(text).unwrap_or_default(),
                object => object.to_owned(),
            };
            let data = TypedData::parse(data.as_bytes()).map_err(Fault::field)?;
            Ok((key, Statement::TypedData(Box::new(data))))
        };
        let (key, statement) = self.noted(call, read()).await?;
        self.say(key, &statement).await
    }

    async fn say(&self, key: &Key, statement: &Statement) -> Result<Box<RawValue>, Fault> {
        let said = say(self.api, self.request_id, &self.caller, key, statement).await.map_err(Problem::from)?;
        result(&format!("0x{}", hex::encode(said.signature.to_bytes())))
    }

    /// Passes a call on to the chain's nodes.
    async fn read(&self, method: ReadMethod, call: &Call<'_>) -> Result<Box<RawValue>, Fault> {
        if !self.caller.rpc_methods.contains(&method) {
            let data = json!({ "rule": "rpc_methods" });
            let message = format!("rpc_methods: the caller's policy does not pass {} on", method.name());
            return Err(Fault { data: Some(data), ..Fault::new(UNAUTHORIZED, message) });
        }
        let rpc = self.chain()?.rpc.as_ref();
        let rpc = rpc
            .ok_or_else(|| Fault::new(METHOD_NOT_FOUND, "the chain has no `rpc` in the file, which could be asked"))?;
        match call.params {
            Some(params) if params.get().len() > MAX_BODY => Err(Fault::new(INVALID_PARAMS, "the params are too long")),
            Some(params) => Ok(rpc.call(method.name(), params).await?),
            None => Ok(rpc.call(method.name(), &[(); 0]).await?),
        }
    }

    /// What is not even asked of the signer is in the log; and in the audit trail, where it is for a key that is not the
    /// caller's.
    async fn noted<T>(&self, call: &Call<'_>, read: Result<T, Fault>) -> Result<T, Fault> {
        if let Err(fault) = &read
            && !fault.told
        {
            let (caller, method, code) = (&self.caller.name, call.shown(), fault.code);
            self.api.signing.metrics.request("invalid-json-rpc");
            tracing::info!(
                request_id = self.request_id,
                caller,
                method,
                code,
                outcome = "invalid-json-rpc",
                "not signed"
            );
            let theirs = Problem::key_not_allowed();
            if fault.data.as_ref().is_some_and(|data| data["type"] == theirs.urn()) {
                self.api.signing.tell_refusal(caller, theirs.kind, json!({ "method": method })).await;
            }
        }
        read
    }
}

fn is_transaction(call: &Call<'_>) -> bool {
    ["eth_signTransaction", "eth_sendTransaction"].contains(&call.method.as_str())
}

fn text(field: &str, value: &RawValue) -> Result<String, FieldError> {
    serde_json::from_str(value.get()).or_else(|_| wrong(field, "expected a string"))
}

fn unsupported(why: &str) -> Result<Box<RawValue>, Fault> {
    Err(Fault::new(UNSUPPORTED, why))
}

fn result(value: &(impl Serialize + ?Sized)) -> Result<Box<RawValue>, Fault> {
    to_raw_value(value).map_err(|error| Fault::new(SERVER_ERROR, error.to_string()))
}

fn json(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).unwrap_or_default()
}

fn respond(body: &impl Serialize) -> Response {
    super::request::json_body(body)
}
