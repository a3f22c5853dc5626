use alloy_primitives::{Address, B256, U256, hex};
use k256::ecdsa::SigningKey;
use proptest::prelude::*;
use serde_json::{Value, json};

use alloy_consensus::TxEnvelope;
use alloy_eips::Decodable2718;

use super::*;
use crate::authorization::tests::authorization;
use crate::key::PublicKey;
use crate::signature::assemble;

/// Signs with a key of bytes `key`, as RFC 6979 makes every implementation do alike.
fn sign(tx: &Transaction, key: u8) -> SignedTransaction {
    let key = SigningKey::from_slice(&[key; 32]).unwrap();
    let public = PublicKey::from_sec1(key.verifying_key().to_encoded_point(false).as_bytes()).unwrap();
    let digest = tx.signing_hash().unwrap();
    let (signature, _) = key.sign_prehash_recoverable(digest.as_slice()).unwrap();
    tx.clone().into_signed(&assemble(signature.to_der().as_bytes(), &digest, &public).unwrap()).unwrap()
}

fn parse(json: &Value) -> Result<Transaction, FieldError> {
    Transaction::parse(json.to_string().as_bytes())
}

fn legacy() -> Value {
    json!({"chainId": 1, "type": 0, "nonce": 9, "to": "0x3535353535353535353535353535353535353535",
           "value": "1000000000000000000", "gas": 21000, "gasPrice": 20_000_000_000u64})
}

fn eip1559() -> Value {
    json!({"chainId": 137, "type": 2, "nonce": 7, "to": "0x3535353535353535353535353535353535353535",
           "value": "1000000000000000000", "data": "0x", "gas": 21000, "maxFeePerGas": "0x6fc23ac00",
           "maxPriorityFeePerGas": "30000000000"})
}

#[test]
fn the_example_of_eip_155() {
    let tx = parse(&legacy()).unwrap();
    assert_eq!(
        hex::encode(tx.signing_bytes().unwrap()),
        "ec098504a817c800825208943535353535353535353535353535353535353535880de0b6b3a764000080018080"
    );
    assert_eq!(
        hex::encode(tx.signing_hash().unwrap()),
        "daf5a779ae972f972197303d7b574746c7ef83eadac0f2791ad23db92e4c8e53"
    );
    let signed = sign(&tx, 0x46);
    assert_eq!(
        hex::encode(&signed.raw),
        "f86c098504a817c800825208943535353535353535353535353535353535353535880de0b6b3a76400008025a028ef61340bd939bc21\
         95fe537567866003e1a15d3c71ff63e1590620aa636276a067cbe9d8997f761aecb703304b3800ccf555c9f3dc64214b297fb1966a3b\
         6d83"
    );
    assert_eq!(hex::encode(signed.hash), "33469b22e9f636356c4160a87eb19df52b7412e8eac32a4a55ffe88ea8350788");
}

#[test]
fn so_much_gas_is_taken_by_anything() {
    let least = |fields: Value| {
        let mut tx = eip1559();
        tx.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        parse(&tx).unwrap().least_gas()
    };
    let slot = format!("0x{}", "00".repeat(32));
    let one = json!({ "address": "0x3535353535353535353535353535353535353535", "storageKeys": [slot, slot] });
    assert_eq!(least(json!({})), 21_000);
    assert_eq!(least(json!({ "data": "0x00ff01" })), 21_000 + 4 + 16 + 16);
    assert_eq!(
        least(json!({ "accessList": [one, { "address": one["address"], "storageKeys": [] }] })),
        21_000 + 4800 + 3800
    );
    assert_eq!(parse(&legacy()).unwrap().least_gas(), 21_000);
}

/// What eth-account 0.14 makes of the same transactions.
#[test]
fn the_same_as_eth_account() {
    let list = json!([{"address": "0x1111111111111111111111111111111111111111",
                       "storageKeys": [format!("0x{:064x}", 1), format!("0x{:064x}", 255)]},
                      {"address": "0x2222222222222222222222222222222222222222", "storageKeys": []}]);
    let mut type1 = legacy();
    type1["type"] = json!(1);
    type1["accessList"] = list.clone();
    type1["data"] = json!("0xdeadbeef");
    let mut type2 = eip1559();
    type2["accessList"] = list;
    let mut creation = eip1559();
    creation["to"] = Value::Null;
    creation["data"] = json!("0x6001600055");
    creation["nonce"] = json!(0);
    creation["value"] = json!(0);
    let mut wide = legacy();
    wide["chainId"] = json!("4503599627370476");
    for (tx, raw) in
        [(type1, TYPE_1), (eip1559(), TYPE_2), (type2, TYPE_2_LIST), (creation, TYPE_2_CREATION), (wide, TYPE_0_WIDE)]
    {
        assert_eq!(hex::encode(sign(&parse(&tx).unwrap(), 0x46).raw), raw, "{tx}");
    }
}

#[test]
fn quantities_are_written_in_three_ways() {
    for (written, means) in [
        (json!(0), 0),
        (json!("0"), 0),
        (json!("0x0"), 0),
        (json!(10), 10),
        (json!("10"), 10),
        (json!("0x10"), 16),
        (json!("0xAb"), 171),
        (json!(9_007_199_254_740_992u64), 1 << 53),
        (json!("18446744073709551614"), u64::MAX - 1),
        (json!("0xfffffffffffffffe"), u64::MAX - 1),
    ] {
        let mut tx = legacy();
        tx["nonce"] = written.clone();
        assert_eq!(parse(&tx).map(|tx| tx.nonce()), Ok(means), "{written}");
    }
    let mut tx = legacy();
    tx["value"] = json!(U256::MAX.to_string());
    assert_eq!(parse(&tx).unwrap().value(), U256::MAX);
}

#[test]
fn other_quantities_are_refused() {
    for written in [
        json!(-1),
        json!(1.0),
        json!(1e3),
        json!(9_007_199_254_740_993u64),
        json!(true),
        json!(null),
        json!([1]),
        json!({}),
        json!(""),
        json!(" 1"),
        json!("1 "),
        json!("+1"),
        json!("-1"),
        json!("01"),
        json!("00"),
        json!("1e3"),
        json!("1_0"),
        json!("1.0"),
        json!("0x"),
        json!("0x00"),
        json!("0x01"),
        json!("0X1"),
        json!("x1"),
        json!("ff"),
        json!("0xg"),
        json!("0x-1"),
        json!("0b11"),
        json!("0o7"),
        json!("\u{0661}"),
        json!("18446744073709551616"),
        json!("0x10000000000000000"),
        json!("9".repeat(100)),
        json!(format!("0x{}", "f".repeat(65))),
    ] {
        for field in ["nonce", "gas", "chainId", "type"] {
            let mut tx = legacy();
            tx[field] = written.clone();
            assert_eq!(parse(&tx).unwrap_err().field.as_deref(), Some(field), "{field} {written}");
        }
    }
}

#[test]
fn what_is_wrong_is_named() {
    let changed = |field: &str, value: Value| {
        let mut tx = eip1559();
        tx[field] = value;
        tx
    };
    let without = |field: &str| {
        let mut tx = eip1559();
        tx.as_object_mut().unwrap().remove(field);
        tx
    };
    let item = |item: Value| changed("accessList", json!([item]));
    let to = "0x1111111111111111111111111111111111111111";
    for (tx, field) in [
        (without("chainId"), "chainId"),
        (without("type"), "type"),
        (without("nonce"), "nonce"),
        (without("gas"), "gas"),
        (without("maxFeePerGas"), "maxFeePerGas"),
        (without("maxPriorityFeePerGas"), "maxPriorityFeePerGas"),
        (changed("chainId", json!(0)), "chainId"),
        (changed("chainId", json!("9223372036854775772")), "chainId"),
        (changed("type", json!(5)), "type"),
        (changed("type", json!("0x7e")), "type"),
        (changed("nonce", json!("18446744073709551615")), "nonce"),
        (changed("maxPriorityFeePerGas", json!("30000000001")), "maxPriorityFeePerGas"),
        (changed("maxFeePerGas", json!("340282366920938463463374607431768211456")), "maxFeePerGas"),
        (changed("gasPrice", json!(1)), "gasPrice"),
        (changed("value", json!(null)), "value"),
        (changed("value", json!(format!("0x1{}", "0".repeat(64)))), "value"),
        (changed("data", json!("")), "data"),
        (changed("data", json!("0x0")), "data"),
        (changed("data", json!("deadbeef")), "data"),
        (changed("data", json!("0xzz")), "data"),
        (changed("data", json!(null)), "data"),
        (without("to"), "data"),
        (changed("to", json!("")), "to"),
        (changed("to", json!("0x")), "to"),
        (changed("to", json!(&to[2..])), "to"),
        (changed("to", json!("vitalik.eth")), "to"),
        (changed("to", json!(format!("{to}1"))), "to"),
        (changed("to", json!("0x7E5F4552091A69125d5DfCb7b8C2659029395BdF")), "to"),
        (changed("input", json!("0x")), "input"),
        (changed("from", json!(to)), "from"),
        (changed("gasLimit", json!(21000)), "gasLimit"),
        (changed("maxfeepergas", json!(1)), "maxfeepergas"),
        (changed("accessList", json!(null)), "accessList"),
        (changed("accessList", json!({})), "accessList"),
        (item(json!(1)), "accessList[0]"),
        (item(json!({"storageKeys": []})), "accessList[0].address"),
        (item(json!({"address": to})), "accessList[0].storageKeys"),
        (item(json!({"address": "0x1", "storageKeys": []})), "accessList[0].address"),
        (item(json!({"address": to, "storageKeys": ["0x1234"]})), "accessList[0].storageKeys[0]"),
        (item(json!({"address": to, "storageKeys": [], "x": 1})), "accessList[0].x"),
    ] {
        let error = parse(&tx).expect_err(&tx.to_string());
        assert_eq!(error.field.as_deref(), Some(field), "{tx}: {error}");
        assert!(error.to_string().starts_with(&format!("{field}: ")), "{error}");
    }
}

#[test]
fn fields_belong_to_their_types() {
    for (kind, field, fine) in [
        (0, "maxFeePerBlobGas", false),
        (1, "blobVersionedHashes", false),
        (1, "blobs", false),
        (1, "authorizationList", false),
        (0, "maxFeePerGas", false),
        (0, "maxPriorityFeePerGas", false),
        (0, "accessList", false),
        (1, "maxFeePerGas", false),
        (1, "accessList", true),
    ] {
        let mut tx = legacy();
        tx["type"] = json!(kind);
        tx[field] = if field == "accessList" { json!([]) } else { json!(1) };
        match parse(&tx) {
            Ok(_) => assert!(fine, "{kind} {field}"),
            Err(error) => assert!(!fine && error.field.as_deref() == Some(field), "{kind} {error}"),
        }
    }
}

fn eip4844() -> Value {
    let mut tx = eip1559();
    tx["type"] = json!(3);
    tx["maxFeePerBlobGas"] = json!("7");
    tx["blobVersionedHashes"] = json!([format!("0x01{:062x}", 1), format!("0x01{:062x}", 2)]);
    tx
}

fn eip7702() -> Value {
    let mut tx = eip1559();
    tx["type"] = json!("0x4");
    tx["authorizationList"] = json!([
        authorization(U256::from(137), Address::repeat_byte(0x11), 5, 9),
        authorization(U256::ZERO, Address::ZERO, 0, 8)
    ]);
    tx
}

#[test]
fn what_is_wrong_with_blobs_and_authorizations_is_named() {
    let changed = |mut tx: Value, field: &str, value: Value| {
        tx[field] = value;
        tx
    };
    let authorization = |field: &str, value: Value| {
        let mut tx = eip7702();
        tx["authorizationList"][1][field] = value;
        tx
    };
    let order = "0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";
    for (tx, field) in [
        (changed(eip4844(), "to", Value::Null), "to"),
        (changed(eip4844(), "gasPrice", json!(1)), "gasPrice"),
        (changed(eip4844(), "maxFeePerBlobGas", json!("07")), "maxFeePerBlobGas"),
        (changed(eip4844(), "maxFeePerBlobGas", Value::Null), "maxFeePerBlobGas"),
        (changed(eip4844(), "blobVersionedHashes", json!([])), "blobVersionedHashes"),
        (changed(eip4844(), "blobVersionedHashes", json!(vec![format!("0x01{:062x}", 1); 7])), "blobVersionedHashes"),
        (changed(eip4844(), "blobVersionedHashes", json!([format!("0x02{:062x}", 1)])), "blobVersionedHashes[0]"),
        (changed(eip4844(), "blobVersionedHashes", json!([format!("0x01{:060x}", 1)])), "blobVersionedHashes[0]"),
        (changed(eip4844(), "authorizationList", json!([])), "authorizationList"),
        (changed(eip4844(), "blobs", json!([])), "commitments"),
        (changed(eip4844(), "proofs", json!([])), "blobs"),
        (changed(eip7702(), "to", Value::Null), "to"),
        (changed(eip7702(), "maxFeePerBlobGas", json!(1)), "maxFeePerBlobGas"),
        (changed(eip7702(), "authorizationList", json!([])), "authorizationList"),
        (changed(eip7702(), "authorizationList", Value::Null), "authorizationList"),
        (authorization("chainId", json!(1)), "authorizationList[1].chainId"),
        (authorization("chainId", json!("9223372036854775772")), "authorizationList[1].chainId"),
        (authorization("nonce", json!(u64::MAX.to_string())), "authorizationList[1].nonce"),
        (authorization("address", json!("0x7E5F4552091A69125d5DfCb7b8C2659029395BdF")), "authorizationList[1].address"),
        (authorization("yParity", json!(2)), "authorizationList[1].yParity"),
        (authorization("yParity", json!(27)), "authorizationList[1].yParity"),
        (authorization("r", json!("0x1")), "authorizationList[1].r"),
        (authorization("r", json!(format!("0x{:064x}", 0))), "authorizationList[1].s"),
        (authorization("s", json!(order)), "authorizationList[1].s"),
        (authorization("s", json!(order.replace("4141", "4140"))), "authorizationList[1].s"),
        // No point of the curve has x = 5.
        (authorization("r", json!(format!("0x{:064x}", 5))), "authorizationList[1]"),
        (authorization("v", json!(27)), "authorizationList[1].v"),
    ] {
        let error = parse(&tx).expect_err(&tx.to_string());
        assert_eq!(error.field.as_deref(), Some(field), "{tx}: {error}");
    }
    for tx in [eip4844(), eip7702()] {
        parse(&tx).unwrap();
    }
}

/// EIP-4844: 2^17 of gas a blob.
#[test]
fn fees_are_those_of_blobs_too() {
    let tx = parse(&eip4844()).unwrap();
    let gas = U256::from(21_000) * U256::from(30_000_000_000_u64);
    assert_eq!(tx.max_blob_fee(), U256::from(2 * 131_072 * 7));
    assert_eq!(tx.max_fee(), Some(gas + U256::from(2 * 131_072 * 7)));
    assert_eq!(parse(&eip7702()).unwrap().max_fee(), Some(gas));
    assert!(parse(&eip7702()).unwrap().delegates().eq([Address::repeat_byte(0x11), Address::ZERO]));
    let mut most = eip4844();
    most["gas"] = json!("0xffffffffffffffff");
    for price in ["maxFeePerGas", "maxFeePerBlobGas"] {
        most[price] = json!(u128::MAX.to_string());
    }
    assert!(parse(&most).unwrap().max_fee().is_some_and(|fee| fee > U256::from(u128::MAX)));
}

#[test]
fn what_is_no_object_is_refused() {
    let good = eip1559().to_string();
    assert!(Transaction::parse(good.as_bytes()).is_ok());
    let twice = good.replacen('{', "{\"nonce\":8,", 1);
    assert_eq!(Transaction::parse(twice.as_bytes()).unwrap_err().field.as_deref(), Some("nonce"));
    let same_twice = good.replacen('{', "{\"\\u006eonce\":7,", 1);
    assert_eq!(Transaction::parse(same_twice.as_bytes()).unwrap_err().field.as_deref(), Some("nonce"));
    for bad in ["", "null", "[]", "\"x\"", "{", &format!("{good} {good}"), &good[1..], "{\"a\":\"\\ud800\"}"] {
        assert_eq!(Transaction::parse(bad.as_bytes()).unwrap_err().field, None, "{bad}");
    }
    assert_eq!(Transaction::parse(b"{\"a\":\"\xff\"}").unwrap_err().field, None);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(20_000));
    assert_eq!(Transaction::parse(deep.as_bytes()).unwrap_err().field, None);
    let long = format!("{good}{}", " ".repeat(MAX_BODY));
    assert!(Transaction::parse(long.as_bytes()).unwrap_err().problem.contains("longer"));
}

#[test]
fn what_is_left_out() {
    let mut tx = eip1559();
    tx.as_object_mut().unwrap().remove("value");
    tx.as_object_mut().unwrap().remove("data");
    let tx = parse(&tx).unwrap();
    assert_eq!((tx.value(), tx.data().len()), (U256::ZERO, 0));
}

/// Any transaction, as JSON: amounts often at the edges of their encodings.
pub(crate) fn any_transaction() -> impl Strategy<Value = Value> {
    let bits = |most: u32| {
        (0..=most, any::<[u8; 32]>()).prop_map(|(bits, bytes)| {
            let value = U256::from_be_bytes(bytes);
            if bits == 0 { U256::ZERO } else { value >> (256 - bits as usize) }
        })
    };
    let data =
        prop_oneof![Just(vec![]), any::<[u8; 1]>().prop_map(Vec::from), prop::collection::vec(any::<u8>(), 0..300)];
    let to = prop_oneof![4 => any::<[u8; 20]>().prop_map(Some), 1 => Just(None)];
    let list = prop::collection::vec((any::<[u8; 20]>(), prop::collection::vec(any::<[u8; 32]>(), 0..3)), 0..3);
    let hashes = prop::collection::vec(any::<[u8; 32]>(), 1..=6);
    let delegates = prop::collection::vec((any::<bool>(), any::<[u8; 20]>(), 0..u64::MAX, 1u8..255), 1..3);
    let of_types = (hashes, bits(128), delegates);
    (0..=4, bits(63), bits(64), bits(64), (bits(128), bits(128)), bits(256), to, data, (list, of_types)).prop_map(
        |(kind, chain, nonce, gas, (fee, tip), value, mut to, mut data, (list, (hashes, blob_fee, delegates)))| {
            if kind > 2 {
                to = to.or(Some([7; 20]));
            }
            let chain = chain.clamp(U256::ONE, U256::from(u64::MAX / 2 - 36));
            let nonce = nonce.min(U256::from(u64::MAX - 1));
            if to.is_none() && data.is_empty() {
                data.push(0);
            }
            let mut tx = json!({"chainId": chain.to_string(), "type": kind, "nonce": format!("{nonce:#x}"),
                                "gas": gas.to_string(), "value": format!("{value:#x}"),
                                "data": hex::encode_prefixed(&data)});
            if let Some(to) = to {
                tx["to"] = json!(Address::from(to).to_checksum(None));
            }
            if kind == 3 {
                let hashes: Vec<_> =
                    hashes.into_iter().map(|hash| B256::from_slice(&[&[1], &hash[1..]].concat())).collect();
                tx["blobVersionedHashes"] =
                    json!(hashes.iter().map(|hash: &B256| hash.to_string()).collect::<Vec<_>>());
                tx["maxFeePerBlobGas"] = json!(blob_fee.to_string());
            }
            if kind == 4 {
                let id = |every| if every { U256::ZERO } else { chain };
                let list = delegates
                    .into_iter()
                    .map(|(every, to, nonce, key)| authorization(id(every), to.into(), nonce, key));
                tx["authorizationList"] = list.collect();
            }
            if kind >= 2 {
                tx["maxFeePerGas"] = json!(fee.max(tip).to_string());
                tx["maxPriorityFeePerGas"] = json!(fee.min(tip).to_string());
            } else {
                tx["gasPrice"] = json!(fee.to_string());
            }
            if kind > 0 {
                tx["accessList"] = list
                    .iter()
                    .map(|(address, keys)| {
                        let keys: Vec<_> = keys.iter().map(|key| B256::from(*key).to_string()).collect();
                        json!({"address": Address::from(*address).to_string(), "storageKeys": keys})
                    })
                    .collect();
            }
            tx
        },
    )
}

/// What another reader makes of a signed transaction: whose it is, nonce, gas and value.
fn read_back(raw: &[u8]) -> ([u8; 20], u64, u64, String) {
    if raw[0] > 2 && raw[0] < 0x80 {
        let tx = TxEnvelope::decode_2718_exact(raw).unwrap();
        let parts = (tx.signature().r().to_be_bytes(), tx.signature().s().to_be_bytes());
        let signature = Signature::from_parts(parts.0, parts.1, tx.signature().v()).unwrap();
        let from = PublicKey::recover(&tx.signature_hash(), &signature).unwrap().address();
        return (from.into_array(), tx.nonce(), tx.gas_limit(), tx.value().to_string());
    }
    let rlp = ethers_core::utils::rlp::Rlp::new(raw);
    let (tx, signature) = ethers_core::types::transaction::eip2718::TypedTransaction::decode_signed(&rlp).unwrap();
    let from = signature.recover(ethers_core::types::RecoveryMessage::Hash(tx.sighash())).unwrap();
    (from.0, tx.nonce().unwrap().as_u64(), tx.gas().unwrap().as_u64(), tx.value().unwrap().to_string())
}

proptest! {
    #[test]
    fn the_encoders_agree(json in any_transaction(), key in 1u8..255) {
        let tx = parse(&json).unwrap();
        prop_assert!(tx.signing_bytes().is_ok());
        let signed = sign(&tx, key);
        prop_assert_eq!(signed.hash, keccak256(&signed.raw));
        let from = SigningKey::from_slice(&[key; 32]).unwrap();
        let public = PublicKey::from_sec1(from.verifying_key().to_encoded_point(false).as_bytes()).unwrap();
        let expected = (public.address().into_array(), tx.nonce(), tx.gas(), tx.value().to_string());
        prop_assert_eq!(read_back(&signed.raw), expected);
        let kind = match TxEnvelope::decode_2718_exact(&signed.raw).unwrap() {
            TxEnvelope::Legacy(tx) => Kind::Legacy(tx.strip_signature()),
            TxEnvelope::Eip2930(tx) => Kind::Eip2930(tx.strip_signature()),
            TxEnvelope::Eip1559(tx) => Kind::Eip1559(tx.strip_signature()),
            TxEnvelope::Eip4844(tx) => Kind::Eip4844(tx.strip_signature().into()),
            TxEnvelope::Eip7702(tx) => Kind::Eip7702(tx.strip_signature()),
        };
        prop_assert_eq!(kind, tx.kind, "what was read is what is sent");
    }

    #[test]
    fn no_body_panics(body: Vec<u8>, json in any_transaction(), at: prop::sample::Index, with: u8) {
        let _ = Transaction::parse(&body);
        let mut text = json.to_string().into_bytes();
        let at = at.index(text.len());
        text[at] = with;
        let _ = Transaction::parse(&text);
    }
}

const TYPE_1: &str = "01f8e501098504a817c800825208943535353535353535353535353535353535353535880de0b6b3a764000084deadbeeff872f859941111111111111111111111111111111111111111f842a00000000000000000000000000000000000000000000000000000000000000001a000000000000000000000000000000000000000000000000000000000000000ffd6942222222222222222222222222222222222222222c001a09887ac9c11a9723beeca6152eaafd2abee7cdc2f47f7046cbf5988a15aa011b8a03bdf758ab9ceb68804d2e91186899b4518e42b6ac14cd7137ee37e12a86973fe";
const TYPE_2: &str = "02f8758189078506fc23ac008506fc23ac00825208943535353535353535353535353535353535353535880de0b6b3a764000080c080a060efbd044001da54151a64dbc3493cd41997576c53cdfb082190e66ffdf3e271a044fed0eddf9112e5c4d36dea1eb6c301a00c7e4b1ee8bc1cabfba72a7ecda8ab";
const TYPE_2_LIST: &str = "02f8e88189078506fc23ac008506fc23ac00825208943535353535353535353535353535353535353535880de0b6b3a764000080f872f859941111111111111111111111111111111111111111f842a00000000000000000000000000000000000000000000000000000000000000001a000000000000000000000000000000000000000000000000000000000000000ffd6942222222222222222222222222222222222222222c001a0a12829ec5464a909fee21e31ccf263cb06520c6880de315803c60e1048ff7113a00dc07bea42cbf4802b8ccb3d0ab4a082796be711f56db344e37fdd0019e933d6";
const TYPE_2_CREATION: &str = "02f85e8189808506fc23ac008506fc23ac008252088080856001600055c080a0b694205da5f94b08ce52c6810b033794f76714fd682d78fc3830ce62510fc4c1a065a5123677c1f63ed3af168e6f647b64ead2d7fb263072ce3ba787f93f81717b";
const TYPE_0_WIDE: &str = "f873098504a817c800825208943535353535353535353535353535353535353535880de0b6b3a764000080871ffffffffffffba0075663026fd8bc6b900955567a2380ddaf77109319e4099bba2ae26b457928e5a07257aa414ac39402c9a994f5941ba52aa56ebf18dd3e96fcf69964be05803baa";

#[test]
fn what_gives_an_account_code_does_something() {
    let sender = Address::repeat_byte(0x11);
    let mut body = json!({"chainId": "137", "type": 2, "to": sender.to_checksum(None), "value": "0", "data": "0x",
                          "gas": "21000", "maxFeePerGas": "16", "maxPriorityFeePerGas": "16"});
    let nothing = |body: &Value| Transaction::from_body(&body.to_string()).unwrap().does_nothing(sender);
    assert!(nothing(&body));
    let delegate = crate::authorization::tests::authorization(U256::from(137), sender, 7, 0x46);
    (body["type"], body["authorizationList"]) = (json!(4), json!([delegate]));
    assert!(!nothing(&body));
}
