//! Who gets tokens, beside alloy's decoder of any ABI.

use std::sync::LazyLock;

use alloy_dyn_abi::{DynSolType, DynSolValue};
use alloy_primitives::keccak256;

use crate::policy::calldata::Calldata;

/// The calls, as their standards write them, and which argument is the recipient, spender or operator.
const CALLS: [(&str, usize); 21] = [
    ("transfer(address,uint256)", 0),
    ("transferFrom(address,address,uint256)", 1),
    ("approve(address,uint256)", 0),
    ("increaseAllowance(address,uint256)", 0),
    ("increaseApproval(address,uint256)", 0),
    ("permit(address,address,uint256,uint256,uint8,bytes32,bytes32)", 1),
    ("permit(address,address,uint256,uint256,bool,uint8,bytes32,bytes32)", 1),
    ("setApprovalForAll(address,bool)", 0),
    ("safeTransferFrom(address,address,uint256)", 1),
    ("safeTransferFrom(address,address,uint256,bytes)", 1),
    ("safeTransferFrom(address,address,uint256,uint256,bytes)", 1),
    ("safeBatchTransferFrom(address,address,uint256[],uint256[],bytes)", 1),
    ("transferAndCall(address,uint256)", 0),
    ("transferAndCall(address,uint256,bytes)", 0),
    ("transferFromAndCall(address,address,uint256)", 1),
    ("transferFromAndCall(address,address,uint256,bytes)", 1),
    ("approveAndCall(address,uint256)", 0),
    ("approveAndCall(address,uint256,bytes)", 0),
    ("send(address,uint256,bytes)", 0),
    ("operatorSend(address,address,uint256,bytes,bytes)", 1),
    ("authorizeOperator(address)", 0),
];

struct Call {
    selector: [u8; 4],
    arguments: DynSolType,
    recipient: usize,
}

static KNOWN: LazyLock<Vec<Call>> = LazyLock::new(|| {
    let call = |&(name, recipient): &(&str, usize)| {
        let selector = keccak256(name)[..4].try_into().expect("4 of 32");
        let arguments = DynSolType::parse(&name[name.find('(').expect("it has arguments")..]).expect("types");
        Call { selector, arguments, recipient }
    };
    CALLS.iter().map(call).collect()
});

/// The first byte chooses a call, the rest are its arguments; beyond the calls, the rest is all of the data.
///
/// Whoever alloy finds to be the recipient is the one that is found here; bytes that are handed on are seen to be; and
/// what is written as the ABI wants it is understood.
pub fn calldata(input: &[u8]) {
    let Some((&choice, rest)) = input.split_first() else { return };
    let data = match KNOWN.get(usize::from(choice)) {
        Some(call) => [&call.selector, rest].concat(),
        None => rest.to_vec(),
    };
    let found = Calldata::read(&data);
    let Some(call) = data.get(..4).and_then(|selector| KNOWN.iter().find(|call| call.selector == selector)) else {
        assert!(!matches!(found, Ok(Calldata::Token { .. })));
        return;
    };
    assert!(!matches!(found, Ok(Calldata::Empty | Calldata::Other { .. })), "it is known");
    let Ok(decoded) = call.arguments.abi_decode_params(&data[4..]) else { return };
    let arguments = decoded.as_tuple().expect("they are a tuple");
    let expected = arguments[call.recipient].as_address().expect("it is an address");
    let bytes = |argument: &DynSolValue| argument.as_bytes().is_some_and(|bytes| !bytes.is_empty());
    let canonical = decoded.abi_encode_params() == data[4..];
    match found {
        Ok(Calldata::Token { recipient, hands_on, .. }) => {
            let handed_on = arguments.iter().filter(|argument| matches!(argument, DynSolValue::Bytes(_))).any(bytes);
            assert_eq!(recipient, expected);
            assert!(hands_on || !handed_on, "bytes are handed on");
            assert!(hands_on == handed_on || !canonical, "no bytes are handed on");
        }
        _ => assert!(!canonical, "it is well-formed"),
    }
}
