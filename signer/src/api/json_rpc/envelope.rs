//! JSON-RPC 2.0: what is a request, a batch, an answer, an error. Pure.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::strict::{FieldError, shown};

/// So many calls are read in one batch: as many as ethers puts into one.
pub(super) const MAX_BATCH: usize = 100;
/// The longest id that is read, in bytes.
const MAX_ID: usize = 256;

pub(super) const PARSE_ERROR: i64 = -32700;
pub(super) const INVALID_REQUEST: i64 = -32600;
pub(super) const METHOD_NOT_FOUND: i64 = -32601;
pub(super) const INVALID_PARAMS: i64 = -32602;
/// EIP-1474. Clients do not repeat such calls by themselves, as viem does after -32005 and -32603.
pub(super) const SERVER_ERROR: i64 = -32000;
/// EIP-1474.
pub(super) const NOT_FOUND: i64 = -32001;
/// EIP-1474.
pub(super) const UNAVAILABLE: i64 = -32002;
/// EIP-1193: the user rejected the request; here, the policy did.
pub(super) const REJECTED: i64 = 4001;
/// EIP-1193: the method or account is not the caller's.
pub(super) const UNAUTHORIZED: i64 = 4100;
/// EIP-1193.
pub(super) const UNSUPPORTED: i64 = 4200;

/// A call that is one.
#[derive(Debug)]
pub(super) struct Call<'a> {
    /// As it was written; none in a notification.
    pub(super) id: Option<&'a RawValue>,
    pub(super) method: String,
    /// An array or an object, as it was written.
    pub(super) params: Option<&'a RawValue>,
}

/// What a body holds. Each call may be none by itself.
#[derive(Debug)]
pub(super) enum Incoming<'a> {
    One(Result<Call<'a>, Fault>),
    Batch(Vec<Result<Call<'a>, Fault>>),
}

/// An error, as it is answered.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Fault {
    pub(super) code: i64,
    pub(super) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) data: Option<Value>,
    /// Whether metrics and log have it already.
    #[serde(skip)]
    pub(super) told: bool,
}

/// An answer to one call.
#[derive(Debug, Serialize)]
pub(super) struct Reply<'a> {
    jsonrpc: &'static str,
    id: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Fault>,
}

impl<'a> Reply<'a> {
    pub(super) fn new(id: Option<&'a RawValue>, result: Result<Box<RawValue>, Fault>) -> Self {
        let (result, error) = match result {
            Ok(result) => (Some(result), None),
            Err(fault) => (None, Some(fault)),
        };
        Self { jsonrpc: "2.0", id, result, error }
    }

    /// How long its result is, in bytes.
    pub(super) fn length(&self) -> usize {
        self.result.as_ref().map_or(0, |result| result.get().len())
    }
}

/// Reads a body.
///
/// # Errors
/// What is wrong with it as a whole.
pub(super) fn read(body: &[u8]) -> Result<Incoming<'_>, Fault> {
    let text = std::str::from_utf8(body).map_err(|_| Fault::new(PARSE_ERROR, "not JSON: not UTF-8"))?;
    let whole: &RawValue = serde_json::from_str(text).map_err(|error| {
        Fault::new(PARSE_ERROR, format!("not JSON: line {}, column {}", error.line(), error.column()))
    })?;
    if !whole.get().starts_with('[') {
        return Ok(Incoming::One(call(whole)));
    }
    let calls: Vec<&RawValue> = serde_json::from_str(whole.get()).map_err(|_| Fault::new(PARSE_ERROR, "not JSON"))?;
    match calls.len() {
        0 => Err(Fault::new(INVALID_REQUEST, "a batch of no calls")),
        1..=MAX_BATCH => Ok(Incoming::Batch(calls.into_iter().map(call).collect())),
        more => Err(Fault::new(INVALID_REQUEST, format!("a batch of {more} calls: {MAX_BATCH} are read at once"))),
    }
}

fn call(text: &RawValue) -> Result<Call<'_>, Fault> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Envelope<'a> {
        jsonrpc: String,
        #[serde(borrow, default, deserialize_with = "present")]
        id: Option<&'a RawValue>,
        method: String,
        #[serde(borrow, default, deserialize_with = "present")]
        params: Option<&'a RawValue>,
    }
    let invalid = |why: &str| Fault::new(INVALID_REQUEST, format!("not a request of JSON-RPC 2.0: {why}"));
    let fields = "expected an object with jsonrpc, id, method and params, each once, and nothing else";
    let envelope: Envelope = serde_json::from_str(text.get()).map_err(|_| invalid(fields))?;
    if envelope.jsonrpc != "2.0" {
        return Err(invalid("jsonrpc is not \"2.0\""));
    }
    if let Some(id) = envelope.id
        && (id.get().len() > MAX_ID || id.get().starts_with(['{', '[', 't', 'f']))
    {
        return Err(invalid("an id is a string, a number or null, of 256 bytes at most"));
    }
    if let Some(params) = envelope.params
        && !params.get().starts_with(['[', '{'])
    {
        return Err(invalid("params are an array"));
    }
    Ok(Call { id: envelope.id, method: envelope.method, params: envelope.params })
}

/// Also null, which is not the same as nothing.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl<'a> Call<'a> {
    /// The parameters: from `least` to `most`.
    pub(super) fn params(&self, least: usize, most: usize) -> Result<Vec<&'a RawValue>, Fault> {
        let expected = if least == most { format!("{least}") } else { format!("{least} to {most}") };
        let wrong = || Fault::new(INVALID_PARAMS, format!("expected {expected} params, by position"));
        let params: Vec<&'a RawValue> = match self.params {
            None => Vec::new(),
            Some(params) => serde_json::from_str(params.get()).map_err(|_| wrong())?,
        };
        if (least..=most).contains(&params.len()) { Ok(params) } else { Err(wrong()) }
    }

    /// Its method, for messages and the log.
    pub(super) fn shown(&self) -> String {
        shown(&self.method)
    }
}

impl Fault {
    pub(super) fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: None, told: false }
    }

    /// A parameter that is wrong.
    pub(super) fn field(error: FieldError) -> Self {
        let data = error.field.as_ref().map(|field| json!({ "field": field }));
        Self { code: INVALID_PARAMS, message: error.to_string(), data, told: false }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(text: &str) -> Result<Call<'_>, i64> {
        match read(text.as_bytes()) {
            Ok(Incoming::One(call)) => call.map_err(|fault| fault.code),
            Ok(batch) => panic!("{batch:?}"),
            Err(fault) => Err(fault.code),
        }
    }

    #[test]
    fn requests() {
        for (text, id) in [
            (r#"{"jsonrpc":"2.0","id":1,"method":"m"}"#, Some("1")),
            (r#" {"method":"m","params":[],"id":"a\u0041","jsonrpc":"2.0"} "#, Some(r#""a\u0041""#)),
            (r#"{"jsonrpc":"2.0","id":null,"method":"m","params":{}}"#, Some("null")),
            (r#"{"jsonrpc":"2.0","id":1.50,"method":"m"}"#, Some("1.50")),
            (r#"{"jsonrpc":"2.0","method":"m"}"#, None),
        ] {
            assert_eq!(one(text).unwrap().id.map(RawValue::get), id, "{text}");
        }
        for text in [
            r#"{"jsonrpc":"2.0","id":1}"#,
            r#"{"id":1,"method":"m"}"#,
            r#"{"jsonrpc":"1.0","id":1,"method":"m"}"#,
            r#"{"jsonrpc":2.0,"id":1,"method":"m"}"#,
            r#"{"jsonrpc":"2.0","id":{},"method":"m"}"#,
            r#"{"jsonrpc":"2.0","id":[1],"method":"m"}"#,
            r#"{"jsonrpc":"2.0","id":true,"method":"m"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":7}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"m","params":"p"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"m","params":null}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"m","method":"n"}"#,
            r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"m"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"m","more":1}"#,
            "[]",
            "1",
            "null",
            "\"x\"",
        ] {
            assert_eq!(one(text).unwrap_err(), INVALID_REQUEST, "{text}");
        }
        assert_eq!(
            one(&format!(r#"{{"jsonrpc":"2.0","id":"{}","method":"m"}}"#, "x".repeat(MAX_ID))).unwrap_err(),
            INVALID_REQUEST
        );
        for text in ["", "{", "[", "{\"jsonrpc\":\"2.0\",}", "[1,]", "{}{}", "\u{feff}{}"] {
            assert_eq!(one(text).unwrap_err(), PARSE_ERROR, "{text}");
        }
        assert_eq!(read(b"\xff").unwrap_err().code, PARSE_ERROR);
    }

    #[test]
    fn batches() {
        let call = r#"{"jsonrpc":"2.0","id":1,"method":"m"}"#;
        let batch = |n: usize| format!("[{}]", vec![call; n].join(","));
        assert!(matches!(read(batch(MAX_BATCH).as_bytes()), Ok(Incoming::Batch(calls)) if calls.len() == MAX_BATCH));
        assert_eq!(read(batch(MAX_BATCH + 1).as_bytes()).unwrap_err().code, INVALID_REQUEST);
        // Those that are none do not spoil the others.
        let text = format!("[1,{call},[{call}]]");
        let Ok(Incoming::Batch(calls)) = read(text.as_bytes()) else { panic!() };
        assert_eq!(calls.iter().map(Result::is_ok).collect::<Vec<_>>(), [false, true, false]);
    }

    #[test]
    fn params_by_position() {
        let params = |text: &str, least, most| {
            let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{text}}}"#);
            one(&text).unwrap().params(least, most).map(|params| params.len()).map_err(|fault| fault.code)
        };
        assert_eq!((params("[]", 0, 0), params("[1, [2]]", 1, 2)), (Ok(0), Ok(2)));
        for (text, least, most) in [("{}", 0, 0), ("[1]", 0, 0), ("[]", 1, 2), ("[1,2,3]", 1, 2)] {
            assert_eq!(params(text, least, most), Err(INVALID_PARAMS), "{text}");
        }
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
            prop_oneof!["2.0", "eth_call", "0x[0-9a-f]{0,40}"].prop_map(Value::from),
        ];
        let name = prop_oneof!["jsonrpc", "id", "method", "params", "error", ".{0,4}"];
        leaf.prop_recursive(4, 32, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::hash_map(name.clone(), inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn check(body: &[u8]) {
        let calls = match read(body) {
            Err(fault) => vec![Err(fault)],
            Ok(Incoming::One(call)) => vec![call],
            Ok(Incoming::Batch(calls)) => {
                assert!((1..=MAX_BATCH).contains(&calls.len()));
                calls
            }
        };
        for call in calls {
            let reply = match &call {
                Ok(call) => Reply::new(call.id, call.params(0, 3).map(|_| RawValue::NULL.to_owned())),
                Err(fault) => Reply::new(None, Err(fault.clone())),
            };
            let reply: Value = serde_json::from_slice(&serde_json::to_vec(&reply).unwrap()).unwrap();
            assert_eq!(reply["jsonrpc"], "2.0");
            assert!(reply["id"].is_null() || reply["id"].is_string() || reply["id"].is_number(), "{reply}");
            assert_ne!(reply.get("result").is_some(), reply.get("error").is_some(), "{reply}");
            if let Some(error) = reply.get("error") {
                assert!(error["code"].is_i64() && error["message"].is_string(), "{reply}");
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_answered_by_json_rpc(body: Vec<u8>, text in ".{0,64}", json in json()) {
            check(&body);
            check(text.as_bytes());
            check(json.to_string().as_bytes());
        }

        #[test]
        fn a_request_is_read_as_it_is_written(method in ".{0,16}", id: u64, params in prop::collection::vec(json(), 0..4)) {
            let text = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string();
            let call = one(&text).unwrap();
            prop_assert_eq!(&call.method, &method);
            prop_assert_eq!(call.id.unwrap().get(), id.to_string());
            prop_assert_eq!(call.params(0, 3).unwrap().len(), params.len());
        }
    }
}
