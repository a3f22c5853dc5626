//! The tree that keeps duplicates, beside serde's own.

use serde_json::Value;

use crate::json::Json;

/// That both read the same, or neither does.
pub fn json(data: &[u8]) {
    let (ours, theirs) = (serde_json::from_slice::<Json>(data), serde_json::from_slice::<Value>(data));
    match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => same(&ours, &theirs),
        (Err(_), Err(_)) => {}
        // serde's tree has no place for it.
        (Ok(_), Err(error)) => assert!(error.to_string().contains("number out of range"), "{error}"),
        (Err(error), Ok(_)) => panic!("serde reads it: {error}"),
    }
}

fn same(ours: &Json, theirs: &Value) {
    match (ours, theirs) {
        (Json::Null, Value::Null) => {}
        (Json::Bool(ours), Value::Bool(theirs)) => assert_eq!(ours, theirs),
        (Json::Integer(ours), Value::Number(theirs)) => assert_eq!(Some(*ours), theirs.as_u64()),
        (Json::Negative(ours), Value::Number(theirs)) => assert_eq!(Some(*ours), theirs.as_i64()),
        (Json::OtherNumber, Value::Number(theirs)) => assert!(theirs.is_f64()),
        (Json::String(ours), Value::String(theirs)) => assert_eq!(ours, theirs),
        (Json::Array(ours), Value::Array(theirs)) => {
            assert_eq!(ours.len(), theirs.len());
            ours.iter().zip(theirs).for_each(|(ours, theirs)| same(ours, theirs));
        }
        (Json::Object(ours), Value::Object(theirs)) => {
            // Of what is there twice, serde keeps the last.
            for (name, theirs) in theirs {
                let (_, ours) = ours.iter().rfind(|(ours, _)| ours == name).expect("a field of both");
                same(ours, theirs);
            }
            assert!(ours.iter().all(|(name, _)| theirs.contains_key(name)));
        }
        _ => panic!("{ours:?} is not {theirs:?}"),
    }
}
