//! Strict reading: what is not understood completely is refused, and the refusal names the field.

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroU64;

use alloy_primitives::{Address, Bytes, FixedBytes, U256};

use crate::json::Json;

/// The largest integer that every JSON reader carries exactly.
const MAX_JSON_INTEGER: u64 = 1 << 53;
/// EIP-2294: a larger chain id has no `v` that fits 64 bits.
const MAX_CHAIN_ID: u64 = u64::MAX / 2 - 36;

/// A field of a request that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{problem}", Prefix(.field))]
pub struct FieldError {
    /// The field, such as `gas` or `accessList[0].address`; none when the request as a whole is wrong.
    pub field: Option<String>,
    /// What is wrong with it.
    pub problem: String,
}

/// `field: ` where there is a field.
struct Prefix<'a>(&'a Option<String>);

impl fmt::Display for Prefix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |field| write!(f, "{field}: "))
    }
}

/// Says what is wrong with a field.
pub(crate) fn wrong<T>(field: &str, problem: impl Into<String>) -> Result<T, FieldError> {
    Err(FieldError { field: Some(field.to_owned()), problem: problem.into() })
}

/// A text of the client's in a message: bounded, and escaped.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_default).collect()
}

/// The fields of an object that may have any, none of them there twice.
pub(crate) fn entries(field: &str, value: Json) -> Result<Vec<(String, Json)>, FieldError> {
    let Json::Object(fields) = value else {
        return wrong(field, format!("expected an object, found {}", value.kind()));
    };
    let mut names = BTreeSet::new();
    match fields.iter().find(|(name, _)| !names.insert(name)) {
        Some((name, _)) => wrong(&format!("{field}.{}", shown(name)), "there twice"),
        None => Ok(fields),
    }
}

/// The fields of an object: each of them known, none there twice.
#[derive(Debug)]
pub(crate) struct Fields {
    /// The path of the object, for messages.
    path: String,
    fields: Vec<(String, Json)>,
}

impl Fields {
    /// Reads a body of `most` bytes at most, which must be an object.
    pub(crate) fn read(json: &[u8], most: usize, known: &[&str]) -> Result<Self, FieldError> {
        let whole = |problem: String| FieldError { field: None, problem };
        if json.len() > most {
            return Err(whole(format!("longer than {most} bytes")));
        }
        match serde_json::from_slice(json) {
            Ok(Json::Object(fields)) => Self::new("", fields, known),
            Ok(other) => Err(whole(format!("expected a JSON object, found {}", other.kind()))),
            Err(error) => Err(whole(format!("not JSON: line {}, column {}", error.line(), error.column()))),
        }
    }

    /// An object that is a field, an item or an argument itself.
    pub(crate) fn of(path: &str, value: Json, known: &[&str]) -> Result<Self, FieldError> {
        match value {
            Json::Object(fields) => Self::new(path, fields, known),
            other => wrong(path, format!("expected an object, found {}", other.kind())),
        }
    }

    fn new(path: &str, fields: Vec<(String, Json)>, known: &[&str]) -> Result<Self, FieldError> {
        let object = Self { path: path.to_owned(), fields };
        for (i, (name, _)) in object.fields.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                return wrong(&object.at(&shown(name)), "unknown field");
            }
            if object.fields[..i].iter().any(|(other, _)| other == name) {
                return wrong(&object.at(name), "there twice");
            }
        }
        Ok(object)
    }

    pub(crate) fn at(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Whether a field is there, and was not taken.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|(field, _)| field == name)
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<Json> {
        let i = self.fields.iter().position(|(field, _)| field == name)?;
        Some(self.fields.swap_remove(i).1)
    }

    pub(crate) fn optional<T>(&mut self, name: &str, read: Reader<T>) -> Result<Option<T>, FieldError> {
        let at = self.at(name);
        self.take(name).map(|value| read(&at, value)).transpose()
    }

    pub(crate) fn nullable<T>(&mut self, name: &str, read: Reader<T>) -> Result<Option<T>, FieldError> {
        let at = self.at(name);
        self.take(name).filter(|value| *value != Json::Null).map(|value| read(&at, value)).transpose()
    }

    pub(crate) fn required<T>(&mut self, name: &str, read: Reader<T>) -> Result<T, FieldError> {
        match self.optional(name, read)? {
            Some(value) => Ok(value),
            None => wrong(&self.at(name), "missing"),
        }
    }

    pub(crate) fn refuse(&mut self, name: &str, why: &str) -> Result<(), FieldError> {
        if self.take(name).is_some() { wrong(&self.at(name), why) } else { Ok(()) }
    }
}

/// A chain id that a signature can be for.
pub(crate) fn chain_id(field: &str, value: Json) -> Result<u64, FieldError> {
    match NonZeroU64::new(quantity(field, value)?) {
        Some(id) if id.get() <= MAX_CHAIN_ID => Ok(id.get()),
        _ => wrong(field, format!("expected a chain id from 1 to {MAX_CHAIN_ID} (EIP-155, EIP-2294)")),
    }
}

/// An account's nonce: EIP-2681 leaves the last one out.
pub(crate) fn nonce(field: &str, value: Json) -> Result<u64, FieldError> {
    match quantity(field, value)? {
        u64::MAX => wrong(field, "out of range (EIP-2681)"),
        nonce => Ok(nonce),
    }
}

/// Reads a value; the text is the field's path, for messages.
pub(crate) type Reader<T> = fn(&str, Json) -> Result<T, FieldError>;

/// A quantity that fits `T`.
pub(crate) fn quantity<T: TryFrom<U256>>(field: &str, value: Json) -> Result<T, FieldError> {
    let number = match value {
        Json::Integer(n @ ..=MAX_JSON_INTEGER) => Some(U256::from(n)),
        Json::Integer(_) => return wrong(field, "above 2^53: write it as a string, JSON readers may round it"),
        Json::Negative(_) | Json::OtherNumber => None,
        Json::String(text) => match digits(&text) {
            Some((digits, radix)) => match U256::from_str_radix(digits, radix) {
                Ok(number) => Some(number),
                Err(_) => return wrong(field, "does not fit"),
            },
            None => None,
        },
        other => return wrong(field, format!("expected a quantity, found {}", other.kind())),
    };
    match number.map(T::try_from) {
        Some(Ok(number)) => Ok(number),
        Some(Err(_)) => wrong(field, "does not fit"),
        None => wrong(
            field,
            "expected a quantity: an integer up to 2^53, a string of decimal digits, or 0x and hex digits; no leading \
             zeros, no sign",
        ),
    }
}

/// The digits of a quantity and their radix, if it is written as one.
fn digits(text: &str) -> Option<(&str, u64)> {
    let (digits, radix) = text.strip_prefix("0x").map_or((text, 10), |hex| (hex, 16));
    let well_formed = !digits.is_empty()
        && digits.bytes().all(|b| if radix == 16 { b.is_ascii_hexdigit() } else { b.is_ascii_digit() })
        && (digits == "0" || !digits.starts_with('0'));
    well_formed.then_some((digits, radix))
}

/// An address; where upper and lower case are mixed, its EIP-55 checksum must be right.
pub(crate) fn address(field: &str, value: Json) -> Result<Address, FieldError> {
    match value {
        Json::String(text) => match text.parse::<keygate_config::EthAddress>() {
            Ok(address) => Ok(address.0),
            Err(_) => {
                wrong(field, "expected an address: 0x and 40 hex digits, in mixed case with a right EIP-55 checksum")
            }
        },
        other => wrong(field, format!("expected an address, found {}", other.kind())),
    }
}

/// A string, of any characters.
pub(crate) fn text(field: &str, value: Json) -> Result<String, FieldError> {
    match value {
        Json::String(text) => Ok(text),
        other => wrong(field, format!("expected a string, found {}", other.kind())),
    }
}

/// Bytes, as 0x and hex digits.
pub(crate) fn bytes(field: &str, value: Json) -> Result<Bytes, FieldError> {
    match value {
        Json::String(text) => match text.strip_prefix("0x").map(hex::decode) {
            Some(Ok(bytes)) => Ok(bytes.into()),
            _ => wrong(field, "expected 0x and an even number of hex digits"),
        },
        other => wrong(field, format!("expected a string of 0x and hex digits, found {}", other.kind())),
    }
}

/// So many bytes and no other number.
pub(crate) fn fixed_bytes<const N: usize>(field: &str, value: Json) -> Result<FixedBytes<N>, FieldError> {
    match FixedBytes::try_from(bytes(field, value)?.as_ref()) {
        Ok(bytes) => Ok(bytes),
        Err(_) => wrong(field, format!("expected {N} bytes")),
    }
}

/// Each item of an array; its path is the array's, with its number.
pub(crate) fn items<T>(
    field: &str,
    value: Json,
    mut read: impl FnMut(&str, Json) -> Result<T, FieldError>,
) -> Result<Vec<T>, FieldError> {
    array(field, value)?.into_iter().enumerate().map(|(i, item)| read(&format!("{field}[{i}]"), item)).collect()
}

pub(crate) fn array(field: &str, value: Json) -> Result<Vec<Json>, FieldError> {
    match value {
        Json::Array(items) => Ok(items),
        other => wrong(field, format!("expected an array, found {}", other.kind())),
    }
}
