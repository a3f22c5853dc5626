//! A body of JSON-RPC, beside serde's tree, and the transactions in it.

use serde_json::Value;
use serde_json::value::RawValue;

use super::envelope::{Call, Fault, Incoming, MAX_BATCH, Reply, read};
use super::wanted::Wanted;

/// Whatever comes is answered, and what is read is what serde reads, with nothing lost and nothing made up.
pub fn json_rpc(body: &[u8]) {
    let written = serde_json::from_slice::<Value>(body).ok();
    match read(body) {
        Err(fault) => answered(None, Err(fault)),
        Ok(Incoming::One(call)) => one(call, written.as_ref()),
        Ok(Incoming::Batch(calls)) => {
            assert!((1..=MAX_BATCH).contains(&calls.len()));
            let written = written.as_ref().map(|written| written.as_array().expect("a batch"));
            assert!(written.is_none_or(|written| written.len() == calls.len()));
            for (n, call) in calls.into_iter().enumerate() {
                one(call, written.map(|written| &written[n]));
            }
        }
    }
    // The object by itself: bodies that get so far are rare.
    if let Ok(text) = serde_json::from_slice::<&RawValue>(body) {
        wanted(text);
    }
}

fn one(call: Result<Call<'_>, Fault>, written: Option<&Value>) {
    let call = match call {
        Ok(call) => call,
        Err(fault) => return answered(None, Err(fault)),
    };
    if let Some(Value::Object(written)) = written {
        assert_eq!(written["jsonrpc"], "2.0");
        assert_eq!(written["method"], call.method.as_str());
        assert_eq!(written.contains_key("id"), call.id.is_some());
        assert_eq!(written.contains_key("params"), call.params.is_some());
    }
    let params = call.params(0, 3);
    params.iter().flatten().for_each(|param| wanted(param));
    answered(call.id, params.map(|_| RawValue::NULL.to_owned()));
}

/// An answer is JSON-RPC, with the id that was asked under, and either a result or an error.
fn answered(id: Option<&RawValue>, result: Result<Box<RawValue>, Fault>) {
    let reply = serde_json::to_string(&Reply::new(id, result)).expect("JSON");
    assert!(id.is_none_or(|id| reply.contains(id.get())));
    // An id may be a number that serde's tree has no place for.
    let Ok(reply) = serde_json::from_str::<Value>(&reply) else { return };
    assert_eq!(reply["jsonrpc"], "2.0");
    assert!(reply["id"].is_null() || reply["id"].is_string() || reply["id"].is_number(), "{reply}");
    assert_ne!(reply.get("result").is_some(), reply.get("error").is_some(), "{reply}");
}

fn wanted(text: &RawValue) {
    let Ok(wanted) = Wanted::read(text) else { return };
    let written: Value = serde_json::from_str(text.get()).expect("what is read strictly, serde reads");
    let written = written.as_object().expect("an object");
    let asked: Value = serde_json::from_slice(&wanted.asked()).expect("JSON");
    let asked = asked.as_object().expect("an object");
    for (name, value) in asked {
        let input = written.get("input").filter(|_| name == "data");
        assert_eq!(written.get(name).filter(|written| !written.is_null()).or(input), Some(value), "{name}");
    }
    for (name, value) in written.iter().filter(|(name, value)| *name != "from" && !value.is_null()) {
        assert!(name == "input" && asked["data"] == *value || asked.get(name) == Some(value), "{name}");
    }
    let Ok((mut tx, nonce)) = wanted.transaction() else { return };
    assert_eq!(nonce.is_some(), asked.contains_key("nonce"));
    assert_eq!(wanted.chain_id().expect("it was read"), Some(tx.chain_id()));
    tx.take_sidecar();
    tx.signing_bytes().expect("both encoders agree");
}
