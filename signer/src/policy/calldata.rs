//! Who gets tokens, or may take them, by a call's data.
//!
//! A list of recipients that looks at the outer `to` only is no list: for a token transfer that is the token.

use alloy_primitives::Address;

/// A call that moves tokens or lets somebody move them, as its ABI writes it.
struct Call {
    name: &'static str,
    selector: [u8; 4],
    /// Words of 32 bytes that the arguments have at least.
    words: usize,
    /// More may follow: the last argument is `bytes` or an array.
    more: bool,
    /// Which word is the recipient, spender or operator.
    recipient: usize,
}

const fn call(name: &'static str, selector: u32, words: usize, more: bool, recipient: usize) -> Call {
    Call { name, selector: selector.to_be_bytes(), words, more, recipient }
}

/// ERC-20, ERC-721, ERC-1155, and EIP-2612.
const CALLS: [Call; 11] = [
    call("transfer(address,uint256)", 0xa905_9cbb, 2, false, 0),
    call("transferFrom(address,address,uint256)", 0x23b8_72dd, 3, false, 1),
    call("approve(address,uint256)", 0x095e_a7b3, 2, false, 0),
    call("increaseAllowance(address,uint256)", 0x3950_9351, 2, false, 0),
    call("increaseApproval(address,uint256)", 0xd73d_d623, 2, false, 0),
    call("permit(address,address,uint256,uint256,uint8,bytes32,bytes32)", 0xd505_accf, 7, false, 1),
    call("setApprovalForAll(address,bool)", 0xa22c_b465, 2, false, 0),
    call("safeTransferFrom(address,address,uint256)", 0x4284_2e0e, 3, false, 1),
    call("safeTransferFrom(address,address,uint256,bytes)", 0xb88d_4fde, 5, true, 1),
    call("safeTransferFrom(address,address,uint256,uint256,bytes)", 0xf242_432a, 6, true, 1),
    call("safeBatchTransferFrom(address,address,uint256[],uint256[],bytes)", 0x2eb2_c2d6, 8, true, 1),
];

/// A token call whose arguments are not as its ABI writes them: contracts differ in what they make of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the data is no well-formed call of {0}")]
pub struct Malformed(&'static str);

/// The recipient, spender or operator that a token call names; none when the data is no such call.
///
/// # Errors
/// [`Malformed`] when it is such a call, too short, too long, or with an address that is wider than 20 bytes.
pub fn recipient(data: &[u8]) -> Result<Option<Address>, Malformed> {
    let Some((selector, arguments)) = data.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let Some(call) = CALLS.iter().find(|call| call.selector == *selector) else {
        return Ok(None);
    };
    let enough = if call.more { arguments.len() >= call.words * 32 } else { arguments.len() == call.words * 32 };
    if !enough {
        return Err(Malformed(call.name));
    }
    match arguments[call.recipient * 32..][..32].split_at(12) {
        ([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], address) => Ok(Some(Address::from_slice(address))),
        _ => Err(Malformed(call.name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::keccak256;

    #[test]
    fn selectors_are_those_of_the_names() {
        for call in &CALLS {
            assert_eq!(call.selector, keccak256(call.name)[..4], "{}", call.name);
        }
    }

    #[test]
    fn recipients_are_read_from_the_right_word() {
        for call in &CALLS {
            let mut data = call.selector.to_vec();
            for word in 0..call.words {
                data.extend([[0; 12].as_slice(), &[u8::try_from(word).unwrap() + 1; 20]].concat());
            }
            let expected = Address::repeat_byte(u8::try_from(call.recipient).unwrap() + 1);
            assert_eq!(recipient(&data), Ok(Some(expected)), "{}", call.name);
            assert_eq!(recipient(&data[..data.len() - 1]), Err(Malformed(call.name)));
            data.push(0);
            assert_eq!(recipient(&data).is_ok(), call.more, "{}", call.name);
            data[4 + call.recipient * 32 + 11] = 1;
            assert_eq!(recipient(&data), Err(Malformed(call.name)));
        }
    }

    #[test]
    fn other_data_names_nobody() {
        for data in [&[] as &[u8], &[0xa9, 0x05, 0x9c], &[0xd0, 0xe3, 0x0d, 0xb0]] {
            assert_eq!(recipient(data), Ok(None));
        }
        assert!(recipient(&[0xa9, 0x05, 0x9c, 0xbb]).is_err());
    }
}
