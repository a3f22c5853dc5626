//! The types that a message declares.

use std::collections::{BTreeMap, BTreeSet};

use alloy_dyn_abi::eip712::{PropertyDef, Resolver, TypeDef};

use crate::json::Json;
use crate::strict::{FieldError, Fields, entries, items, shown, text, wrong};

/// More types than anybody declares; so many are hashed again for each struct of a message.
const MAX_TYPES: usize = 64;
/// More fields than a struct has.
const MAX_FIELDS: usize = 64;
/// A longer name or type is none; arrays of arrays are bounded by it.
const MAX_NAME: usize = 128;
/// A fixed array's length, and all of its items are there to be read.
const MAX_LENGTH: usize = 1 << 16;

/// The domain's type: declared, if at all, and part of no message.
const DOMAIN: &str = "EIP712Domain";

/// A type of EIP-712.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Type {
    /// `uint8` to `uint256`: bits.
    Uint(usize),
    /// `int8` to `int256`: bits.
    Int(usize),
    Bool,
    Address,
    String,
    Bytes,
    /// `bytes1` to `bytes32`.
    FixedBytes(usize),
    /// One that `types` declares.
    Struct(String),
    /// `[]`, or `[N]`.
    Array(Box<Self>, Option<usize>),
}

/// A field of a struct.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: String,
    /// As it is written, which is as it is hashed.
    pub(super) written: String,
    pub(super) kind: Type,
}

/// The structs of a message, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Types {
    structs: BTreeMap<String, Vec<Field>>,
    domain: Option<Vec<Field>>,
}

impl Types {
    pub(super) fn read(field: &str, value: Json) -> Result<Self, FieldError> {
        let mut structs = BTreeMap::new();
        for (name, fields) in entries(field, value)? {
            let at = format!("{field}.{}", shown(&name));
            if !identifier(&name, true) || elementary(&name).is_some() {
                return wrong(&at, "no name for a struct: letters, digits, _ and $, and no type of Solidity's own");
            }
            let fields = items(&at, fields, self::field)?;
            if fields.len() > MAX_FIELDS {
                return wrong(&at, format!("a struct has at most {MAX_FIELDS} fields"));
            }
            let mut names = BTreeSet::new();
            if let Some(i) = fields.iter().position(|field| !names.insert(&field.name)) {
                return wrong(&format!("{at}[{i}].name"), "there twice");
            }
            structs.insert(name, fields);
            if structs.len() > MAX_TYPES {
                return wrong(field, format!("at most {MAX_TYPES} types are read"));
            }
        }
        let domain = structs.remove(DOMAIN);
        Ok(Self { structs, domain })
    }

    /// Sees that the message's type is declared, that all types it needs are, and no other; and that the domain's, if
    /// it is declared, is `domain`.
    pub(super) fn check(&self, primary: &str, domain: &[(&str, &str)]) -> Result<(), FieldError> {
        if !self.structs.contains_key(primary) {
            return wrong("primaryType", format!("{:?} is not declared in types", shown(primary)));
        }
        let mut used = BTreeSet::new();
        let mut left = vec![primary];
        while let Some(name) = left.pop() {
            let Some(fields) = self.structs.get(name) else { continue };
            if !used.insert(name) {
                continue;
            }
            for (i, field) in fields.iter().enumerate() {
                if let Some(of) = field.kind.of() {
                    if !self.structs.contains_key(of) {
                        let of = shown(of);
                        return wrong(&format!("types.{name}[{i}].type"), format!("no type is named {of:?}"));
                    }
                    left.push(of);
                }
            }
        }
        if let Some(unused) = self.structs.keys().find(|name| !used.contains(name.as_str())) {
            return wrong(&format!("types.{unused}"), "the message has none of this type: it may be misspelt");
        }
        match &self.domain {
            Some(fields)
                if !fields.iter().map(|f| (f.name.as_str(), f.written.as_str())).eq(domain.iter().copied()) =>
            {
                let listed: Vec<_> = domain.iter().map(|(name, kind)| format!("{kind} {name}")).collect();
                wrong(
                    "types.EIP712Domain",
                    format!("not what domain has, in the order of EIP-712: {}", listed.join(", ")),
                )
            }
            _ => Ok(()),
        }
    }

    /// The fields of a struct; none of one that is not declared, which [`Self::check`] refuses.
    pub(super) fn fields(&self, name: &str) -> &[Field] {
        self.structs.get(name).map_or(&[], Vec::as_slice)
    }

    /// The name of a struct that is declared, as long as the types are there.
    pub(super) fn name(&self, name: &str) -> Option<&str> {
        self.structs.get_key_value(name).map(|(name, _)| name.as_str())
    }

    /// As alloy takes them.
    pub(super) fn resolver(&self) -> Resolver {
        let mut resolver = Resolver::default();
        for (name, fields) in &self.structs {
            let fields = fields.iter().map(|f| PropertyDef::new_unchecked(f.written.clone(), f.name.clone()));
            resolver.ingest(TypeDef::new_unchecked(name.clone(), fields.collect()));
        }
        resolver
    }
}

impl Type {
    /// Reads a type as EIP-712 writes it: no aliases, no spaces.
    fn read(text: &str) -> Option<Self> {
        if let Some((item, length)) = text.strip_suffix(']').and_then(|text| text.rsplit_once('[')) {
            let length = match length {
                "" => None,
                digits => Some(number(digits, MAX_LENGTH)?),
            };
            return Some(Self::Array(Box::new(Self::read(item)?), length));
        }
        elementary(text).or_else(|| identifier(text, true).then(|| Self::Struct(text.to_owned())))
    }

    /// The struct that it is, or is an array of.
    pub(super) fn of(&self) -> Option<&str> {
        match self {
            Self::Struct(name) => Some(name),
            Self::Array(item, _) => item.of(),
            _ => None,
        }
    }
}

fn field(at: &str, value: Json) -> Result<Field, FieldError> {
    let mut fields = Fields::of(at, value, &["name", "type"])?;
    let (name, written) = (fields.required("name", text)?, fields.required("type", text)?);
    if !identifier(&name, false) {
        return wrong(&fields.at("name"), "no name for a field: letters, digits, _ and $");
    }
    // Brackets are read one inside the other.
    let kind = if written.len() <= MAX_NAME { Type::read(&written) } else { None };
    match kind {
        Some(kind) => Ok(Field { name, written, kind }),
        None => wrong(&fields.at("type"), format!("{:?} is no type of EIP-712", shown(&written))),
    }
}

fn elementary(name: &str) -> Option<Type> {
    let bits = |digits| number(digits, 256).filter(|bits| bits % 8 == 0);
    match name {
        "bool" => Some(Type::Bool),
        "address" => Some(Type::Address),
        "string" => Some(Type::String),
        "bytes" => Some(Type::Bytes),
        _ => None
            .or_else(|| name.strip_prefix("uint").and_then(bits).map(Type::Uint))
            .or_else(|| name.strip_prefix("int").and_then(bits).map(Type::Int))
            .or_else(|| name.strip_prefix("bytes").and_then(|digits| number(digits, 32)).map(Type::FixedBytes)),
    }
}

/// Names that look like an elementary type, and are none, are nobody's: an alias such as `uint` is hashed otherwise.
fn identifier(name: &str, of_a_type: bool) -> bool {
    let letter = |b: u8| b.is_ascii_alphabetic() || b == b'_' || b == b'$';
    // Some write "Protocol:Action".
    let inner = |b: u8| letter(b) || b.is_ascii_digit() || (of_a_type && b == b':');
    let looks_elementary = || {
        ["uint", "int", "bytes", "fixed", "ufixed"]
            .iter()
            .any(|prefix| name.strip_prefix(prefix).is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit())))
    };
    name.len() <= MAX_NAME
        && name.bytes().next().is_some_and(letter)
        && name.bytes().all(inner)
        && !(of_a_type && looks_elementary())
}

/// A number from 1 to `most`, without leading zeros.
fn number(digits: &str, most: usize) -> Option<usize> {
    let canonical = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    digits.parse().ok().filter(|number| canonical && (1..=most).contains(number))
}
