//! The message, value by value, as its types say.

use alloy_dyn_abi::DynSolValue;
use alloy_primitives::{B256, I256, Sign, U256};

use super::types::{Type, Types};
use crate::json::Json;
use crate::strict::{FieldError, Fields, address, bytes, items, quantity, text, wrong};

/// Reads a message of the struct `primary`, with `most` structs.
pub(super) fn message(types: &Types, primary: &str, most: usize, value: Json) -> Result<DynSolValue, FieldError> {
    Reading { types, left: most, most }.structure("message", primary, value)
}

struct Reading<'a> {
    types: &'a Types,
    /// Structs that may yet come, of how many.
    left: usize,
    most: usize,
}

impl Reading<'_> {
    fn structure(&mut self, at: &str, name: &str, value: Json) -> Result<DynSolValue, FieldError> {
        match self.left.checked_sub(1) {
            Some(left) => self.left = left,
            None => return wrong(at, format!("with such types, a message has at most {} structs", self.most)),
        }
        let types = self.types.fields(name);
        let names: Vec<&str> = types.iter().map(|field| field.name.as_str()).collect();
        let mut fields = Fields::of(at, value, &names)?;
        let mut tuple = Vec::with_capacity(types.len());
        for field in types {
            let at = fields.at(&field.name);
            match fields.take(&field.name) {
                Some(value) => tuple.push(self.value(&at, &field.kind, value)?),
                None => return wrong(&at, "missing"),
            }
        }
        let prop_names = names.into_iter().map(str::to_owned).collect();
        Ok(DynSolValue::CustomStruct { name: name.to_owned(), prop_names, tuple })
    }

    fn value(&mut self, at: &str, kind: &Type, value: Json) -> Result<DynSolValue, FieldError> {
        Ok(match kind {
            Type::Uint(bits) => DynSolValue::Uint(unsigned(at, *bits, value)?, *bits),
            Type::Int(bits) => DynSolValue::Int(signed(at, *bits, value)?, *bits),
            Type::Bool => match value {
                Json::Bool(value) => DynSolValue::Bool(value),
                other => return wrong(at, format!("expected true or false, found {}", other.kind())),
            },
            Type::Address => DynSolValue::Address(address(at, value)?),
            Type::String => DynSolValue::String(text(at, value)?),
            Type::Bytes => DynSolValue::Bytes(bytes(at, value)?.to_vec()),
            Type::FixedBytes(length) => {
                let bytes = bytes(at, value)?;
                if bytes.len() != *length {
                    return wrong(at, format!("expected {length} bytes, found {}", bytes.len()));
                }
                DynSolValue::FixedBytes(B256::right_padding_from(&bytes), *length)
            }
            Type::Struct(name) => self.structure(at, name, value)?,
            Type::Array(item, length) => {
                let items = items(at, value, |at, value| self.value(at, item, value))?;
                match length {
                    Some(length) if items.len() != *length => {
                        return wrong(at, format!("expected {length} items, found {}", items.len()));
                    }
                    Some(_) => DynSolValue::FixedArray(items),
                    None => DynSolValue::Array(items),
                }
            }
        })
    }
}

fn unsigned(at: &str, bits: usize, value: Json) -> Result<U256, FieldError> {
    match quantity::<U256>(at, value)? {
        value if value.bit_len() <= bits => Ok(value),
        _ => wrong(at, format!("does not fit uint{bits}")),
    }
}

/// As a quantity; or what is below zero, as a JSON integer or a string of decimal digits with a minus before.
fn signed(at: &str, bits: usize, value: Json) -> Result<I256, FieldError> {
    let (sign, magnitude) = match value {
        Json::Negative(value) => (Sign::Negative, quantity(at, Json::Integer(value.unsigned_abs()))?),
        Json::String(text) => match text.strip_prefix('-') {
            // There is one zero.
            Some(digits) if digits.starts_with('0') => return wrong(at, "expected decimal digits after the minus"),
            Some(digits) => (Sign::Negative, quantity(at, Json::String(digits.to_owned()))?),
            None => (Sign::Positive, quantity(at, Json::String(text))?),
        },
        other => (Sign::Positive, quantity(at, other)?),
    };
    let most: U256 = U256::ONE << (bits - 1);
    // Two's complement has one number more below zero.
    let fits = if sign == Sign::Negative { magnitude <= most } else { magnitude < most };
    match I256::checked_from_sign_and_abs(sign, magnitude).filter(|_| fits) {
        Some(value) => Ok(value),
        None => wrong(at, format!("does not fit int{bits}")),
    }
}
