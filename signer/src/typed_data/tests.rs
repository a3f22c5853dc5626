use alloy_primitives::hex;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn parse(json: &Value) -> Result<TypedData, FieldError> {
    TypedData::parse(json.to_string().as_bytes())
}

fn digest(json: &Value) -> String {
    hex::encode(parse(json).unwrap().signing_hash().unwrap())
}

/// The example of EIP-712.
fn mail() -> Value {
    json!({
        "types": {
            "EIP712Domain": [
                {"name": "name", "type": "string"}, {"name": "version", "type": "string"},
                {"name": "chainId", "type": "uint256"}, {"name": "verifyingContract", "type": "address"}
            ],
            "Person": [{"name": "name", "type": "string"}, {"name": "wallet", "type": "address"}],
            "Mail": [
                {"name": "from", "type": "Person"}, {"name": "to", "type": "Person"}, {"name": "contents", "type": "string"}
            ]
        },
        "primaryType": "Mail",
        "domain": {"name": "Ether Mail", "version": "1", "chainId": 1,
                   "verifyingContract": "0xCcCCccccCCCCcCCCCCCcCcCccCcCCCcCcccccccC"},
        "message": {
            "from": {"name": "Cow", "wallet": "0xCD2a3d9F938E13CD947Ec05AbC7FE734Df8DD826"},
            "to": {"name": "Bob", "wallet": "0xbBbBBBBbbBBBbbbBbbBbbbbBBbBbbbbBbBbbBBbB"},
            "contents": "Hello, Bob!"
        }
    })
}

#[test]
fn the_example_of_eip_712() {
    let data = parse(&mail()).unwrap();
    assert_eq!(digest(&mail()), "be609aee343fb3c4b28e1df9e632fca64fcfaede20f02e86244efddf30957bd2");
    assert_eq!(data.encoded_type(), "Mail(Person from,Person to,string contents)Person(string name,address wallet)");
    assert_eq!(data.chain_id(), Some(U256::ONE));
    assert_eq!(data.verifying_contract(), Some(Address::repeat_byte(0xcc)));
    // The domain's type says nothing that the domain does not.
    let mut without = mail();
    without["types"].as_object_mut().unwrap().remove("EIP712Domain");
    assert_eq!(digest(&without), digest(&mail()));
    let mut words = mail();
    words["domain"]["chainId"] = json!("0x1");
    assert_eq!(digest(&words), digest(&mail()));
}

#[test]
fn what_is_wrong_is_named() {
    let set = |path: &str, value: Value| {
        let mut data = mail();
        *data.pointer_mut(path).unwrap_or_else(|| panic!("{path}")) = value;
        data
    };
    let add = |path: &str, name: &str, value: Value| {
        let mut data = mail();
        data.pointer_mut(path).unwrap()[name] = value;
        data
    };
    let drop = |path: &str, name: &str| {
        let mut data = mail();
        data.pointer_mut(path).unwrap().as_object_mut().unwrap().remove(name);
        data
    };
    let kind = |kind: &str| set("/types/Mail/2/type", json!(kind));
    for (data, field) in [
        (drop("", "types"), "types"),
        (drop("", "primaryType"), "primaryType"),
        (drop("", "domain"), "domain"),
        (drop("", "message"), "message"),
        (add("", "digest", json!("0x")), "digest"),
        (set("/types", json!([])), "types"),
        (set("/primaryType", json!("Letter")), "primaryType"),
        (set("/primaryType", json!("EIP712Domain")), "primaryType"),
        (set("/primaryType", json!("Person")), "types.Mail"),
        (set("/domain", json!("x")), "domain"),
        (add("/domain", "chainid", json!(1)), "domain.chainid"),
        (add("/domain", "salt", json!("0x00")), "domain.salt"),
        (add("/domain", "salt", Value::Null), "domain.salt"),
        (add("/domain", "chainId", json!("")), "domain.chainId"),
        (add("/domain", "chainId", json!("01")), "domain.chainId"),
        (add("/domain", "version", json!(1)), "domain.version"),
        (
            set("/domain/verifyingContract", json!("0xCcCCccccCCCCcCCCCCCcCcCccCcCCCcCccccccCC")),
            "domain.verifyingContract",
        ),
        // The domain's type, and the domain.
        (drop("/domain", "version"), "types.EIP712Domain"),
        (set("/types/EIP712Domain/2/type", json!("uint64")), "types.EIP712Domain"),
        (set("/types/EIP712Domain/0/name", json!("nam")), "types.EIP712Domain"),
        // Types.
        (add("/types", "Pet", json!([])), "types.Pet"),
        (add("/types", "uint256", json!([])), "types.uint256"),
        (add("/types", "uint", json!([])), "types.uint"),
        (add("/types", "Pet(", json!([])), "types.Pet("),
        (add("/types", "", json!([])), "types."),
        (set("/types/Person", json!({})), "types.Person"),
        (set("/types/Person/0", json!({"name": "name"})), "types.Person[0].type"),
        (set("/types/Person/0", json!({"name": "name", "type": "string", "x": 1})), "types.Person[0].x"),
        (set("/types/Person/1/name", json!("name")), "types.Person[1].name"),
        (set("/types/Person/1/name", json!("a b")), "types.Person[1].name"),
        (kind("Letter"), "types.Mail[2].type"),
        (kind("Letter[]"), "types.Mail[2].type"),
        (kind("EIP712Domain"), "types.Mail[2].type"),
        (kind("uint"), "types.Mail[2].type"),
        (kind("int"), "types.Mail[2].type"),
        (kind("uint7"), "types.Mail[2].type"),
        (kind("uint264"), "types.Mail[2].type"),
        (kind("uint08"), "types.Mail[2].type"),
        (kind("bytes33"), "types.Mail[2].type"),
        (kind("bytes0"), "types.Mail[2].type"),
        (kind("fixed128x18"), "types.Mail[2].type"),
        (kind("string []"), "types.Mail[2].type"),
        (kind("string[0]"), "types.Mail[2].type"),
        (kind("string[01]"), "types.Mail[2].type"),
        (kind("string["), "types.Mail[2].type"),
        (kind("[]"), "types.Mail[2].type"),
        (kind(""), "types.Mail[2].type"),
        (kind(&format!("string{}", "[]".repeat(60_000))), "types.Mail[2].type"),
        (set("/types/Person/1/name", json!("x".repeat(129))), "types.Person[1].name"),
        // The message.
        (drop("/message", "contents"), "message.contents"),
        (drop("/message/to", "name"), "message.to.name"),
        (add("/message", "content", json!("")), "message.content"),
        (add("/message/to", "Name", json!("")), "message.to.Name"),
        (set("/message/contents", json!(1)), "message.contents"),
        (set("/message/contents", Value::Null), "message.contents"),
        (set("/message/to", json!("Bob")), "message.to"),
        (set("/message/to/wallet", json!("0xbBbBBBBbbBBBbbbBbbBbbbbBBbBbbbbBbBbbBBBB")), "message.to.wallet"),
        (set("/message/to/wallet", json!("bob.eth")), "message.to.wallet"),
    ] {
        let error = parse(&data).expect_err(&data.to_string());
        assert_eq!(error.field.as_deref(), Some(field), "{data}: {error}");
    }
    let twice = mail().to_string().replacen("\"contents\":\"H", "\"contents\":\"\",\"contents\":\"H", 1);
    assert_eq!(TypedData::parse(twice.as_bytes()).unwrap_err().field.as_deref(), Some("message.contents"));
    let twice = mail().to_string().replacen("\"Person\":[", "\"Person\":[],\"Person\":[", 1);
    assert_eq!(TypedData::parse(twice.as_bytes()).unwrap_err().field.as_deref(), Some("types.Person"));
}

/// A struct of one field.
fn one(kind: &str, value: Value) -> Value {
    json!({"types": {"One": [{"name": "v", "type": kind}]}, "primaryType": "One", "domain": {"chainId": 1},
           "message": {"v": value}})
}

#[test]
fn values_are_of_their_types() {
    let wide = "115792089237316195423570985008687907853269984665640564039457584007913129639935";
    let half = "57896044618658097711785492504343953926634992332820282019728792003956564819968";
    for (kind, value) in [
        ("uint8", json!(255)),
        ("uint256", json!(wide)),
        ("int8", json!(-128)),
        ("int8", json!("-128")),
        ("int8", json!(127)),
        ("int256", json!(format!("-{half}"))),
        ("bool", json!(true)),
        ("bytes", json!("0x")),
        ("bytes3", json!("0x010203")),
        ("string", json!("\u{0}é")),
        ("uint8[]", json!([])),
        ("uint8[2][]", json!([[1, 2], ["3", "0x4"]])),
        ("One[]", json!([{"v": []}, {"v": [{"v": []}]}])),
    ] {
        assert!(parse(&one(kind, value.clone())).unwrap().signing_hash().is_ok(), "{kind} {value}");
    }
    for (kind, value, field) in [
        ("uint8", json!(256), "message.v"),
        ("uint8", json!(-1), "message.v"),
        ("uint8", json!("-1"), "message.v"),
        ("uint8", json!(""), "message.v"),
        ("uint8", json!("0x"), "message.v"),
        ("uint8", json!("0b11"), "message.v"),
        ("uint8", json!("1_0"), "message.v"),
        ("uint8", json!("01"), "message.v"),
        ("uint8", json!(1.5), "message.v"),
        ("uint8", json!(true), "message.v"),
        ("int8", json!(-129), "message.v"),
        ("int8", json!(128), "message.v"),
        ("int8", json!("-0"), "message.v"),
        ("int8", json!("-01"), "message.v"),
        ("int8", json!("--1"), "message.v"),
        ("int8", json!("-0x1"), "message.v"),
        ("int256", json!(half), "message.v"),
        ("int256", json!(format!("-{wide}")), "message.v"),
        ("bool", json!(1), "message.v"),
        ("bool", json!("true"), "message.v"),
        ("bytes", json!("00"), "message.v"),
        ("bytes", json!("0x0"), "message.v"),
        ("bytes3", json!("0x0102"), "message.v"),
        ("bytes3", json!("0x01020304"), "message.v"),
        ("uint8[2]", json!([1]), "message.v"),
        ("uint8[2]", json!([1, 2, 3]), "message.v"),
        ("uint8[]", json!({"0": 1}), "message.v"),
        ("uint8[2][]", json!([[1, 2], [1, 256]]), "message.v[1][1]"),
        ("One[]", json!([{"v": []}, {"w": []}]), "message.v[1].w"),
    ] {
        let data = one(kind, value);
        assert_eq!(parse(&data).expect_err(&data.to_string()).field.as_deref(), Some(field), "{data}");
    }
}

#[test]
fn what_would_take_long_is_refused() {
    let many = one("One[]", json!(vec![json!({"v": []}); 1024]));
    assert_eq!(parse(&many).unwrap_err().field.as_deref(), Some("message.v[1023]"));
    // Of types that are long to write, fewer.
    let long = |structs: usize| {
        let names: Vec<_> = (0..64).map(|i| format!("f{i}{}", "x".repeat(120))).collect();
        let fields: Value = names.iter().map(|name| json!({"name": name, "type": "Two[]"})).collect();
        let types = json!({"One": fields, "Two": []});
        let mut message: serde_json::Map<_, _> = names.iter().map(|name| (name.clone(), json!([]))).collect();
        message.insert(names[0].clone(), json!(vec![json!({}); structs]));
        json!({"types": types, "primaryType": "One", "domain": {}, "message": message})
    };
    assert!(parse(&long(900)).is_ok());
    assert!(parse(&long(1022)).unwrap_err().problem.contains("at most"));
    let mut types = serde_json::Map::new();
    for i in 0..65 {
        types.insert(format!("T{i}"), json!([{"name": "a", "type": format!("T{}[]", i + 1)}]));
    }
    let data = json!({"types": types, "primaryType": "T0", "domain": {}, "message": {"a": []}});
    assert_eq!(parse(&data).unwrap_err().field.as_deref(), Some("types"));
    // Each has the next one twice: written out, there would be 2^60 of the last.
    let mut types = serde_json::Map::new();
    for i in 0..60 {
        let next = format!("T{}[]", i + 1);
        types.insert(format!("T{i}"), json!([{"name": "a", "type": next}, {"name": "b", "type": next}]));
    }
    types.insert("T60".into(), json!([]));
    let data = json!({"types": types, "primaryType": "T0", "domain": {}, "message": {"a": [], "b": []}});
    assert!(parse(&data).unwrap().signing_hash().is_ok());
    // Two that contain one another: alloy does not hash them.
    let types = json!({"A": [{"name": "b", "type": "B[]"}], "B": [{"name": "a", "type": "A[]"}]});
    let data = json!({"types": types, "primaryType": "A", "domain": {}, "message": {"b": []}});
    assert_eq!(parse(&data).unwrap_err().field.as_deref(), Some("types"));
}

/// A type and a value of it.
fn any_value() -> impl Strategy<Value = (String, Value)> {
    let leaf = prop_oneof![
        any::<u128>().prop_map(|n| ("uint128".to_owned(), json!(n.to_string()))),
        any::<i64>().prop_map(|n| ("int64".to_owned(), json!(n.to_string()))),
        any::<bool>().prop_map(|b| ("bool".to_owned(), json!(b))),
        any::<[u8; 20]>().prop_map(|a| ("address".to_owned(), json!(Address::from(a).to_string()))),
        any::<String>().prop_map(|s| ("string".to_owned(), json!(s))),
        any::<Vec<u8>>().prop_map(|b| ("bytes".to_owned(), json!(hex::encode_prefixed(b)))),
        any::<[u8; 5]>().prop_map(|b| ("bytes5".to_owned(), json!(hex::encode_prefixed(b)))),
        any::<String>().prop_map(|s| ("Inner".to_owned(), json!({"text": s}))),
    ];
    leaf.prop_recursive(2, 8, 3, |item| {
        (item, 1usize..4, any::<bool>()).prop_map(|((kind, value), count, fixed)| {
            let length = if fixed { count.to_string() } else { String::new() };
            (format!("{kind}[{length}]"), json!(vec![value; count]))
        })
    })
}

/// Typed data of any values.
pub(crate) fn any_typed_data() -> impl Strategy<Value = Value> {
    let domain = (any::<Option<String>>(), any::<Option<u64>>(), any::<Option<[u8; 20]>>(), any::<Option<[u8; 32]>>());
    (prop::collection::vec(any_value(), 0..6), domain).prop_map(|(values, (name, chain, contract, salt))| {
        let mut types = json!({"Outer": [], "Inner": [{"name": "text", "type": "string"}]});
        let mut message = json!({});
        for (i, (kind, value)) in values.into_iter().enumerate() {
            types["Outer"].as_array_mut().unwrap().push(json!({"name": format!("f{i}"), "type": kind}));
            message[format!("f{i}")] = value;
        }
        if !types["Outer"].to_string().contains("Inner") {
            types.as_object_mut().unwrap().remove("Inner");
        }
        let mut domain = json!({});
        for (field, value) in [
            ("name", name.map(|name| json!(name))),
            ("chainId", chain.map(|chain| json!(chain.to_string()))),
            ("verifyingContract", contract.map(|address| json!(Address::from(address).to_checksum(None)))),
            ("salt", salt.map(|salt| json!(hex::encode_prefixed(salt)))),
        ] {
            if let Some(value) = value {
                domain[field] = value;
            }
        }
        json!({"types": types, "primaryType": "Outer", "domain": domain, "message": message})
    })
}

proptest! {
    #[test]
    fn both_hash_it_alike(json in any_typed_data(), other in any_typed_data()) {
        let data = parse(&json).unwrap();
        prop_assert!(data.signing_hash().is_ok(), "{json}");
        // Alloy's own way from JSON comes to the same.
        let theirs: alloy_dyn_abi::TypedData = serde_json::from_value(json.clone()).unwrap();
        prop_assert_eq!(theirs.eip712_signing_hash().unwrap(), data.signing_hash().unwrap());
        let other = parse(&other).unwrap();
        let same = data.domain == other.domain && data.message == other.message;
        prop_assert_eq!(same && data.encoded_type == other.encoded_type, data.signing_hash() == other.signing_hash());
    }

    #[test]
    fn no_body_panics(body: Vec<u8>, json in any_typed_data(), at: prop::sample::Index, with: u8) {
        let _ = TypedData::parse(&body);
        let mut text = json.to_string().into_bytes();
        let at = at.index(text.len());
        text[at] = with;
        let _ = TypedData::parse(&text);
    }
}
