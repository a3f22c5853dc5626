//! How a transaction may be replaced by another with its nonce: to be faster, or to be none.

use alloy_primitives::U256;

use super::{Denied, Policy};
use crate::transaction::Transaction;

/// What a transaction may cost at most, in wei.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fees {
    /// For one gas.
    pub per_gas: u128,
    /// For one gas of blobs; 0 where there are none.
    pub per_blob_gas: u128,
    /// In all; none beyond 256 bits.
    pub total: Option<U256>,
}

impl Fees {
    /// What this transaction may cost.
    #[must_use]
    pub fn of(tx: &Transaction) -> Self {
        Self { per_gas: tx.max_gas_price(), per_blob_gas: tx.max_blob_gas_price().unwrap_or(0), total: tx.max_fee() }
    }
}

/// A transaction that is to take the place of another. It is judged as any other besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replacement {
    /// How often the nonce's transaction was replaced before.
    pub count: u32,
    /// What the one before may cost.
    pub old: Fees,
    /// What this one may.
    pub new: Fees,
    /// Whether it does the same: who is called, with what data and value, and all that is not a fee, is as it was.
    pub same_call: bool,
    /// Whether it does nothing: it sends nothing to its own sender.
    pub cancels: bool,
}

/// Judges a replacement. One that neither does the same nor nothing is another payment, and none that replaces.
///
/// # Errors
/// [`Denied`] by `replacements`.
pub fn judge_replacement(policy: &Policy, replacement: &Replacement) -> Result<(), Denied> {
    const RULE: &str = "replacements";
    let Replacement { count, old, new, same_call, cancels } = replacement;
    if !same_call && !cancels {
        return Denied::new(RULE, "it neither does what the transaction before it does, nor cancels that");
    }
    let Some(limits) = policy.replacements else { return Ok(()) };
    if let Some(max) = limits.max
        && *count >= max
    {
        return Denied::new(RULE, format!("it was replaced {count} times, of {max} that are allowed"));
    }
    let Some(percent) = limits.max_fee_bump_percent else { return Ok(()) };
    let fees = [
        ("for one gas", Some(U256::from(old.per_gas)), Some(U256::from(new.per_gas))),
        ("for one gas of blobs", Some(U256::from(old.per_blob_gas)), Some(U256::from(new.per_blob_gas))),
        ("in all", old.total, new.total),
    ];
    for (what, old, new) in fees {
        // Beyond 256 bits, nothing is compared: it is not allowed.
        let allowed = old.and_then(|old| old.checked_mul(U256::from(100 + u64::from(percent))));
        let asked = new.and_then(|new| new.checked_mul(U256::from(100)));
        if !matches!((asked, allowed), (Some(asked), Some(allowed)) if asked <= allowed) {
            return Denied::new(RULE, format!("fees {what} grow by more than {percent} percent"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use keygate_config::Replacements;

    use super::*;

    fn fees(per_gas: u128, total: u64) -> Fees {
        Fees { per_gas, per_blob_gas: 0, total: Some(U256::from(total)) }
    }

    fn allowed(limits: Option<(Option<u32>, Option<u32>)>, change: impl FnOnce(&mut Replacement)) -> bool {
        let replacements = limits.map(|(max, max_fee_bump_percent)| Replacements { max, max_fee_bump_percent });
        let policy = Policy { replacements, ..Policy::default() };
        let (old, new) = (fees(100, 1000), fees(110, 1100));
        let mut replacement = Replacement { count: 0, old, new, same_call: true, cancels: false };
        change(&mut replacement);
        judge_replacement(&policy, &replacement).is_ok()
    }

    #[test]
    fn each_limit_is_exact() {
        assert!(allowed(None, |of| of.new = fees(u128::MAX, u64::MAX)));
        assert!(allowed(Some((Some(3), None)), |of| of.count = 2));
        assert!(!allowed(Some((Some(3), None)), |of| of.count = 3));
        assert!(!allowed(Some((Some(0), None)), |_| {}));
        assert!(allowed(Some((None, Some(10))), |_| {}));
        assert!(!allowed(Some((None, Some(9))), |_| {}));
        for new in [fees(111, 1100), fees(110, 1101), Fees { per_blob_gas: 1, ..fees(110, 1100) }] {
            assert!(!allowed(Some((None, Some(10))), |of| of.new = new), "{new:?}");
        }
        let most = Fees { per_gas: u128::MAX, per_blob_gas: u128::MAX, total: Some(U256::MAX) };
        assert!(!allowed(Some((None, Some(u32::MAX))), |of| (of.old, of.new) = (most, most)));
        assert!(!allowed(Some((None, Some(10))), |of| of.new.total = None));
    }

    #[test]
    fn another_payment_replaces_nothing() {
        for limits in [None, Some((Some(9), Some(900)))] {
            assert!(!allowed(limits, |of| of.same_call = false));
            assert!(allowed(limits, |of| (of.same_call, of.cancels) = (false, true)));
        }
    }
}
