//! Transactions as blocks show them: whose they are, their signatures say, and not the node.

use alloy_consensus::{EthereumTxEnvelope, EthereumTypedTransaction, SignableTransaction, Transaction as _, TxEip4844};
use alloy_primitives::{Address, B256};
use serde_json::value::RawValue;

use crate::key::PublicKey;
use crate::signature::Signature;

/// The hash of the transaction that a node shows as JSON, if `sender` has signed it, with this nonce, for this chain; of
/// type 0 also if for no chain (before EIP-155).
pub(super) fn hash_if_of(sender: Address, chain_id: u64, nonce: u64, json: &RawValue) -> Option<B256> {
    let shown: EthereumTxEnvelope<TxEip4844> = serde_json::from_str(json.get()).ok()?;
    let signature = *shown.signature();
    let shown = shown.into_typed_transaction();
    // Some nodes leave the chain of type 0 to `v`.
    let protected = match &shown {
        EthereumTypedTransaction::Legacy(legacy) if legacy.chain_id.is_none() => {
            let mut legacy = legacy.clone();
            legacy.chain_id = Some(chain_id);
            Some(legacy.into())
        }
        _ => None,
    };
    let (r, s) = (signature.r().to_be_bytes(), signature.s().to_be_bytes());
    let checked = Signature::from_parts(r, s, signature.v())?;
    let is_signed = |tx: &EthereumTypedTransaction<TxEip4844>| {
        let signer = PublicKey::recover(&tx.signature_hash(), &checked).map(|key| key.address());
        tx.nonce() == nonce && tx.chain_id().is_none_or(|id| id == chain_id) && signer == Some(sender)
    };
    // What the node says is its hash is not taken either.
    [Some(shown), protected].into_iter().flatten().find(is_signed).map(|tx| tx.tx_hash(&signature))
}

#[cfg(test)]
pub(super) mod tests {
    use alloy_primitives::U256;
    use k256::ecdsa::SigningKey;
    use serde_json::{Value, json};

    use super::*;
    use crate::authorization::tests::authorization;
    use crate::signature::assemble;
    use crate::transaction::Transaction;

    /// Of the private key 0x4646..., in the example of EIP-155.
    pub(in crate::chain) const SENDER: &str = "0x9d8A62f656a8d1615C1294fd71e9CFb3E4855A4F";

    fn hash(chain_id: u64, nonce: u64, json: &Value) -> Option<B256> {
        hash_if_of(SENDER.parse().unwrap(), chain_id, nonce, &RawValue::from_string(json.to_string()).unwrap())
    }

    /// As geth and Hardhat show it.
    fn eip_155() -> Value {
        json!({
            "blockHash": B256::ZERO, "blockNumber": "0x1", "transactionIndex": "0x0", "from": SENDER, "type": "0x0",
            "hash": "0x33469b22e9f636356c4160a87eb19df52b7412e8eac32a4a55ffe88ea8350788", "chainId": "0x1",
            "nonce": "0x9", "to": "0x3535353535353535353535353535353535353535", "value": "0xde0b6b3a7640000",
            "gas": "0x5208", "gasPrice": "0x4a817c800", "input": "0x", "v": "0x25",
            "r": "0x28ef61340bd939bc2195fe537567866003e1a15d3c71ff63e1590620aa636276",
            "s": "0x67cbe9d8997f761aecb703304b3800ccf555c9f3dc64214b297fb1966a3b6d83",
        })
    }

    fn with(field: &str, value: impl Into<Value>) -> Value {
        let mut json = eip_155();
        json[field] = value.into();
        json
    }

    #[test]
    fn what_the_key_has_signed_is_its_own_whatever_else_is_said() {
        let known: B256 = "0x33469b22e9f636356c4160a87eb19df52b7412e8eac32a4a55ffe88ea8350788".parse().unwrap();
        assert_eq!(hash(1, 9, &eip_155()), Some(known));
        assert_eq!(hash(1, 9, &with("hash", B256::ZERO.to_string())), Some(known));
        assert_eq!(hash(1, 9, &with("chainId", Value::Null)), Some(known));
        for other in [
            with("nonce", "0xa"),
            with("value", "0x1"),
            with("chainId", "0x2"),
            with("v", "0x26"),
            with("r", "0x1"),
            with("s", "0x0"),
            with("type", "0x2"),
            json!({ "hash": known, "from": SENDER, "nonce": "0x9" }),
        ] {
            assert_eq!(hash(1, 9, &other), None, "{other}");
        }
        assert_eq!((hash(2, 9, &eip_155()), hash(1, 8, &eip_155())), (None, None));
    }

    /// `r`, `s` and `v` of what a transaction has signed, by the example's key.
    fn signed(mut json: Value, digest: B256) -> Value {
        let key = SigningKey::from_slice(&[0x46; 32]).unwrap();
        let public = PublicKey::from_sec1(key.verifying_key().to_encoded_point(false).as_bytes()).unwrap();
        let (signature, _) = key.sign_prehash_recoverable(digest.as_slice()).unwrap();
        let signature = assemble(signature.to_der().as_bytes(), &digest, &public).unwrap();
        let (r, s) = (B256::from(*signature.r()), B256::from(*signature.s()));
        (json["r"], json["s"]) = (r.to_string().into(), s.to_string().into());
        let typed = json["type"] != "0x0";
        json["v"] = format!("{:#x}", u8::from(signature.y_odd()) + if typed { 0 } else { 27 }).into();
        json["hash"] = B256::ZERO.to_string().into();
        json
    }

    /// A transaction by the example's key, as nodes show it, and its hash.
    pub(in crate::chain) fn by_example(chain_id: u64, nonce: u64) -> (Value, B256) {
        let tx = alloy_consensus::TxLegacy { chain_id: Some(chain_id), nonce, ..Default::default() };
        let json = json!({ "type": "0x0", "from": SENDER, "chainId": format!("{chain_id:#x}"), "nonce": format!("{nonce:#x}"),
                           "gas": "0x0", "gasPrice": "0x0", "to": null, "value": "0x0", "input": "0x" });
        let mut json = signed(json, tx.signature_hash());
        let parity = u64::from_str_radix(&json["v"].as_str().unwrap()[2..], 16).unwrap() - 27;
        json["v"] = format!("{:#x}", chain_id * 2 + 35 + parity).into();
        let hash = hash(chain_id, nonce, &json).unwrap();
        json["hash"] = hash.to_string().into();
        (json, hash)
    }

    #[test]
    fn of_all_types() {
        // Before EIP-155: good for any chain.
        let legacy = alloy_consensus::TxLegacy { nonce: 9, gas_price: 7, gas_limit: 21000, ..Default::default() };
        let shown = json!({ "type": "0x0", "nonce": "0x9", "gas": "0x5208", "gasPrice": "0x7", "to": null,
                            "value": "0x0", "input": "0x" });
        let shown = signed(shown, legacy.signature_hash());
        assert!(hash(1, 9, &shown).is_some() && hash(7, 9, &shown).is_some() && hash(1, 8, &shown).is_none());
        let to = "0x3535353535353535353535353535353535353535";
        let mut delegation = authorization(U256::ONE, Address::repeat_byte(1), 0, 7);
        let parity = if delegation["yParity"] == 1 { "0x1" } else { "0x0" };
        for (field, value) in [("chainId", "0x1"), ("nonce", "0x0"), ("yParity", parity)] {
            delegation[field] = value.into();
        }
        let fees = json!({ "maxFeePerGas": "0x7", "maxPriorityFeePerGas": "0x1" });
        for (kind, own) in [
            ("0x1", json!({ "gasPrice": "0x7" })),
            ("0x2", fees.clone()),
            ("0x3", json!({ "maxFeePerBlobGas": "0x7", "blobVersionedHashes": [format!("0x01{}", "ab".repeat(31))] })),
            ("0x4", json!({ "authorizationList": [delegation] })),
        ] {
            let mut body = json!({ "type": kind, "chainId": "0x1", "nonce": "0x9", "to": to, "value": "0x1", "gas": "0x5208",
                                   "data": "0x1234", "accessList": [] });
            for own in [&own, if kind == "0x1" { &own } else { &fees }] {
                body.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
            }
            let tx = Transaction::parse(body.to_string().as_bytes()).unwrap();
            // As nodes show it: what it paid is its gas price as well.
            body["input"] = body.as_object_mut().unwrap().remove("data").unwrap();
            body["gasPrice"] = "0x7".into();
            let shown = signed(body, tx.signing_hash().unwrap());
            assert!(hash(1, 9, &shown).is_some(), "{shown}");
            assert_eq!((hash(1, 8, &shown), hash(2, 9, &shown)), (None, None));
        }
    }
}
