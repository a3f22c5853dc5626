//! Transactions signed by KMS, checked by two other libraries, and mined.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{RECIPIENT, Wallet, assert_problem, listening, merged, sign};
use crate::support::{Chain, Home, Identity, Kms, verify_with_eth_account, verify_with_ethers};

/// Half the order of secp256k1: no S may be above it (EIP-2).
const HALF_ORDER: &str = "0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0";

#[test]
fn every_type_is_signed_checked_and_mined() {
    let (wallet, chain) = (Wallet::new(), Chain::shared());
    let _signer = wallet.start();
    chain.fund(wallet.address());
    let access_list = json!([{ "address": RECIPIENT, "storageKeys": [format!("0x{}", "01".repeat(32))] }]);
    let no_fees = json!({ "maxFeePerGas": null, "maxPriorityFeePerGas": null });
    let with_price = |fields: &Value| {
        merged(wallet.payment(&merged(no_fees.clone(), &json!({ "gasPrice": "0x2540be400" }))), fields)
    };
    let transactions = [
        with_price(&json!({ "type": 0, "nonce": 0, "maxFeePerGas": null, "maxPriorityFeePerGas": null })),
        with_price(&json!({ "type": "1", "nonce": "0x1", "gas": "40000", "accessList": access_list })),
        wallet.payment(
            &json!({ "type": "0x2", "nonce": "2", "gas": 40_000, "accessList": access_list, "data": "0xc0ffee" }),
        ),
    ];
    for (nonce, transaction) in transactions.iter().enumerate() {
        let signed = wallet.signed(&format!("payout-{nonce}"), transaction);
        assert_eq!((&signed["from"], &signed["nonce"]), (&json!(wallet.address()), &json!(nonce)));
        assert_eq!(signed["chainId"], Chain::ID);
        let raw = signed["raw"].as_str().expect("raw");
        let ethers = verify_with_ethers(raw);
        let eth_account = verify_with_eth_account(raw);
        for seen in [&ethers, &eth_account] {
            assert_eq!((&seen["from"], &seen["hash"]), (&signed["from"], &signed["hash"]), "{seen}");
            assert_eq!((&seen["type"], &seen["to"]), (&json!(nonce), &json!(RECIPIENT)), "{seen}");
            assert_eq!(
                (&seen["nonce"], &seen["value"]),
                (&json!(nonce.to_string()), &json!("1000000000000000")),
                "{seen}"
            );
            assert_eq!(seen["chainId"], Chain::ID.to_string(), "{seen}");
            assert_eq!(seen["data"], if nonce == 2 { "0xc0ffee" } else { "0x" }, "{seen}");
            assert_eq!(seen["gas"], if nonce == 0 { "21000" } else { "40000" }, "{seen}");
            let price = if nonce == 2 { "maxFeePerGas" } else { "gasPrice" };
            assert_eq!(seen[price], "10000000000", "{seen}");
        }
        assert_eq!((&ethers["r"], &ethers["s"], &ethers["yParity"]), (&signed["r"], &signed["s"], &signed["yParity"]));
        assert_eq!(ethers["accessList"].as_array().map_or(0, Vec::len), usize::from(nonce != 0));
        if nonce == 2 {
            assert_eq!(ethers["maxPriorityFeePerGas"], "1000000000");
        }
        let hash = chain.send(raw).expect("the chain takes it");
        assert_eq!(hash, signed["hash"]);
        assert_eq!(chain.receipt(&hash)["status"], "0x1");
    }
    assert_eq!(chain.nonce(wallet.address()), 3);
}

/// KMS answers a high S half of the time: of 24 in a row, one in 16 million has none.
#[test]
fn every_signature_has_a_low_s() {
    let wallet = Wallet::new();
    let _signer = wallet.start();
    let (mut raws, mut parities) = (BTreeSet::new(), BTreeSet::new());
    for nonce in 0..24 {
        let signed = wallet.signed(&nonce.to_string(), &wallet.payment(&json!({ "nonce": nonce })));
        let s = signed["s"].as_str().expect("s");
        assert!(s.len() == HALF_ORDER.len() && s <= HALF_ORDER, "{s}");
        parities.insert(signed["yParity"].as_u64());
        raws.insert(signed["raw"].as_str().map(str::to_owned));
    }
    assert_eq!((raws.len(), parities), (24, BTreeSet::from([Some(0), Some(1)])));
    assert_eq!(
        (wallet.kms_signs(), Kms::shared().calls(&wallet.key, "GetPublicKey")),
        (24, 2),
        "once here, once in keygate"
    );
}

#[test]
fn a_contract_is_created() {
    let (wallet, chain) = (Wallet::with("allow_contract_creation = true"), Chain::shared());
    let _signer = wallet.start();
    chain.fund(wallet.address());
    // Returns one byte, 0xfe, as the contract's code.
    let create = wallet.payment(&json!({ "to": null, "value": 0, "gas": 100_000, "data": "0x60fe60005360016000f3" }));
    let signed = wallet.signed("create", &create);
    let hash = chain.send(signed["raw"].as_str().expect("raw")).expect("the chain takes it");
    let receipt = chain.receipt(&hash);
    assert_eq!(receipt["status"], "0x1");
    assert_eq!(chain.rpc("eth_getCode", &json!([receipt["contractAddress"], "latest"])), Ok(json!("0xfe")));
}

#[test]
fn a_local_key_signs_when_it_may() {
    let private_key = "0x0123456789012345678901234567890123456789012345678901234567890123";
    let home = Home::new(&super::keys::local("allow_local_keys = true"));
    home.secret("state/dev.key", private_key);
    home.secret("secrets/payments.token", super::TOKEN);
    let signer = listening(home.start("signer"));
    let wallet = Identity::of_private_key(private_key);
    let chain = Chain::shared();
    chain.fund(&wallet.address);
    let payment = json!({
        "chainId": Chain::ID, "type": 2, "nonce": 0, "to": RECIPIENT, "value": 1, "gas": 21_000,
        "maxFeePerGas": "10000000000", "maxPriorityFeePerGas": 1,
    });
    let answer = sign(&home, "dev", "one", &payment);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let signed = answer.json();
    assert_eq!(verify_with_ethers(signed["raw"].as_str().expect("raw"))["from"], wallet.address);
    chain.send(signed["raw"].as_str().expect("raw")).expect("the chain takes it");
    assert_problem(&sign(&home, "hot-wallet", "two", &payment), 403, "key-not-allowed");
    assert!(!signer.logs().contains(private_key.trim_start_matches("0x")));
}
