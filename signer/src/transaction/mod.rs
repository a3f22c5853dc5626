//! Transactions of types 0 (EIP-155 only), 1 (EIP-2930), 2 (EIP-1559), 3 (EIP-4844) and 4 (EIP-7702).
//!
//! A transaction is parsed strictly from JSON ([`Transaction::parse`]), modelled by alloy-consensus, and encoded
//! twice: by alloy and, independently, by ethers-core; it knows no types 3 and 4, for which their fields are written
//! here, with its RLP. What the two do not write alike is not signed.

mod blobs;
mod body;
mod encode;
mod parse;
#[cfg(test)]
mod tests;

use alloy_consensus::{SignableTransaction, Transaction as _, TxEip1559, TxEip2930, TxEip4844, TxEip7702, TxLegacy};
use alloy_eips::eip4844::DATA_GAS_PER_BLOB;
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};

pub use blobs::{NotBlobs, Sidecar};
pub(crate) use parse::FIELDS;

use crate::signature::Signature;
pub use crate::strict::FieldError;

pub(crate) use encode::authorization as authorization_bytes;

/// The longest request that is read, in bytes, but for a transaction with blobs.
pub const MAX_BODY: usize = 128 * 1024;

/// The longest request that has blobs: six of 128 KiB, in hex, with 128 proofs each, and the transaction itself.
pub const MAX_BODY_WITH_BLOBS: usize = 2 * 1024 * 1024;

/// A transaction that is complete and well-formed, and not signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    kind: Kind,
    sidecar: Option<Sidecar>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Legacy(TxLegacy),
    Eip2930(TxEip2930),
    Eip1559(TxEip1559),
    Eip4844(TxEip4844),
    Eip7702(TxEip7702),
}

/// A signed transaction, ready for a node; one of type 3 once its [`Sidecar`] is joined with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedTransaction {
    /// The EIP-2718 encoding, as `eth_sendRawTransaction` takes it; of type 3, as a block has it.
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
            Kind::Eip4844($tx) => $result,
            Kind::Eip7702($tx) => $result,
        }
    };
}

impl Transaction {
    /// Reads a transaction from JSON, as the API takes it: Ethereum's own field names, nothing else, nothing twice.
    ///
    /// `chainId`, `type`, `nonce` and `gas` are required, and `gasPrice` (types 0 and 1) or `maxFeePerGas` and
    /// `maxPriorityFeePerGas` (types 2, 3 and 4). `value` left out is 0, `data` left out is `0x`, `accessList` (not of
    /// type 0) left out is empty; `to` left out or null creates a contract, which types 3 and 4 cannot. Type 3 has
    /// `maxFeePerBlobGas` and `blobVersionedHashes`, and may have `blobs`, `commitments` and `proofs`; type 4 has an
    /// `authorizationList`.
    ///
    /// # Errors
    /// [`FieldError`] names the first field that is wrong, and why.
    pub fn parse(json: &[u8]) -> Result<Self, FieldError> {
        match parse::transaction(json)? {
            (tx, Some(_)) => Ok(tx),
            (_, None) => Err(FieldError { field: Some("nonce".to_owned()), problem: "missing".to_owned() }),
        }
    }

    /// As [`Self::parse`], but `nonce` may be left out; it stands at 0 until [`Self::with_nonce`]. Answers the one that
    /// was given.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_draft(json: &[u8]) -> Result<(Self, Option<u64>), FieldError> {
        parse::transaction(json)
    }

    /// The transaction as JSON, as [`Self::parse_draft`] takes it, without its nonce and its sidecar.
    #[must_use]
    pub fn body(&self) -> String {
        body::write(self)
    }

    /// Reads what [`Self::body`] wrote.
    ///
    /// # Errors
    /// [`FieldError`] if something else has.
    pub fn from_body(body: &str) -> Result<Self, FieldError> {
        parse::body(body)
    }

    /// The same with another nonce.
    #[must_use]
    pub fn with_nonce(mut self, nonce: u64) -> Self {
        each!(&mut self.kind, tx => tx.nonce = nonce);
        self
    }

    /// The bytes that are hashed and signed, as both encoders write them.
    ///
    /// # Errors
    /// [`EncodersDisagree`].
    pub fn signing_bytes(&self) -> Result<Vec<u8>, EncodersDisagree> {
        let bytes = each!(&self.kind, tx => tx.encoded_for_signing());
        if bytes == encode::signing_bytes(self) { Ok(bytes) } else { Err(EncodersDisagree) }
    }

    /// How many bytes are signed.
    fn signing_length(&self) -> usize {
        each!(&self.kind, tx => tx.payload_len_for_signature())
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
        each!(self.kind, tx => tx.into_signed(signature.to_alloy()).eip2718_encode(&mut raw));
        if raw != second {
            return Err(EncodersDisagree);
        }
        let hash = keccak256(&raw);
        Ok(SignedTransaction { raw, hash })
    }

    /// EIP-155 chain id, never 0.
    #[must_use]
    pub fn chain_id(&self) -> u64 {
        match &self.kind {
            Kind::Legacy(tx) => tx.chain_id.expect("the parser sets it: there is no transaction before EIP-155 here"),
            Kind::Eip2930(tx) => tx.chain_id,
            Kind::Eip1559(tx) => tx.chain_id,
            Kind::Eip4844(tx) => tx.chain_id,
            Kind::Eip7702(tx) => tx.chain_id,
        }
    }

    /// The sender's nonce.
    #[must_use]
    pub fn nonce(&self) -> u64 {
        each!(&self.kind, tx => tx.nonce)
    }

    /// Most gas the transaction may use.
    #[must_use]
    pub fn gas(&self) -> u64 {
        each!(&self.kind, tx => tx.gas_limit)
    }

    /// The least gas with which a chain's rules let it into a block, and without which it is never mined: 21000, 4 for each
    /// zero byte of data and 16 for each other (EIP-2028), 2400 for each address of the access list and 1900 for each slot
    /// (EIP-2930). What else there is on some chains, or since later (EIP-3860, EIP-7623, EIP-7702), is left to their nodes.
    #[must_use]
    pub fn least_gas(&self) -> u64 {
        let zeros = self.data().iter().filter(|byte| **byte == 0).count();
        let (addresses, slots) =
            each!(&self.kind, tx => tx.access_list()).map_or((0, 0), |list| (list.0.len(), list.storage_keys_count()));
        let more = [(4, zeros), (16, self.data().len() - zeros), (2400, addresses), (1900, slots)];
        more.into_iter().fold(21_000, |gas, (each, count)| gas + each * count as u64)
    }

    /// Most that is paid for one gas, in wei: `gasPrice` or `maxFeePerGas`.
    #[must_use]
    pub fn max_gas_price(&self) -> u128 {
        each!(&self.kind, tx => tx.max_fee_per_gas())
    }

    /// Whether it says how much of its gas price is for who builds the block: not so of types 0 and 1.
    #[must_use]
    pub fn has_priority_fee(&self) -> bool {
        !matches!(self.kind, Kind::Legacy(_) | Kind::Eip2930(_))
    }

    /// Most of [`Self::max_gas_price`] that goes to who builds the block, in wei: `maxPriorityFeePerGas`; or `gasPrice`, all
    /// of which may.
    #[must_use]
    pub fn max_priority_fee(&self) -> u128 {
        each!(&self.kind, tx => tx.priority_fee_or_price())
    }

    /// Most that is paid for one gas of blobs, in wei: `maxFeePerBlobGas`, which only type 3 has.
    #[must_use]
    pub fn max_blob_gas_price(&self) -> Option<u128> {
        each!(&self.kind, tx => tx.max_fee_per_blob_gas())
    }

    /// Most that is paid for the gas of blobs, in wei (EIP-4844): 0 but for type 3.
    #[must_use]
    pub fn max_blob_fee(&self) -> U256 {
        match &self.kind {
            // 64 bits times 128 bits.
            Kind::Eip4844(tx) => {
                U256::from(tx.blob_versioned_hashes.len())
                    * U256::from(DATA_GAS_PER_BLOB)
                    * U256::from(tx.max_fee_per_blob_gas)
            }
            _ => U256::ZERO,
        }
    }

    /// Most that the transaction may cost in fees, in wei: gas times its price, and the same of blobs. Nothing if it
    /// does not fit 256 bits.
    #[must_use]
    pub fn max_fee(&self) -> Option<U256> {
        let fee = U256::from(self.gas()).checked_mul(U256::from(self.max_gas_price()))?;
        fee.checked_add(self.max_blob_fee())
    }

    /// Whose code the authorizations of type 4 let accounts have (EIP-7702).
    pub fn delegates(&self) -> impl Iterator<Item = Address> {
        let list = match &self.kind {
            Kind::Eip7702(tx) => tx.authorization_list.as_slice(),
            _ => &[],
        };
        list.iter().map(|signed| signed.inner().address)
    }

    /// Whether it takes a nonce of this sender's, and does nothing else: it gives nobody's account code, either.
    #[must_use]
    pub fn does_nothing(&self, sender: Address) -> bool {
        let calls = self.to() != Some(sender) || !self.value().is_zero() || !self.data().is_empty();
        !calls && self.delegates().next().is_none()
    }

    /// Whether it does the same: who is called, with what value and data, whose code accounts are given, and which blobs
    /// it brings. What it may cost, and may use, is none of that.
    #[must_use]
    pub fn same_call(&self, other: &Self) -> bool {
        let of = |tx: &Self| (tx.chain_id(), tx.to(), tx.value());
        of(self) == of(other)
            && self.data() == other.data()
            && each!(&self.kind, tx => tx.authorization_list()) == each!(&other.kind, tx => tx.authorization_list())
            && each!(&self.kind, tx => tx.blob_versioned_hashes())
                == each!(&other.kind, tx => tx.blob_versioned_hashes())
    }

    /// Takes what goes with the transaction and is not signed.
    pub fn take_sidecar(&mut self) -> Option<Sidecar> {
        self.sidecar.take()
    }

    /// Who is called; none when a contract is created.
    #[must_use]
    pub fn to(&self) -> Option<Address> {
        each!(&self.kind, tx => tx.kind().to().copied())
    }

    /// The chain's own currency that is sent, in wei.
    #[must_use]
    pub fn value(&self) -> U256 {
        each!(&self.kind, tx => tx.value)
    }

    /// Call data, or the init code of a contract.
    #[must_use]
    pub fn data(&self) -> &Bytes {
        each!(&self.kind, tx => &tx.input)
    }
}
