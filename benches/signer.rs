//! What the signer does for one transaction, each step alone.
//!
//! The path of a payout is: parse, encode twice, judge, sign, assemble what the key answered, encode twice again. KMS
//! takes milliseconds and the durable ledger takes more of them, so none of these decides how long a caller waits;
//! they decide how many cores the signer needs, and whether a check may be had for the price. What a signed
//! transaction costs in all is measured in `request`.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use k256::ecdsa::signature::hazmat::PrehashSigner;
use k256::ecdsa::{RecoveryId, Signature, SigningKey, VerifyingKey};
use keygate_config::Source;
use keygate_signer::key::PublicKey;
use keygate_signer::key::local::Local;
use keygate_signer::policy::{Asset, Policy, Window, judge, judge_window};
use keygate_signer::signature::assemble;
use keygate_signer::transaction::Transaction;
use sha2::{Digest, Sha256};

criterion_main!(benches);
criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = signature, transaction, policy, local_key
}

/// From the DER that KMS answers to low S and parity, verified. Beside ours, the way that Rust's KMS signers know
/// (alloy-signer-aws): read, lower S, recover the key for the even parity and compare, and if it is another, for the
/// odd one; k256 verifies what it recovers. Written here, since their function is private. The inputs are the same: every other one has a high S, as from KMS, and
/// about every other one an odd parity.
fn signature(c: &mut Criterion) {
    let mut group = c.benchmark_group("signature");
    let key = SigningKey::from_slice(&[7; 32]).expect("a key");
    let verifying = *key.verifying_key();
    let public = PublicKey::from_sec1(verifying.to_encoded_point(false).as_bytes()).expect("a public key");
    let answers = answers(&key);
    for (der, digest) in &answers {
        let ours = assemble(der, digest, &public).expect("it is signed by the key");
        let (theirs, id) = recover(der, digest, &verifying).expect("it is signed by the key");
        let (r, s) = theirs.split_bytes();
        assert!((*ours.r(), *ours.s()) == (r.into(), s.into()) && ours.y_odd() == id.is_y_odd());
    }
    group.bench_function("assemble", |b| {
        let mut answers = answers.iter().cycle();
        b.iter(|| {
            let (der, digest) = black_box(answers.next().expect("it is endless"));
            assemble(der, digest, black_box(&public))
        });
    });
    group.bench_function("trial recovery", |b| {
        let mut answers = answers.iter().cycle();
        b.iter(|| {
            let (der, digest) = black_box(answers.next().expect("it is endless"));
            recover(der, digest, black_box(&verifying))
        });
    });
    group.finish();
}

/// 64 signatures as KMS answers them, and the digests they are of.
fn answers(key: &SigningKey) -> Vec<(Vec<u8>, [u8; 32])> {
    let answer = |n: u8| {
        let digest: [u8; 32] = Sha256::digest([n]).into();
        let signature: Signature = key.sign_prehash(&digest).expect("a signature");
        let (r, s) = signature.split_scalars();
        let high = Signature::from_scalars(r, -s).expect("a signature");
        let answered = if n.is_multiple_of(2) { signature } else { high };
        (answered.to_der().as_bytes().to_vec(), digest)
    };
    (0..64).map(answer).collect()
}

fn recover(der: &[u8], digest: &[u8; 32], key: &VerifyingKey) -> Option<(Signature, RecoveryId)> {
    let signature = Signature::from_der(der).ok()?;
    let signature = signature.normalize_s().unwrap_or(signature);
    let by = |id: &RecoveryId| VerifyingKey::recover_from_prehash(digest, &signature, *id).is_ok_and(|by| by == *key);
    let id = [false, true].map(|odd| RecoveryId::new(odd, false)).into_iter().find(by)?;
    Some((signature, id))
}

/// A payment of a chain's own currency, one of a token, and one with an access list.
fn requests() -> [(&'static str, String); 3] {
    let token = format!("0xa9059cbb{:0>64}{:0>64x}", "70997970c51812dc3a010c7d01b50e0d17dc79c8", 1_500_000_000);
    let key = format!("0x{:064x}", 3);
    [
        (
            "legacy",
            r#"{"chainId": 137, "type": 0, "nonce": 7, "to": "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
                "value": "1000000000000000000", "gas": 21000, "gasPrice": "30000000000"}"#
                .to_owned(),
        ),
        (
            "token",
            format!(
                r#"{{"chainId": 137, "type": 2, "nonce": 7, "to": "0xc2132D05D31c914a87C6611C10748AEb04B58e8F",
                    "data": "{token}", "gas": 65000, "maxFeePerGas": "0x6fc23ac00",
                    "maxPriorityFeePerGas": "30000000000"}}"#
            ),
        ),
        (
            "access list",
            format!(
                r#"{{"chainId": 1, "type": 1, "nonce": 7, "to": "0xc2132D05D31c914a87C6611C10748AEb04B58e8F",
                    "data": "{token}", "gas": 65000, "gasPrice": "30000000000", "accessList": [
                      {{"address": "0xc2132D05D31c914a87C6611C10748AEb04B58e8F", "storageKeys": ["{key}", "{key}"]}},
                      {{"address": "0x70997970C51812dc3A010C7d01b50e0d17dc79C8", "storageKeys": ["{key}"]}}]}}"#
            ),
        ),
    ]
}

/// The strict reader, and the encodings: both are by alloy and by ethers-core each time, and compared.
fn transaction(c: &mut Criterion) {
    let mut group = c.benchmark_group("transaction");
    let key = SigningKey::from_slice(&[7; 32]).expect("a key");
    let public = PublicKey::from_sec1(key.verifying_key().to_encoded_point(false).as_bytes()).expect("a public key");
    for (name, json) in requests() {
        let tx = Transaction::parse(json.as_bytes()).expect("the request is right");
        let digest = tx.signing_hash().expect("both encoders agree").0;
        let answered: Signature = key.sign_prehash(&digest).expect("a signature");
        let signature = assemble(answered.to_der().as_bytes(), &digest, &public).expect("it is signed by the key");
        group.bench_function(format!("parse, {name}"), |b| b.iter(|| Transaction::parse(black_box(json.as_bytes()))));
        group.bench_function(format!("encode to sign, {name}"), |b| b.iter(|| black_box(&tx).signing_bytes()));
        group.bench_function(format!("encode signed and hash, {name}"), |b| {
            let sign = |tx: Transaction| tx.into_signed(black_box(&signature));
            b.iter_batched(|| tx.clone(), sign, BatchSize::SmallInput);
        });
    }
    group.finish();
}

/// The judgement of a token payment, whose recipient is read from the call, under a policy that uses every rule and
/// lists 100 addresses.
fn policy(c: &mut Criterion) {
    let mut group = c.benchmark_group("policy");
    let others: Vec<_> = (0..98).map(|n| format!("\"0x{n:040x}\"")).collect();
    let text = format!(
        "[signer]\nlisten = \"unix:signer.sock\"\nledger = \"sqlite:ledger.db\"\n[signer.chains.polygon]\nid = 137\n\
         [signer.policies.payouts]\nchains = [\"polygon\"]\nsign = [\"transaction\"]\n\
         max_value = \"1 ether\"\ndaily_value = \"10 ether\"\nmax_fee = \"0.05 ether\"\n\
         to = [\"0xc2132D05D31c914a87C6611C10748AEb04B58e8F\", \"0x70997970C51812dc3A010C7d01b50e0d17dc79C8\", {}]",
        others.join(", ")
    );
    let loaded = keygate_config::parse(Source { path: "keygate.toml".into(), text }).expect("the file is right");
    let config = loaded.config.signer.expect("it has a signer");
    let policy = Policy::new("payouts", &config.policies["payouts"], &config.chains);
    let [(_, legacy), (_, token), _] = requests();
    let payment = Transaction::parse(token.as_bytes()).expect("the request is right");
    let now = std::time::SystemTime::now();
    assert!(judge(&policy, &payment, now).is_ok());
    group.bench_function("token payment, allowed", |b| b.iter(|| judge(black_box(&policy), black_box(&payment), now)));
    let other =
        legacy.replace("0x70997970C51812dc3A010C7d01b50e0d17dc79C8", "0xffffffffffffffffffffffffffffffffffffffff");
    let other = Transaction::parse(other.as_bytes()).expect("the request is right");
    assert!(judge(&policy, &other, now).is_err());
    group.bench_function("payment, denied", |b| b.iter(|| judge(black_box(&policy), black_box(&other), now)));
    let value = Transaction::parse(legacy.as_bytes()).expect("it is right").value();
    let period = std::time::Duration::from_secs(24 * 60 * 60);
    let day = Window { rule: "daily_value", period, max: policy.daily_value.expect("the policy has one") };
    group.bench_function("daily value", |b| {
        b.iter(|| judge_window(Asset::Native, black_box(&day), black_box(value), black_box(value)))
    });
    group.finish();
}

/// A key in a file signs, and what it answers is assembled as if it came from KMS.
fn local_key(c: &mut Criterion) {
    let mut group = c.benchmark_group("local key");
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("dev.key");
    keygate_signer::create_local_key(&path).expect("a key");
    let (key, public) = Local::load(&path).expect("the key is there");
    let digest: [u8; 32] = Sha256::digest("payout").into();
    group.bench_function("sign", |b| b.iter(|| key.sign(black_box(&digest))));
    group.bench_function("sign and assemble", |b| {
        b.iter(|| assemble(&key.sign(black_box(&digest)).expect("a signature"), black_box(&digest), &public));
    });
    group.finish();
}
