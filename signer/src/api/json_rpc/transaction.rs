//! A transaction object as JSON-RPC has it, filled with what it leaves out, for the strict parser of [`Transaction`].

use alloy_consensus::{Transaction as _, TxEnvelope, Typed2718};
use alloy_eips::eip2718::Decodable2718;
use alloy_primitives::{Address, U256};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::envelope::Fault;
use crate::chain::fees::{Chosen, Fees, blob_fee, fees, gas_limit};
use crate::chain::node::Block;
use crate::chain::{Chain, rpc::Rpc};
use crate::json::Json;
use crate::signing::Answer;
use crate::strict::{FieldError, Fields, address, entries, items, quantity, wrong};
use crate::transaction::{FIELDS, Transaction};

/// What is a quantity: in JSON-RPC, 0x and hex digits always. A decimal string would be read as hex by some nodes.
const QUANTITIES: [&str; 9] = [
    "chainId",
    "type",
    "nonce",
    "gas",
    "value",
    "gasPrice",
    "maxFeePerGas",
    "maxPriorityFeePerGas",
    "maxFeePerBlobGas",
];
/// What goes with a transaction and is not signed.
const SIDECAR: [&str; 3] = ["blobs", "commitments", "proofs"];

/// A transaction that is asked for.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Whose.
    pub(super) from: Address,
    /// All other fields, by the names of REST; none of them null.
    fields: Map<String, Value>,
    /// Whether the caller said `input`, and not `data`.
    input: bool,
}

impl Wanted {
    pub(super) fn read(param: &RawValue) -> Result<Self, FieldError> {
        let Ok(json) = serde_json::from_str::<Json>(param.get()) else {
            return Err(FieldError { field: None, problem: "the transaction is nested too deeply".to_owned() });
        };
        let known: Vec<&str> = FIELDS.into_iter().chain(["from", "input"]).collect();
        let mut read = Fields::of("", json, &known)?;
        let from = read.required("from", address)?;
        let mut fields = Map::new();
        for name in known {
            match read.take(name).map(|value| strict(name, value)).transpose()? {
                None | Some(Value::Null) => {}
                Some(value) => drop(fields.insert(name.to_owned(), value)),
            }
        }
        for name in QUANTITIES {
            if fields.get(name).is_some_and(|value| !value.as_str().is_some_and(|text| text.starts_with("0x"))) {
                return wrong(name, "expected a quantity as JSON-RPC has it: a string of 0x and hex digits");
            }
        }
        let input = fields.remove("input");
        let wanted = Self { from, input: input.is_some() && !fields.contains_key("data"), fields };
        wanted.with_input(input)
    }

    /// `data` has two names: who gives both must mean the same.
    fn with_input(mut self, input: Option<Value>) -> Result<Self, FieldError> {
        let Some(input) = input else { return Ok(self) };
        match self.fields.get("data") {
            Some(data) if *data != input => wrong("input", "data says something else: give one of them"),
            Some(_) => Ok(self),
            None => {
                self.fields.insert("data".to_owned(), input);
                Ok(self)
            }
        }
    }

    /// What the caller said, in one way of writing it.
    pub(super) fn asked(&self) -> Vec<u8> {
        // Of a map that sorts its names.
        serde_json::to_vec(&self.fields).unwrap_or_default()
    }

    /// The chain that it names.
    pub(super) fn chain_id(&self) -> Result<Option<u64>, FieldError> {
        self.number("chainId")
    }

    fn number<T: TryFrom<U256>>(&self, name: &str) -> Result<Option<T>, FieldError> {
        let text = self.fields.get(name).and_then(Value::as_str);
        text.map(|text| quantity(name, Json::String(text.to_owned()))).transpose()
    }

    fn has(&self, name: &str) -> bool {
        self.fields.contains_key(name)
    }

    fn set(&mut self, name: &str, number: impl Into<U256>) {
        self.fields.insert(name.to_owned(), json!(format!("{:#x}", number.into())));
    }

    /// The type, where it is given or follows from the other fields.
    fn kind(&self) -> Result<Option<u64>, FieldError> {
        Ok(match self.number("type")? {
            Some(kind) => Some(kind),
            None if self.has("authorizationList") => Some(4),
            None if self.has("blobVersionedHashes") => Some(3),
            None if self.has("maxFeePerGas") || self.has("maxPriorityFeePerGas") => Some(2),
            None if self.has("gasPrice") => Some(self.has("accessList").into()),
            None => None,
        })
    }

    /// Says which chain it is for, where it does not.
    pub(super) fn of(&mut self, chain: Option<&Chain>) {
        if let (false, Some(chain)) = (self.has("chainId"), chain) {
            self.set("chainId", U256::from(chain.id));
        }
    }

    /// Whether something goes with it that is not signed.
    pub(super) fn has_sidecar(&self) -> bool {
        SIDECAR.iter().any(|name| self.has(name))
    }

    /// Fills what is left out as it was filled before, in a transaction of [`Transaction::body`].
    pub(super) fn fill_as(&mut self, body: &str) -> Result<(), FieldError> {
        let Ok(Json::Object(before)) = serde_json::from_str(body) else { return Ok(()) };
        for (name, value) in before {
            if QUANTITIES.contains(&name.as_str()) && !self.has(&name) && name != "value" {
                self.set(&name, quantity::<U256>(&name, value)?);
            }
        }
        Ok(())
    }

    /// Fills `type`, fees and `gas`, where they are left out, by asking the chain's nodes if need be. Answers whether they
    /// were asked.
    pub(super) async fn fill(&mut self, chain: Option<&Chain>) -> Result<bool, Fault> {
        let kind = self.kind().map_err(Fault::field)?;
        let names = match kind {
            Some(0 | 1) => &["gas", "gasPrice"][..],
            Some(3) => &["gas", "maxFeePerGas", "maxPriorityFeePerGas", "maxFeePerBlobGas"],
            Some(_) => &["gas", "maxFeePerGas", "maxPriorityFeePerGas"],
            None => &["gas", "type"],
        };
        match (names.iter().find(|name| !self.has(name)), chain.and_then(|chain| chain.rpc.as_ref())) {
            (None, _) => {}
            (Some(missing), None) => {
                let why = "missing, and there is no `rpc` of the chain to ask";
                return Err(Fault::field(FieldError { field: Some((*missing).to_owned()), problem: why.to_owned() }));
            }
            (Some(_), Some(rpc)) => {
                self.ask(rpc, kind).await?;
                return Ok(true);
            }
        }
        if let Some(kind) = kind {
            self.set("type", U256::from(kind));
        }
        Ok(false)
    }

    async fn ask(&mut self, rpc: &Rpc, kind: Option<u64>) -> Result<(), Fault> {
        let latest = rpc.latest_block().await?;
        let legacy = u64::from(self.has("accessList"));
        let kind = kind.unwrap_or(if latest.base_fee.is_some() { 2 } else { legacy });
        self.set("type", U256::from(kind));
        if kind < 2 && !self.has("gasPrice") {
            self.ask_fees(rpc, Block { base_fee: None, ..latest }).await?;
        }
        if kind >= 2 && !(self.has("maxFeePerGas") && self.has("maxPriorityFeePerGas")) {
            if latest.base_fee.is_none() {
                let why = "the chain's blocks have no base fee: its transactions are of types 0 and 1";
                return Err(Fault::field(FieldError { field: Some("type".to_owned()), problem: why.to_owned() }));
            }
            self.ask_fees(rpc, latest).await?;
        }
        if kind == 3 && !self.has("maxFeePerBlobGas") {
            self.set("maxFeePerBlobGas", U256::from(blob_fee(rpc.blob_base_fee().await?)));
        }
        if !self.has("gas") {
            // Without fees: whether the sender can pay them is not the question.
            let mut call = json!({ "from": self.from });
            for name in ["to", "value", "data", "accessList", "authorizationList"] {
                if let Some(value) = self.fields.get(name) {
                    call[name] = value.clone();
                }
            }
            let estimate = rpc.estimate_gas(&call).await?;
            self.set("gas", U256::from(gas_limit(estimate, latest.gas_limit)));
        }
        Ok(())
    }

    async fn ask_fees(&mut self, rpc: &Rpc, latest: Block) -> Result<(), Fault> {
        let chosen = Chosen {
            max_fee: self.number("maxFeePerGas").map_err(Fault::field)?,
            max_priority_fee: self.number("maxPriorityFeePerGas").map_err(Fault::field)?,
        };
        match fees(rpc.market(latest).await?, chosen) {
            Fees::Legacy { gas_price } => self.set("gasPrice", U256::from(gas_price)),
            Fees::Eip1559 { max_fee, max_priority_fee } => {
                self.set("maxFeePerGas", U256::from(max_fee));
                self.set("maxPriorityFeePerGas", U256::from(max_priority_fee));
            }
        }
        Ok(())
    }

    /// As the strict parser has it: what is still missing is an error that names it.
    pub(super) fn transaction(&self) -> Result<(Transaction, Option<u64>), FieldError> {
        let json = serde_json::to_vec(&self.fields).expect("strings, numbers, lists and objects of them");
        Transaction::parse_draft(&json).map_err(|error| match error.field.as_deref() {
            Some("data") if self.input => FieldError { field: Some("input".to_owned()), ..error },
            _ => error,
        })
    }

    /// As it was signed: what was signed before, or approved, was filled otherwise.
    fn as_signed(&mut self, raw: &[u8]) {
        let Ok(tx) = TxEnvelope::decode_2718(&mut &*raw) else { return };
        for name in ["gasPrice", "maxFeePerGas", "maxPriorityFeePerGas"] {
            self.fields.remove(name);
        }
        self.set("type", U256::from(tx.ty()));
        self.set("gas", U256::from(tx.gas_limit()));
        match (tx.gas_price(), tx.max_priority_fee_per_gas()) {
            (Some(price), _) => self.set("gasPrice", U256::from(price)),
            (None, priority) => {
                self.set("maxFeePerGas", U256::from(tx.max_fee_per_gas()));
                self.set("maxPriorityFeePerGas", U256::from(priority.unwrap_or_default()));
            }
        }
        if let Some(fee) = tx.max_fee_per_blob_gas() {
            self.set("maxFeePerBlobGas", U256::from(fee));
        }
    }

    /// What geth answers: the signed bytes, and the fields with the signature.
    pub(super) fn signed(mut self, answer: &Answer) -> Value {
        for name in SIDECAR {
            self.fields.remove(name);
        }
        self.as_signed(&answer.signed.raw);
        let data = self.fields.remove("data").unwrap_or_else(|| json!("0x"));
        let mut tx = Value::Object(self.fields);
        tx["input"] = data;
        for (name, left_out) in [("to", Value::Null), ("value", json!("0x0"))] {
            if tx.get(name).is_none() {
                tx[name] = left_out;
            }
        }
        let legacy = tx["type"] == "0x0";
        if !legacy && tx.get("accessList").is_none() {
            tx["accessList"] = json!([]);
        }
        let signature = &answer.signed.signature;
        let number = |bytes: &[u8]| json!(format!("{:#x}", U256::from_be_slice(bytes)));
        let parity = u64::from(signature[64]);
        tx["r"] = number(&signature[..32]);
        tx["s"] = number(&signature[32..64]);
        // EIP-155. A chain id leaves room for that (EIP-2294).
        let v = if legacy { answer.chain_id * 2 + 35 + parity } else { parity };
        tx["v"] = json!(format!("{v:#x}"));
        if !legacy {
            tx["yParity"] = json!(format!("{parity:#x}"));
        }
        tx["hash"] = json!(answer.signed.hash);
        tx["nonce"] = json!(format!("{:#x}", answer.nonce));
        json!({ "raw": format!("0x{}", hex::encode(&answer.signed.raw)), "tx": tx })
    }
}

/// A value that is there once and can be written as it was read.
fn strict(field: &str, value: Json) -> Result<Value, FieldError> {
    Ok(match value {
        Json::Null => Value::Null,
        Json::Bool(value) => value.into(),
        Json::Integer(value) => value.into(),
        Json::Negative(value) => value.into(),
        Json::OtherNumber => return wrong(field, "expected a string of 0x and hex digits"),
        Json::String(text) => text.into(),
        list @ Json::Array(_) => items(field, list, strict)?.into(),
        object @ Json::Object(_) => {
            let fields = entries(field, object)?.into_iter().map(|(name, value)| {
                let value = strict(&format!("{field}.{name}"), value)?;
                Ok((name, value))
            });
            Value::Object(fields.collect::<Result<_, FieldError>>()?)
        }
    })
}
