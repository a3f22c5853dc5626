//! From a request's body to raw bytes and back, which alloy reads.

use alloy_consensus::{Transaction as _, TxEnvelope};
use alloy_eips::eip2718::{Decodable2718, Encodable2718};

use crate::signature::Signature;
use crate::transaction::Transaction;

/// What is read is encoded alike by both encoders, and alloy decodes what was meant.
pub fn transaction(body: &[u8]) {
    super::json::json(body);
    let Ok(mut tx) = Transaction::parse(body) else { return };
    let asked = tx.clone();
    tx.take_sidecar();
    tx.signing_bytes().expect("both encoders agree");
    // Any parity.
    let signature = Signature::from_parts([1; 32], [2; 32], body.len() % 2 == 1).expect("a low s");
    let signed = tx.into_signed(&signature).expect("both encoders agree");
    let read = TxEnvelope::decode_2718_exact(&signed.raw).expect("alloy reads it");
    assert_eq!(read.encoded_2718(), signed.raw);
    assert_eq!(*read.tx_hash(), signed.hash);
    assert_eq!(read.chain_id(), Some(asked.chain_id()));
    assert_eq!((read.nonce(), read.gas_limit()), (asked.nonce(), asked.gas()));
    assert_eq!((read.to(), read.value(), read.input()), (asked.to(), asked.value(), asked.data()));
    assert_eq!(read.max_fee_per_gas(), asked.max_gas_price());
    let (theirs, ours) = (read.authorization_list().unwrap_or_default(), asked.delegates());
    assert!(theirs.iter().map(|one| one.inner().address).eq(ours));
}
