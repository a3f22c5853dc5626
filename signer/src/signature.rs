//! From what a key answers to a signature that Ethereum takes.
//!
//! KMS answers an ECDSA signature in DER, with an S that is high half of the time and without the parity that
//! Ethereum needs. [`assemble`] reads the DER strictly, lowers S (EIP-2), and computes
//! R = s⁻¹(zG + rQ), as a verification does: that x(R) is r proves the signature against the pinned key, and the
//! parity of y(R) is the one wanted. It is one double multiplication, where trying both recoveries would be two.
//!
//! All of it works on public values: nothing here needs to run in constant time.

use alloy_primitives::U256;
use k256::elliptic_curve::PrimeField;
use k256::elliptic_curve::ops::{Invert, LinearCombination, Reduce};
use k256::elliptic_curve::point::AffineCoordinates;
use k256::elliptic_curve::scalar::IsHigh;
use k256::{ProjectivePoint, Scalar};

use crate::key::PublicKey;

/// An ECDSA signature with low S and its parity, verified against the key it was assembled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature {
    r: [u8; 32],
    s: [u8; 32],
    y_odd: bool,
}

impl Signature {
    /// r, big-endian, from 1 to n-1.
    #[must_use]
    pub fn r(&self) -> &[u8; 32] {
        &self.r
    }

    /// s, big-endian, from 1 to n/2 (EIP-2).
    #[must_use]
    pub fn s(&self) -> &[u8; 32] {
        &self.s
    }

    /// Whether y(R) is odd: `yParity`.
    #[must_use]
    pub fn y_odd(&self) -> bool {
        self.y_odd
    }

    /// A signature that somebody made: nothing if r or s is out of range, or s is high (EIP-2). Whose it is, it does not
    /// say: [`PublicKey::recover`] does.
    pub(crate) fn from_parts(r: [u8; 32], s: [u8; 32], y_odd: bool) -> Option<Self> {
        let (_, s_scalar) = (scalar(r).ok()?, scalar(s).ok()?);
        (!bool::from(s_scalar.is_high())).then_some(Self { r, s, y_odd })
    }

    /// r, s, and 27 or 28 for the parity: as contracts take it, and EIP-191 and EIP-712 signatures are written.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 65] {
        let mut bytes = [0; 65];
        bytes[..32].copy_from_slice(&self.r);
        bytes[32..64].copy_from_slice(&self.s);
        bytes[64] = 27 + u8::from(self.y_odd);
        bytes
    }

    pub(crate) fn to_alloy(self) -> alloy_primitives::Signature {
        alloy_primitives::Signature::new(U256::from_be_bytes(self.r), U256::from_be_bytes(self.s), self.y_odd)
    }
}

/// Why a key's answer is no signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Not exactly a DER SEQUENCE of two positive, minimal INTEGERs.
    #[error("the signature is not strict DER")]
    Der,
    /// r or s is zero, or not below the order of the curve.
    #[error("r or s of the signature is out of range")]
    Range,
    /// The signature is not one of this digest by this key, or one whose x(R) is not below the order of the curve
    /// (recovery ids 2 and 3, which Ethereum cannot carry).
    #[error("the signature does not verify against the key")]
    Mismatch,
}

/// Makes a [`Signature`] of the DER that `key` answered for `digest`.
///
/// # Errors
/// [`SignatureError`]: nothing that does not verify comes out.
pub fn assemble(der: &[u8], digest: &[u8; 32], key: &PublicKey) -> Result<Signature, SignatureError> {
    let (r, s) = integers(der).ok_or(SignatureError::Der)?;
    let (r_scalar, mut s_scalar) = (scalar(r)?, scalar(s)?);
    if s_scalar.is_high().into() {
        s_scalar = -s_scalar;
    }
    // s is not zero, so it has an inverse.
    let s_inverse = Option::<Scalar>::from(s_scalar.invert_vartime()).ok_or(SignatureError::Range)?;
    let z = <Scalar as Reduce<k256::U256>>::reduce_bytes(&(*digest).into());
    let point =
        ProjectivePoint::lincomb(&ProjectivePoint::GENERATOR, &(z * s_inverse), key.point(), &(r_scalar * s_inverse))
            .to_affine();
    // Unreduced: an x(R) of n or more differs from every r. The point at infinity has x = 0, and r is not zero.
    if <[u8; 32]>::from(point.x()) != r {
        return Err(SignatureError::Mismatch);
    }
    Ok(Signature { r, s: s_scalar.to_repr().into(), y_odd: point.y_is_odd().into() })
}

fn scalar(bytes: [u8; 32]) -> Result<Scalar, SignatureError> {
    let scalar = Option::<Scalar>::from(Scalar::from_repr(bytes.into())).ok_or(SignatureError::Range)?;
    if scalar.is_zero().into() { Err(SignatureError::Range) } else { Ok(scalar) }
}

/// r and s of a DER `ECDSA-Sig-Value` (RFC 3279, 2.2.3; X.690, 8.3 and 10.1).
fn integers(der: &[u8]) -> Option<([u8; 32], [u8; 32])> {
    let (body, rest) = element(0x30, der)?;
    let (r, body) = element(0x02, body)?;
    let (s, body) = element(0x02, body)?;
    (rest.is_empty() && body.is_empty()).then_some(())?;
    Some((positive(r)?, positive(s)?))
}

/// The content of the element that `der` begins with, and what follows it. Its length has the short form: a
/// signature on this curve is 72 bytes at most.
fn element(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    match der {
        [found, length @ 0..=0x7f, rest @ ..] if *found == tag => rest.split_at_checked(usize::from(*length)),
        _ => None,
    }
}

/// The value of a minimal INTEGER that is not negative and fits 32 bytes.
fn positive(content: &[u8]) -> Option<[u8; 32]> {
    let digits = match content {
        [0, 0x80..=0xff, ..] => &content[1..],
        [0, _, ..] | [0x80..=0xff, ..] | [] => return None,
        digits => digits,
    };
    let mut value = [0; 32];
    value[32usize.checked_sub(digits.len())?..].copy_from_slice(digits);
    Some(value)
}

#[cfg(test)]
mod vectors;

#[cfg(test)]
mod tests {
    use k256::ecdsa::{RecoveryId, SigningKey};
    use k256::elliptic_curve::sec1::ToEncodedPoint;
    use proptest::prelude::*;

    use super::*;

    fn signing_key() -> impl Strategy<Value = SigningKey> {
        any::<[u8; 32]>().prop_filter_map("a key", |bytes| SigningKey::from_slice(&bytes).ok())
    }

    fn public(key: &SigningKey) -> PublicKey {
        PublicKey::from_sec1(key.verifying_key().to_encoded_point(false).as_bytes()).unwrap()
    }

    /// DER by another's hand, with s made high if asked.
    fn der(key: &SigningKey, digest: &[u8; 32], high: bool) -> (Vec<u8>, k256::ecdsa::Signature, RecoveryId) {
        let (signature, id) = key.sign_prehash_recoverable(digest).unwrap();
        let (r, s) = signature.split_scalars();
        let written = if high { k256::ecdsa::Signature::from_scalars(r, -s).unwrap() } else { signature };
        (written.to_der().as_bytes().to_vec(), signature, id)
    }

    proptest! {
        #[test]
        fn agrees_with_recoverable_signing(key in signing_key(), digest: [u8; 32], high: bool) {
            let (der, signature, id) = der(&key, &digest, high);
            let ours = assemble(&der, &digest, &public(&key)).unwrap();
            prop_assert_eq!(*ours.r(), <[u8; 32]>::from(signature.r().to_bytes()));
            prop_assert_eq!(*ours.s(), <[u8; 32]>::from(signature.s().to_bytes()));
            prop_assert_eq!(ours.y_odd(), id.is_y_odd());
        }

        #[test]
        fn any_changed_byte_is_refused(key in signing_key(), digest: [u8; 32], at: prop::sample::Index, with in 1u8..) {
            let (mut der, ..) = der(&key, &digest, false);
            let at = at.index(der.len());
            der[at] ^= with;
            prop_assert!(assemble(&der, &digest, &public(&key)).is_err());
        }

        #[test]
        fn any_other_length_is_refused(key in signing_key(), digest: [u8; 32], cut in 0usize..72, more: u8) {
            let (mut der, ..) = der(&key, &digest, true);
            prop_assert!(assemble(&der[..cut.min(der.len() - 1)], &digest, &public(&key)).is_err());
            der.push(more);
            prop_assert_eq!(assemble(&der, &digest, &public(&key)), Err(SignatureError::Der));
        }

        #[test]
        fn another_digest_or_key_is_refused(key in signing_key(), other in signing_key(), digest: [u8; 32], bit in 0usize..256) {
            let (der, ..) = der(&key, &digest, false);
            let mut changed = digest;
            changed[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(assemble(&der, &changed, &public(&key)), Err(SignatureError::Mismatch));
            prop_assume!(key != other);
            prop_assert_eq!(assemble(&der, &digest, &public(&other)), Err(SignatureError::Mismatch));
        }

        #[test]
        fn no_input_panics(der: Vec<u8>, digest: [u8; 32]) {
            let key = SigningKey::from_slice(&[7; 32]).unwrap();
            prop_assert!(assemble(&der, &digest, &public(&key)).is_err());
        }
    }

    #[test]
    fn der_is_strict() {
        let one = |content: &[u8]| [&[0x02, u8::try_from(content.len()).unwrap()], content].concat();
        let sequence = |body: &[u8]| [&[0x30, u8::try_from(body.len()).unwrap()], body].concat();
        let pair = |r: &[u8], s: &[u8]| sequence(&[one(r), one(s)].concat());
        assert!(integers(&pair(&[1], &[1])).is_some());
        assert!(integers(&pair(&[0, 0x80], &[0x7f; 32])).is_some());
        let wide = [[0u8].as_slice(), &[0xff; 32]].concat();
        assert!(integers(&pair(&wide, &wide)).is_some());
        for (what, bad) in [
            ("empty", vec![]),
            ("empty integer", pair(&[], &[1])),
            ("negative", pair(&[0x80], &[1])),
            ("padded", pair(&[0, 1], &[1])),
            ("padded zero", pair(&[0, 0], &[1])),
            ("33 bytes", pair(&[1; 33], &[1])),
            ("34 bytes", pair(&[[0u8].as_slice(), &[0xff; 33]].concat(), &[1])),
            ("one integer", sequence(&one(&[1]))),
            ("three integers", sequence(&[one(&[1]), one(&[1]), one(&[1])].concat())),
            ("trailing", [pair(&[1], &[1]).as_slice(), &[0]].concat()),
            ("long form", [[0x30, 0x81, 6].as_slice(), &one(&[1]), &one(&[1])].concat()),
            ("indefinite", [[0x30, 0x80].as_slice(), &one(&[1]), &one(&[1]), &[0, 0]].concat()),
            ("a set", [[0x31, 6].as_slice(), &one(&[1]), &one(&[1])].concat()),
            ("cut", pair(&[1], &[1])[..7].to_vec()),
        ] {
            assert_eq!(integers(&bad), None, "{what}");
        }
    }

    #[test]
    fn zero_and_the_order_are_out_of_range() {
        let key = public(&SigningKey::from_slice(&[7; 32]).unwrap());
        let n = hex::decode("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141").unwrap();
        let of_n = [[0x30, 0x26, 0x02, 0x21, 0].as_slice(), &n, &[0x02, 1, 1]].concat();
        assert_eq!(assemble(&of_n, &[1; 32], &key), Err(SignatureError::Range));
        assert_eq!(assemble(&[0x30, 6, 2, 1, 0, 2, 1, 1], &[1; 32], &key), Err(SignatureError::Range));
        assert_eq!(assemble(&[0x30, 6, 2, 1, 1, 2, 1, 0], &[1; 32], &key), Err(SignatureError::Range));
    }

    #[test]
    fn recovery_ids_above_one_are_refused() {
        // R with n <= x(R) < p, so r = x(R) - n: it is an ECDSA signature, and Ethereum has no way to write it. For
        // any s and z, Q = r^-1 (s R - z G) is the key that made it.
        let (x, point) = (0u64..)
            .find_map(|r| {
                let n = U256::from_be_slice(
                    &hex::decode("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141").unwrap(),
                );
                let x: [u8; 32] = (n + U256::from(r)).to_be_bytes();
                let key = k256::PublicKey::from_sec1_bytes(&[[2].as_slice(), &x].concat()).ok()?;
                (r > 0).then_some((r, key.to_projective()))
            })
            .unwrap();
        let r = Scalar::from(x);
        let s = Scalar::from(5u64);
        let digest = [9; 32];
        let z = <Scalar as Reduce<k256::U256>>::reduce_bytes(&digest.into());
        let q = (point * s - ProjectivePoint::GENERATOR * z) * r.invert().unwrap();
        let key = PublicKey::from_sec1(q.to_affine().to_encoded_point(false).as_bytes()).unwrap();
        let signature = k256::ecdsa::Signature::from_scalars(r, s).unwrap();
        let verifies = k256::ecdsa::hazmat::verify_prehashed::<k256::Secp256k1>(&q, &digest.into(), &signature);
        assert!(verifies.is_ok(), "the signature is a true one");
        assert_eq!(assemble(signature.to_der().as_bytes(), &digest, &key), Err(SignatureError::Mismatch));
    }
}
