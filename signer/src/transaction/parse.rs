//! Strict reading: what is not understood completely is refused, and the refusal names the field.

use std::fmt;
use std::num::NonZeroU64;

use alloy_consensus::{TxEip1559, TxEip2930, TxLegacy};
use alloy_eips::eip2930::{AccessList, AccessListItem};
use alloy_primitives::{Address, B256, Bytes, TxKind, U256};

use super::{Kind, MAX_BODY, Transaction};
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

fn wrong<T>(field: &str, problem: impl Into<String>) -> Result<T, FieldError> {
    Err(FieldError { field: Some(field.to_owned()), problem: problem.into() })
}

pub(super) fn transaction(json: &[u8]) -> Result<Transaction, FieldError> {
    let whole = |problem: String| FieldError { field: None, problem };
    if json.len() > MAX_BODY {
        return Err(whole(format!("longer than {MAX_BODY} bytes")));
    }
    let fields = match serde_json::from_slice(json) {
        Ok(Json::Object(fields)) => fields,
        Ok(other) => return Err(whole(format!("expected a JSON object, found {}", other.kind()))),
        Err(error) => return Err(whole(format!("not JSON: line {}, column {}", error.line(), error.column()))),
    };
    let mut fields = Fields::new("", fields, &FIELDS)?;

    let chain_id = fields.chain_id()?;
    let kind: u64 = fields.required("type", quantity)?;
    if kind > 2 {
        return wrong("type", "only types 0 (legacy), 1 (EIP-2930) and 2 (EIP-1559) are signed");
    }
    let nonce = fields.required("nonce", quantity)?;
    if nonce == u64::MAX {
        return wrong("nonce", "out of range (EIP-2681)");
    }
    let gas_limit = fields.required("gas", quantity)?;
    let to = fields.nullable("to", address)?.map_or(TxKind::Create, TxKind::Call);
    let value = fields.optional("value", quantity)?.unwrap_or(U256::ZERO);
    let input = fields.optional("data", bytes)?.unwrap_or_default();
    if to.is_create() && input.is_empty() {
        return wrong("data", "a transaction without `to` creates a contract, and needs its init code here");
    }
    let kind = if kind == 2 {
        fields.refuse("gasPrice", "type 2 has maxFeePerGas and maxPriorityFeePerGas instead")?;
        let max_fee_per_gas = fields.required("maxFeePerGas", quantity)?;
        let max_priority_fee_per_gas = fields.required("maxPriorityFeePerGas", quantity)?;
        if max_priority_fee_per_gas > max_fee_per_gas {
            return wrong("maxPriorityFeePerGas", "above maxFeePerGas (EIP-1559)");
        }
        let access_list = fields.optional("accessList", access_list)?.unwrap_or_default();
        Kind::Eip1559(TxEip1559 {
            chain_id,
            nonce,
            gas_limit,
            max_fee_per_gas,
            max_priority_fee_per_gas,
            to,
            value,
            access_list,
            input,
        })
    } else {
        fields.refuse("maxFeePerGas", "only type 2 has it")?;
        fields.refuse("maxPriorityFeePerGas", "only type 2 has it")?;
        let gas_price = fields.required("gasPrice", quantity)?;
        if kind == 1 {
            let access_list = fields.optional("accessList", access_list)?.unwrap_or_default();
            Kind::Eip2930(TxEip2930 { chain_id, nonce, gas_price, gas_limit, to, value, access_list, input })
        } else {
            fields.refuse("accessList", "type 0 has none")?;
            Kind::Legacy(TxLegacy { chain_id: Some(chain_id), nonce, gas_price, gas_limit, to, value, input })
        }
    };
    Ok(Transaction(kind))
}

/// The fields of a transaction.
const FIELDS: [&str; 11] = [
    "chainId",
    "type",
    "nonce",
    "to",
    "value",
    "data",
    "gas",
    "gasPrice",
    "maxFeePerGas",
    "maxPriorityFeePerGas",
    "accessList",
];

/// The fields of an object: each of them known, none there twice.
struct Fields {
    /// The path of the object, for messages.
    path: String,
    fields: Vec<(String, Json)>,
}

impl Fields {
    fn new(path: &str, fields: Vec<(String, Json)>, known: &[&str]) -> Result<Self, FieldError> {
        let object = Self { path: path.to_owned(), fields };
        for (i, (name, _)) in object.fields.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                // The name is the client's: bounded, and escaped.
                let name: String = name.chars().take(64).flat_map(char::escape_default).collect();
                return wrong(&object.at(&name), "unknown field");
            }
            if object.fields[..i].iter().any(|(other, _)| other == name) {
                return wrong(&object.at(name), "there twice");
            }
        }
        Ok(object)
    }

    fn at(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    fn take(&mut self, name: &str) -> Option<Json> {
        let i = self.fields.iter().position(|(field, _)| field == name)?;
        Some(self.fields.swap_remove(i).1)
    }

    fn optional<T>(&mut self, name: &str, read: Reader<T>) -> Result<Option<T>, FieldError> {
        let at = self.at(name);
        self.take(name).map(|value| read(&at, value)).transpose()
    }

    fn nullable<T>(&mut self, name: &str, read: Reader<T>) -> Result<Option<T>, FieldError> {
        let at = self.at(name);
        self.take(name).filter(|value| *value != Json::Null).map(|value| read(&at, value)).transpose()
    }

    fn required<T>(&mut self, name: &str, read: Reader<T>) -> Result<T, FieldError> {
        match self.optional(name, read)? {
            Some(value) => Ok(value),
            None => wrong(&self.at(name), "missing"),
        }
    }

    fn refuse(&mut self, name: &str, why: &str) -> Result<(), FieldError> {
        if self.take(name).is_some() { wrong(&self.at(name), why) } else { Ok(()) }
    }

    fn chain_id(&mut self) -> Result<u64, FieldError> {
        let id: u64 = self.required("chainId", quantity)?;
        match NonZeroU64::new(id) {
            Some(id) if id.get() <= MAX_CHAIN_ID => Ok(id.get()),
            _ => wrong("chainId", format!("expected a chain id from 1 to {MAX_CHAIN_ID} (EIP-155, EIP-2294)")),
        }
    }
}

/// Reads a value; the text is the field's path, for messages.
type Reader<T> = fn(&str, Json) -> Result<T, FieldError>;

/// A quantity that fits `T`.
fn quantity<T: TryFrom<U256>>(field: &str, value: Json) -> Result<T, FieldError> {
    let number = match value {
        Json::Integer(n @ ..=MAX_JSON_INTEGER) => Some(U256::from(n)),
        Json::Integer(_) => return wrong(field, "above 2^53: write it as a string, JSON readers may round it"),
        Json::OtherNumber => None,
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

fn address(field: &str, value: Json) -> Result<Address, FieldError> {
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

fn bytes(field: &str, value: Json) -> Result<Bytes, FieldError> {
    match value {
        Json::String(text) => match text.strip_prefix("0x").map(hex::decode) {
            Some(Ok(bytes)) => Ok(bytes.into()),
            _ => wrong(field, "expected 0x and an even number of hex digits"),
        },
        other => wrong(field, format!("expected a string of 0x and hex digits, found {}", other.kind())),
    }
}

fn access_list(field: &str, value: Json) -> Result<AccessList, FieldError> {
    let items = array(field, value)?.into_iter().enumerate().map(|(i, item)| {
        let at = format!("{field}[{i}]");
        let Json::Object(fields) = item else {
            return wrong(&at, format!("expected an object, found {}", item.kind()));
        };
        let mut fields = Fields::new(&at, fields, &["address", "storageKeys"])?;
        Ok(AccessListItem {
            address: fields.required("address", address)?,
            storage_keys: fields.required("storageKeys", storage_keys)?,
        })
    });
    items.collect::<Result<_, _>>().map(AccessList)
}

fn storage_keys(field: &str, value: Json) -> Result<Vec<B256>, FieldError> {
    let keys = array(field, value)?.into_iter().enumerate().map(|(i, key)| {
        let at = format!("{field}[{i}]");
        match B256::try_from(bytes(&at, key)?.as_ref()) {
            Ok(key) => Ok(key),
            Err(_) => wrong(&at, "expected 32 bytes"),
        }
    });
    keys.collect()
}

fn array(field: &str, value: Json) -> Result<Vec<Json>, FieldError> {
    match value {
        Json::Array(items) => Ok(items),
        other => wrong(field, format!("expected an array, found {}", other.kind())),
    }
}
