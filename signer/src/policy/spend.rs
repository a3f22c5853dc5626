//! What a request spends, and how much of it may be spent in how long.
//!
//! A policy says which windows an amount must fit in; what was spent in them before is the ledger's to know, which asks
//! [`judge_window`] inside the transaction that reserves, so that no two requests see the same allowance.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use alloy_primitives::{Address, U256};

use super::Denied;

/// What is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Asset {
    /// The chain's own currency, in wei.
    Native,
    /// The token of this contract, in its smallest unit.
    Token(Address),
}

/// So much of an asset may be spent in any period of this length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The rule, named as the field of the policy.
    pub rule: &'static str,
    /// How long.
    pub period: Duration,
    /// How much, in the asset's smallest unit.
    pub max: U256,
}

/// What a request spends of one asset, and the windows it must fit in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spend {
    /// What.
    pub asset: Asset,
    /// How much, in its smallest unit; 2^256-1 is without bound.
    pub amount: U256,
    /// Every one of them must have room. None does not restrict; it is counted all the same.
    pub windows: Vec<Window>,
}

/// What the policy says of what it lets be signed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Allowed {
    /// What is spent, each asset once, and none of it nothing.
    pub spends: Vec<Spend>,
    /// Whether it is to be held until somebody else approves it.
    pub approval: Option<Approval>,
}

/// Why a second identity must approve it first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// The rule, named as the field of the policy.
    pub rule: &'static str,
    /// What is above which amount.
    pub detail: String,
    /// Names of the callers who may.
    pub from: BTreeSet<String>,
    /// Within this time.
    pub expires_after: Duration,
}

/// Judges whether `amount` more may be spent when `spent` were in the window.
///
/// # Errors
/// [`Denied`] by the window's rule.
pub fn judge_window(asset: Asset, window: &Window, spent: U256, amount: U256) -> Result<(), Denied> {
    // What sends nothing spends nothing, even if a limit was lowered below what is spent.
    if amount.is_zero() || spent.checked_add(amount).is_some_and(|total| total <= window.max) {
        return Ok(());
    }
    let (max, period) = (window.max, Span(window.period));
    let detail = format!("{amount} {asset} on top of {spent} in {period} is above {max}");
    Err(Denied { rule: window.rule, detail })
}

impl fmt::Display for Asset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Native => f.write_str("wei"),
            Self::Token(contract) => write!(f, "of token {contract}"),
        }
    }
}

/// As operators say it: a day is 24 hours.
struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            _ if self.0.subsec_nanos() > 0 => write!(f, "{:?}", self.0),
            hour @ 1.. if hour % 3600 == 0 => write!(f, "{} h", hour / 3600),
            minute @ 1.. if minute % 60 == 0 => write!(f, "{} min", minute / 60),
            seconds => write!(f, "{seconds} s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn judge(max: U256, spent: U256, amount: U256) -> Result<(), Denied> {
        judge_window(Asset::Native, &Window { rule: "windows", period: DAY, max }, spent, amount)
    }

    #[test]
    fn a_window_is_exact() {
        let judge =
            |max: u64, spent: u64, amount: u64| judge(U256::from(max), U256::from(spent), U256::from(amount)).is_ok();
        assert!(judge(10, 0, 10) && judge(10, 9, 1) && !judge(10, 0, 11) && !judge(10, 10, 1));
        assert!(judge(10, 11, 0), "what sends nothing spends nothing");
    }

    #[test]
    fn nothing_overflows() {
        assert!(judge(U256::MAX, U256::MAX, U256::ONE).is_err());
        assert!(judge(U256::MAX, U256::ONE, U256::MAX).is_err());
        assert!(judge(U256::MAX, U256::ZERO, U256::MAX).is_ok());
    }

    #[test]
    fn the_rule_and_what_it_is_of_are_named() {
        let token = Asset::Token(Address::repeat_byte(0x22));
        let window = |seconds| Window { rule: "tokens", period: Duration::from_secs(seconds), max: U256::from(5) };
        let denied = |seconds| judge_window(token, &window(seconds), U256::from(4), U256::from(2)).unwrap_err();
        let expected = "2 of token 0x2222222222222222222222222222222222222222 on top of 4 in 24 h is above 5";
        assert_eq!(denied(86_400), Denied { rule: "tokens", detail: expected.into() });
        assert!(denied(90).detail.contains("in 90 s ") && denied(600).detail.contains("in 10 min "));
    }

    fn any_amount() -> impl Strategy<Value = U256> {
        prop_oneof![
            (0u64..9).prop_map(U256::from),
            (0u64..9).prop_map(|n| U256::MAX - U256::from(n)),
            any::<[u8; 32]>().prop_map(U256::from_be_bytes)
        ]
    }

    proptest! {
        #[test]
        fn less_room_never_allows_more(
            max in any_amount(), lower in any_amount(), spent in any_amount(), more in any_amount(), amount in any_amount(),
        ) {
            let tighter = judge(max.min(lower), spent.saturating_add(more), amount);
            prop_assert!(tighter.is_err() || judge(max, spent, amount).is_ok());
        }

        /// By numbers that are wider: what is allowed never has more in the window than it may.
        #[test]
        fn what_is_allowed_fits(max in any_amount(), spent in any_amount(), amount in any_amount()) {
            let wide = |n: U256| alloy_primitives::U512::from(n);
            let fits = amount.is_zero() || wide(spent) + wide(amount) <= wide(max);
            prop_assert_eq!(judge(max, spent, amount).is_ok(), fits);
        }
    }
}
