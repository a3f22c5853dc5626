//! Typed data of EIP-712.
//!
//! It is read strictly ([`TypedData::parse`]): every type is defined once and used, every field of the message is there
//! and of its type, the domain is what its type says. It is hashed twice, by alloy-dyn-abi and by a few lines here; what
//! the two do not hash alike is not signed.

mod second;
#[cfg(test)]
mod tests;
mod types;
mod values;

use alloy_dyn_abi::eip712::Resolver;
use alloy_dyn_abi::{DynSolValue, Eip712Domain};
use alloy_primitives::{Address, B256, U256, keccak256};

use self::types::Types;
use crate::json::Json;
use crate::strict::{FieldError, Fields, Reader, address, fixed_bytes, quantity, text, wrong};
use crate::transaction::{EncodersDisagree, MAX_BODY};

/// A message of declared types, for one domain, that is complete and well-formed, and not signed.
#[derive(Debug, Clone, PartialEq)]
pub struct TypedData {
    domain: Eip712Domain,
    encoded_type: String,
    message: DynSolValue,
    digests: [B256; 2],
    json: Vec<u8>,
}

/// Structs of a message. Each has its type hashed again.
const MAX_STRUCTS: usize = 1024;
/// So many bytes of types are hashed at most.
const MAX_HASHED: usize = 8 * 1024 * 1024;

/// What a domain has, in the order of EIP-712.
const DOMAIN: [(&str, &str); 5] = [
    ("name", "string"),
    ("version", "string"),
    ("chainId", "uint256"),
    ("verifyingContract", "address"),
    ("salt", "bytes32"),
];

impl TypedData {
    /// Reads typed data from JSON, as `eth_signTypedData_v4` takes it: `types`, `primaryType`, `domain` and `message`,
    /// nothing else, nothing twice.
    ///
    /// `types.EIP712Domain` may be left out; if it is there, it lists the fields that `domain` has. A number is a
    /// quantity as in a transaction, with a minus before decimal digits where its type has one.
    ///
    /// # Errors
    /// [`FieldError`] names the first field that is wrong, and why.
    pub fn parse(json: &[u8]) -> Result<Self, FieldError> {
        let mut fields = Fields::read(json, MAX_BODY, &["types", "primaryType", "domain", "message"])?;
        let (domain, listed) = fields.required("domain", domain)?;
        let primary = fields.required("primaryType", text)?;
        let types = fields.required("types", Types::read)?;
        types.check(&primary, &listed)?;
        let resolver: Resolver = types.resolver();
        // Both fail for types that contain one another.
        let circular = |_| FieldError { field: Some("types".into()), problem: "they contain one another".into() };
        let encoded_type = resolver.encode_type(&primary).map_err(circular)?;
        let structs = MAX_STRUCTS.min(MAX_HASHED / encoded_type.len().max(1));
        let message = match fields.take("message") {
            Some(message) => values::message(&types, &primary, structs, message)?,
            None => return wrong("message", "missing"),
        };
        let hash = resolver.eip712_data_word(&message).map_err(circular)?;
        let digest = keccak256([&[0x19, 0x01], domain.separator().as_slice(), hash.as_slice()].concat());
        let second = second::digest(&types, &domain, &message);
        Ok(Self { domain, encoded_type, message, digests: [digest, second], json: json.to_vec() })
    }

    /// The domain's chain id, if it has one.
    #[must_use]
    pub fn chain_id(&self) -> Option<U256> {
        self.domain.chain_id
    }

    /// The contract that is to verify the signature, if the domain has one.
    #[must_use]
    pub fn verifying_contract(&self) -> Option<Address> {
        self.domain.verifying_contract
    }

    /// The message's type and those it is made of, as EIP-712 writes and hashes them (`encodeType`).
    #[must_use]
    pub fn encoded_type(&self) -> &str {
        &self.encoded_type
    }

    /// The message: a struct.
    #[must_use]
    pub fn message(&self) -> &DynSolValue {
        &self.message
    }

    /// What the key signs: the Keccak-256 of `0x19 0x01`, the domain's separator and the message's hash.
    ///
    /// # Errors
    /// [`EncodersDisagree`].
    pub fn signing_hash(&self) -> Result<B256, EncodersDisagree> {
        let [first, second] = self.digests;
        if first == second { Ok(first) } else { Err(EncodersDisagree) }
    }

    /// The JSON that it was read from.
    #[must_use]
    pub fn json(&self) -> &[u8] {
        &self.json
    }
}

/// A domain, and which of [`DOMAIN`] it has.
type Domain = (Eip712Domain, Vec<(&'static str, &'static str)>);

fn domain(field: &str, value: Json) -> Result<Domain, FieldError> {
    let mut fields = Fields::of(field, value, &DOMAIN.map(|(name, _)| name))?;
    let domain = Eip712Domain {
        name: fields.optional("name", text)?.map(Into::into),
        version: fields.optional("version", text)?.map(Into::into),
        chain_id: fields.optional("chainId", quantity)?,
        verifying_contract: fields.optional("verifyingContract", address)?,
        salt: fields.optional("salt", fixed_bytes as Reader<B256>)?,
    };
    let Eip712Domain { name, version, chain_id, verifying_contract, salt } = &domain;
    let there = [name.is_some(), version.is_some(), chain_id.is_some(), verifying_contract.is_some(), salt.is_some()];
    let listed = DOMAIN.into_iter().zip(there).filter(|(_, there)| *there).map(|(field, _)| field).collect();
    Ok((domain, listed))
}
