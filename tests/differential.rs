//! Random transactions of every type, messages, typed data and authorizations: keygate signs to the byte what ethers and
//! eth-account do. All three sign as RFC 6979 says, so that the same bytes have the same signature.

use k256::ecdsa::signature::hazmat::PrehashSigner;
use k256::ecdsa::{Signature as Ecdsa, SigningKey};
use keygate_signer::authorization::Authorization;
use keygate_signer::key::PublicKey;
use keygate_signer::message::Message;
use keygate_signer::signature::{Signature, assemble};
use keygate_signer::transaction::Transaction;
use keygate_signer::typed_data::TypedData;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::support::{run, sign_with_eth_account, sign_with_ethers};

/// Of each type of transaction, and of each other kind.
const EACH: usize = 60;

#[test]
fn the_same_as_ethers_and_eth_account() {
    let mut random = Random::new("keygate differential 1");
    let mut jobs = Vec::new();
    for _ in 0..EACH {
        for kind in 0..=4 {
            jobs.push(job(&mut random, "transaction", |random| random.transaction(kind)));
        }
        jobs.push(job(&mut random, "message", Random::message));
        jobs.push(job(&mut random, "typed-data", Random::typed_data));
        jobs.push(job(&mut random, "authorization", Random::authorization));
    }
    let input = Value::Array(jobs.clone()).to_string();
    let (ethers, eth_account) = std::thread::scope(|scope| {
        let python = scope.spawn(|| run(&mut sign_with_eth_account(), input.as_bytes()).json());
        let node = run(&mut sign_with_ethers(), input.as_bytes()).json();
        (node, python.join().expect("an answer"))
    });
    for (i, job) in jobs.iter().enumerate() {
        let ours = sign(job);
        for (name, theirs) in [("ethers", &ethers[i]), ("eth-account", &eth_account[i])] {
            let theirs = theirs.as_object().filter(|theirs| !theirs.is_empty());
            let theirs = theirs.unwrap_or_else(|| panic!("{name} gives nothing for {job}"));
            for (field, value) in theirs {
                assert_eq!(ours[field], *value, "{field} of {name} for {job}");
            }
        }
    }
}

fn job(random: &mut Random, kind: &str, of: impl FnOnce(&mut Random) -> Value) -> Value {
    json!({ "kind": kind, "key": random.hex(32), "of": of(random) })
}

/// As keygate does with a key in a file: digest, and signature or raw transaction.
fn sign(job: &Value) -> Value {
    let key = hex::decode(job["key"].as_str().expect("a key").trim_start_matches("0x")).expect("hex");
    let key = SigningKey::from_slice(&key).expect("a key");
    let body = job["of"].to_string();
    let body = body.as_bytes();
    let read = |error| -> ! { panic!("{error}: {job}") };
    let digest = match job["kind"].as_str() {
        Some("transaction") => {
            let tx = Transaction::parse(body).unwrap_or_else(|error| read(error));
            let digest = tx.signing_hash().expect("encoders that agree");
            let signed = tx.into_signed(&signature(&key, &digest.0)).expect("encoders that agree");
            return json!({ "digest": digest.to_string(), "raw": format!("0x{}", hex::encode(signed.raw)) });
        }
        Some("message") => Message::parse(body).unwrap_or_else(|error| read(error)).signing_hash(),
        Some("typed-data") => {
            let data = TypedData::parse(body).unwrap_or_else(|error| read(error));
            data.signing_hash().expect("both agree")
        }
        _ => {
            let authorization = Authorization::parse(body).unwrap_or_else(|error| read(error));
            authorization.signing_hash().expect("encoders that agree")
        }
    };
    let signature = signature(&key, &digest.0).to_bytes();
    json!({ "digest": digest.to_string(), "signature": format!("0x{}", hex::encode(signature)) })
}

fn signature(key: &SigningKey, digest: &[u8; 32]) -> Signature {
    let public = PublicKey::from_sec1(key.verifying_key().to_encoded_point(false).as_bytes()).expect("a point");
    let der: Ecdsa = key.sign_prehash(digest).expect("a signature");
    assemble(der.to_der().as_bytes(), digest, &public).expect("a signature of this key")
}

/// What is random, and the same in every run.
struct Random {
    seed: &'static str,
    count: u64,
}

impl Random {
    fn new(seed: &'static str) -> Self {
        Self { seed, count: 0 }
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < length {
            self.count += 1;
            bytes.extend(Sha256::new().chain_update(self.seed).chain_update(self.count.to_be_bytes()).finalize());
        }
        bytes.truncate(length);
        bytes
    }

    fn hex(&mut self, length: usize) -> String {
        format!("0x{}", hex::encode(self.bytes(length)))
    }

    fn below(&mut self, bound: usize) -> usize {
        let bytes = self.bytes(8).try_into().expect("eight");
        usize::try_from(u64::from_be_bytes(bytes) % bound as u64).expect("below the bound")
    }

    /// Of any number of bits up to `bits`, which is 128 at most: 0 as often as any.
    fn number(&mut self, bits: u32) -> u128 {
        let used = u32::try_from(self.below(bits as usize + 1)).expect("few");
        let value = u128::from_be_bytes(self.bytes(16).try_into().expect("sixteen"));
        if used == 0 { 0 } else { value >> (128 - used) }
    }

    fn quantity(&mut self, bits: u32) -> Value {
        json!(self.number(bits).to_string())
    }

    /// With its checksum, as ethers wants it.
    fn address(&mut self) -> Value {
        json!(keygate_signer::Address::from_slice(&self.bytes(20)).to_checksum(None))
    }

    fn data(&mut self) -> Value {
        let length = self.below(3) * self.below(100);
        json!(self.hex(length))
    }

    fn list(&mut self, most: usize, mut item: impl FnMut(&mut Self) -> Value) -> Value {
        (0..self.below(most + 1)).map(|_| item(self)).collect()
    }

    fn text(&mut self) -> String {
        let length = self.below(40);
        self.bytes(length)
            .into_iter()
            .map(|b| ['a', 'Z', '0', '"', '\\', ' ', 'é', '\u{1f980}'][usize::from(b % 8)])
            .collect()
    }

    fn transaction(&mut self, kind: u64) -> Value {
        let chain_id = self.number(52).max(1).to_string();
        let mut tx = json!({
            "type": kind, "chainId": chain_id, "nonce": self.quantity(52), "gas": self.quantity(60),
            "value": self.quantity(128), "data": self.data(), "to": self.address(),
        });
        if kind < 3 && self.below(5) == 0 {
            tx["to"] = Value::Null;
            tx["data"] = json!(format!("0x60{}", hex::encode(self.bytes(9))));
        }
        if tx["to"].is_null() {
            tx.as_object_mut().expect("an object").remove("to");
        }
        if kind < 2 {
            tx["gasPrice"] = self.quantity(100);
        } else {
            let (one, other) = (self.number(100), self.number(100));
            tx["maxFeePerGas"] = json!(one.max(other).to_string());
            tx["maxPriorityFeePerGas"] = json!(one.min(other).to_string());
        }
        if kind > 0 {
            tx["accessList"] = self.list(2, |random| {
                let keys = random.list(2, |random| json!(random.hex(32)));
                json!({ "address": random.address(), "storageKeys": keys })
            });
        }
        if kind == 3 {
            tx["maxFeePerBlobGas"] = self.quantity(100);
            let hashes = 1 + self.below(6);
            tx["blobVersionedHashes"] = (0..hashes).map(|_| json!(format!("0x01{}", &self.hex(31)[2..]))).collect();
        }
        if kind == 4 {
            let authorizations = 1 + self.below(3);
            tx["authorizationList"] = (0..authorizations).map(|_| self.signed_authorization(&chain_id)).collect();
        }
        tx
    }

    fn authorization(&mut self) -> Value {
        json!({ "chainId": self.number(52).max(1).to_string(), "address": self.address(), "nonce": self.quantity(52) })
    }

    /// By some key, for this chain or for all.
    fn signed_authorization(&mut self, chain_id: &str) -> Value {
        let mut authorization = self.authorization();
        authorization["chainId"] = json!(chain_id);
        let signed = sign(&json!({ "kind": "authorization", "key": self.hex(32), "of": authorization }));
        let signature = signed["signature"].as_str().expect("a signature");
        authorization["r"] = json!(signature[..66]);
        authorization["s"] = json!(format!("0x{}", &signature[66..130]));
        authorization["yParity"] = json!(u8::from(signature.ends_with("1c")));
        authorization
    }

    fn message(&mut self) -> Value {
        match self.below(2) {
            0 => json!({ "message": self.text() }),
            _ => json!({ "message": self.data(), "encoding": "hex" }),
        }
    }

    /// A struct of some fields, some of them structs and arrays; all that a domain can have, or less.
    fn typed_data(&mut self) -> Value {
        let (mut outer, mut message) = (Vec::new(), Map::new());
        // Both types are used, whatever else there is.
        for i in 0..=self.below(6) {
            let (kind, value) = if i == 0 { self.inner() } else { self.field() };
            outer.push(json!({ "name": format!("f{i}"), "type": kind }));
            message.insert(format!("f{i}"), value);
        }
        let domain = [
            ("name", "string", json!(self.text())),
            ("version", "string", json!("1")),
            ("chainId", "uint256", json!(self.number(52).max(1).to_string())),
            ("verifyingContract", "address", self.address()),
            ("salt", "bytes32", json!(self.hex(32))),
        ];
        let domain: Vec<_> = domain.into_iter().filter(|(name, ..)| *name == "chainId" || self.below(2) == 0).collect();
        let fields: Value = domain.iter().map(|(name, kind, _)| json!({ "name": name, "type": kind })).collect();
        let domain: Map<_, _> = domain.into_iter().map(|(name, _, value)| (name.to_owned(), value)).collect();
        json!({
            "types": {
                "EIP712Domain": fields, "Outer": outer,
                "Inner": [{ "name": "text", "type": "string" }, { "name": "number", "type": "int256" }],
            },
            "primaryType": "Outer", "domain": domain, "message": message,
        })
    }

    fn inner(&mut self) -> (String, Value) {
        ("Inner".into(), json!({ "text": self.text(), "number": format!("-{}", self.number(128).max(1)) }))
    }

    fn field(&mut self) -> (String, Value) {
        match self.below(10) {
            0 => ("uint256".into(), self.quantity(128)),
            1 => ("uint8".into(), self.quantity(8)),
            2 => ("int64".into(), self.quantity(63)),
            3 => ("bool".into(), json!(self.below(2) == 0)),
            4 => ("address".into(), self.address()),
            5 => ("bytes".into(), self.data()),
            6 => ("bytes7".into(), json!(self.hex(7))),
            7 => ("string[]".into(), self.list(3, |random| json!(random.text()))),
            8 => ("uint8[2][]".into(), self.list(2, |random| json!([random.quantity(8), random.quantity(8)]))),
            _ => ("Inner[]".into(), self.list(2, |random| random.inner().1)),
        }
    }
}
