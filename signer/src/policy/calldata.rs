//! Who gets tokens, or may take them, by a call's data.
//!
//! A list of recipients that looks at the outer `to` only is no list: for a token transfer that is the token.

use alloy_primitives::Address;

/// What the data of a transaction to somebody says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Calldata {
    /// Nothing.
    Empty,
    /// A call that moves tokens or lets somebody move them.
    Token {
        /// What the data begins with.
        selector: [u8; 4],
        /// The recipient, spender or operator that the call names.
        recipient: Address,
        /// Whether it hands bytes on to the recipient: what that does with them, nobody here can read.
        hands_on: bool,
    },
    /// A call of a function that is not known here.
    Other {
        /// What the data begins with.
        selector: [u8; 4],
    },
}

/// Why data is not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It is shorter than a selector: what a contract makes of it is its own affair.
    #[error("data of fewer than 4 bytes names no function")]
    NoSelector,
    /// It is a token call whose arguments are not as its ABI writes them: contracts differ in what they make of it.
    #[error("the data is no well-formed call of {0}")]
    Arguments(&'static str),
}

impl Calldata {
    /// Reads the data of a transaction that creates no contract.
    ///
    /// # Errors
    /// [`Malformed`] when it is shorter than a selector, or a token call that is too short, too long, or has an
    /// address that is wider than 20 bytes.
    pub fn read(data: &[u8]) -> Result<Self, Malformed> {
        if data.is_empty() {
            return Ok(Self::Empty);
        }
        let (&selector, arguments) = data.split_first_chunk::<4>().ok_or(Malformed::NoSelector)?;
        match CALLS.iter().find(|call| call.selector == selector) {
            None => Ok(Self::Other { selector }),
            Some(call) => call.read(arguments).ok_or(Malformed::Arguments(call.name)),
        }
    }
}

/// A call that moves tokens or lets somebody move them, as its ABI writes it.
struct Call {
    name: &'static str,
    selector: [u8; 4],
    /// Words of 32 bytes that the arguments have at least; and at most, when nothing is handed on.
    words: usize,
    /// Which word is the recipient, spender or operator.
    recipient: usize,
    /// Which words say where bytes begin that are handed on.
    handed_on: &'static [usize],
}

impl Call {
    fn read(&self, arguments: &[u8]) -> Option<Calldata> {
        let exact = self.handed_on.is_empty();
        let size = self.words * 32;
        if arguments.len() < size || (exact && arguments.len() > size) {
            return None;
        }
        let recipient = match word(arguments, self.recipient * 32)?.split_at(12) {
            ([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], address) => Address::from_slice(address),
            _ => return None,
        };
        let mut hands_on = false;
        for &index in self.handed_on {
            let (zeros, offset) = word(arguments, index * 32)?.split_last_chunk::<4>()?;
            if zeros.iter().any(|&byte| byte != 0) {
                return None;
            }
            let length = word(arguments, usize::try_from(u32::from_be_bytes(*offset)).ok()?)?;
            hands_on |= length.iter().any(|&byte| byte != 0);
        }
        Some(Calldata::Token { selector: self.selector, recipient, hands_on })
    }
}

/// The 32 bytes from `at` on.
fn word(arguments: &[u8], at: usize) -> Option<&[u8; 32]> {
    arguments.get(at..)?.first_chunk()
}

const fn call(name: &'static str, selector: u32, words: usize, recipient: usize, handed_on: &'static [usize]) -> Call {
    Call { name, selector: selector.to_be_bytes(), words, recipient, handed_on }
}

/// ERC-20, its relatives, and EIP-2612 (as the standard and as DAI write it); ERC-721 and ERC-1155; ERC-677 and
/// ERC-1363; ERC-777.
const CALLS: [Call; 21] = [
    call("transfer(address,uint256)", 0xa905_9cbb, 2, 0, &[]),
    call("transferFrom(address,address,uint256)", 0x23b8_72dd, 3, 1, &[]),
    call("approve(address,uint256)", 0x095e_a7b3, 2, 0, &[]),
    call("increaseAllowance(address,uint256)", 0x3950_9351, 2, 0, &[]),
    call("increaseApproval(address,uint256)", 0xd73d_d623, 2, 0, &[]),
    call("permit(address,address,uint256,uint256,uint8,bytes32,bytes32)", 0xd505_accf, 7, 1, &[]),
    call("permit(address,address,uint256,uint256,bool,uint8,bytes32,bytes32)", 0x8fcb_af0c, 8, 1, &[]),
    call("setApprovalForAll(address,bool)", 0xa22c_b465, 2, 0, &[]),
    call("safeTransferFrom(address,address,uint256)", 0x4284_2e0e, 3, 1, &[]),
    call("safeTransferFrom(address,address,uint256,bytes)", 0xb88d_4fde, 5, 1, &[3]),
    call("safeTransferFrom(address,address,uint256,uint256,bytes)", 0xf242_432a, 6, 1, &[4]),
    call("safeBatchTransferFrom(address,address,uint256[],uint256[],bytes)", 0x2eb2_c2d6, 8, 1, &[4]),
    call("transferAndCall(address,uint256)", 0x1296_ee62, 2, 0, &[]),
    call("transferAndCall(address,uint256,bytes)", 0x4000_aea0, 4, 0, &[2]),
    call("transferFromAndCall(address,address,uint256)", 0xd8fb_e994, 3, 1, &[]),
    call("transferFromAndCall(address,address,uint256,bytes)", 0xc1d3_4b89, 5, 1, &[3]),
    call("approveAndCall(address,uint256)", 0x3177_029f, 2, 0, &[]),
    call("approveAndCall(address,uint256,bytes)", 0xcae9_ca51, 4, 0, &[2]),
    call("send(address,uint256,bytes)", 0x9bd9_bbc6, 4, 0, &[2]),
    call("operatorSend(address,address,uint256,bytes,bytes)", 0x62ad_1b83, 7, 1, &[3, 4]),
    call("authorizeOperator(address)", 0x959b_8c3f, 1, 0, &[]),
];

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

    /// A call whose words are addresses 1, 2, 3 and so on; bytes that are handed on are at its end, and empty.
    fn well_formed(call: &Call) -> Vec<u8> {
        let mut data = call.selector.to_vec();
        for word in 0..call.words {
            data.extend([[0; 12].as_slice(), &[u8::try_from(word).unwrap() + 1; 20]].concat());
        }
        let last = (call.words - 1) * 32;
        for index in call.handed_on {
            data[4 + index * 32..][..32].fill(0);
            data[4 + index * 32 + 31] = u8::try_from(last).unwrap();
            data[4 + last..].fill(0);
        }
        data
    }

    #[test]
    fn recipients_are_read_from_the_right_word() {
        for call in &CALLS {
            let mut data = well_formed(call);
            let expected = Calldata::Token {
                selector: call.selector,
                recipient: Address::repeat_byte(u8::try_from(call.recipient).unwrap() + 1),
                hands_on: false,
            };
            let malformed = Err(Malformed::Arguments(call.name));
            assert_eq!(Calldata::read(&data), Ok(expected), "{}", call.name);
            assert_eq!(Calldata::read(&data[..data.len() - 1]), malformed);
            assert_eq!(Calldata::read(&data[..4]), malformed);
            data.push(0);
            assert_eq!(Calldata::read(&data).is_ok(), !call.handed_on.is_empty(), "{}", call.name);
            data[4 + call.recipient * 32 + 11] = 1;
            assert_eq!(Calldata::read(&data), malformed);
        }
    }

    #[test]
    fn bytes_that_are_handed_on_are_seen_wherever_they_are() {
        for (call, index) in CALLS.iter().flat_map(|call| call.handed_on.iter().map(move |index| (call, *index))) {
            let hands_on = |data: &[u8]| match Calldata::read(data) {
                Ok(Calldata::Token { hands_on, .. }) => Some(hands_on),
                _ => None,
            };
            let good = well_formed(call);
            for byte in [0, 31] {
                let mut data = good.clone();
                let length = data.len() - 32;
                data[length + byte] = 1;
                assert_eq!(hands_on(&data), Some(true), "{}", call.name);
            }
            // Where they begin may be anywhere within the data, and nowhere else.
            let begin = |at: &[u8]| {
                let mut data = good.clone();
                data[4 + index * 32..][32 - at.len()..32].copy_from_slice(at);
                hands_on(&data)
            };
            assert_eq!(begin(&[32 * u8::try_from(call.recipient).unwrap()]), Some(true), "{}", call.name);
            assert_eq!(begin(&[u8::try_from(good.len() - 4 - 31).unwrap()]), None);
            assert_eq!(begin(&[0xff; 4]), None);
            assert_eq!(begin(&[1, 0, 0, 0, 0]), None);
            assert_eq!(begin(&[0xff; 32]), None);
        }
    }

    #[test]
    fn other_data_names_nobody() {
        assert_eq!(Calldata::read(&[]), Ok(Calldata::Empty));
        for short in [[0].as_slice(), &[0xa9, 0x05, 0x9c]] {
            assert_eq!(Calldata::read(short), Err(Malformed::NoSelector));
        }
        let selector = [0xd0, 0xe3, 0x0d, 0xb0];
        assert_eq!(Calldata::read(&selector), Ok(Calldata::Other { selector }));
    }
}
