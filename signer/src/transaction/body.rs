//! A transaction as JSON, in one way of writing it.

use alloy_consensus::Transaction as _;
use serde_json::{Map, Value, json};

use super::{Kind, Transaction};

/// Every quantity is a decimal string: there are numbers that JSON's readers round.
pub(super) fn write(tx: &Transaction) -> String {
    let mut body = Map::new();
    let mut put = |name: &str, value: Value| drop(body.insert(name.to_owned(), value));
    put("chainId", decimal(tx.chain_id()));
    put("to", tx.to().map_or(Value::Null, |to| to.to_checksum(None).into()));
    put("value", decimal(tx.value()));
    put("data", hex(tx.data()));
    put("gas", decimal(tx.gas()));
    let number = match &tx.kind {
        Kind::Legacy(tx) => {
            put("gasPrice", decimal(tx.gas_price));
            0
        }
        Kind::Eip2930(tx) => {
            put("gasPrice", decimal(tx.gas_price));
            1
        }
        Kind::Eip1559(tx) => {
            fees(&mut put, tx);
            2
        }
        Kind::Eip4844(tx) => {
            fees(&mut put, tx);
            put("maxFeePerBlobGas", decimal(tx.max_fee_per_blob_gas));
            put("blobVersionedHashes", tx.blob_versioned_hashes.iter().map(|hash| hex(&hash.0)).collect());
            3
        }
        Kind::Eip7702(tx) => {
            fees(&mut put, tx);
            let authorization = |one: &alloy_eips::eip7702::SignedAuthorization| {
                let inner = one.inner();
                json!({
                    "chainId": decimal(inner.chain_id), "address": inner.address.to_checksum(None),
                    "nonce": decimal(inner.nonce), "yParity": one.y_parity(),
                    "r": hex(&one.r().to_be_bytes::<32>()), "s": hex(&one.s().to_be_bytes::<32>()),
                })
            };
            put("authorizationList", tx.authorization_list.iter().map(authorization).collect());
            4
        }
    };
    put("type", number.into());
    let access_list = match &tx.kind {
        Kind::Legacy(_) => None,
        Kind::Eip2930(tx) => tx.access_list(),
        Kind::Eip1559(tx) => tx.access_list(),
        Kind::Eip4844(tx) => tx.access_list(),
        Kind::Eip7702(tx) => tx.access_list(),
    };
    if let Some(list) = access_list.filter(|list| !list.is_empty()) {
        let item = |item: &alloy_eips::eip2930::AccessListItem| {
            let keys: Vec<_> = item.storage_keys.iter().map(|key| hex(&key.0)).collect();
            json!({ "address": item.address.to_checksum(None), "storageKeys": keys })
        };
        put("accessList", list.iter().map(item).collect());
    }
    Value::Object(body).to_string()
}

fn fees(put: &mut impl FnMut(&str, Value), tx: &impl alloy_consensus::Transaction) {
    put("maxFeePerGas", decimal(tx.max_fee_per_gas()));
    put("maxPriorityFeePerGas", decimal(tx.max_priority_fee_per_gas().unwrap_or_default()));
}

fn decimal(number: impl ToString) -> Value {
    number.to_string().into()
}

fn hex(bytes: &[u8]) -> Value {
    format!("0x{}", hex::encode(bytes)).into()
}
