//! The second opinion: ethers-core encodes the same values.
//!
//! It is given values, never JSON: its own reader takes "10" for 16.

use ethers_core::types::transaction::eip2718::TypedTransaction;
use ethers_core::types::transaction::eip2930::{AccessList, AccessListItem, Eip2930TransactionRequest};
use ethers_core::types::{
    Bytes, Eip1559TransactionRequest, H160, H256, NameOrAddress, Signature as EthersSignature, TransactionRequest, U64,
    U256,
};

use super::{Kind, Transaction};
use crate::signature::Signature;

/// As ethers-core encodes the transaction for signing.
pub(super) fn signing_bytes(tx: &Transaction) -> Vec<u8> {
    typed(tx).rlp().to_vec()
}

/// As ethers-core encodes the signed transaction.
pub(super) fn signed_bytes(tx: &Transaction, signature: &Signature) -> Vec<u8> {
    let parity = u64::from(signature.y_odd());
    let v = match tx.0 {
        // EIP-155. The parser bounds chain ids (EIP-2294) so that this fits.
        Kind::Legacy(_) => tx.chain_id() * 2 + 35 + parity,
        Kind::Eip2930(_) | Kind::Eip1559(_) => parity,
    };
    let signature = EthersSignature { r: signature.r().into(), s: signature.s().into(), v };
    typed(tx).rlp_signed(&signature).to_vec()
}

fn typed(tx: &Transaction) -> TypedTransaction {
    let to = tx.to().map(|to| NameOrAddress::Address(H160(to.into_array())));
    let value = U256::from_big_endian(&tx.value().to_be_bytes::<32>());
    let data = Bytes(tx.data().0.clone());
    let request = |gas_price: u128| TransactionRequest {
        from: None,
        to: to.clone(),
        gas: Some(tx.gas().into()),
        gas_price: Some(gas_price.into()),
        value: Some(value),
        data: Some(data.clone()),
        nonce: Some(tx.nonce().into()),
        chain_id: Some(U64::from(tx.chain_id())),
    };
    match &tx.0 {
        Kind::Legacy(legacy) => TypedTransaction::Legacy(request(legacy.gas_price)),
        Kind::Eip2930(eip2930) => {
            TypedTransaction::Eip2930(Eip2930TransactionRequest::new(request(eip2930.gas_price), access_list(eip2930)))
        }
        Kind::Eip1559(eip1559) => TypedTransaction::Eip1559(Eip1559TransactionRequest {
            from: None,
            to,
            gas: Some(tx.gas().into()),
            value: Some(value),
            data: Some(data),
            nonce: Some(tx.nonce().into()),
            access_list: access_list(eip1559),
            max_priority_fee_per_gas: Some(eip1559.max_priority_fee_per_gas.into()),
            max_fee_per_gas: Some(eip1559.max_fee_per_gas.into()),
            chain_id: Some(U64::from(tx.chain_id())),
        }),
    }
}

fn access_list(tx: &impl alloy_consensus::Transaction) -> AccessList {
    let items = tx.access_list().map(|list| list.0.as_slice()).unwrap_or_default();
    AccessList(
        items
            .iter()
            .map(|item| AccessListItem {
                address: H160(item.address.into_array()),
                storage_keys: item.storage_keys.iter().map(|key| H256(key.0)).collect(),
            })
            .collect(),
    )
}
