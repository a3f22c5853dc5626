//! Who may take tokens by a signature, and how many, by what typed data says.
//!
//! A permit is an approval that somebody else sends: whom it names is held to the list that a call's recipient is.

use alloy_dyn_abi::DynSolValue;
use alloy_primitives::{Address, U256};

use super::calldata::Movement;
use super::permit2;
use crate::typed_data::TypedData;

/// What typed data lets somebody do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permit {
    /// Take tokens, or give them to somebody.
    Tokens {
        /// The tokens: those in the message, or the contract that is to verify it, where it names none.
        moves: Vec<Movement>,
        /// Whether it has more for the spender, which nobody here can read (Permit2's witness).
        witness: bool,
    },
    /// What is not known here.
    Other,
}

impl Permit {
    /// Reads typed data for the contract that is to verify it.
    ///
    /// A message is known by the whole of its type, which is what the contract looks at: one that only has the name of
    /// a known one is no permit of anything.
    #[must_use]
    pub fn read(data: &TypedData, contract: Address) -> Self {
        let encoded = data.encoded_type();
        let known = KNOWN.iter().find(|known| known.encoded == encoded).map(|known| (known, false));
        let known =
            known.or_else(|| WITNESSES.iter().find(|known| has_witness(known, encoded)).map(|known| (known, true)));
        let read = known.and_then(|(known, witness)| {
            let recipient = field(data.message(), known.recipient)?.as_address()?;
            let own = |amount| vec![Movement { token: contract, recipient, amount }];
            let moves = match known.tokens {
                Tokens::Amount(name) => own(Some(field(data.message(), name)?.as_uint()?.0)),
                Tokens::Flag(name) if field(data.message(), name)?.as_bool()? => own(Some(U256::MAX)),
                Tokens::Flag(_) => own(Some(U256::ZERO)),
                Tokens::Id => own(None),
                Tokens::Field(name) => tokens(field(data.message(), name)?, recipient)?,
            };
            Some(Self::Tokens { moves, witness })
        });
        read.unwrap_or(Self::Other)
    }
}

/// A message that lets somebody take tokens.
struct Known {
    /// Its `encodeType` (EIP-712); of a witness, what that begins with.
    encoded: &'static str,
    recipient: &'static str,
    tokens: Tokens,
}

/// Which tokens, and how many. But for a field that has tokens, each with its amount, the verifying contract is the token.
#[derive(Clone, Copy)]
enum Tokens {
    /// As many as this field says.
    Amount(&'static str),
    /// This field is true for no bound, and false for none.
    Flag(&'static str),
    /// One that has an id.
    Id,
    /// Those in this field.
    Field(&'static str),
}

const fn known(encoded: &'static str, recipient: &'static str, tokens: Tokens) -> Known {
    Known { encoded, recipient, tokens }
}

/// EIP-2612, and DAI's; permits for NFTs (ERC-4494, Uniswap's); EIP-3009; Permit2's.
const KNOWN: [Known; 10] = [
    known(
        "Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)",
        "spender",
        Tokens::Amount("value"),
    ),
    known(
        "Permit(address holder,address spender,uint256 nonce,uint256 expiry,bool allowed)",
        "spender",
        Tokens::Flag("allowed"),
    ),
    known("Permit(address spender,uint256 tokenId,uint256 nonce,uint256 deadline)", "spender", Tokens::Id),
    known(
        "PermitForAll(address operator,bool approved,uint256 nonce,uint256 deadline)",
        "operator",
        Tokens::Flag("approved"),
    ),
    known(
        "TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,\
         bytes32 nonce)",
        "to",
        Tokens::Amount("value"),
    ),
    known(
        "ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,\
         bytes32 nonce)",
        "to",
        Tokens::Amount("value"),
    ),
    known(
        "PermitSingle(PermitDetails details,address spender,uint256 sigDeadline)\
         PermitDetails(address token,uint160 amount,uint48 expiration,uint48 nonce)",
        "spender",
        Tokens::Field("details"),
    ),
    known(
        "PermitBatch(PermitDetails[] details,address spender,uint256 sigDeadline)\
         PermitDetails(address token,uint160 amount,uint48 expiration,uint48 nonce)",
        "spender",
        Tokens::Field("details"),
    ),
    known(
        "PermitTransferFrom(TokenPermissions permitted,address spender,uint256 nonce,uint256 deadline)\
         TokenPermissions(address token,uint256 amount)",
        "spender",
        Tokens::Field("permitted"),
    ),
    known(
        "PermitBatchTransferFrom(TokenPermissions[] permitted,address spender,uint256 nonce,uint256 deadline)\
         TokenPermissions(address token,uint256 amount)",
        "spender",
        Tokens::Field("permitted"),
    ),
];

/// Permit2's, with a witness of the spender's own behind.
const WITNESSES: [Known; 2] = [
    known(
        "PermitWitnessTransferFrom(TokenPermissions permitted,address spender,uint256 nonce,uint256 deadline,",
        "spender",
        Tokens::Field("permitted"),
    ),
    known(
        "PermitBatchWitnessTransferFrom(TokenPermissions[] permitted,address spender,uint256 nonce,uint256 deadline,",
        "spender",
        Tokens::Field("permitted"),
    ),
];

fn has_witness(known: &Known, encoded: &str) -> bool {
    encoded.starts_with(known.encoded) && encoded.contains(")TokenPermissions(address token,uint256 amount)")
}

fn field<'a>(value: &'a DynSolValue, name: &str) -> Option<&'a DynSolValue> {
    match value {
        DynSolValue::CustomStruct { prop_names, tuple, .. } => {
            tuple.get(prop_names.iter().position(|field| field == name)?)
        }
        _ => None,
    }
}

/// The fields `token` and `amount` of one, or of each of many.
fn tokens(value: &DynSolValue, recipient: Address) -> Option<Vec<Movement>> {
    let moved = |value| {
        let (token, (amount, _)) = (field(value, "token")?.as_address()?, field(value, "amount")?.as_uint()?);
        Some(Movement { token, recipient, amount: Some(permit2::amount(amount)) })
    };
    match value {
        DynSolValue::Array(many) => many.iter().map(moved).collect(),
        one => Some(vec![moved(one)?]),
    }
}
