//! How a transaction may be replaced by another with its nonce: to be faster, or to be none.

use alloy_primitives::{Address, U256};
use keygate_config::Replacements;

use super::Denied;
use crate::transaction::Transaction;

/// What a transaction may cost at most, in wei.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fees {
    /// For one gas.
    per_gas: u128,
    /// Of that for who builds the block.
    priority: u128,
    /// For one gas of blobs; 0 where there are none.
    per_blob_gas: u128,
    /// In all; none beyond 256 bits.
    total: Option<U256>,
}

impl Fees {
    /// What this transaction may cost.
    fn of(tx: &Transaction) -> Self {
        let (per_gas, priority) = (tx.max_gas_price(), tx.max_priority_fee());
        Self { per_gas, priority, per_blob_gas: tx.max_blob_gas_price().unwrap_or(0), total: tx.max_fee() }
    }

    /// Each of them as the higher one of both has it.
    fn highest(self, other: Self) -> Self {
        Self {
            per_gas: self.per_gas.max(other.per_gas),
            priority: self.priority.max(other.priority),
            per_blob_gas: self.per_blob_gas.max(other.per_blob_gas),
            total: self.total.zip(other.total).map(|(one, other)| one.max(other)),
        }
    }
}

/// A transaction that has a nonce which another is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct There {
    /// It; none of an older keygate's, which did not keep what could be compared.
    pub tx: Option<Transaction>,
    /// Whether it is the caller's who asks for the other.
    pub own: bool,
    /// Whether it, or another in its place, is in a block for good.
    pub is_final: bool,
}

/// Judges a transaction of `sender`'s that is to have the nonce of those that are `there`, the oldest first, whichever way
/// it is asked for: it takes the place of the last of them. It is judged as any other besides. Where nobody is there,
/// there is nothing to judge.
///
/// It is for who has asked for one of them, and does what that does, or nothing: else it is another payment, and none
/// that replaces. It offers more than the highest of them, as nodes want it: else it is signed in vain, and those after it
/// would be measured by it. The limits are of how often, and of what it may cost more than that.
///
/// # Errors
/// [`Denied`] by `replacements`.
pub fn judge_replacement(
    limits: Option<Replacements>,
    sender: Address,
    tx: &Transaction,
    there: &[There],
) -> Result<(), Denied> {
    let Some(last) = there.last() else { return Ok(()) };
    if !there.iter().any(|one| one.own) {
        return Denied::new(RULE, "another caller's transaction has this nonce");
    }
    if there.iter().any(|one| one.is_final) {
        return Denied::new(RULE, "the transaction with this nonce is final");
    }
    let Some(last) = &last.tx else {
        return Denied::new(
            RULE,
            "the one before it is of an older keygate, which did not keep what could be replaced",
        );
    };
    let does_as = |one: &There| one.own && one.tx.as_ref().is_some_and(|before| before.same_call(tx));
    if !tx.does_nothing(sender) && !there.iter().any(does_as) {
        return Denied::new(RULE, "it neither does what the transaction before it does, nor cancels that");
    }
    let others = there.iter().filter_map(|one| one.tx.as_ref());
    let (old, new) = (others.map(Fees::of).fold(Fees::of(last), Fees::highest), Fees::of(tx));
    // Once more the same, as a client sends it that had no answer, is in nobody's way.
    if !there.iter().any(|one| one.tx.as_ref() == Some(tx)) {
        judge_offer(&old, &new)?;
    }
    let count = u32::try_from(there.len() - 1).unwrap_or(u32::MAX);
    judge_limits(limits, count, &old, &new)
}

const RULE: &str = "replacements";
/// A node lets a transaction take another's place that offers so many percent more, in each of its fees (geth's
/// `--txpool.pricebump`),
const MORE: u64 = 10;
/// and so many where there are blobs (`--blobpool.pricebump`).
const MORE_WITH_BLOBS: u64 = 100;

/// Judges what one offers that takes the place of others, of which these are the highest fees.
fn judge_offer(old: &Fees, new: &Fees) -> Result<(), Denied> {
    let with_blobs = old.per_blob_gas > 0 || new.per_blob_gas > 0;
    let percent = if with_blobs { MORE_WITH_BLOBS } else { MORE };
    let mut fees = vec![("for one gas", old.per_gas, new.per_gas), ("of priority", old.priority, new.priority)];
    if old.per_blob_gas > 0 && new.per_blob_gas > 0 {
        fees.push(("for one gas of blobs", old.per_blob_gas, new.per_blob_gas));
    }
    for (what, old, new) in fees {
        // 128 bits times a hundred.
        if new <= old || U256::from(new) * U256::from(100) < U256::from(old) * U256::from(100 + percent) {
            let why = format!("{new} wei {what} is not {percent} percent above {old} wei, the highest with this nonce");
            return Denied::new(RULE, why);
        }
    }
    Ok(())
}

/// Judges one that comes after so many replacements, for these fees instead of the highest so far.
fn judge_limits(limits: Option<Replacements>, count: u32, old: &Fees, new: &Fees) -> Result<(), Denied> {
    let Some(limits) = limits else { return Ok(()) };
    if let Some(max) = limits.max
        && count >= max
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
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const SENDER: Address = Address::repeat_byte(0x11);

    fn fees(per_gas: u128, total: u64) -> Fees {
        Fees { per_gas, priority: 1, per_blob_gas: 0, total: Some(U256::from(total)) }
    }

    fn within(max: Option<u32>, max_fee_bump_percent: Option<u32>, count: u32, new: &Fees) -> bool {
        judge_limits(Some(Replacements { max, max_fee_bump_percent }), count, &fees(100, 1000), new).is_ok()
    }

    #[test]
    fn each_limit_is_exact() {
        let more = fees(110, 1100);
        assert!(judge_limits(None, u32::MAX, &fees(1, 1), &fees(u128::MAX, u64::MAX)).is_ok());
        assert!(within(Some(3), None, 2, &more));
        assert!(!within(Some(3), None, 3, &more));
        assert!(!within(Some(0), None, 0, &more));
        assert!(within(None, Some(10), 0, &more));
        assert!(!within(None, Some(9), 0, &more));
        for new in [fees(111, 1100), fees(110, 1101), Fees { per_blob_gas: 1, ..more }, Fees { total: None, ..more }] {
            assert!(!within(None, Some(10), 0, &new), "{new:?}");
        }
        let most = Fees { per_gas: u128::MAX, priority: u128::MAX, per_blob_gas: u128::MAX, total: Some(U256::MAX) };
        let limits = Replacements { max: None, max_fee_bump_percent: Some(u32::MAX) };
        assert!(judge_limits(Some(limits), 0, &most, &most).is_err());
    }

    /// A payment of 1 wei, with these fields instead; all that is paid for gas is for who builds the block.
    fn payment(fields: &Value) -> Transaction {
        let mut tx = json!({
            "chainId": 137, "type": 2, "to": Address::repeat_byte(0x22).to_checksum(None), "value": 1, "data": "0x",
            "gas": 21_000, "maxFeePerGas": 100,
        });
        for (name, value) in fields.as_object().unwrap() {
            tx[name] = value.clone();
        }
        if tx["type"] == 2 && tx.get("maxPriorityFeePerGas").is_none() {
            tx["maxPriorityFeePerGas"] = tx["maxFeePerGas"].clone();
        }
        tx.as_object_mut().unwrap().retain(|_, value| *value != json!("none"));
        Transaction::from_body(&tx.to_string()).unwrap()
    }

    fn dearer(fields: &Value) -> Transaction {
        let mut dearer = json!({ "maxFeePerGas": 120 });
        dearer.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        payment(&dearer)
    }

    fn nothing(per_gas: u64) -> Transaction {
        payment(&json!({ "to": SENDER.to_checksum(None), "value": 0, "maxFeePerGas": per_gas }))
    }

    fn own(tx: Transaction) -> There {
        There { tx: Some(tx), own: true, is_final: false }
    }

    fn why(tx: &Transaction, there: &[There]) -> Option<String> {
        let limits = Replacements { max: Some(2), max_fee_bump_percent: Some(20) };
        judge_replacement(Some(limits), SENDER, tx, there).err().map(|denied| {
            assert_eq!(denied.rule, "replacements");
            denied.detail
        })
    }

    #[track_caller]
    fn denied(tx: &Transaction, there: &[There], because: &str) {
        let why = why(tx, there).unwrap_or_else(|| panic!("{tx:?} replaces {there:?}"));
        assert!(why.contains(because), "{why}");
    }

    #[test]
    fn it_does_the_same_or_nothing() {
        let first = || own(payment(&json!({})));
        assert_eq!(why(&dearer(&json!({})), &[]), None, "it is the first");
        assert_eq!(why(&dearer(&json!({})), &[first()]), None);
        assert_eq!(why(&payment(&json!({})), &[first()]), None, "the same, once more");
        assert_eq!(why(&nothing(120), &[first()]), None);
        // Neither type nor what is only said of storage is what it does.
        let legacy = json!({ "type": 0, "gasPrice": 120, "maxFeePerGas": "none" });
        let warm = json!({ "accessList": [{ "address": SENDER.to_checksum(None), "storageKeys": [] }] });
        for fields in [legacy, warm] {
            assert_eq!(why(&dearer(&fields), &[first()]), None);
        }
        let to = SENDER.to_checksum(None);
        for fields in [json!({ "value": 2 }), json!({ "to": to }), json!({ "data": "0x00" })] {
            denied(&dearer(&fields), &[first()], "neither");
        }
        // After it was cancelled, too.
        assert_eq!(why(&payment(&json!({ "maxFeePerGas": 140 })), &[first(), own(nothing(120))]), None);
        denied(&payment(&json!({ "value": 2 })), &[first(), own(nothing(100))], "neither");
    }

    #[test]
    fn it_is_for_who_asked_for_one_while_none_is_final() {
        let (first, tx) = (payment(&json!({})), dearer(&json!({})));
        let theirs = || There { own: false, ..own(payment(&json!({}))) };
        denied(&tx, &[theirs()], "another caller's");
        denied(&nothing(120), &[theirs()], "another caller's");
        assert_eq!(why(&tx, &[own(first.clone()), theirs()]), None);
        let other = There { own: false, ..own(payment(&json!({ "value": 2 }))) };
        denied(&dearer(&json!({ "value": 2 })), &[own(first.clone()), other], "neither");
        denied(&tx, &[There { is_final: true, ..own(first.clone()) }, own(first.clone())], "final");
        denied(&tx, &[There { tx: None, ..own(first.clone()) }], "older");
    }

    #[test]
    fn it_is_held_to_the_limits() {
        let first = || own(payment(&json!({})));
        denied(&payment(&json!({ "maxFeePerGas": 121 })), &[first()], "for one gas grow");
        denied(&nothing(121), &[first()], "for one gas grow");
        denied(&dearer(&json!({ "gas": 21_001 })), &[first()], "in all grow");
        let second = own(payment(&json!({ "maxFeePerGas": 120 })));
        let third = payment(&json!({ "maxFeePerGas": 144 }));
        assert_eq!(why(&third, &[first(), second.clone()]), None, "it is the last one's fees that count");
        denied(&third, &[first(), second.clone(), own(payment(&json!({})))], "it was replaced 2 times, of 2");
    }

    #[test]
    fn it_offers_what_nodes_want_above_the_highest() {
        let of = |max_fee: u64, priority: u64| {
            payment(&json!({ "maxFeePerGas": max_fee, "maxPriorityFeePerGas": priority }))
        };
        let there = [own(of(100, 10)), own(of(50, 20)), own(of(60, 5))];
        let judge = |tx: &Transaction, there: &[There]| judge_replacement(None, SENDER, tx, there);
        assert_eq!(judge(&of(110, 22), &there), Ok(()));
        for low in [of(109, 22), of(110, 21), of(66, 22), of(100, 20)] {
            assert!(judge(&low, &there).unwrap_err().detail.contains("the highest with this nonce"), "{low:?}");
        }
        // More is more, though a tenth of it is none.
        assert!(judge(&of(110, 0), &[own(of(100, 0))]).is_err());
        assert_eq!(judge(&of(110, 1), &[own(of(100, 0))]), Ok(()));
        let blobs = |fee| Fees { priority: fee, per_blob_gas: fee, ..fees(fee, 1) };
        assert!(judge_offer(&blobs(100), &blobs(200)).is_ok());
        assert!(judge_offer(&blobs(100), &blobs(199)).is_err());
        assert!(judge_offer(&blobs(100), &Fees { per_blob_gas: 199, ..blobs(200) }).is_err());
        assert!(judge_offer(&blobs(u128::MAX), &blobs(u128::MAX)).is_err());
    }

    prop_compose! {
        fn any_tx()(nothing: bool, to in 0u8..3, value in 0u8..3, per_gas in 80u64..140, gas in 21_000u64..25_000)
            -> Transaction {
            let (to, value) = if nothing { (SENDER, 0) } else { (Address::repeat_byte(to), value) };
            payment(&json!({ "to": to.to_checksum(None), "value": value, "maxFeePerGas": per_gas, "gas": gas }))
        }
    }

    proptest! {
        /// However they were asked for: what has a nonce besides others does what the caller's own does, or nothing.
        #[test]
        fn nothing_else_has_its_nonce(
            first in any_tx(), others in prop::collection::vec((any_tx(), any::<bool>()), 1..8),
            max in prop::option::of(0u32..4), percent in prop::option::of(0u32..40),
        ) {
            let limits = Replacements { max, max_fee_bump_percent: percent };
            let mut there = vec![own(first.clone())];
            for (tx, mine) in others {
                // The same list as another caller sees it.
                let seen: Vec<_> = there.iter().map(|one| There { own: mine, ..one.clone() }).collect();
                if judge_replacement(Some(limits), SENDER, &tx, &seen).is_err() {
                    continue;
                }
                let before = there.last().unwrap().tx.clone().unwrap();
                prop_assert!(mine);
                prop_assert!(tx.does_nothing(SENDER) || (tx.to(), tx.value()) == (first.to(), first.value())
                    || there.iter().any(|one| one.tx.as_ref().unwrap().same_call(&tx)));
                prop_assert!(tx.does_nothing(SENDER) || first.does_nothing(SENDER) || first.same_call(&tx));
                for one in &there {
                    let old = one.tx.as_ref().unwrap().max_gas_price();
                    prop_assert!(tx.max_gas_price() * 100 >= old * 110 || there.contains(&own(tx.clone())));
                }
                if let Some(percent) = percent {
                    prop_assert!(tx.max_gas_price() * 100 <= before.max_gas_price() * u128::from(100 + percent));
                }
                there.push(own(tx));
            }
            prop_assert!(max.is_none_or(|max| there.len() <= max as usize + 1));
        }
    }
}
