//! A transaction object as JSON-RPC has it, for the strict parser of [`Transaction`]. Pure.

use alloy_primitives::{Address, U256};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::json::Json;
use crate::strict::{FieldError, Fields, address, entries, items, quantity, wrong};
use crate::transaction::{FIELDS, Transaction};

/// What is a quantity: in JSON-RPC, 0x and hex digits always. A decimal string would be read as hex by some nodes.
const QUANTITIES: [&str; 9] = [
    "chainId",
    "type",
    "nonce",
    "gas",
    "value",
    "gasPrice",
    "maxFeePerGas",
    "maxPriorityFeePerGas",
    "maxFeePerBlobGas",
];
/// A transaction that is asked for.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// Whose.
    pub(super) from: Address,
    /// All other fields, by the names of REST; none of them null.
    pub(super) fields: Map<String, Value>,
    /// Whether the caller said `input`, and not `data`.
    input: bool,
}

impl Wanted {
    pub(super) fn read(param: &RawValue) -> Result<Self, FieldError> {
        let Ok(json) = serde_json::from_str::<Json>(param.get()) else {
            return Err(FieldError { field: None, problem: "the transaction is nested too deeply".to_owned() });
        };
        let known: Vec<&str> = FIELDS.into_iter().chain(["from", "input"]).collect();
        let mut read = Fields::of("", json, &known)?;
        let from = read.required("from", address)?;
        let mut fields = Map::new();
        for name in known {
            match read.take(name).map(|value| strict(name, value)).transpose()? {
                None | Some(Value::Null) => {}
                Some(value) => drop(fields.insert(name.to_owned(), value)),
            }
        }
        for name in QUANTITIES {
            if fields.get(name).is_some_and(|value| !value.as_str().is_some_and(|text| text.starts_with("0x"))) {
                return wrong(name, "expected a quantity as JSON-RPC has it: a string of 0x and hex digits");
            }
        }
        let input = fields.remove("input");
        let wanted = Self { from, input: input.is_some() && !fields.contains_key("data"), fields };
        wanted.with_input(input)
    }

    /// `data` has two names: who gives both must mean the same.
    fn with_input(mut self, input: Option<Value>) -> Result<Self, FieldError> {
        let Some(input) = input else { return Ok(self) };
        match self.fields.get("data") {
            Some(data) if *data != input => wrong("input", "data says something else: give one of them"),
            Some(_) => Ok(self),
            None => {
                self.fields.insert("data".to_owned(), input);
                Ok(self)
            }
        }
    }

    /// What the caller said, in one way of writing it.
    pub(super) fn asked(&self) -> Vec<u8> {
        // Of a map that sorts its names.
        serde_json::to_vec(&self.fields).unwrap_or_default()
    }

    /// The chain that it names.
    pub(super) fn chain_id(&self) -> Result<Option<u64>, FieldError> {
        self.number("chainId")
    }

    pub(super) fn number<T: TryFrom<U256>>(&self, name: &str) -> Result<Option<T>, FieldError> {
        let text = self.fields.get(name).and_then(Value::as_str);
        text.map(|text| quantity(name, Json::String(text.to_owned()))).transpose()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.fields.contains_key(name)
    }

    pub(super) fn set(&mut self, name: &str, number: impl Into<U256>) {
        self.fields.insert(name.to_owned(), json!(format!("{:#x}", number.into())));
    }

    /// The type, where it is given or follows from the other fields.
    pub(super) fn kind(&self) -> Result<Option<u64>, FieldError> {
        Ok(match self.number("type")? {
            Some(kind) => Some(kind),
            None if self.has("authorizationList") => Some(4),
            None if self.has("blobVersionedHashes") => Some(3),
            None if self.has("maxFeePerGas") || self.has("maxPriorityFeePerGas") => Some(2),
            None if self.has("gasPrice") => Some(self.has("accessList").into()),
            None => None,
        })
    }

    /// Fills what is left out as it was filled before, in a transaction of [`Transaction::body`].
    pub(super) fn fill_as(&mut self, body: &str) -> Result<(), FieldError> {
        let Ok(Json::Object(before)) = serde_json::from_str(body) else { return Ok(()) };
        for (name, value) in before {
            if QUANTITIES.contains(&name.as_str()) && !self.has(&name) && name != "value" {
                self.set(&name, quantity::<U256>(&name, value)?);
            }
        }
        Ok(())
    }

    /// As the strict parser has it: what is still missing is an error that names it.
    pub(super) fn transaction(&self) -> Result<(Transaction, Option<u64>), FieldError> {
        let json = serde_json::to_vec(&self.fields).expect("strings, numbers, lists and objects of them");
        Transaction::parse_draft(&json).map_err(|error| match error.field.as_deref() {
            Some("data") if self.input => FieldError { field: Some("input".to_owned()), ..error },
            _ => error,
        })
    }
}

/// A value that is there once and can be written as it was read.
fn strict(field: &str, value: Json) -> Result<Value, FieldError> {
    Ok(match value {
        Json::Null => Value::Null,
        Json::Bool(value) => value.into(),
        Json::Integer(value) => value.into(),
        Json::Negative(value) => value.into(),
        Json::OtherNumber => return wrong(field, "expected a string of 0x and hex digits"),
        Json::String(text) => text.into(),
        list @ Json::Array(_) => items(field, list, strict)?.into(),
        object @ Json::Object(_) => {
            let fields = entries(field, object)?.into_iter().map(|(name, value)| {
                let value = strict(&format!("{field}.{name}"), value)?;
                Ok((name, value))
            });
            Value::Object(fields.collect::<Result<_, FieldError>>()?)
        }
    })
}
