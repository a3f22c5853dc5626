//! The second opinion about a digest, straight from the text of EIP-712.

use std::collections::{BTreeMap, BTreeSet};

use alloy_dyn_abi::{DynSolValue, Eip712Domain};
use alloy_primitives::{B256, keccak256};

use super::types::Types;

/// `keccak256("\x19\x01" ‖ domainSeparator ‖ hashStruct(message))`.
pub(super) fn digest(types: &Types, domain: &Eip712Domain, message: &DynSolValue) -> B256 {
    let hash = Hashing { types, type_hashes: BTreeMap::new() }.word(message);
    keccak256([&b"\x19\x01"[..], &separator(domain).0, &hash.0].concat())
}

fn separator(domain: &Eip712Domain) -> B256 {
    let Eip712Domain { name, version, chain_id, verifying_contract, salt } = domain;
    let fields = [
        ("string name", name.as_ref().map(|text| keccak256(text.as_bytes()))),
        ("string version", version.as_ref().map(|text| keccak256(text.as_bytes()))),
        ("uint256 chainId", chain_id.map(B256::from)),
        ("address verifyingContract", verifying_contract.map(|address| address.into_word())),
        ("bytes32 salt", *salt),
    ];
    let there: Vec<_> = fields.into_iter().filter_map(|(field, word)| Some((field, word?))).collect();
    let names: Vec<_> = there.iter().map(|(field, _)| *field).collect();
    let mut data = keccak256(format!("EIP712Domain({})", names.join(","))).to_vec();
    data.extend(there.iter().flat_map(|(_, word)| word.0));
    keccak256(data)
}

struct Hashing<'a> {
    types: &'a Types,
    type_hashes: BTreeMap<&'a str, B256>,
}

impl Hashing<'_> {
    /// A value in 32 bytes: its own, or the hash of what is longer.
    fn word(&mut self, value: &DynSolValue) -> B256 {
        match value {
            DynSolValue::Bool(value) => B256::with_last_byte((*value).into()),
            DynSolValue::Int(value, _) => B256::from(value.to_be_bytes::<32>()),
            DynSolValue::Uint(value, _) => B256::from(value.to_be_bytes::<32>()),
            DynSolValue::FixedBytes(value, _) => *value,
            DynSolValue::Address(value) => value.into_word(),
            DynSolValue::Bytes(value) => keccak256(value),
            DynSolValue::String(value) => keccak256(value.as_bytes()),
            DynSolValue::Array(items) | DynSolValue::FixedArray(items) => keccak256(self.words(items)),
            DynSolValue::CustomStruct { name, tuple, .. } => {
                keccak256([&self.type_hash(name).0, self.words(tuple).as_slice()].concat())
            }
            // Typed data has neither; the other opinion does not agree.
            DynSolValue::Function(_) | DynSolValue::Tuple(_) => B256::ZERO,
        }
    }

    fn words(&mut self, values: &[DynSolValue]) -> Vec<u8> {
        values.iter().flat_map(|value| self.word(value).0).collect()
    }

    /// The struct, then the structs that it is made of, in the order of their names.
    fn type_hash(&mut self, name: &str) -> B256 {
        if let Some(hash) = self.type_hashes.get(name) {
            return *hash;
        }
        let (mut found, mut left) = (BTreeSet::new(), vec![name]);
        while let Some(name) = left.pop() {
            for of in self.types.fields(name).iter().filter_map(|field| field.kind.of()) {
                if found.insert(of) {
                    left.push(of);
                }
            }
        }
        found.remove(name);
        let text: String = std::iter::once(name).chain(found).map(|name| self.definition(name)).collect();
        let hash = keccak256(text);
        if let Some(name) = self.types.name(name) {
            self.type_hashes.insert(name, hash);
        }
        hash
    }

    fn definition(&self, name: &str) -> String {
        let fields = self.types.fields(name).iter().map(|field| format!("{} {}", field.written, field.name));
        format!("{name}({})", fields.collect::<Vec<_>>().join(","))
    }
}
