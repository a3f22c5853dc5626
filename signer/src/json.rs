//! JSON that keeps what serde's own tree drops: a field that is there twice is seen to be there twice.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A JSON value, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    /// A number written as an integer from 0 to 2^64-1.
    Integer(u64),
    /// A number written as an integer from -2^63 to -1.
    Negative(i64),
    /// A number that is too large or too small, or written with a point or an exponent.
    OtherNumber,
    String(String),
    Array(Vec<Json>),
    /// Fields in the order of the text, duplicates included.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// What this is, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) | Self::Negative(_) | Self::OtherNumber => "a number",
            Self::String(_) => "a string",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tree;
        impl<'de> Visitor<'de> for Tree {
            type Value = Json;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }
            fn visit_unit<E>(self) -> Result<Json, E> {
                Ok(Json::Null)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
                Ok(Json::Bool(value))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
                Ok(Json::Integer(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
                Ok(u64::try_from(value).map_or(Json::Negative(value), Json::Integer))
            }
            fn visit_f64<E>(self, _: f64) -> Result<Json, E> {
                Ok(Json::OtherNumber)
            }
            fn visit_str<E>(self, value: &str) -> Result<Json, E> {
                Ok(Json::String(value.to_owned()))
            }
            fn visit_string<E>(self, value: String) -> Result<Json, E> {
                Ok(Json::String(value))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Json::Array(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Json::Object(fields))
            }
        }
        deserializer.deserialize_any(Tree)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_duplicates_and_kinds() {
        let parse = |text: &str| serde_json::from_str::<Json>(text).ok();
        let one = |value| ("a".to_owned(), value);
        assert_eq!(
            parse(r#"{"a":1,"a":"x"}"#),
            Some(Json::Object(vec![one(Json::Integer(1)), one(Json::String("x".into()))]))
        );
        assert_eq!(parse("18446744073709551615"), Some(Json::Integer(u64::MAX)));
        assert_eq!(parse("-1"), Some(Json::Negative(-1)));
        assert_eq!(parse("-9223372036854775808"), Some(Json::Negative(i64::MIN)));
        assert_eq!(parse("[true,false]"), Some(Json::Array(vec![Json::Bool(true), Json::Bool(false)])));
        for other in ["-9223372036854775809", "-0", "1.0", "1e3", "18446744073709551616"] {
            assert_eq!(parse(other), Some(Json::OtherNumber), "{other}");
        }
        for bad in ["", "1 2", "{\"a\":1,}", "[1", "01", "NaN", "{a:1}", "\u{feff}1"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
