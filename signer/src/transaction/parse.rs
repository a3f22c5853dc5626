//! A transaction from JSON, read strictly.

use alloy_consensus::{TxEip1559, TxEip2930, TxEip4844, TxEip7702, TxLegacy};
use alloy_eips::eip2930::{AccessList, AccessListItem};
use alloy_primitives::{Address, B256, TxKind, U256};

use super::blobs::{self, Sidecar};
use super::{Kind, MAX_BODY, MAX_BODY_WITH_BLOBS, Transaction};
use crate::authorization::{self, SignedAuthorization};
use crate::json::Json;
use crate::strict::{FieldError, Fields, Reader, address, bytes, chain_id, fixed_bytes, items, nonce, quantity, wrong};

/// The fields of a transaction, of whatever type.
pub(crate) const FIELDS: [&str; 17] = [
    "chainId",
    "type",
    "nonce",
    "to",
    "value",
    "data",
    "gas",
    "gasPrice",
    "maxFeePerGas",
    "maxPriorityFeePerGas",
    "accessList",
    "maxFeePerBlobGas",
    "blobVersionedHashes",
    "blobs",
    "commitments",
    "proofs",
    "authorizationList",
];

/// As a caller sends it, and the nonce, if it has one; else it stands at 0.
pub(super) fn transaction(json: &[u8]) -> Result<(Transaction, Option<u64>), FieldError> {
    let fields = Fields::read(json, MAX_BODY_WITH_BLOBS, &FIELDS)?;
    if json.len() > MAX_BODY && !fields.has("blobs") {
        return too_long();
    }
    let (tx, nonce) = read(fields)?;
    // The room is for blobs.
    if json.len() > MAX_BODY && tx.signing_length() > MAX_BODY / 2 { too_long() } else { Ok((tx, nonce)) }
}

/// As [`Transaction::body`] has written it.
pub(super) fn body(json: &str) -> Result<Transaction, FieldError> {
    Ok(read(Fields::read(json.as_bytes(), usize::MAX, &FIELDS)?)?.0)
}

fn read(mut fields: Fields) -> Result<(Transaction, Option<u64>), FieldError> {
    let chain_id = fields.required("chainId", chain_id)?;
    let kind: u64 = fields.required("type", quantity)?;
    if kind > 4 {
        return wrong(
            "type",
            "only types 0 (legacy), 1 (EIP-2930), 2 (EIP-1559), 3 (EIP-4844) and 4 (EIP-7702) are signed",
        );
    }
    belong(&mut fields, kind)?;
    let given = fields.optional("nonce", nonce)?;
    let nonce = given.unwrap_or(0);
    let gas_limit = fields.required("gas", quantity)?;
    let to = fields.nullable("to", address)?;
    let value = fields.optional("value", quantity)?.unwrap_or(U256::ZERO);
    let input = fields.optional("data", bytes)?.unwrap_or_default();
    let access_list = fields.optional("accessList", access_list)?.unwrap_or_default();
    if kind < 3 && to.is_none() && input.is_empty() {
        return wrong("data", "a transaction without `to` creates a contract, and needs its init code here");
    }
    let target = to.map_or(TxKind::Create, TxKind::Call);
    let mut sidecar = None;
    let kind = match kind {
        0 => {
            let gas_price = fields.required("gasPrice", quantity)?;
            Kind::Legacy(TxLegacy { chain_id: Some(chain_id), nonce, gas_price, gas_limit, to: target, value, input })
        }
        1 => {
            let gas_price = fields.required("gasPrice", quantity)?;
            Kind::Eip2930(TxEip2930 { chain_id, nonce, gas_price, gas_limit, to: target, value, access_list, input })
        }
        2 => {
            let (max_fee_per_gas, max_priority_fee_per_gas) = fees(&mut fields)?;
            Kind::Eip1559(TxEip1559 {
                chain_id,
                nonce,
                gas_limit,
                max_fee_per_gas,
                max_priority_fee_per_gas,
                to: target,
                value,
                access_list,
                input,
            })
        }
        3 => {
            let to = called(to, "type 3 creates no contract (EIP-4844)")?;
            let (max_fee_per_gas, max_priority_fee_per_gas) = fees(&mut fields)?;
            let max_fee_per_blob_gas = fields.required("maxFeePerBlobGas", quantity)?;
            let blob_versioned_hashes = fields.required("blobVersionedHashes", blobs::versioned_hashes)?;
            sidecar = Sidecar::take(&mut fields, &blob_versioned_hashes)?;
            Kind::Eip4844(TxEip4844 {
                chain_id,
                nonce,
                gas_limit,
                max_fee_per_gas,
                max_priority_fee_per_gas,
                to,
                value,
                access_list,
                blob_versioned_hashes,
                max_fee_per_blob_gas,
                input,
            })
        }
        _ => {
            let to = called(to, "type 4 creates no contract (EIP-7702)")?;
            let (max_fee_per_gas, max_priority_fee_per_gas) = fees(&mut fields)?;
            let authorizations = fields.required("authorizationList", authorization_list)?;
            for (i, one) in authorizations.iter().enumerate() {
                if one.chain_id() != 0 && one.chain_id() != chain_id {
                    return wrong(
                        &format!("authorizationList[{i}].chainId"),
                        "expected 0 or the transaction's own (EIP-7702)",
                    );
                }
            }
            let authorization_list = authorizations.iter().map(SignedAuthorization::to_alloy).collect();
            Kind::Eip7702(TxEip7702 {
                chain_id,
                nonce,
                gas_limit,
                max_fee_per_gas,
                max_priority_fee_per_gas,
                to,
                value,
                access_list,
                authorization_list,
                input,
            })
        }
    };
    Ok((Transaction { kind, sidecar }, given))
}

fn too_long<T>() -> Result<T, FieldError> {
    Err(FieldError { field: None, problem: format!("longer than {MAX_BODY} bytes without blobs") })
}

/// Refuses fields of other types: who sent them meant another transaction.
fn belong(fields: &mut Fields, kind: u64) -> Result<(), FieldError> {
    const BLOBS: &str = "only type 3 has it";
    if kind < 2 {
        fields.refuse("maxFeePerGas", "only types 2, 3 and 4 have it")?;
        fields.refuse("maxPriorityFeePerGas", "only types 2, 3 and 4 have it")?;
    } else {
        fields.refuse("gasPrice", "types 2, 3 and 4 have maxFeePerGas and maxPriorityFeePerGas instead")?;
    }
    if kind == 0 {
        fields.refuse("accessList", "type 0 has none")?;
    }
    if kind != 3 {
        for name in ["maxFeePerBlobGas", "blobVersionedHashes", "blobs", "commitments", "proofs"] {
            fields.refuse(name, BLOBS)?;
        }
    }
    if kind != 4 {
        fields.refuse("authorizationList", "only type 4 has it")?;
    }
    Ok(())
}

/// `maxFeePerGas` and `maxPriorityFeePerGas` (EIP-1559).
fn fees(fields: &mut Fields) -> Result<(u128, u128), FieldError> {
    let max_fee_per_gas = fields.required("maxFeePerGas", quantity)?;
    let max_priority_fee_per_gas = fields.required("maxPriorityFeePerGas", quantity)?;
    if max_priority_fee_per_gas > max_fee_per_gas {
        return wrong("maxPriorityFeePerGas", "above maxFeePerGas (EIP-1559)");
    }
    Ok((max_fee_per_gas, max_priority_fee_per_gas))
}

fn called(to: Option<Address>, why: &str) -> Result<Address, FieldError> {
    to.map_or_else(|| wrong("to", format!("missing: {why}")), Ok)
}

fn access_list(field: &str, value: Json) -> Result<AccessList, FieldError> {
    let item = |at: &str, item| {
        let mut fields = Fields::of(at, item, &["address", "storageKeys"])?;
        let storage_keys: Reader<Vec<B256>> = |at, keys| items(at, keys, fixed_bytes);
        Ok(AccessListItem {
            address: fields.required("address", address)?,
            storage_keys: fields.required("storageKeys", storage_keys)?,
        })
    };
    items(field, value, item).map(AccessList)
}

fn authorization_list(field: &str, value: Json) -> Result<Vec<SignedAuthorization>, FieldError> {
    let list = items(field, value, authorization::signed)?;
    if list.is_empty() { wrong(field, "type 4 has one authorization at least (EIP-7702)") } else { Ok(list) }
}
