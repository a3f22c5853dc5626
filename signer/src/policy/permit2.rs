//! Calls that move tokens and have more than words for arguments: Permit2's, and EIP-3009 with a signature of any length.

use std::sync::LazyLock;

use alloy_dyn_abi::{DynSolType, DynSolValue};
use alloy_primitives::{Address, U256, address, keccak256};

use super::Policy;
use super::abi;
use super::calldata::{Malformed, Movement};

/// Where Permit2 is, on every chain that deploys contracts as Ethereum does.
pub(super) const PERMIT2: Address = address!("0x000000000022D473030F116dDEE9F6B43aC78BA3");

/// Whether a policy limits tokens, and a contract that moves others' is not Permit2: what its functions of the same names
/// do, nobody here knows.
pub(super) fn is_not(policy: &Policy, contract: Address, moves: &[Movement]) -> bool {
    let own = !moves.is_empty() && moves.iter().all(|moved| moved.token == contract);
    policy.tokens.is_some() && !own && contract != PERMIT2
}

/// Permit2 keeps amounts in 160 bits, of which the largest is without bound.
const MOST: U256 = U256::from_limbs([u64::MAX, u64::MAX, u32::MAX as u64, 0]);

/// Reads the arguments of a function of a contract, if it is one of these.
pub(super) fn read(contract: Address, selector: [u8; 4], data: &[u8]) -> Option<Result<Vec<Movement>, Malformed>> {
    let call = CALLS.iter().find(|call| call.selector == selector)?;
    let read = abi::decode(&call.parameters, data).and_then(|arguments| (call.read)(contract, &arguments));
    Some(read.ok_or(Malformed::Arguments(call.name)))
}

/// An amount that Permit2 keeps, by what it means.
pub(super) fn amount(amount: U256) -> U256 {
    if amount == MOST { U256::MAX } else { amount }
}

/// The moves of a call on a contract, by its arguments.
type Read = fn(Address, &[DynSolValue]) -> Option<Vec<Movement>>;

struct Call {
    name: &'static str,
    selector: [u8; 4],
    parameters: DynSolType,
    read: Read,
}

static CALLS: LazyLock<Vec<Call>> = LazyLock::new(|| {
    let call = |(name, read): &(&'static str, Read)| {
        let parameters = &name[name.find('(').expect("a signature has parameters")..];
        let hash = keccak256(name);
        Call {
            name,
            selector: [hash[0], hash[1], hash[2], hash[3]],
            parameters: DynSolType::parse(parameters).expect("types as Solidity writes them"),
            read: *read,
        }
    };
    FUNCTIONS.iter().map(call).collect()
});

pub(super) const FUNCTIONS: [(&str, Read); 11] = [
    ("transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,bytes)", authorization),
    ("receiveWithAuthorization(address,address,uint256,uint256,uint256,bytes32,bytes)", authorization),
    ("approve(address,address,uint160,uint48)", |_, arguments| match arguments {
        [token, spender, value, _] => Some(vec![moved(token, spender, value)?]),
        _ => None,
    }),
    ("permit(address,((address,uint160,uint48,uint48),address,uint256),bytes)", permit),
    ("permit(address,((address,uint160,uint48,uint48)[],address,uint256),bytes)", permit),
    ("transferFrom(address,address,uint160,address)", |_, arguments| Some(vec![transfer(arguments)?])),
    ("transferFrom((address,address,uint160,address)[])", |_, arguments| {
        arguments.first()?.as_array()?.iter().map(|one| transfer(one.as_tuple()?)).collect()
    }),
    ("permitTransferFrom(((address,uint256),uint256,uint256),(address,uint256),address,bytes)", one),
    ("permitTransferFrom(((address,uint256)[],uint256,uint256),(address,uint256)[],address,bytes)", many),
    (
        "permitWitnessTransferFrom(((address,uint256),uint256,uint256),(address,uint256),address,bytes32,string,bytes)",
        one,
    ),
    (
        "permitWitnessTransferFrom(((address,uint256)[],uint256,uint256),(address,uint256)[],address,bytes32,string,bytes)",
        many,
    ),
];

fn authorization(contract: Address, arguments: &[DynSolValue]) -> Option<Vec<Movement>> {
    let (recipient, (amount, _)) = (arguments.get(1)?.as_address()?, arguments.get(2)?.as_uint()?);
    Some(vec![Movement { token: contract, recipient, amount: Some(amount) }])
}

fn permit(_: Address, arguments: &[DynSolValue]) -> Option<Vec<Movement>> {
    let [details, spender, _] = arguments.get(1)?.as_tuple()? else { return None };
    let moved = |detail: &DynSolValue| {
        let [token, value, ..] = detail.as_tuple()? else { return None };
        moved(token, spender, value)
    };
    match details {
        DynSolValue::Array(many) => many.iter().map(moved).collect(),
        one => Some(vec![moved(one)?]),
    }
}

fn transfer(arguments: &[DynSolValue]) -> Option<Movement> {
    let [_, recipient, value, token] = arguments else { return None };
    moved(token, recipient, value)
}

/// What is permitted, and how much of it goes to whom.
fn one(_: Address, arguments: &[DynSolValue]) -> Option<Vec<Movement>> {
    let [permit, transfer, ..] = arguments else { return None };
    Some(vec![requested(permit.as_tuple()?.first()?, transfer)?])
}

fn many(_: Address, arguments: &[DynSolValue]) -> Option<Vec<Movement>> {
    let [permit, transfers, ..] = arguments else { return None };
    let (permitted, transfers) = (permit.as_tuple()?.first()?.as_array()?, transfers.as_array()?);
    if permitted.len() != transfers.len() {
        return None;
    }
    permitted.iter().zip(transfers).map(|(permitted, transfer)| requested(permitted, transfer)).collect()
}

fn requested(permitted: &DynSolValue, transfer: &DynSolValue) -> Option<Movement> {
    let ([token, _], [recipient, value]) = (permitted.as_tuple()?, transfer.as_tuple()?) else { return None };
    let (token, recipient) = (token.as_address()?, recipient.as_address()?);
    Some(Movement { token, recipient, amount: Some(value.as_uint()?.0) })
}

fn moved(token: &DynSolValue, recipient: &DynSolValue, value: &DynSolValue) -> Option<Movement> {
    let (token, recipient) = (token.as_address()?, recipient.as_address()?);
    Some(Movement { token, recipient, amount: Some(amount(value.as_uint()?.0)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word_of(byte: u8) -> DynSolValue {
        DynSolValue::Address(Address::repeat_byte(byte))
    }

    fn uint(value: U256) -> DynSolValue {
        DynSolValue::Uint(value, 256)
    }

    fn tuple(values: &[DynSolValue]) -> DynSolValue {
        DynSolValue::Tuple(values.to_vec())
    }

    fn array(values: &[DynSolValue]) -> DynSolValue {
        DynSolValue::Array(values.to_vec())
    }

    /// What a call of the function says, which has other bytes at its end.
    fn said(name: &str, arguments: &[DynSolValue]) -> Option<Vec<(u8, u8, U256)>> {
        let hash = keccak256(name);
        let selector = [hash[0], hash[1], hash[2], hash[3]];
        let mut data = tuple(arguments).abi_encode_params();
        let moves = read(Address::repeat_byte(9), selector, &data).unwrap();
        data.push(0);
        assert!(read(Address::repeat_byte(9), selector, &data).unwrap().is_err(), "{name}");
        let plain = |moved: &Movement| (moved.token[0], moved.recipient[0], moved.amount.unwrap());
        moves.ok().map(|moves| moves.iter().map(plain).collect())
    }

    #[test]
    fn tokens_recipients_and_amounts_are_in_their_places() {
        let n = |n: u64| U256::from(n);
        let bytes = || DynSolValue::Bytes(vec![7; 65]);
        let (a, b, c) = (word_of(1), word_of(2), word_of(3));
        let details = |token: u8, amount: U256| tuple(&[word_of(token), uint(amount), uint(n(8)), uint(n(9))]);
        let permitted = |token: u8| tuple(&[word_of(token), uint(n(1000))]);
        let to = |to: u8, amount: u64| tuple(&[word_of(to), uint(n(amount))]);
        let witness = [DynSolValue::FixedBytes([5; 32].into(), 32), DynSolValue::String("W w)".into())];
        let one_of =
            |permitted: DynSolValue, to: DynSolValue| [tuple(&[permitted, uint(n(1)), uint(n(2))]), to, c.clone()];
        let single = one_of(permitted(1), to(2, 5));
        let batch = one_of(array(&[permitted(1), permitted(4)]), array(&[to(2, 5), to(3, 6)]));
        let uneven = one_of(array(&[permitted(1), permitted(4)]), array(&[to(2, 5)]));
        let with = |head: &[DynSolValue], tail: &[DynSolValue]| [head, tail].concat();
        let [three_t, three_r, approve, permit, permits, from, froms, p1, p2, w1, w2] = FUNCTIONS.map(|(name, _)| name);
        let word = DynSolValue::FixedBytes([5; 32].into(), 32);
        let authorized = [a.clone(), b.clone(), uint(n(5)), uint(n(0)), uint(n(9)), word, bytes()];
        for (name, arguments, expected) in [
            (three_t, authorized.to_vec(), vec![(9, 2, n(5))]),
            (three_r, authorized.to_vec(), vec![(9, 2, n(5))]),
            (approve, vec![a.clone(), b.clone(), uint(n(5)), uint(n(6))], vec![(1, 2, n(5))]),
            (approve, vec![a.clone(), b.clone(), uint(MOST), uint(n(6))], vec![(1, 2, U256::MAX)]),
            (
                permit,
                vec![c.clone(), tuple(&[details(1, MOST), b.clone(), uint(n(4))]), bytes()],
                vec![(1, 2, U256::MAX)],
            ),
            (
                permits,
                vec![c.clone(), tuple(&[array(&[details(1, n(5)), details(4, n(6))]), b.clone(), uint(n(4))]), bytes()],
                vec![(1, 2, n(5)), (4, 2, n(6))],
            ),
            (from, vec![a.clone(), b.clone(), uint(n(5)), c.clone()], vec![(3, 2, n(5))]),
            (
                froms,
                vec![array(&[
                    tuple(&[a.clone(), b.clone(), uint(n(5)), c.clone()]),
                    tuple(&[c.clone(), a.clone(), uint(n(6)), b.clone()]),
                ])],
                vec![(3, 2, n(5)), (2, 1, n(6))],
            ),
            (p1, with(&single, &[bytes()]), vec![(1, 2, n(5))]),
            (p2, with(&batch, &[bytes()]), vec![(1, 2, n(5)), (4, 3, n(6))]),
            (w1, with(&with(&single, &witness), &[bytes()]), vec![(1, 2, n(5))]),
            (w2, with(&with(&batch, &witness), &[bytes()]), vec![(1, 2, n(5)), (4, 3, n(6))]),
        ] {
            assert_eq!(said(name, &arguments), Some(expected), "{name}");
        }
        assert_eq!(said(p2, &with(&uneven, &[bytes()])), None);
        // More than 160 bits.
        assert_eq!(said(approve, &[a, b, uint(MOST + U256::ONE), uint(n(6))]), None);
    }
}
