//! What a node means that refuses a transaction.
//!
//! By its message: nodes agree on no code. geth and erigon say -32000 whatever it is, and besu's -32001 for a nonce is
//! "not found" elsewhere.

use super::rpc::NodeError;

/// What `eth_sendRawTransaction` was refused for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    /// The node has this very transaction: nothing is wrong.
    AlreadyKnown,
    /// A transaction with its nonce is mined: this one or another. Its receipt says which.
    NonceTooLow,
    /// Another with its nonce waits, and this one does not offer enough more (10 % by default) to take its place.
    ReplacementUnderpriced,
    /// It offers less than the node or the next block takes.
    Underpriced,
    /// The sender cannot pay value and fees.
    InsufficientFunds,
    /// Something else: the message says what.
    Other,
}

/// The words by which it is known, in lower case, the more special first.
const KNOWN_BY: &[(Rejected, &[&str])] = &[
    (
        Rejected::AlreadyKnown,
        &[
            "already known",
            "alreadyknown",
            "already imported",
            "already exists",
            "known transaction",
            "already in mempool",
        ],
    ),
    (
        Rejected::ReplacementUnderpriced,
        &[
            "replacement transaction underpriced",
            "transaction replacement underpriced",
            "replacementnotallowed",
            "could not replace existing tx",
            "another transaction with same nonce",
            "replacement fee too low",
        ],
    ),
    (
        Rejected::NonceTooLow,
        &["nonce too low", "oldnonce", "nonce is too low", "invalid nonce; got", "nonce has already been used"],
    ),
    (
        Rejected::InsufficientFunds,
        &["insufficient funds", "insufficientfunds", "enough funds", "exceeds account balance", "insufficient balance"],
    ),
    (
        Rejected::Underpriced,
        &[
            "underpriced",
            "feetoolow",
            "fee too low",
            "less than block base fee",
            "too low for the next block",
            "below configured minimum gas price",
            "gas price is below",
            "gas price below",
            "gas price is too low",
            "gas tip cap",
        ],
    ),
];

impl Rejected {
    /// What this refusal means.
    #[must_use]
    pub fn of(error: &NodeError) -> Self {
        let message = error.message.to_ascii_lowercase().replace('_', " ");
        let known = KNOWN_BY.iter().find(|(_, words)| words.iter().any(|words| message.contains(words)));
        known.map_or(Self::Other, |(rejected, _)| *rejected)
    }
}

#[cfg(test)]
mod tests {
    use super::Rejected::*;
    use super::*;

    /// As the nodes write them, in their sources or on the wire.
    #[test]
    fn nodes_words() {
        for (code, message, meaning) in [
            // geth (and bor, op-geth, nitro)
            (-32000, "already known", AlreadyKnown),
            (-32000, "nonce too low: next nonce 5, tx nonce 4", NonceTooLow),
            (-32000, "nonce too low: address 0x00, tx: 4 state: 5", NonceTooLow),
            (-32000, "replacement transaction underpriced", ReplacementUnderpriced),
            (-32000, "replacement transaction underpriced: new tx gas tip cap 1 <= 2 queued", ReplacementUnderpriced),
            (-32000, "transaction underpriced: gas tip cap 0, minimum needed 1", Underpriced),
            (
                -32000,
                "max fee per gas less than block base fee: address 0x00, maxFeePerGas: 1, baseFee: 7",
                Underpriced,
            ),
            (-32000, "insufficient funds for gas * price + value: balance 0, tx cost 21000", InsufficientFunds),
            (-32000, "intrinsic gas too low: gas 1, minimum needed 21000", Other),
            (-32000, "tx fee (2.10 ether) exceeds the configured cap (1.00 ether)", Other),
            (-32000, "txpool is full", Other),
            // erigon
            (-32000, "ALREADY_EXISTS: already known", AlreadyKnown),
            (-32000, "existing tx with same hash: already known", AlreadyKnown),
            (-32000, "could not replace existing tx", ReplacementUnderpriced),
            (-32000, "NONCE_TOO_LOW", NonceTooLow),
            (-32000, "INSUFFICIENT_FUNDS", InsufficientFunds),
            // nethermind
            (-32010, "AlreadyKnown", AlreadyKnown),
            (-32010, "OldNonce, Current nonce: 5, nonce of rejected tx: 4", NonceTooLow),
            (-32010, "ReplacementNotAllowed, ", ReplacementUnderpriced),
            (-32010, "InsufficientFunds, Account balance: 0, cumulative cost: 21000", InsufficientFunds),
            (-32010, "FeeTooLow, MaxFeePerGas too low. MaxFeePerGas: 1, BaseFee: 7", Underpriced),
            (-32010, "NonceGap, Future nonce. Expected nonce: 4", Other),
            // besu
            (-32000, "Known transaction", AlreadyKnown),
            (-32001, "Nonce too low", NonceTooLow),
            (-32000, "Replacement transaction underpriced", ReplacementUnderpriced),
            (-32000, "TRANSACTION_REPLACEMENT_UNDERPRICED", ReplacementUnderpriced),
            (-32004, "Upfront cost exceeds account balance", InsufficientFunds),
            (-32009, "Gas price below configured minimum gas price", Underpriced),
            (-32006, "Transaction nonce is too distant from current sender nonce", Other),
            // hardhat
            (
                -32000,
                "Known transaction: 0x5c504ed432cb51138bcf09aa5e8a410dd4a1e204ef84bfed1be16dfba1b22060",
                AlreadyKnown,
            ),
            (-32000, "Nonce too low. Expected nonce to be 5 but got 4.", NonceTooLow),
            (
                -32000,
                "Nonce too high. Expected nonce to be 5 but got 6. Note that transactions can't be queued when automining.",
                Other,
            ),
            (
                -32000,
                "Sender doesn't have enough funds to send tx. The max upfront cost is: 1 and the sender's balance is: 0.",
                InsufficientFunds,
            ),
            (
                -32000,
                "Replacement transaction underpriced. A gasPrice/maxFeePerGas of at least 2 is necessary to replace",
                ReplacementUnderpriced,
            ),
            (
                -32000,
                "Transaction maxFeePerGas (1) is too low for the next block, which has a baseFeePerGas of 7",
                Underpriced,
            ),
            // anvil, reth
            (-32003, "transaction already imported", AlreadyKnown),
            (-32003, "nonce too low", NonceTooLow),
            (-32003, "replacement transaction underpriced", ReplacementUnderpriced),
            (-32003, "Insufficient funds for gas * price + value", InsufficientFunds),
            (-32003, "max fee per gas less than block base fee", Underpriced),
            // openethereum
            (-32010, "Transaction with the same hash was already imported.", AlreadyKnown),
            (-32010, "Transaction nonce is too low. Try incrementing the nonce.", NonceTooLow),
            (
                -32010,
                "Transaction gas price is too low. There is another transaction with same nonce in the queue.",
                ReplacementUnderpriced,
            ),
            (
                -32010,
                "Insufficient funds. The account you tried to send transaction from does not have enough funds.",
                InsufficientFunds,
            ),
            (-32601, "the method eth_sendRawTransaction does not exist/is not available", Other),
            (3, "", Other),
        ] {
            let error = NodeError { code, message: message.to_owned(), data: None };
            assert_eq!(Rejected::of(&error), meaning, "{message}");
        }
    }
}
