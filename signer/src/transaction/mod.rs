//! Transactions of types 0 (EIP-155 only), 1 (EIP-2930) and 2 (EIP-1559).
//!
//! A transaction is parsed strictly from JSON ([`Transaction::parse`]), modelled by alloy-consensus, and encoded
//! twice: by alloy and, independently, by ethers-core. What the two do not write alike is not signed.

mod encode;
mod parse;
#[cfg(test)]
mod tests;

use alloy_consensus::{SignableTransaction, Transaction as _, TxEip1559, TxEip2930, TxLegacy};
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};

pub use parse::FieldError;

use crate::signature::Signature;

/// The longest request that is read, in bytes.
pub const MAX_BODY: usize = 128 * 1024;

/// A transaction that is complete and well-formed, and not signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction(Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Legacy(TxLegacy),
    Eip2930(TxEip2930),
    Eip1559(TxEip1559),
}

/// A signed transaction, ready for a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedTransaction {
    /// The EIP-2718 encoding, as `eth_sendRawTransaction` takes it.
    pub raw: Vec<u8>,
    /// The transaction's hash: Keccak-256 of `raw`.
    pub hash: B256,
}

/// The two encoders wrote different bytes for one transaction. One of them is wrong; nothing is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the two encoders disagree about this transaction")]
pub struct EncodersDisagree;

/// Calls a method on whichever kind it is.
macro_rules! each {
    ($kind:expr, $tx:ident => $result:expr) => {
        match $kind {
            Kind::Legacy($tx) => $result,
            Kind::Eip2930($tx) => $result,
            Kind::Eip1559($tx) => $result,
        }
    };
}

impl Transaction {
    /// Reads a transaction from JSON, as the API takes it: Ethereum's own field names, nothing else, nothing twice.
    ///
    /// `chainId`, `type`, `nonce` and `gas` are required, and `gasPrice` (types 0 and 1) or `maxFeePerGas` and
    /// `maxPriorityFeePerGas` (type 2). `value` left out is 0, `data` left out is `0x`, `accessList` (types 1 and 2)
    /// left out is empty; `to` left out or null creates a contract.
    ///
    /// # Errors
    /// [`FieldError`] names the first field that is wrong, and why.
    pub fn parse(json: &[u8]) -> Result<Self, FieldError> {
        parse::transaction(json)
    }

    /// The bytes that are hashed and signed, as both encoders write them.
    ///
    /// # Errors
    /// [`EncodersDisagree`].
    pub fn signing_bytes(&self) -> Result<Vec<u8>, EncodersDisagree> {
        let bytes = each!(&self.0, tx => tx.encoded_for_signing());
        if bytes == encode::signing_bytes(self) { Ok(bytes) } else { Err(EncodersDisagree) }
    }

    /// What the key signs: the Keccak-256 of [`Self::signing_bytes`].
    ///
    /// # Errors
    /// [`EncodersDisagree`].
    pub fn signing_hash(&self) -> Result<B256, EncodersDisagree> {
        self.signing_bytes().map(keccak256)
    }

    /// Joins the transaction and its signature.
    ///
    /// # Errors
    /// [`EncodersDisagree`] about the signed encoding.
    pub fn into_signed(self, signature: &Signature) -> Result<SignedTransaction, EncodersDisagree> {
        let second = encode::signed_bytes(&self, signature);
        let mut raw = Vec::with_capacity(second.len());
        each!(self.0, tx => tx.into_signed(signature.to_alloy()).eip2718_encode(&mut raw));
        if raw != second {
            return Err(EncodersDisagree);
        }
        let hash = keccak256(&raw);
        Ok(SignedTransaction { raw, hash })
    }

    /// EIP-155 chain id, never 0.
    #[must_use]
    pub fn chain_id(&self) -> u64 {
        match &self.0 {
            Kind::Legacy(tx) => tx.chain_id.expect("the parser sets it: there is no transaction before EIP-155 here"),
            Kind::Eip2930(tx) => tx.chain_id,
            Kind::Eip1559(tx) => tx.chain_id,
        }
    }

    /// The sender's nonce.
    #[must_use]
    pub fn nonce(&self) -> u64 {
        each!(&self.0, tx => tx.nonce)
    }

    /// Most gas the transaction may use.
    #[must_use]
    pub fn gas(&self) -> u64 {
        each!(&self.0, tx => tx.gas_limit)
    }

    /// Most that is paid for one gas, in wei: `gasPrice` or `maxFeePerGas`.
    #[must_use]
    pub fn max_gas_price(&self) -> u128 {
        each!(&self.0, tx => tx.max_fee_per_gas())
    }

    /// Who is called; none when a contract is created.
    #[must_use]
    pub fn to(&self) -> Option<Address> {
        each!(&self.0, tx => tx.to.to().copied())
    }

    /// The chain's own currency that is sent, in wei.
    #[must_use]
    pub fn value(&self) -> U256 {
        each!(&self.0, tx => tx.value)
    }

    /// Call data, or the init code of a contract.
    #[must_use]
    pub fn data(&self) -> &Bytes {
        each!(&self.0, tx => &tx.input)
    }
}
