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
        canonical(text).map_err(|why| format!("{why}, found {text:?}"))?;
        let hash = keccak256(text);
        Ok(Self { selector: [hash[0], hash[1], hash[2], hash[3]] })
    }
}

/// Sees that a signature is written as it is hashed: another spelling of it has another selector.
fn canonical(text: &str) -> Result<(), String> {
    const EXPECTED: &str = "expected a selector such as \"0xd0e30db0\" or a signature such as \"withdraw(uint256)\"";
    if text.len() > LONGEST {
        return Err(format!("a signature has at most {LONGEST} characters"));
    }
    let (name, _) = text.split_once('(').ok_or(EXPECTED)?;
    let letter = |b: u8| b.is_ascii_alphabetic() || b == b'_' || b == b'$';
    if !name.bytes().next().is_some_and(letter) || !name.bytes().all(|b| letter(b) || b.is_ascii_digit()) {
        return Err(EXPECTED.to_owned());
    }
    match tuple(&text[name.len()..])? {
        "" => Ok(()),
        _ => Err("a signature ends with its parameters: it has no spaces, names or results".to_owned()),
    }
}

/// Reads `(type,...)`, and answers what follows.
fn tuple(text: &str) -> Result<&str, String> {
    const OPEN: &str = "a parenthesis is not closed, or types are not separated by commas alone";
    let mut rest = text.strip_prefix('(').ok_or(OPEN)?;
    if let Some(rest) = rest.strip_prefix(')') {
        return Ok(rest);
    }
    loop {
        rest = parameter(rest)?;
        match rest.split_at_checked(1) {
            Some((",", more)) => rest = more,
            Some((")", rest)) => return Ok(rest),
            _ => return Err(OPEN.to_owned()),
        }
    }
}

/// Reads a type: an elementary one or a tuple, and any number of `[]` or `[N]`.
fn parameter(text: &str) -> Result<&str, String> {
    let mut rest = if text.starts_with('(') {
        tuple(text)?
    } else {
        let (name, rest) = text.split_at(text.find([',', ')', '[']).unwrap_or(text.len()));
        elementary(name)?;
        rest
    };
    while let Some(array) = rest.strip_prefix('[') {
        let (length, after) = array.split_once(']').ok_or("a bracket is not closed")?;
        if !length.is_empty() && number(length).is_none() {
            return Err(format!("{length:?} is no length of an array"));
        }
        rest = after;
    }
    Ok(rest)
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
