use std::fmt;

use alloy_primitives::{Address, keccak256};
use k256::ProjectivePoint;
use k256::ecdsa::{RecoveryId, VerifyingKey};
use k256::elliptic_curve::sec1::ToEncodedPoint;

use crate::signature::Signature;

/// What comes before the 65 bytes of an uncompressed point in the DER of a secp256k1 SubjectPublicKeyInfo
/// (RFC 5480): SEQUENCE { SEQUENCE { id-ecPublicKey, secp256k1 }, BIT STRING with no unused bits }.
pub(super) const SPKI_PREFIX: [u8; 23] = [
    0x30, 0x56, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00,
    0x0a, 0x03, 0x42, 0x00,
];

/// A point on secp256k1, never the point at infinity, and the address that goes with it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey {
    point: ProjectivePoint,
    uncompressed: [u8; 65],
    address: Address,
}

/// These bytes are no public key of secp256k1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a public key of secp256k1")]
pub struct NotAPublicKey;

impl PublicKey {
    /// Reads a point as SEC 1 writes it, compressed or not.
    ///
    /// # Errors
    /// [`NotAPublicKey`] when the bytes are no point of the curve.
    pub fn from_sec1(bytes: &[u8]) -> Result<Self, NotAPublicKey> {
        let key = k256::PublicKey::from_sec1_bytes(bytes).map_err(|_| NotAPublicKey)?;
        let encoded = key.to_encoded_point(false);
        let uncompressed: [u8; 65] = encoded.as_bytes().try_into().map_err(|_| NotAPublicKey)?;
        let address = Address::from_slice(&keccak256(&uncompressed[1..])[12..]);
        Ok(Self { point: key.to_projective(), uncompressed, address })
    }

    /// Reads a DER SubjectPublicKeyInfo (RFC 5480), as KMS answers it: the named curve, an uncompressed point and
    /// nothing else.
    ///
    /// # Errors
    /// [`NotAPublicKey`] for another algorithm or curve, another form of the point, or trailing bytes.
    pub fn from_spki(der: &[u8]) -> Result<Self, NotAPublicKey> {
        match der.strip_prefix(&SPKI_PREFIX) {
            Some(point) if point.len() == 65 => Self::from_sec1(point),
            _ => Err(NotAPublicKey),
        }
    }

    /// Whose signature of a digest this is; nothing if it is nobody's.
    #[must_use]
    pub fn recover(digest: &[u8; 32], signature: &Signature) -> Option<Self> {
        let rs = k256::ecdsa::Signature::from_scalars(*signature.r(), *signature.s()).ok()?;
        let parity = RecoveryId::new(signature.y_odd(), false);
        let key = VerifyingKey::recover_from_prehash(digest, &rs, parity).ok()?;
        Self::from_sec1(key.to_encoded_point(false).as_bytes()).ok()
    }

    /// The address: the last 20 bytes of the Keccak-256 of the point. Its `Display` is the EIP-55 form.
    #[must_use]
    pub fn address(&self) -> Address {
        self.address
    }

    /// The point as SEC 1 writes it uncompressed: 0x04, x, y.
    #[must_use]
    pub fn uncompressed(&self) -> &[u8; 65] {
        &self.uncompressed
    }

    pub(crate) fn point(&self) -> &ProjectivePoint {
        &self.point
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::address;

    /// The key whose secret is 1: the generator.
    const GENERATOR: &str = "0479be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798\
                             483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8";

    #[test]
    fn address_of_a_known_key() {
        let key = PublicKey::from_sec1(&hex::decode(GENERATOR).unwrap()).unwrap();
        assert_eq!(key.address(), address!("7E5F4552091A69125d5DfCb7b8C2659029395Bdf"));
        assert_eq!(key.address().to_string(), "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf");
        assert_eq!(hex::encode(key.uncompressed()), GENERATOR);
    }

    #[test]
    fn spki_is_read_strictly() {
        let point = hex::decode(GENERATOR).unwrap();
        let good = [SPKI_PREFIX.as_slice(), &point].concat();
        assert!(PublicKey::from_spki(&good).is_ok());
        assert_eq!(PublicKey::from_spki(&good[..87]), Err(NotAPublicKey));
        assert_eq!(PublicKey::from_spki(&[good.as_slice(), &[0]].concat()), Err(NotAPublicKey));
        for i in 0..good.len() {
            let mut bad = good.clone();
            bad[i] ^= 1;
            // A changed y can only be another point's by a miracle.
            assert_eq!(PublicKey::from_spki(&bad), Err(NotAPublicKey), "byte {i}");
        }
    }
}
