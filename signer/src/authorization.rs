//! Authorizations of EIP-7702: an account lets a contract's code, the delegate's, act for it.

use alloy_eips::eip7702;
use alloy_primitives::{Address, B256, U256, keccak256};

use crate::json::Json;
use crate::key::PublicKey;
use crate::signature::Signature;
use crate::strict::{FieldError, Fields, address, chain_id, fixed_bytes, nonce, quantity, wrong};
use crate::transaction::{EncodersDisagree, MAX_BODY, authorization_bytes};

/// An authorization that is complete and well-formed, and not signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorization(eip7702::Authorization);

/// An authorization that somebody signed, and who did: a signature that nobody made is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedAuthorization {
    signed: eip7702::SignedAuthorization,
    authority: Address,
}

impl Authorization {
    /// Reads an authorization from JSON: `chainId`, `address` and `nonce`, nothing else, nothing twice.
    ///
    /// A `chainId` of 0, which is every chain, is refused: no policy could say which.
    ///
    /// # Errors
    /// [`FieldError`] names the first field that is wrong, and why.
    pub fn parse(json: &[u8]) -> Result<Self, FieldError> {
        let mut fields = Fields::read(json, MAX_BODY, &["chainId", "address", "nonce"])?;
        Ok(Self(eip7702::Authorization {
            chain_id: U256::from(fields.required("chainId", chain_id)?),
            address: fields.required("address", address)?,
            nonce: fields.required("nonce", nonce)?,
        }))
    }

    /// EIP-155 chain id, never 0.
    #[must_use]
    pub fn chain_id(&self) -> u64 {
        // The parser has read 64 bits.
        self.0.chain_id.saturating_to()
    }

    /// Whose code the account is to have.
    #[must_use]
    pub fn delegate(&self) -> Address {
        self.0.address
    }

    /// The account's nonce when the authorization is used.
    #[must_use]
    pub fn nonce(&self) -> u64 {
        self.0.nonce
    }

    /// As it was asked for, in the one way of writing it.
    #[must_use]
    pub fn to_json(&self) -> String {
        let (chain_id, delegate, nonce) = (self.chain_id(), self.delegate(), self.nonce());
        format!(r#"{{"chainId":"{chain_id}","address":"{delegate}","nonce":"{nonce}"}}"#)
    }

    /// What the key signs: the Keccak-256 of `0x05 || rlp([chainId, address, nonce])`, which both encoders write.
    ///
    /// # Errors
    /// [`EncodersDisagree`].
    pub fn signing_hash(&self) -> Result<B256, EncodersDisagree> {
        let hash = self.0.signature_hash();
        let second = keccak256(authorization_bytes(self.chain_id(), self.delegate(), self.nonce()));
        if hash == second { Ok(hash) } else { Err(EncodersDisagree) }
    }
}

impl SignedAuthorization {
    /// Chain id; 0 is every chain.
    #[must_use]
    pub fn chain_id(&self) -> u64 {
        // The parser has read 64 bits.
        self.signed.inner().chain_id.saturating_to()
    }

    /// Whose code the account is to have.
    #[must_use]
    pub fn delegate(&self) -> Address {
        self.signed.inner().address
    }

    /// Whose account it is, recovered from the signature.
    #[must_use]
    pub fn authority(&self) -> Address {
        self.authority
    }

    pub(crate) fn to_alloy(&self) -> eip7702::SignedAuthorization {
        self.signed.clone()
    }
}

/// Reads a signed authorization: `r` and `s` are of 32 bytes each, s is low (EIP-2), and the signature is somebody's.
/// EIP-7702 has nodes skip one that is not so; here it is refused.
pub(crate) fn signed(field: &str, value: Json) -> Result<SignedAuthorization, FieldError> {
    let mut fields = Fields::of(field, value, &["chainId", "address", "nonce", "yParity", "r", "s"])?;
    let id: u64 = fields.required("chainId", |at, value| match quantity(at, value.clone())? {
        0u64 => Ok(0),
        _ => chain_id(at, value),
    })?;
    let inner = eip7702::Authorization {
        chain_id: U256::from(id),
        address: fields.required("address", address)?,
        nonce: fields.required("nonce", nonce)?,
    };
    let odd = match fields.required("yParity", quantity)? {
        0u8 => false,
        1 => true,
        _ => return wrong(&fields.at("yParity"), "expected 0 or 1"),
    };
    let r = fields.required("r", fixed_bytes::<32>)?;
    let s = fields.required("s", fixed_bytes::<32>)?;
    let signature = match Signature::from_parts(r.0, s.0, odd) {
        Some(signature) => signature,
        None => return wrong(&fields.at("s"), "r or s is out of range, or s is high (EIP-2)"),
    };
    let Some(public) = PublicKey::recover(&inner.signature_hash().0, &signature) else {
        return wrong(field, "the signature is nobody's");
    };
    let signed = inner.into_signed(signature.to_alloy());
    Ok(SignedAuthorization { signed, authority: public.address() })
}

#[cfg(test)]
pub(crate) mod tests {
    use alloy_primitives::hex;
    use k256::ecdsa::SigningKey;
    use serde_json::{Value, json};

    use super::*;

    /// An authorization as JSON, signed by a key of bytes `key`.
    pub(crate) fn authorization(chain_id: U256, delegate: Address, nonce: u64, key: u8) -> Value {
        let inner = eip7702::Authorization { chain_id, address: delegate, nonce };
        let key = SigningKey::from_slice(&[key; 32]).unwrap();
        let (signature, parity) = key.sign_prehash_recoverable(inner.signature_hash().as_slice()).unwrap();
        let (r, s) = signature.split_bytes();
        json!({"chainId": chain_id.to_string(), "address": delegate.to_checksum(None), "nonce": nonce.to_string(),
               "yParity": u8::from(parity.is_y_odd()), "r": hex::encode_prefixed(r), "s": hex::encode_prefixed(s)})
    }

    fn parse(json: &Value) -> Result<Authorization, FieldError> {
        Authorization::parse(json.to_string().as_bytes())
    }

    fn good() -> Value {
        json!({"chainId": 137, "address": "0x1111111111111111111111111111111111111111", "nonce": "0x7"})
    }

    #[test]
    fn what_is_wrong_is_named() {
        let read = parse(&good()).unwrap();
        assert_eq!((read.chain_id(), read.delegate(), read.nonce()), (137, Address::repeat_byte(0x11), 7));
        assert_eq!(Authorization::parse(read.to_json().as_bytes()), Ok(read));
        for (field, value) in [
            // Every chain there is.
            ("chainId", json!(0)),
            ("chainId", Value::Null),
            ("address", json!("0x11")),
            ("address", json!("0x7E5F4552091A69125d5DfCb7b8C2659029395BdF")),
            ("nonce", json!(u64::MAX.to_string())),
            ("nonce", json!("07")),
            ("yParity", json!(0)),
        ] {
            let mut json = good();
            json[field] = value;
            assert_eq!(parse(&json).unwrap_err().field.as_deref(), Some(field), "{json}");
        }
        for field in ["chainId", "address", "nonce"] {
            let mut json = good();
            json.as_object_mut().unwrap().remove(field);
            assert_eq!(parse(&json).unwrap_err().field.as_deref(), Some(field));
        }
    }

    /// The digest that eth-account 0.14 and ethers 6 give.
    #[test]
    fn the_same_as_ethers() {
        let digest = parse(&good()).unwrap().signing_hash().unwrap();
        assert_eq!(hex::encode(digest), "72aaf26d2b081f65ba7b4098e1469fdf19f6bcb5118fef9612a768603023fc50");
    }

    #[test]
    fn whose_it_is() {
        let json = authorization(U256::from(137), Address::repeat_byte(0x11), 7, 0x46);
        let read = signed("a", serde_json::from_value(json).unwrap()).unwrap();
        assert_eq!(read.authority().to_string(), "0x9d8A62f656a8d1615C1294fd71e9CFb3E4855A4F");
        assert_eq!((read.chain_id(), read.delegate()), (137, Address::repeat_byte(0x11)));
    }
}
