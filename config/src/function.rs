//! Functions of contracts, as policies name them.

use std::fmt;

use alloy_primitives::keccak256;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};

/// The longest signature that is read; it bounds how deep tuples can be.
const LONGEST: usize = 1024;

/// A function, written as its selector (`"0xd0e30db0"`) or as its signature (`"deposit()"`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Function {
    /// What a call's data begins with: the first 4 bytes of the Keccak-256 of the signature.
    pub selector: [u8; 4],
}

impl std::str::FromStr for Function {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(digits) = text.strip_prefix("0x") {
            return match u32::from_str_radix(digits, 16) {
                Ok(selector) if digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_hexdigit()) => {
                    Ok(Self { selector: selector.to_be_bytes() })
                }
                _ => Err(format!("expected a selector of 0x and 8 hex digits, found {text:?}")),
            };
        }
        let parameters = parameters(text, false).map_err(|why| format!("{why}, found {text:?}"))?;
        Ok(Self::of(&text[..text.find('(').unwrap_or_default()], &parameters))
    }
}

impl Function {
    fn of(name: &str, parameters: &[Parameter]) -> Self {
        let hash = keccak256(format!("{name}{}", Tuple(parameters)));
        Self { selector: [hash[0], hash[1], hash[2], hash[3]] }
    }
}

/// A function's signature, in which parameters may be named: `"swap(address to,uint256 amount)"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// As Solidity hashes it: without the names of parameters.
    pub canonical: String,
    /// What a call's data begins with.
    pub function: Function,
    /// What it takes.
    pub parameters: Vec<Parameter>,
}

/// A parameter of a function, or a field of a tuple.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Its type.
    pub kind: ParameterType,
}

/// A type of Solidity's ABI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParameterType {
    /// Such as `uint256`.
    Elementary(String),
    /// A struct.
    Tuple(Vec<Parameter>),
    /// An array, of any or of a fixed length.
    Array(Box<ParameterType>, Option<u32>),
}

impl std::str::FromStr for Signature {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parameters = parameters(text, true).map_err(|why| format!("{why}, found {text:?}"))?;
        let name = &text[..text.find('(').unwrap_or_default()];
        let canonical = format!("{name}{}", Tuple(&parameters));
        Ok(Self { canonical, function: Function::of(name, &parameters), parameters })
    }
}

impl fmt::Display for ParameterType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Elementary(name) => f.write_str(name),
            Self::Tuple(fields) => Tuple(fields).fmt(f),
            Self::Array(item, None) => write!(f, "{item}[]"),
            Self::Array(item, Some(length)) => write!(f, "{item}[{length}]"),
        }
    }
}

/// Types in parentheses.
struct Tuple<'a>(&'a [Parameter]);

impl fmt::Display for Tuple<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(")?;
        for (i, parameter) in self.0.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { "," }, parameter.kind)?;
        }
        f.write_str(")")
    }
}

/// Reads a signature that is written as it is hashed, but for names of parameters where they may be `named`: another
/// spelling of it has another selector.
fn parameters(text: &str, named: bool) -> Result<Vec<Parameter>, String> {
    const EXPECTED: &str = "expected a selector such as \"0xd0e30db0\" or a signature such as \"withdraw(uint256)\"";
    const NAMED: &str = "expected a signature such as \"withdraw(uint256 amount)\"";
    let expected = if named { NAMED } else { EXPECTED };
    if text.len() > LONGEST {
        return Err(format!("a signature has at most {LONGEST} characters"));
    }
    let (name, _) = text.split_once('(').ok_or(expected)?;
    if !identifier(name) {
        return Err(expected.to_owned());
    }
    match &text[name.len()..] {
        "()" => Ok(Vec::new()),
        rest => match tuple(rest, named)? {
            (parameters, "") => Ok(parameters),
            _ if named => Err("a signature ends with its parameters: it has no results".to_owned()),
            _ => Err("a signature ends with its parameters: it has no spaces, names or results".to_owned()),
        },
    }
}

fn identifier(name: &str) -> bool {
    let letter = |b: u8| b.is_ascii_alphabetic() || b == b'_' || b == b'$';
    name.bytes().next().is_some_and(letter) && name.bytes().all(|b| letter(b) || b.is_ascii_digit())
}

/// Reads `(type,...)`, and what follows.
fn tuple(text: &str, named: bool) -> Result<(Vec<Parameter>, &str), String> {
    const OPEN: &str = "a parenthesis is not closed, or types are not separated by commas alone";
    let mut rest = text.strip_prefix('(').ok_or(OPEN)?;
    let mut parameters = Vec::new();
    loop {
        let (parameter, after) = parameter(rest, named)?;
        parameters.push(parameter);
        match after.split_at_checked(1) {
            Some((",", more)) => rest = more.strip_prefix(' ').filter(|_| named).unwrap_or(more),
            Some((")", rest)) => return Ok((parameters, rest)),
            _ => return Err(OPEN.to_owned()),
        }
    }
}

/// Reads a type, an elementary one or a tuple, with any number of `[]` or `[N]`; its name, where it may have one; and
/// what follows.
fn parameter(text: &str, named: bool) -> Result<(Parameter, &str), String> {
    let (mut kind, mut rest) = if text.starts_with('(') {
        let (fields, rest) = tuple(text, named)?;
        (ParameterType::Tuple(fields), rest)
    } else {
        let end = |c: char| matches!(c, ',' | ')' | '[') || (named && c == ' ');
        let (name, rest) = text.split_at(text.find(end).unwrap_or(text.len()));
        elementary(name)?;
        (ParameterType::Elementary(name.to_owned()), rest)
    };
    while let Some(array) = rest.strip_prefix('[') {
        let (length, after) = array.split_once(']').ok_or("a bracket is not closed")?;
        let length = match (length, number(length)) {
            ("", _) => None,
            (_, Some(length)) => Some(length),
            (length, None) => return Err(format!("{length:?} is no length of an array")),
        };
        kind = ParameterType::Array(Box::new(kind), length);
        rest = after;
    }
    let mut name = None;
    if let Some(after) = rest.strip_prefix(' ').filter(|_| named) {
        let (written, after) = after.split_at(after.find([',', ')']).unwrap_or(after.len()));
        if !identifier(written) {
            return Err(format!("{written:?} is no name of a parameter"));
        }
        (name, rest) = (Some(written.to_owned()), after);
    }
    Ok((Parameter { name, kind }, rest))
}

fn elementary(name: &str) -> Result<(), String> {
    let bits = |digits| number(digits).is_some_and(|bits| bits <= 256 && bits % 8 == 0);
    let known = match name {
        "address" | "bool" | "string" | "bytes" | "function" => true,
        "uint" | "int" => return Err(format!("{name} is written {name}256 in a signature")),
        _ => match (name.strip_prefix("uint").or(name.strip_prefix("int")), name.strip_prefix("bytes")) {
            (Some(digits), _) => bits(digits),
            (_, Some(digits)) => number(digits).is_some_and(|length| length <= 32),
            _ => false,
        },
    };
    if known { Ok(()) } else { Err(format!("{name:?} is no type as a signature writes it")) }
}

/// A number above zero, without leading zeros.
fn number(digits: &str) -> Option<u32> {
    digits.parse().ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0'))
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:08x}", u32::from_be_bytes(self.selector))
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Signature {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Signature".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": "^[A-Za-z_$][A-Za-z0-9_$]*\\(.*\\)$",
            "examples": ["swap(address to,uint256 amount)"]
        })
    }
}

impl<'de> Deserialize<'de> for Function {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Function {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Function".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": "^(0x[0-9a-fA-F]{8}|[A-Za-z_$][A-Za-z0-9_$]*\\(.*\\))$",
            "examples": ["0xd0e30db0", "deposit()"]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_read_and_signatures_hashed() {
        for (text, selector) in [
            ("0xd0e30db0", "0xd0e30db0"),
            ("0xD0E30DB0", "0xd0e30db0"),
            ("deposit()", "0xd0e30db0"),
            ("withdraw(uint256)", "0x2e1a7d4d"),
            ("multicall(bytes[])", "0xac9650d8"),
            ("exactInputSingle((address,address,uint24,address,uint256,uint256,uint256,uint160))", "0x414bf389"),
            ("swapExactTokensForTokens(uint256,uint256,address[],address,uint256)", "0x38ed1739"),
            ("joinPool(bytes32,address,address,(address[],uint256[],bytes,bool))", "0xb95cac28"),
        ] {
            assert_eq!(text.parse::<Function>().unwrap().to_string(), selector, "{text}");
        }
        for text in ["$_a1(int8,bool,string,bytes1)", "f(uint8[2][],((int256)[3],function))"] {
            assert!(text.parse::<Function>().is_ok(), "{text}");
        }
    }

    #[test]
    fn parameters_may_be_named() {
        let read = |text: &str| text.parse::<Signature>();
        for (named, canonical) in [
            ("swap(address to, uint256 amount)", "swap(address,uint256)"),
            ("swap(address,uint256 amount)", "swap(address,uint256)"),
            ("pay((address to,uint256[2][] $a)[] _1,bool)", "pay((address,uint256[2][])[],bool)"),
            ("deposit()", "deposit()"),
        ] {
            let signature = read(named).unwrap();
            assert_eq!(signature.canonical, canonical);
            assert_eq!(signature.function, canonical.parse().unwrap());
        }
        let names = |text: &str| read(text).unwrap().parameters.into_iter().map(|p| p.name).collect::<Vec<_>>();
        assert_eq!(names("f(address to, bool)"), [Some("to".to_owned()), None]);
        for bad in [
            "0xd0e30db0",
            "f(address  to)",
            "f(address to )",
            "f( address)",
            "f(address 1)",
            "f(address a b)",
            "f(()a)",
            "f() ",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn another_spelling_is_refused() {
        let deep = format!("f{}{}", "(".repeat(2000), ")".repeat(2000));
        for bad in [
            "",
            "0x",
            "0xd0e30db",
            "0xd0e30db00",
            "0x+0e30db0",
            "d0e30db0",
            "deposit",
            "()",
            "1f()",
            "f( )",
            "f (uint8)",
            " f()",
            "f() ",
            "f()()",
            "f(uint)",
            "f(int)",
            "f(uint7)",
            "f(uint264)",
            "f(uint08)",
            "f(uint0)",
            "f(bytes33)",
            "f(bytes0)",
            "f(byte)",
            "f(address payable)",
            "f(uint256 amount)",
            "f(uint256, uint256)",
            "f(uint256,)",
            "f(,uint256)",
            "f(uint256",
            "f(uint256))",
            "f(uint256[)",
            "f(uint256[0])",
            "f(uint256[-1])",
            "f(tuple)",
            "f(())",
            "f(IERC20)",
            "f(é)",
            "fé()",
            "function f()",
            "f() returns (bool)",
            deep.as_str(),
        ] {
            assert!(bad.parse::<Function>().is_err(), "{bad}");
        }
    }
}
