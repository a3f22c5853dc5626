//! Functions that may be called with some arguments and no others.

use alloy_dyn_abi::{DynSolType, DynSolValue};
use alloy_primitives::{Address, B256, U256, hex};
use keygate_config::{Argument, Call};

use super::abi;
use super::{Denied, Policy};

/// A function that may be called on a contract, if its arguments are what they must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallRule {
    /// The contract.
    pub contract: Address,
    /// What a call's data begins with.
    pub selector: [u8; 4],
    /// As Solidity hashes it.
    pub signature: String,
    /// What its arguments must be.
    pub arguments: Vec<Argument>,
    parameters: DynSolType,
}

impl CallRule {
    /// None for a signature that is none, which the file does not have.
    pub(super) fn new(call: &Call) -> Option<Self> {
        let signature = call.function.canonical.clone();
        let parameters = match &signature[signature.find('(')?..] {
            "()" => DynSolType::Tuple(Vec::new()),
            parameters => DynSolType::parse(parameters).ok()?,
        };
        Some(Self {
            contract: call.contract.0,
            selector: call.function.function.selector,
            signature,
            arguments: call.arguments.clone(),
            parameters,
        })
    }

    /// What is wrong with arguments, if anything is.
    fn wrong(&self, data: &[u8]) -> Option<String> {
        let Some(values) = abi::decode(&self.parameters, data) else {
            return Some(format!("the data is no well-formed call of {}", self.signature));
        };
        let values = DynSolValue::Tuple(values);
        self.arguments.iter().find_map(|argument| {
            let why = wrong(&values, &argument.path, argument)?;
            Some(format!("{} on {}: {} {why}", self.signature, self.contract, argument.name))
        })
    }

    /// Whether whatever this allows, `other` does.
    pub(super) fn is_within(&self, other: &Self) -> bool {
        let tighter = |a: &Argument, b: &Argument| {
            a.path == b.path
                && b.one_of.as_ref().is_none_or(|b| a.one_of.as_ref().is_some_and(|a| a.is_subset(b)))
                && b.max.is_none_or(|b| a.max.is_some_and(|a| a <= b))
        };
        (self.contract, self.selector) == (other.contract, other.selector)
            && self.parameters == other.parameters
            && other.arguments.iter().all(|b| self.arguments.iter().any(|a| tighter(a, b)))
    }
}

/// What is wrong with the value at the end of a path, or with any item of an array on it.
fn wrong(value: &DynSolValue, path: &[usize], rule: &Argument) -> Option<String> {
    if let Some(items) = value.as_array().or_else(|| value.as_fixed_array()) {
        return items.iter().find_map(|item| wrong(item, path, rule));
    }
    if let (Some(fields), [first, rest @ ..]) = (value.as_tuple(), path) {
        // A place that is not there is nothing that could be right.
        return fields.get(*first).map_or_else(|| Some("is not there".to_owned()), |field| wrong(field, rest, rule));
    }
    let Some(word) = value.as_word() else { return Some("is of no type that has rules".to_owned()) };
    if rule.one_of.as_ref().is_some_and(|allowed| !allowed.contains(&word)) {
        return Some(format!("is {}, which is not listed", shown(value, word)));
    }
    match rule.max {
        Some(max) if U256::from_be_bytes(word.0) > max => Some(format!("is {}, above {max}", shown(value, word))),
        _ => None,
    }
}

fn shown(value: &DynSolValue, word: B256) -> String {
    match value {
        DynSolValue::Address(address) => address.to_string(),
        DynSolValue::Uint(number, _) => number.to_string(),
        DynSolValue::Bool(value) => value.to_string(),
        DynSolValue::FixedBytes(_, size) => hex::encode_prefixed(&word[..*size]),
        _ => word.to_string(),
    }
}

/// Judges a call of a function that is not read otherwise: one of the rules for it must have nothing against it.
pub(super) fn judge(policy: &Policy, contract: Address, selector: [u8; 4], data: &[u8]) -> Result<(), Denied> {
    let mut why = None;
    for rule in policy.calls.iter().filter(|rule| (rule.contract, rule.selector) == (contract, selector)) {
        match rule.wrong(data) {
            None => return Ok(()),
            Some(wrong) => why = why.or(Some(wrong)),
        }
    }
    match why {
        Some(why) => Denied::new("calls", why),
        None => Denied::new("functions", format!("0x{} is no token call, and is not listed", hex::encode(selector))),
    }
}
