//! Who gets tokens, or may take them, and how many, by a call's data.
//!
//! A list of recipients that looks at the outer `to` only is no list: for a token transfer that is the token.

use alloy_primitives::{Address, U256};

use super::permit2;

/// Tokens that a call moves, or lets somebody move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Movement {
    /// The token's contract.
    pub token: Address,
    /// The recipient, spender or operator.
    pub recipient: Address,
    /// How many, in the token's smallest unit; 2^256-1 is without bound. None where it is no amount: of tokens that are
    /// told apart by their ids.
    pub amount: Option<U256>,
}

/// What the data of a transaction to somebody says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Calldata {
    /// Nothing.
    Empty,
    /// A call that moves tokens or lets somebody move them.
    Token {
        /// What the data begins with.
        selector: [u8; 4],
        /// What it moves.
        moves: Vec<Movement>,
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
    /// Reads the data of a transaction to a contract.
    ///
    /// # Errors
    /// [`Malformed`] when it is shorter than a selector, or a token call that is too short, too long, or has an
    /// address that is wider than 20 bytes.
    pub fn read(contract: Address, data: &[u8]) -> Result<Self, Malformed> {
        if data.is_empty() {
            return Ok(Self::Empty);
        }
        let (&selector, arguments) = data.split_first_chunk::<4>().ok_or(Malformed::NoSelector)?;
        if let Some(call) = CALLS.iter().find(|call| call.selector == selector) {
            return call.read(contract, arguments).ok_or(Malformed::Arguments(call.name));
        }
        match permit2::read(contract, selector, arguments) {
            None => Ok(Self::Other { selector }),
            Some(moves) => Ok(Self::Token { selector, moves: moves?, hands_on: false }),
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
    amount: Amount,
    /// Which words say where bytes begin that are handed on.
    handed_on: &'static [usize],
}

use Amount::{Flag, Ids, Unbound, Word};

/// Where it says how much.
#[derive(Clone, Copy)]
enum Amount {
    /// In this word.
    Word(usize),
    /// This word is true for no bound, and false for nothing.
    Flag(usize),
    /// It is without bound.
    Unbound,
    /// Nowhere: it moves tokens that have ids.
    Ids,
}

impl Call {
    fn read(&self, contract: Address, arguments: &[u8]) -> Option<Calldata> {
        let exact = self.handed_on.is_empty();
        let size = self.words * 32;
        if arguments.len() < size || (exact && arguments.len() > size) {
            return None;
        }
        let recipient = match word(arguments, self.recipient * 32)?.split_at(12) {
            ([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], address) => Address::from_slice(address),
            _ => return None,
        };
        let amount = match self.amount {
            Word(index) => Some(U256::from_be_bytes(*word(arguments, index * 32)?)),
            Flag(index) => match U256::from_be_bytes(*word(arguments, index * 32)?) {
                U256::ZERO => Some(U256::ZERO),
                U256::ONE => Some(U256::MAX),
                _ => return None,
            },
            Unbound => Some(U256::MAX),
            Ids => None,
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
        let moves = vec![Movement { token: contract, recipient, amount }];
        Some(Calldata::Token { selector: self.selector, moves, hands_on })
    }
}

/// The 32 bytes from `at` on.
fn word(arguments: &[u8], at: usize) -> Option<&[u8; 32]> {
    arguments.get(at..)?.first_chunk()
}

const fn call(
    name: &'static str,
    selector: u32,
    words: usize,
    recipient: usize,
    amount: Amount,
    handed_on: &'static [usize],
) -> Call {
    Call { name, selector: selector.to_be_bytes(), words, recipient, amount, handed_on }
}

/// ERC-20, its relatives, EIP-2612 (as the standard and as DAI write it) and EIP-3009; ERC-721 and ERC-1155; ERC-677 and
/// ERC-1363; ERC-777. What takes more than words, and hands on none of it, is in `permit2`.
const CALLS: [Call; 23] = [
    call("transfer(address,uint256)", 0xa905_9cbb, 2, 0, Word(1), &[]),
    call("transferFrom(address,address,uint256)", 0x23b8_72dd, 3, 1, Word(2), &[]),
    call("approve(address,uint256)", 0x095e_a7b3, 2, 0, Word(1), &[]),
    call("increaseAllowance(address,uint256)", 0x3950_9351, 2, 0, Word(1), &[]),
    call("increaseApproval(address,uint256)", 0xd73d_d623, 2, 0, Word(1), &[]),
    call("permit(address,address,uint256,uint256,uint8,bytes32,bytes32)", 0xd505_accf, 7, 1, Word(2), &[]),
    call("permit(address,address,uint256,uint256,bool,uint8,bytes32,bytes32)", 0x8fcb_af0c, 8, 1, Flag(4), &[]),
    call(
        "transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,uint8,bytes32,bytes32)",
        0xe3ee_160e,
        9,
        1,
        Word(2),
        &[],
    ),
    call(
        "receiveWithAuthorization(address,address,uint256,uint256,uint256,bytes32,uint8,bytes32,bytes32)",
        0xef55_bec6,
        9,
        1,
        Word(2),
        &[],
    ),
    call("setApprovalForAll(address,bool)", 0xa22c_b465, 2, 0, Flag(1), &[]),
    call("safeTransferFrom(address,address,uint256)", 0x4284_2e0e, 3, 1, Ids, &[]),
    call("safeTransferFrom(address,address,uint256,bytes)", 0xb88d_4fde, 5, 1, Ids, &[3]),
    call("safeTransferFrom(address,address,uint256,uint256,bytes)", 0xf242_432a, 6, 1, Ids, &[4]),
    call("safeBatchTransferFrom(address,address,uint256[],uint256[],bytes)", 0x2eb2_c2d6, 8, 1, Ids, &[4]),
    call("transferAndCall(address,uint256)", 0x1296_ee62, 2, 0, Word(1), &[]),
    call("transferAndCall(address,uint256,bytes)", 0x4000_aea0, 4, 0, Word(1), &[2]),
    call("transferFromAndCall(address,address,uint256)", 0xd8fb_e994, 3, 1, Word(2), &[]),
    call("transferFromAndCall(address,address,uint256,bytes)", 0xc1d3_4b89, 5, 1, Word(2), &[3]),
    call("approveAndCall(address,uint256)", 0x3177_029f, 2, 0, Word(1), &[]),
    call("approveAndCall(address,uint256,bytes)", 0xcae9_ca51, 4, 0, Word(1), &[2]),
    call("send(address,uint256,bytes)", 0x9bd9_bbc6, 4, 0, Word(1), &[2]),
    call("operatorSend(address,address,uint256,bytes,bytes)", 0x62ad_1b83, 7, 1, Word(2), &[3, 4]),
    call("authorizeOperator(address)", 0x959b_8c3f, 1, 0, Unbound, &[]),
];

#[cfg(test)]
mod tests {
    use alloy_primitives::keccak256;

    use super::*;

    const CONTRACT: Address = Address::repeat_byte(0xcc);

    fn read(data: &[u8]) -> Result<Calldata, Malformed> {
        Calldata::read(CONTRACT, data)
    }

    #[test]
    fn selectors_are_those_of_the_names() {
        for call in &CALLS {
            assert_eq!(call.selector, keccak256(call.name)[..4], "{}", call.name);
        }
    }

    #[test]
    fn the_file_knows_the_same_functions() {
        let known = CALLS.iter().map(|call| call.name).chain(permit2::FUNCTIONS.iter().map(|(name, _)| *name));
        let sorted = |names: &mut Vec<_>| names.sort_unstable();
        let (mut known, mut listed) = (known.collect::<Vec<_>>(), keygate_config::TOKEN_FUNCTIONS.to_vec());
        sorted(&mut known);
        sorted(&mut listed);
        assert_eq!(known, listed);
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
        if let Flag(index) = call.amount {
            data[4 + index * 32..][..31].fill(0);
            data[4 + index * 32 + 31] = 1;
        }
        data
    }

    #[test]
    fn recipients_and_amounts_are_read_from_the_right_words() {
        for call in &CALLS {
            let mut data = well_formed(call);
            let expected = Calldata::Token {
                selector: call.selector,
                moves: vec![Movement {
                    token: CONTRACT,
                    recipient: Address::repeat_byte(u8::try_from(call.recipient).unwrap() + 1),
                    amount: match call.amount {
                        Word(index) => Some(Address::repeat_byte(u8::try_from(index).unwrap() + 1).into_word().into()),
                        Flag(_) | Unbound => Some(U256::MAX),
                        Ids => None,
                    },
                }],
                hands_on: false,
            };
            let malformed = Err(Malformed::Arguments(call.name));
            assert_eq!(read(&data), Ok(expected), "{}", call.name);
            assert_eq!(read(&data[..data.len() - 1]), malformed);
            assert_eq!(read(&data[..4]), malformed);
            data.push(0);
            assert_eq!(read(&data).is_ok(), !call.handed_on.is_empty(), "{}", call.name);
            data[4 + call.recipient * 32 + 11] = 1;
            assert_eq!(read(&data), malformed);
        }
    }

    #[test]
    fn truths_are_true_or_false() {
        for call in CALLS.iter().filter(|call| matches!(call.amount, Flag(_))) {
            let Flag(index) = call.amount else { unreachable!() };
            let mut data = well_formed(call);
            let last = 4 + index * 32 + 31;
            data[last] = 0;
            assert!(matches!(read(&data), Ok(Calldata::Token { moves, .. }) if moves[0].amount == Some(U256::ZERO)));
            data[last] = 2;
            assert_eq!(read(&data), Err(Malformed::Arguments(call.name)));
            data[last - 31..last].fill(1);
            assert_eq!(read(&data), Err(Malformed::Arguments(call.name)));
        }
    }

    #[test]
    fn bytes_that_are_handed_on_are_seen_wherever_they_are() {
        for (call, index) in CALLS.iter().flat_map(|call| call.handed_on.iter().map(move |index| (call, *index))) {
            let hands_on = |data: &[u8]| match read(data) {
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
        assert_eq!(read(&[]), Ok(Calldata::Empty));
        for short in [[0].as_slice(), &[0xa9, 0x05, 0x9c]] {
            assert_eq!(read(short), Err(Malformed::NoSelector));
        }
        let selector = [0xd0, 0xe3, 0x0d, 0xb0];
        assert_eq!(read(&selector), Ok(Calldata::Other { selector }));
    }
}
