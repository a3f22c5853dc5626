//! Who gets tokens, and how many, beside alloy's decoder of any ABI.

use std::sync::LazyLock;

use alloy_dyn_abi::{DynSolType, DynSolValue};
use alloy_primitives::{Address, U256, keccak256};

use crate::policy::calldata::{Calldata, Movement};

const CONTRACT: Address = Address::repeat_byte(0xcc);

/// Where a call says how many tokens.
#[derive(Clone, Copy)]
enum Amount {
    /// In this argument.
    Of(usize),
    /// In this argument, which is true for no bound.
    Flag(usize),
    /// Nowhere: without bound.
    Unbound,
    /// Nowhere: tokens with ids.
    Ids,
}

use Amount::{Flag, Ids, Of, Unbound};

/// The calls, as their standards write them, which argument is the recipient, spender or operator, and how many it gets.
const CALLS: [(&str, usize, Amount); 25] = [
    ("transfer(address,uint256)", 0, Of(1)),
    ("transferFrom(address,address,uint256)", 1, Of(2)),
    ("approve(address,uint256)", 0, Of(1)),
    ("increaseAllowance(address,uint256)", 0, Of(1)),
    ("increaseApproval(address,uint256)", 0, Of(1)),
    ("permit(address,address,uint256,uint256,uint8,bytes32,bytes32)", 1, Of(2)),
    ("permit(address,address,uint256,uint256,bool,uint8,bytes32,bytes32)", 1, Flag(4)),
    ("setApprovalForAll(address,bool)", 0, Flag(1)),
    ("safeTransferFrom(address,address,uint256)", 1, Ids),
    ("safeTransferFrom(address,address,uint256,bytes)", 1, Ids),
    ("safeTransferFrom(address,address,uint256,uint256,bytes)", 1, Ids),
    ("safeBatchTransferFrom(address,address,uint256[],uint256[],bytes)", 1, Ids),
    ("transferAndCall(address,uint256)", 0, Of(1)),
    ("transferAndCall(address,uint256,bytes)", 0, Of(1)),
    ("transferFromAndCall(address,address,uint256)", 1, Of(2)),
    ("transferFromAndCall(address,address,uint256,bytes)", 1, Of(2)),
    ("approveAndCall(address,uint256)", 0, Of(1)),
    ("approveAndCall(address,uint256,bytes)", 0, Of(1)),
    ("send(address,uint256,bytes)", 0, Of(1)),
    ("operatorSend(address,address,uint256,bytes,bytes)", 1, Of(2)),
    ("authorizeOperator(address)", 0, Unbound),
    ("transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,uint8,bytes32,bytes32)", 1, Of(2)),
    ("receiveWithAuthorization(address,address,uint256,uint256,uint256,bytes32,uint8,bytes32,bytes32)", 1, Of(2)),
    ("transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,bytes)", 1, Of(2)),
    ("receiveWithAuthorization(address,address,uint256,uint256,uint256,bytes32,bytes)", 1, Of(2)),
];

/// Those whose bytes are a signature, and handed on to nobody.
const SIGNED: [&str; 2] = [CALLS[23].0, CALLS[24].0];

/// Permit2's. Which argument is what is for its own tests.
const PERMIT2: [&str; 9] = [
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

struct Call {
    name: &'static str,
    selector: [u8; 4],
    arguments: DynSolType,
    /// The recipient and the amount; none of Permit2's.
    reads: Option<(usize, Amount)>,
}

static KNOWN: LazyLock<Vec<Call>> = LazyLock::new(|| {
    let call = |name: &'static str, reads| {
        let selector = keccak256(name)[..4].try_into().expect("4 of 32");
        let arguments = DynSolType::parse(&name[name.find('(').expect("it has arguments")..]).expect("types");
        Call { name, selector, arguments, reads }
    };
    let words = CALLS.iter().map(|&(name, recipient, amount)| call(name, Some((recipient, amount))));
    words.chain(PERMIT2.iter().map(|name| call(name, None))).collect()
});

/// The first byte chooses a call, the rest are its arguments; beyond the calls, the rest is all of the data.
///
/// Whoever alloy finds to be the recipient is the one that is found here, and gets as much; bytes that are handed on are
/// seen to be; and what is written as the ABI wants it is understood.
pub fn calldata(input: &[u8]) {
    let Some((&choice, rest)) = input.split_first() else { return };
    let data = match KNOWN.get(usize::from(choice)) {
        Some(call) => [&call.selector, rest].concat(),
        None => rest.to_vec(),
    };
    let found = Calldata::read(CONTRACT, &data);
    let Some(call) = data.get(..4).and_then(|selector| KNOWN.iter().find(|call| call.selector == selector)) else {
        assert!(!matches!(found, Ok(Calldata::Token { .. })));
        return;
    };
    assert!(!matches!(found, Ok(Calldata::Empty | Calldata::Other { .. })), "it is known");
    let Ok(decoded) = call.arguments.abi_decode_params(&data[4..]) else { return };
    let canonical = decoded.abi_encode_params() == data[4..];
    let Some((recipient, amount)) = call.reads else { return permit2(&decoded, canonical, found.ok().as_ref()) };
    let arguments = decoded.as_tuple().expect("they are a tuple");
    let uint = |index: usize| arguments[index].as_uint().expect("it is a number").0;
    let flag = |index: usize| if arguments[index].as_bool().expect("it is a flag") { U256::MAX } else { U256::ZERO };
    let expected = Movement {
        token: CONTRACT,
        recipient: arguments[recipient].as_address().expect("it is an address"),
        amount: match amount {
            Of(index) => Some(uint(index)),
            Flag(index) => Some(flag(index)),
            Unbound => Some(U256::MAX),
            Ids => None,
        },
    };
    let bytes = |argument: &DynSolValue| argument.as_bytes().is_some_and(|bytes| !bytes.is_empty());
    match found {
        Ok(Calldata::Token { moves, hands_on, .. }) => {
            let signed = SIGNED.contains(&call.name);
            let handed_on = !signed && arguments.iter().any(bytes);
            assert_eq!(moves, [expected]);
            assert!(hands_on || !handed_on, "bytes are handed on");
            assert!(hands_on == handed_on || !canonical, "no bytes are handed on");
        }
        _ => assert!(!canonical, "it is well-formed"),
    }
}

/// What moves is what the arguments have, and they are written as an encoder writes them.
fn permit2(decoded: &DynSolValue, canonical: bool, found: Option<&Calldata>) {
    let Some(Calldata::Token { moves, hands_on, .. }) = found else { return };
    assert!(canonical && !hands_on);
    let (mut addresses, mut numbers) = (Vec::new(), vec![U256::MAX]);
    collect(decoded, &mut addresses, &mut numbers);
    for Movement { token, recipient, amount } in moves {
        assert!(addresses.contains(token) && addresses.contains(recipient));
        assert!(amount.is_some_and(|amount| numbers.contains(&amount)));
    }
}

fn collect(value: &DynSolValue, addresses: &mut Vec<Address>, numbers: &mut Vec<U256>) {
    match value {
        DynSolValue::Address(address) => addresses.push(*address),
        DynSolValue::Uint(number, _) => numbers.push(*number),
        DynSolValue::Array(items) | DynSolValue::FixedArray(items) | DynSolValue::Tuple(items) => {
            items.iter().for_each(|item| collect(item, addresses, numbers));
        }
        _ => {}
    }
}
