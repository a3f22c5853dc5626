//! From DER to a signature, beside k256.

use k256::ecdsa::{RecoveryId, Signature, VerifyingKey};
use k256::elliptic_curve::sec1::ToEncodedPoint;

use crate::key::PublicKey;
use crate::signature::{SignatureError, assemble};

/// DER is read as k256 reads it, and what comes out is a signature of the key and of no other.
pub fn signature(der: &[u8]) {
    // Any digest: what makes a signature one of it is the key, which is found below.
    let digest = [7; 32];
    let generator = k256::AffinePoint::GENERATOR.to_encoded_point(false);
    let other = PublicKey::from_sec1(generator.as_bytes()).expect("a point");
    let found = assemble(der, &digest, &other);
    let Ok(theirs) = Signature::from_der(der) else {
        assert!(matches!(found, Err(SignatureError::Der | SignatureError::Range)), "{found:?}");
        return;
    };
    assert!(matches!(found, Ok(_) | Err(SignatureError::Mismatch)), "{found:?}");
    let low = theirs.normalize_s().unwrap_or(theirs);
    for odd in [false, true] {
        let Ok(key) = VerifyingKey::recover_from_prehash(&digest, &low, RecoveryId::new(odd, false)) else { continue };
        let key = PublicKey::from_sec1(key.to_encoded_point(false).as_bytes()).expect("a point");
        let ours = assemble(der, &digest, &key).expect("it is this key's");
        assert_eq!((*ours.r(), *ours.s()), (low.r().to_bytes().into(), low.s().to_bytes().into()));
        assert_eq!(ours.y_odd(), odd);
        assert_eq!(PublicKey::recover(&digest, &ours).expect("it is somebody's").address(), key.address());
    }
}
