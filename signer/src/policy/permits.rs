//! Who may take tokens by a signature, by what typed data says.
//!
//! A permit is an approval that somebody else sends: whom it names is held to the list that a call's recipient is.

use alloy_dyn_abi::DynSolValue;
use alloy_primitives::Address;

use crate::typed_data::TypedData;

/// What typed data lets somebody do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permit {
    /// Take tokens, or give them to somebody.
    Tokens {
        /// The tokens' contracts: those in the message, or the one that is to verify it, where it names none.
        tokens: Vec<Address>,
        /// The spender, operator or recipient.
        recipient: Address,
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
            let recipient = address(field(data.message(), known.recipient)?)?;
            let tokens = match known.tokens {
                None => vec![contract],
                Some(name) => tokens(field(data.message(), name)?)?,
            };
            Some(Self::Tokens { tokens, recipient, witness })
        });
        read.unwrap_or(Self::Other)
    }
}

/// A message that lets somebody take tokens.
struct Known {
    /// Its `encodeType` (EIP-712); of a witness, what that begins with.
    encoded: &'static str,
    recipient: &'static str,
    /// The field that has tokens, each with its amount; none where the verifying contract is the token.
    tokens: Option<&'static str>,
}

const fn known(encoded: &'static str, recipient: &'static str, tokens: Option<&'static str>) -> Known {
    Known { encoded, recipient, tokens }
}

/// EIP-2612, and DAI's; permits for NFTs (ERC-4494, Uniswap's); EIP-3009; Permit2's.
const KNOWN: [Known; 10] = [
    known("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)", "spender", None),
    known("Permit(address holder,address spender,uint256 nonce,uint256 expiry,bool allowed)", "spender", None),
    known("Permit(address spender,uint256 tokenId,uint256 nonce,uint256 deadline)", "spender", None),
    known("PermitForAll(address operator,bool approved,uint256 nonce,uint256 deadline)", "operator", None),
    known(
        "TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,\
         bytes32 nonce)",
        "to",
        None,
    ),
    known(
        "ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,\
         bytes32 nonce)",
        "to",
        None,
    ),
    known(
        "PermitSingle(PermitDetails details,address spender,uint256 sigDeadline)\
         PermitDetails(address token,uint160 amount,uint48 expiration,uint48 nonce)",
        "spender",
        Some("details"),
    ),
    known(
        "PermitBatch(PermitDetails[] details,address spender,uint256 sigDeadline)\
         PermitDetails(address token,uint160 amount,uint48 expiration,uint48 nonce)",
        "spender",
        Some("details"),
    ),
    known(
        "PermitTransferFrom(TokenPermissions permitted,address spender,uint256 nonce,uint256 deadline)\
         TokenPermissions(address token,uint256 amount)",
        "spender",
        Some("permitted"),
    ),
    known(
        "PermitBatchTransferFrom(TokenPermissions[] permitted,address spender,uint256 nonce,uint256 deadline)\
         TokenPermissions(address token,uint256 amount)",
        "spender",
        Some("permitted"),
    ),
];

/// Permit2's, with a witness of the spender's own behind.
const WITNESSES: [Known; 2] = [
    known(
        "PermitWitnessTransferFrom(TokenPermissions permitted,address spender,uint256 nonce,uint256 deadline,",
        "spender",
        Some("permitted"),
    ),
    known(
        "PermitBatchWitnessTransferFrom(TokenPermissions[] permitted,address spender,uint256 nonce,uint256 deadline,",
        "spender",
        Some("permitted"),
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

fn address(value: &DynSolValue) -> Option<Address> {
    value.as_address()
}

/// The field `token` of one, or of each of many.
fn tokens(value: &DynSolValue) -> Option<Vec<Address>> {
    let token = |value| address(field(value, "token")?);
    match value {
        DynSolValue::Array(many) => many.iter().map(token).collect(),
        one => Some(vec![token(one)?]),
    }
}
