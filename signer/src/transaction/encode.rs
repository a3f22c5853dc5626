//! The second opinion: ethers-core encodes the same values.
//!
//! It is given values, never JSON: its own reader takes "10" for 16. It knows types 0, 1 and 2; of types 3 and 4 the
//! order of the fields is written here, and the rest with its RLP.

use alloy_consensus::{TxEip4844, TxEip7702};
use alloy_primitives::Address;
use ethers_core::types::transaction::eip2718::TypedTransaction;
use ethers_core::types::transaction::eip2930::{AccessList, AccessListItem, Eip2930TransactionRequest};
use ethers_core::types::{
    Bytes, Eip1559TransactionRequest, H160, H256, NameOrAddress, Signature as EthersSignature, TransactionRequest, U64,
    U256,
};
use ethers_core::utils::rlp::RlpStream;

use super::{Kind, Transaction};
use crate::signature::Signature;

/// As ethers-core encodes the transaction for signing.
pub(super) fn signing_bytes(tx: &Transaction) -> Vec<u8> {
    match &tx.kind {
        Kind::Eip4844(tx) => eip4844(tx, None),
        Kind::Eip7702(tx) => eip7702(tx, None),
        _ => typed(tx).rlp().to_vec(),
    }
}

/// As ethers-core encodes the signed transaction.
pub(super) fn signed_bytes(tx: &Transaction, signature: &Signature) -> Vec<u8> {
    let parity = u64::from(signature.y_odd());
    let v = match &tx.kind {
        // EIP-155. The parser bounds chain ids (EIP-2294) so that this fits.
        Kind::Legacy(_) => tx.chain_id() * 2 + 35 + parity,
        Kind::Eip2930(_) | Kind::Eip1559(_) => parity,
        Kind::Eip4844(tx) => return eip4844(tx, Some(signature)),
        Kind::Eip7702(tx) => return eip7702(tx, Some(signature)),
    };
    let signature = EthersSignature { r: signature.r().into(), s: signature.s().into(), v };
    typed(tx).rlp_signed(&signature).to_vec()
}

/// What is signed of an authorization (EIP-7702): `0x05 || rlp([chain_id, address, nonce])`.
pub(crate) fn authorization(chain_id: u64, delegate: Address, nonce: u64) -> Vec<u8> {
    let mut rlp = RlpStream::new_list(3);
    rlp.append(&chain_id).append(&H160(delegate.into_array())).append(&nonce);
    after(0x05, rlp)
}

/// `0x03 || rlp([chain_id, nonce, max_priority_fee_per_gas, max_fee_per_gas, gas_limit, to, value, data, access_list,
/// max_fee_per_blob_gas, blob_versioned_hashes, y_parity, r, s])` (EIP-4844).
fn eip4844(tx: &TxEip4844, signature: Option<&Signature>) -> Vec<u8> {
    let mut rlp = until_access_list(tx, if signature.is_some() { 14 } else { 11 });
    rlp.append(&U256::from(tx.max_fee_per_blob_gas)).begin_list(tx.blob_versioned_hashes.len());
    for hash in &tx.blob_versioned_hashes {
        rlp.append(&H256(hash.0));
    }
    signed(&mut rlp, signature);
    after(0x03, rlp)
}

/// `0x04 || rlp([chain_id, nonce, max_priority_fee_per_gas, max_fee_per_gas, gas_limit, destination, value, data,
/// access_list, authorization_list, signature_y_parity, signature_r, signature_s])` (EIP-7702).
fn eip7702(tx: &TxEip7702, signature: Option<&Signature>) -> Vec<u8> {
    let mut rlp = until_access_list(tx, if signature.is_some() { 13 } else { 10 });
    rlp.begin_list(tx.authorization_list.len());
    for one in &tx.authorization_list {
        let number = |value: &alloy_primitives::U256| U256::from_big_endian(&value.to_be_bytes::<32>());
        rlp.begin_list(6).append(&number(&one.inner().chain_id)).append(&H160(one.inner().address.into_array()));
        rlp.append(&one.inner().nonce).append(&one.y_parity()).append(&number(&one.r())).append(&number(&one.s()));
    }
    signed(&mut rlp, signature);
    after(0x04, rlp)
}

/// What types 3 and 4 begin with, as type 2 does.
fn until_access_list(tx: &impl alloy_consensus::Transaction, fields: usize) -> RlpStream {
    let mut rlp = RlpStream::new_list(fields);
    rlp.append(&tx.chain_id().unwrap_or_default()).append(&tx.nonce());
    rlp.append(&U256::from(tx.max_priority_fee_per_gas().unwrap_or_default()));
    rlp.append(&U256::from(tx.max_fee_per_gas())).append(&tx.gas_limit());
    rlp.append(&H160(tx.to().unwrap_or_default().into_array()));
    rlp.append(&U256::from_big_endian(&tx.value().to_be_bytes::<32>())).append(&tx.input().as_ref());
    rlp.append(&access_list(tx));
    rlp
}

fn signed(rlp: &mut RlpStream, signature: Option<&Signature>) {
    if let Some(signature) = signature {
        rlp.append(&signature.y_odd());
        rlp.append(&U256::from_big_endian(signature.r())).append(&U256::from_big_endian(signature.s()));
    }
}

/// The type, and what is of it (EIP-2718).
fn after(kind: u8, rlp: RlpStream) -> Vec<u8> {
    [&[kind], rlp.out().as_ref()].concat()
}

/// Of types 0, 1 and 2.
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
    match &tx.kind {
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
        // Types 3 and 4 do not come here; as anything else, they would be disputed.
        Kind::Legacy(_) | Kind::Eip4844(_) | Kind::Eip7702(_) => TypedTransaction::Legacy(request(tx.max_gas_price())),
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
