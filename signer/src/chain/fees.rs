//! What to offer for gas. Pure: given what a node says, it answers.

/// What a transaction offers for each gas, in wei.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fees {
    /// `gasPrice`, where blocks have no base fee.
    Legacy {
        /// Wei.
        gas_price: u128,
    },
    /// EIP-1559.
    Eip1559 {
        /// `maxFeePerGas`, in wei.
        max_fee: u128,
        /// `maxPriorityFeePerGas`, in wei.
        max_priority_fee: u128,
    },
}

/// What a chain asks for now, of which [`Fees`] are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Market {
    /// The price of gas, where blocks have no base fee.
    Legacy {
        /// Wei.
        gas_price: u128,
    },
    /// EIP-1559.
    Eip1559 {
        /// The latest block's base fee, in wei.
        base_fee: u128,
        /// What block builders are given on top, in wei.
        tip: u128,
    },
}

/// What a caller chose itself; what is left out is filled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Chosen {
    /// `maxFeePerGas`, in wei.
    pub max_fee: Option<u128>,
    /// `maxPriorityFeePerGas`, in wei.
    pub max_priority_fee: Option<u128>,
}

/// Fees with which a transaction is mined soon: twice the base fee, which then may rise for six full blocks, and the tip.
///
/// A priority fee never exceeds the most that is paid (EIP-1559): where a caller chose that, it bounds the tip.
#[must_use]
pub fn fees(market: Market, chosen: Chosen) -> Fees {
    match market {
        Market::Legacy { gas_price } => Fees::Legacy { gas_price },
        Market::Eip1559 { base_fee, tip } => {
            let max_priority_fee = chosen.max_priority_fee.unwrap_or(tip);
            let max_fee = chosen.max_fee.unwrap_or_else(|| base_fee.saturating_mul(2).saturating_add(max_priority_fee));
            let max_priority_fee = chosen.max_priority_fee.unwrap_or_else(|| max_priority_fee.min(max_fee));
            Fees::Eip1559 { max_fee, max_priority_fee }
        }
    }
}

/// The tip of recent blocks: the median of what `eth_feeHistory` says of each, empty blocks left out. 0 if all were.
#[must_use]
pub fn tip(rewards: &[u128]) -> u128 {
    let mut paid: Vec<_> = rewards.iter().copied().filter(|reward| *reward > 0).collect();
    paid.sort_unstable();
    paid.get(paid.len() / 2).copied().unwrap_or(0)
}

/// Most that is paid for blobs' gas: twice what it costs now, which then may rise for six blocks, and 1 wei at least
/// (EIP-4844).
#[must_use]
pub fn blob_fee(blob_base_fee: u128) -> u128 {
    blob_base_fee.saturating_mul(2).max(1)
}

/// The gas of a plain transfer, which is always the same.
const TRANSFER: u64 = 21_000;

/// The limit for what a node estimates: a fifth more, as state may change until it is mined, but no more than a block has.
/// A plain transfer's is exact. What is not used is not paid.
#[must_use]
pub fn gas_limit(estimate: u64, block_gas_limit: u64) -> u64 {
    if estimate == TRANSFER {
        estimate
    } else {
        estimate.saturating_add(estimate / 5).min(block_gas_limit.max(estimate))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MARKET: Market = Market::Eip1559 { base_fee: 100, tip: 7 };

    fn chosen(max_fee: Option<u128>, max_priority_fee: Option<u128>) -> Fees {
        fees(MARKET, Chosen { max_fee, max_priority_fee })
    }

    #[test]
    fn what_is_left_out_is_filled() {
        let of = |max_fee, max_priority_fee| Fees::Eip1559 { max_fee, max_priority_fee };
        assert_eq!(chosen(None, None), of(207, 7));
        assert_eq!(chosen(None, Some(9)), of(209, 9));
        assert_eq!(chosen(Some(150), None), of(150, 7));
        assert_eq!(chosen(Some(5), None), of(5, 5));
        // Refused by the parser, and not mended here.
        assert_eq!(chosen(Some(5), Some(9)), of(5, 9));
        assert_eq!(fees(Market::Legacy { gas_price: 3 }, Chosen::default()), Fees::Legacy { gas_price: 3 });
    }

    #[test]
    fn tips_and_blobs() {
        for (rewards, median) in [(&[][..], 0), (&[0, 0], 0), (&[5], 5), (&[9, 0, 1, 5], 5), (&[1, 2], 2)] {
            assert_eq!(tip(rewards), median, "{rewards:?}");
        }
        assert_eq!((blob_fee(0), blob_fee(10), blob_fee(u128::MAX)), (1, 20, u128::MAX));
    }

    #[test]
    fn gas_has_a_margin() {
        for (estimate, block, limit) in [
            (21_000, 30_000_000, 21_000),
            (50_000, 30_000_000, 60_000),
            (28_000_000, 30_000_000, 30_000_000),
            // A node that contradicts itself is believed as far as the call needs.
            (40_000_000, 30_000_000, 40_000_000),
            (u64::MAX, u64::MAX, u64::MAX),
        ] {
            assert_eq!(gas_limit(estimate, block), limit);
        }
    }

    proptest! {
        #[test]
        fn fees_are_possible(base_fee: u128, tip: u128, max_fee: Option<u128>) {
            let filled = fees(Market::Eip1559 { base_fee, tip }, Chosen { max_fee, max_priority_fee: None });
            let Fees::Eip1559 { max_fee: most, max_priority_fee } = filled else { panic!("{filled:?}") };
            prop_assert!(max_priority_fee <= most && max_priority_fee <= tip);
            prop_assert!(max_fee.is_none_or(|chosen| chosen == most));
        }
    }
}
