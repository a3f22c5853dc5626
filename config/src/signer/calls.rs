//! Functions that may be called with some arguments and no others.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use alloy_primitives::{B256, U256};
use schemars::JsonSchema;
use serde::Deserialize;

use super::EthAddress;
use crate::function::{Parameter, ParameterType, Signature};

/// A function that may be called on a contract, and what its arguments must be.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct Call {
    /// The contract.
    pub contract: EthAddress,
    /// The function.
    pub function: Signature,
    /// What every one of these arguments must be.
    pub arguments: Vec<Argument>,
}

/// What an argument must be; of an array, each of its items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// As the file names it.
    pub name: String,
    /// The parameter's position; then, in a tuple, the field's. Arrays are passed through: each item is meant.
    pub path: Vec<usize>,
    /// One of these, as the ABI encodes them.
    pub one_of: Option<BTreeSet<B256>>,
    /// At most this.
    pub max: Option<U256>,
}

/// A function that may be called, as operators write it.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Call")]
struct Written {
    /// The contract.
    contract: EthAddress,
    /// The function's signature, in which parameters may be named: `"swap(address to,uint256 amount)"`.
    function: Signature,
    /// What arguments must be, by name or position from 0 (`"params.to"`, `"0.3"` in a tuple); of an array, each item.
    #[serde(default)]
    arguments: BTreeMap<String, Rule>,
}

/// What an argument must be.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ArgumentRule")]
struct Rule {
    /// One of these.
    one_of: Option<Vec<Value>>,
    /// At most this; for unsigned integers.
    max: Option<Value>,
}

/// A value, as the file writes it.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "ArgumentValue")]
enum Value {
    Bool(bool),
    Integer(u64),
    /// An address, decimal digits, or bytes as 0x and hex digits.
    Text(String),
}

super::schema_as!(Call, Written);

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(f),
            Self::Integer(number) => number.fmt(f),
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}

impl TryFrom<Written> for Call {
    type Error = String;
    fn try_from(written: Written) -> Result<Self, String> {
        let parameters = &written.function.parameters;
        let arguments = written.arguments.into_iter().map(|(name, rule)| {
            argument(parameters, &name, &rule)
                .map_err(|why| format!("argument {name:?} of {}: {why}", written.function.canonical))
        });
        let arguments = arguments.collect::<Result<_, _>>()?;
        Ok(Self { contract: written.contract, function: written.function, arguments })
    }
}

fn argument(parameters: &[Parameter], name: &str, rule: &Rule) -> Result<Argument, String> {
    let (path, kind) = find(parameters, name)?;
    if rule.one_of.is_none() && rule.max.is_none() {
        return Err("expected one_of or max".to_owned());
    }
    let one_of = rule.one_of.as_ref().map(|values| values.iter().map(|value| word(kind, value)).collect());
    let max = match &rule.max {
        Some(_) if !kind.starts_with("uint") => {
            return Err(format!("max is for unsigned integers, and it is of type {kind}"));
        }
        max => max.as_ref().map(|value| word(kind, value)).transpose()?,
    };
    Ok(Argument {
        name: name.to_owned(),
        path,
        one_of: one_of.transpose()?,
        max: max.map(|word| U256::from_be_bytes(word.0)),
    })
}

/// The parameter of this name or position, and its elementary type.
fn find<'a>(mut parameters: &'a [Parameter], name: &str) -> Result<(Vec<usize>, &'a str), String> {
    let mut path = Vec::new();
    let mut steps = name.split('.').peekable();
    while let Some(step) = steps.next() {
        let named = parameters.iter().position(|parameter| parameter.name.as_deref() == Some(step));
        let position = named.or_else(|| step.parse().ok().filter(|position: &usize| position.to_string() == step));
        let found = position.and_then(|position| Some((position, parameters.get(position)?)));
        let (position, parameter) = found.ok_or_else(|| format!("there is no {step:?}"))?;
        if parameters.iter().filter(|other| other.name.as_deref() == Some(step)).count() > 1 {
            return Err(format!("there are two {step:?}"));
        }
        path.push(position);
        let mut kind = &parameter.kind;
        while let ParameterType::Array(item, _) = kind {
            kind = item;
        }
        match kind {
            ParameterType::Tuple(fields) => parameters = fields,
            ParameterType::Elementary(kind) if steps.peek().is_none() => return Ok((path, kind)),
            _ => return Err(format!("{step:?} has no fields")),
        }
    }
    Err("it is a tuple: name one of its fields, as in \"0.1\"".to_owned())
}

/// A value of an elementary type, as the ABI encodes it.
fn word(kind: &str, value: &Value) -> Result<B256, String> {
    let wrong = || format!("{value} is no {kind}");
    let word = match (kind, value) {
        ("bool", Value::Bool(value)) => Some(B256::from(U256::from(*value))),
        ("address", Value::Text(text)) => Some(text.parse::<EthAddress>()?.0.into_word()),
        (_, Value::Integer(number)) if kind.starts_with("uint") => fits(kind, U256::from(*number)),
        (_, Value::Text(text)) if kind.starts_with("uint") => {
            let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            U256::from_str_radix(text, 10).ok().filter(|_| plain).and_then(|number| fits(kind, number))
        }
        (_, Value::Text(text)) => {
            let length = kind.strip_prefix("bytes").and_then(|digits| digits.parse::<usize>().ok());
            let Some(length) = length else { return Err(format!("there are no rules for type {kind}")) };
            let bytes = text.strip_prefix("0x").and_then(|digits| alloy_primitives::hex::decode(digits).ok());
            bytes.filter(|bytes| bytes.len() == length).map(|bytes| B256::right_padding_from(&bytes))
        }
        _ => None,
    };
    word.ok_or_else(wrong)
}

fn fits(kind: &str, number: U256) -> Option<B256> {
    let bits: usize = kind.strip_prefix("uint")?.parse().ok()?;
    (number.bit_len() <= bits).then(|| number.into())
}

/// Functions that move tokens or let somebody move them, which are read without being named: ERC-20, EIP-2612 (as the
/// standard and as DAI write it) and EIP-3009, ERC-721, ERC-1155, ERC-677, ERC-1363, ERC-777, and Permit2's.
pub const TOKEN_FUNCTIONS: [&str; 34] = [
    "transfer(address,uint256)",
    "transferFrom(address,address,uint256)",
    "approve(address,uint256)",
    "increaseAllowance(address,uint256)",
    "increaseApproval(address,uint256)",
    "permit(address,address,uint256,uint256,uint8,bytes32,bytes32)",
    "permit(address,address,uint256,uint256,bool,uint8,bytes32,bytes32)",
    "transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,uint8,bytes32,bytes32)",
    "receiveWithAuthorization(address,address,uint256,uint256,uint256,bytes32,uint8,bytes32,bytes32)",
    "transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,bytes)",
    "receiveWithAuthorization(address,address,uint256,uint256,uint256,bytes32,bytes)",
    "setApprovalForAll(address,bool)",
    "safeTransferFrom(address,address,uint256)",
    "safeTransferFrom(address,address,uint256,bytes)",
    "safeTransferFrom(address,address,uint256,uint256,bytes)",
    "safeBatchTransferFrom(address,address,uint256[],uint256[],bytes)",
    "transferAndCall(address,uint256)",
    "transferAndCall(address,uint256,bytes)",
    "transferFromAndCall(address,address,uint256)",
    "transferFromAndCall(address,address,uint256,bytes)",
    "approveAndCall(address,uint256)",
    "approveAndCall(address,uint256,bytes)",
    "send(address,uint256,bytes)",
    "operatorSend(address,address,uint256,bytes,bytes)",
    "authorizeOperator(address)",
    "approve(address,address,uint160,uint48)",
    "permit(address,((address,uint160,uint48,uint48),address,uint256),bytes)",
    "permit(address,((address,uint160,uint48,uint48)[],address,uint256),bytes)",
    "transferFrom(address,address,uint160,address)",
    "transferFrom((address,address,uint160,address)[])",
    "permitTransferFrom(((address,uint256),uint256,uint256),(address,uint256),address,bytes)",
    "permitTransferFrom(((address,uint256)[],uint256,uint256),(address,uint256)[],address,bytes)",
    "permitWitnessTransferFrom(((address,uint256),uint256,uint256),(address,uint256),address,bytes32,string,bytes)",
    "permitWitnessTransferFrom(((address,uint256)[],uint256,uint256),(address,uint256)[],address,bytes32,string,bytes)",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn call(text: &str) -> Result<Call, String> {
        let text = format!("contract = \"0x1111111111111111111111111111111111111111\"\n{text}");
        toml::from_str(&text).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn arguments_are_found_by_name_and_position() {
        let found = |name: &str| {
            let function = "f(address to,(uint8 small,(bytes4 sign,bool)[] many)[2] params)";
            let rule = match name.rsplit('.').next() {
                Some("to" | "0") if !name.contains('.') => {
                    "{ one_of = [\"0x2222222222222222222222222222222222222222\"] }"
                }
                Some("small") => "{ max = \"255\" }",
                Some("sign") => "{ one_of = [\"0x01020304\"] }",
                _ => "{ one_of = [true] }",
            };
            call(&format!("function = \"{function}\"\narguments = {{ \"{name}\" = {rule} }}"))
                .map(|call| call.arguments[0].path.clone())
        };
        for (name, path) in [
            ("to", vec![0]),
            ("0", vec![0]),
            ("params.small", vec![1, 0]),
            ("params.many.sign", vec![1, 1, 0]),
            ("1.1.1", vec![1, 1, 1]),
        ] {
            assert_eq!(found(name), Ok(path), "{name}");
        }
        for bad in ["", "2", "00", "+0", "params", "params.many", "to.x", "other", "params.many.", "1.1.2"] {
            assert!(found(bad).is_err(), "{bad}");
        }
        assert!(call("function = \"f(bool a,bool a)\"\narguments = { a = { one_of = [true] } }").is_err());
    }

    #[test]
    fn values_are_of_their_types() {
        let rule =
            |kind: &str, rule: &str| call(&format!("function = \"f({kind})\"\narguments = {{ 0 = {{ {rule} }} }}"));
        for (kind, good) in [
            ("uint8", "max = 255"),
            ("uint256", "max = \"115792089237316195423570985008687907853269984665640564039457584007913129639935\""),
            ("uint16[]", "one_of = [1, \"2\"], max = 3"),
            ("bool", "one_of = [true, false]"),
            ("bytes32", "one_of = [\"0x0000000000000000000000000000000000000000000000000000000000000001\"]"),
            ("address", "one_of = []"),
        ] {
            assert!(rule(kind, good).is_ok(), "{kind} {good}: {:?}", rule(kind, good));
        }
        for (kind, bad) in [
            ("uint8", "max = 256"),
            ("uint8", "max = \"256\""),
            ("uint8", "max = \"0x1\""),
            ("uint8", "max = \"+1\""),
            ("uint8", "max = -1"),
            ("uint8", "max = true"),
            ("uint8", ""),
            ("uint8", "min = 1"),
            ("address", "max = 1"),
            ("address", "one_of = [1]"),
            ("address", "one_of = [\"0x7E5F4552091A69125d5DfCb7b8C2659029395BdF\"]"),
            ("bool", "one_of = [1]"),
            ("int8", "one_of = [1]"),
            ("bytes4", "one_of = [\"0x0102\"]"),
            ("bytes", "one_of = [\"0x0102\"]"),
            ("string", "one_of = [\"x\"]"),
        ] {
            assert!(rule(kind, bad).is_err(), "{kind} {bad}");
        }
    }
}
