//! A key: what it is, and its signatures.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k256::ecdsa::signature::hazmat::{PrehashSigner, RandomizedPrehashSigner};
use k256::ecdsa::{Error, Signature, SigningKey};
use k256::elliptic_curve::rand_core::OsRng;
use k256::pkcs8::EncodePublicKey;
use serde_json::{Value, json};

/// A key of spec `ECC_SECG_P256K1`.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) id: String,
    pub(crate) arn: String,
    created: f64,
    secret: SigningKey,
}

impl Key {
    pub(crate) fn random(region: &str) -> Self {
        let id = uuid::Uuid::new_v4().to_string();
        let arn = format!("arn:aws:kms:{region}:123456789012:key/{id}");
        let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        Self { id, arn, created, secret: SigningKey::random(&mut OsRng) }
    }

    /// Signs 32 bytes as they are: DER, with a high S half of the time.
    pub(crate) fn sign(&self, digest: &[u8; 32], deterministic: bool) -> Result<Vec<u8>, Error> {
        let signature: Signature = if deterministic {
            self.secret.sign_prehash(digest)?
        } else {
            self.secret.sign_prehash_with_rng(&mut OsRng, digest)?
        };
        // k256 lowers S; whether r is odd is chance, and for one signature always the same.
        let (r, s) = signature.split_scalars();
        let odd = r.to_bytes()[31] & 1 == 1;
        let signature = if odd { Signature::from_scalars(r, -s)? } else { signature };
        Ok(signature.to_der().as_bytes().to_vec())
    }

    /// What `CreateKey` and `DescribeKey` answer.
    pub(crate) fn metadata(&self) -> Value {
        json!({ "KeyMetadata": {
            "AWSAccountId": "123456789012", "Arn": self.arn, "CreationDate": self.created,
            "CustomerMasterKeySpec": "ECC_SECG_P256K1", "Description": "", "Enabled": true, "KeyId": self.id,
            "KeyManager": "CUSTOMER", "KeySpec": "ECC_SECG_P256K1", "KeyState": "Enabled", "KeyUsage": "SIGN_VERIFY",
            "Origin": "AWS_KMS", "SigningAlgorithms": ["ECDSA_SHA_256"],
        }})
    }

    /// What `GetPublicKey` answers.
    pub(crate) fn public(&self) -> Value {
        let spki =
            k256::PublicKey::from(self.secret.verifying_key()).to_public_key_der().expect("a point has an encoding");
        json!({
            "CustomerMasterKeySpec": "ECC_SECG_P256K1", "KeyId": self.arn, "KeySpec": "ECC_SECG_P256K1",
            "KeyUsage": "SIGN_VERIFY", "PublicKey": STANDARD.encode(spki), "SigningAlgorithms": ["ECDSA_SHA_256"],
        })
    }
}

#[cfg(test)]
mod tests {
    use k256::ecdsa::signature::hazmat::PrehashVerifier;

    use super::*;

    #[test]
    fn signatures_verify_and_half_have_a_high_s() {
        let key = Key::random("us-east-1");
        for deterministic in [false, true] {
            let mut high = 0;
            for n in 0..200 {
                let digest = [n; 32];
                let der = key.sign(&digest, deterministic).unwrap();
                let signature = Signature::from_der(&der).unwrap();
                let low = signature.normalize_s();
                high += u32::from(low.is_some());
                key.secret.verifying_key().verify_prehash(&digest, &low.unwrap_or(signature)).unwrap();
                assert_eq!(key.sign(&digest, deterministic).unwrap() == der, deterministic);
            }
            assert!((50..150).contains(&high), "{high} of 200");
        }
    }
}
