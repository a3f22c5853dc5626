//! The published vectors of ethers (`@ethersproject/testcases`): what is signed, and the signed transaction.
//!
//! The vectors' signatures are RFC 6979's, so that signing the digest again gives the very same bytes.

use std::collections::BTreeMap;
use std::process::Command;

use k256::ecdsa::signature::hazmat::PrehashSigner;
use k256::ecdsa::{Signature, SigningKey};
use keygate_signer::key::PublicKey;
use keygate_signer::signature::assemble;
use keygate_signer::transaction::Transaction;
use keygate_signer::typed_data::TypedData;
use serde_json::{Map, Value, json};

use crate::support::{parts, run};

/// A vector, in the API's words.
struct Vector {
    name: String,
    request: Map<String, Value>,
    private_key: String,
    address: String,
    unsigned: String,
    signed: String,
}

#[test]
fn transactions_before_eip_2718() {
    let vectors = read("transactions").into_iter().map(|vector| {
        let text = |name: &str| vector[name].as_str().unwrap_or_default().to_owned();
        let request = request(0, 5, |name| {
            // These write zero as "0x", and some numbers with leading zeros.
            let digits = text(name);
            let digits = digits.trim_start_matches("0x");
            (!digits.is_empty()).then(|| match name {
                "to" | "data" => json!(format!("0x{digits}")),
                _ => quantity(digits),
            })
        });
        Vector {
            name: text("name"),
            request,
            private_key: text("privateKey"),
            address: text("accountAddress"),
            unsigned: text("unsignedTransactionChainId5"),
            signed: text("signedTransactionChainId5"),
        }
    });
    check(vectors.collect(), &[("data", 16), ("gas", 83)], 968);
}

#[test]
fn typed_transactions() {
    let vectors = read("typed-transactions").into_iter().map(|vector| {
        let text = |name: &str| vector[name].as_str().expect("a string").to_owned();
        let tx = &vector["tx"];
        let chain_id = tx["chainId"].as_u64().unwrap_or(0);
        let request = request(tx["type"].as_u64().expect("a type"), chain_id, |name| {
            let value = tx.get(name).filter(|value| !value.is_null())?;
            Some(match (name, value.as_str()) {
                ("to" | "data", _) | (_, None) => value.clone(),
                (_, Some(hex)) => quantity(hex.trim_start_matches("0x")),
            })
        });
        Vector {
            name: text("name"),
            request,
            private_key: text("key"),
            address: text("address"),
            unsigned: text("unsigned"),
            signed: text("signed"),
        }
    });
    check(vectors.collect(), &[("chainId", 384), ("data", 96)], 1312);
}

/// Of many, the domain has no chain id: every policy denies those, whose digest is a digest still.
#[test]
fn typed_data() {
    let vectors = read("eip712");
    let (mut without_chain, mut signed) = (0, 0);
    for vector in &vectors {
        let body = json!({
            "types": vector["types"], "primaryType": vector["primaryType"], "domain": vector["domain"],
            "message": vector["data"],
        });
        let data = TypedData::parse(body.to_string().as_bytes()).unwrap_or_else(|error| panic!("{error}: {vector}"));
        let digest = data.signing_hash().expect("both agree");
        assert_eq!(digest.to_string(), vector["digest"], "{vector}");
        if let (Some(key), Some(expected)) = (vector["privateKey"].as_str(), vector["signature"].as_str()) {
            let signature = rfc6979(key, &digest.0).1;
            assert_eq!(format!("0x{}", hex::encode(signature.to_bytes())), expected, "{vector}");
            signed += 1;
        }
        without_chain += usize::from(data.chain_id().is_none());
    }
    assert_eq!((vectors.len(), without_chain, signed), (1025, 486, 1));
}

/// Every vector is either encoded and signed to the byte, or refused for one of `refused`, so many times each.
fn check(vectors: Vec<Vector>, refused: &[(&str, usize)], signed: usize) {
    let mut counts = BTreeMap::new();
    for vector in vectors {
        let body = Value::Object(vector.request.clone()).to_string();
        let found = match (Transaction::parse(body.as_bytes()), expected_refusal(&vector.request)) {
            (Ok(tx), None) => {
                sign(&vector, tx);
                "signed"
            }
            (Err(error), Some(field)) if error.field.as_deref() == Some(field) => field,
            (parsed, expected) => panic!("{}: {expected:?} expected, {parsed:?}: {body}", vector.name),
        };
        *counts.entry(found).or_insert(0) += 1;
    }
    let expected: BTreeMap<_, _> = refused.iter().copied().chain([("signed", signed)]).collect();
    assert_eq!(counts, expected);
}

fn sign(vector: &Vector, tx: Transaction) {
    let name = &vector.name;
    let hex = |bytes: &[u8]| format!("0x{}", hex::encode(bytes));
    assert_eq!(hex(&tx.signing_bytes().expect("encoders that agree")), vector.unsigned, "{name}");
    let digest = tx.signing_hash().expect("encoders that agree");
    let (public, signature) = rfc6979(&vector.private_key, &digest.0);
    assert_eq!(public.address().to_string().to_lowercase(), vector.address, "{name}");
    let signed = tx.into_signed(&signature).expect("encoders that agree");
    assert_eq!(hex(&signed.raw), vector.signed, "{name}");
}

/// A key, and what comes of its signature.
fn rfc6979(private_key: &str, digest: &[u8; 32]) -> (PublicKey, keygate_signer::signature::Signature) {
    let key = hex::decode(private_key.trim_start_matches("0x")).expect("hex");
    let key = SigningKey::from_slice(&key).expect("a key");
    let public = PublicKey::from_sec1(key.verifying_key().to_encoded_point(false).as_bytes()).expect("a point");
    let der: Signature = key.sign_prehash(digest).expect("a signature");
    let signature = assemble(der.to_der().as_bytes(), digest, &public).expect("a signature of this key");
    (public, signature)
}

/// The field for which keygate signs no such transaction, though ethers does.
fn expected_refusal(request: &Map<String, Value>) -> Option<&'static str> {
    let digits = |name: &str| request.get(name).and_then(Value::as_str).map_or(0, |text| text.len() - 2);
    if request["chainId"] == 0 {
        // A signature for every chain at once.
        Some("chainId")
    } else if digits("gas") > 16 {
        Some("gas")
    } else if digits("to") == 0 && digits("data") == 0 {
        // A contract without code: money thrown away.
        Some("data")
    } else {
        None
    }
}

/// What `field` does not have is zero, empty, or left out, as ethers takes it.
fn request(kind: u64, chain_id: u64, field: impl Fn(&str) -> Option<Value>) -> Map<String, Value> {
    let mut request = Map::from_iter([("type".into(), json!(kind)), ("chainId".into(), json!(chain_id))]);
    let number = |name: &str| field(name).unwrap_or_else(|| json!(0));
    request.insert("nonce".into(), number("nonce"));
    request.insert("gas".into(), number("gasLimit"));
    let prices: &[&str] = if kind == 2 { &["maxFeePerGas", "maxPriorityFeePerGas"] } else { &["gasPrice"] };
    request.extend(prices.iter().map(|name| ((*name).to_owned(), number(name))));
    for name in ["to", "value", "data", "accessList"] {
        request.extend(field(name).map(|value| (name.to_owned(), value)));
    }
    request
}

/// As the API wants it: without leading zeros.
fn quantity(digits: &str) -> Value {
    let digits = digits.trim_start_matches('0');
    json!(format!("0x{}", if digits.is_empty() { "0" } else { digits }))
}

fn read(name: &str) -> Vec<Value> {
    let file = parts().join(format!("node_modules/@ethersproject/testcases/testcases/{name}.json.gz"));
    run(Command::new("gzip").arg("-dc").arg(file), b"").json().as_array().expect("a list").clone()
}
