//! A transaction object as JSON-RPC has it, filled with what it leaves out, and answered.

use alloy_consensus::{Transaction as _, TxEnvelope, Typed2718};
use alloy_eips::eip2718::Decodable2718;
use alloy_primitives::U256;
use serde_json::{Value, json};

use super::envelope::Fault;
use super::wanted::Wanted;
use crate::chain::fees::{Chosen, Fees, blob_fee, fees, gas_limit};
use crate::chain::node::Block;
use crate::chain::{Chain, rpc::Rpc};
use crate::signing::Answer;
use crate::strict::FieldError;
use crate::transaction::Transaction;

/// What goes with a transaction and is not signed.
const SIDECAR: [&str; 3] = ["blobs", "commitments", "proofs"];

/// What a transaction of this type has that nodes can fill.
fn priced(kind: Option<u64>) -> &'static [&'static str] {
    match kind {
        Some(0 | 1) => &["gas", "gasPrice"],
        Some(3) => &["gas", "maxFeePerGas", "maxPriorityFeePerGas", "maxFeePerBlobGas"],
        Some(_) => &["gas", "maxFeePerGas", "maxPriorityFeePerGas"],
        None => &["gas", "type"],
    }
}

impl Wanted {
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

    /// Fills `type`, where it follows from the other fields. Answers which field is left out that the chain's nodes can fill,
    /// if one is.
    pub(super) fn missing(&mut self) -> Result<Option<&'static str>, FieldError> {
        let kind = self.kind()?;
        if let Some(kind) = kind {
            self.set("type", U256::from(kind));
        }
        Ok(priced(kind).iter().copied().find(|name| !self.has(name)))
    }

    /// The transaction with 0 for what nodes are to fill, and the nonce that it has, if it has one. Policies bound what is
    /// filled from above alone: what is denied for these is denied for any.
    pub(super) fn unfilled(&self) -> Result<(Transaction, Option<u64>), FieldError> {
        let mut least = self.clone();
        for name in SIDECAR {
            least.fields.remove(name);
        }
        let kind = self.kind()?.unwrap_or_else(|| self.has("accessList").into());
        least.set("type", U256::from(kind));
        for name in priced(Some(kind)).iter().filter(|name| !self.has(name)) {
            least.set(name, U256::ZERO);
        }
        if let (Some(priority), false) = (self.fields.get("maxPriorityFeePerGas"), self.has("maxFeePerGas")) {
            least.fields.insert("maxFeePerGas".to_owned(), priority.clone());
        }
        least.transaction()
    }

    /// Fills `type`, fees and `gas`, where they are left out, by asking the chain's nodes, of which `missing` is one.
    pub(super) async fn fill(&mut self, chain: Option<&Chain>, missing: &'static str) -> Result<(), Fault> {
        let Some(rpc) = chain.and_then(|chain| chain.rpc.as_ref()) else {
            let why = "missing, and there is no `rpc` of the chain to ask";
            return Err(Fault::field(FieldError { field: Some(missing.to_owned()), problem: why.to_owned() }));
        };
        let kind = self.kind().map_err(Fault::field)?;
        self.ask(rpc, kind).await
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
