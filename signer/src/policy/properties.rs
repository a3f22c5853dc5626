//! What holds for any policy and whatever is asked for: above all, that less is never more.

use alloy_primitives::{Address, U256};
use proptest::prelude::*;
use serde_json::json;

use super::tests::{ALL, LISTED, STRANGER, TOKEN, erc20};
use super::*;
use crate::authorization::tests::authorization;
use crate::transaction::Transaction;

fn any_address() -> impl Strategy<Value = Address> {
    prop_oneof![Just(LISTED), Just(TOKEN), Just(STRANGER)]
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let amount = || prop::option::of((0u64..8).prop_map(U256::from));
    let to = prop::option::of(prop::collection::btree_set(any_address(), 0..3));
    let chains = prop::collection::btree_set(1u64..4, 0..3);
    let known = [[0xd0, 0xe3, 0x0d, 0xb0], [0xa9, 0x05, 0x9c, 0xbb], [0x40, 0x00, 0xae, 0xa0]];
    let functions = prop::sample::subsequence(known.to_vec(), 0..=3).prop_map(BTreeSet::from_iter);
    let sign = prop::sample::subsequence(ALL.to_vec(), 0..=1).prop_map(BTreeSet::from_iter);
    let delegates = prop::collection::btree_set(any_address(), 0..3);
    (chains, sign, to, functions, delegates, amount(), amount(), any::<bool>()).prop_map(
        |(chains, sign, to, functions, delegates, max_value, max_fee, allow_contract_creation)| Policy {
            name: "p".into(),
            chains,
            sign,
            to,
            functions,
            delegates,
            max_value,
            daily_value: None,
            max_fee,
            allow_contract_creation,
        },
    )
}

fn any_tx() -> impl Strategy<Value = Transaction> {
    let data = prop_oneof![
        Just("0x".to_owned()),
        Just("0xd0e30db0".to_owned()),
        (any_address(), 1usize..3).prop_map(|(to, words)| erc20("a9059cbb", &vec![to; words])),
        any_address().prop_map(|to| erc20("23b872dd", &[LISTED, to, LISTED])),
        (any_address(), 0u8..2).prop_map(|(to, length)| {
            erc20("4000aea0", &[to, LISTED, Address::left_padding_from(&[96]), Address::left_padding_from(&[length])])
        }),
    ];
    let delegates = prop::collection::vec(any_address(), 1..3);
    let kind = prop_oneof![Just(0), Just(3), Just(4)];
    (kind, 1u64..4, prop::option::of(any_address()), 0u64..8, 0u64..4, 0u64..4, data, delegates).prop_map(
        |(kind, chain, to, value, gas, price, data, delegates)| {
            let to = if kind == 0 { to } else { to.or(Some(LISTED)) };
            let data = if to.is_none() { "0x00".to_owned() } else { data };
            let mut tx = json!({"chainId": chain, "type": kind, "nonce": 0, "to": to.map(|to| to.to_string()),
                                "value": value, "gas": gas, "data": data});
            for field in if kind == 0 { &["gasPrice"][..] } else { &["maxFeePerGas", "maxPriorityFeePerGas"] } {
                tx[field] = json!(price);
            }
            if kind == 3 {
                tx["maxFeePerBlobGas"] = json!(value & 1);
                tx["blobVersionedHashes"] = json!([format!("0x01{:062x}", 1)]);
            }
            if kind == 4 {
                let list = delegates.into_iter().map(|delegate| authorization(U256::from(chain), delegate, 0, 9));
                tx["authorizationList"] = list.collect();
            }
            Transaction::parse(tx.to_string().as_bytes()).unwrap()
        },
    )
}

/// The policy with each field, by turns, as tight as in both.
fn tightened(policy: &Policy, other: &Policy) -> Vec<Policy> {
    let least = |a: Option<U256>, b: Option<U256>| a.into_iter().chain(b).min();
    let both = |a: &Option<BTreeSet<Address>>, b: &Option<BTreeSet<Address>>| match (a, b) {
        (Some(a), Some(b)) => Some(a & b),
        (one, None) | (None, one) => one.clone(),
    };
    vec![
        Policy { chains: &policy.chains & &other.chains, ..policy.clone() },
        Policy { sign: &policy.sign & &other.sign, ..policy.clone() },
        Policy { to: both(&policy.to, &other.to), ..policy.clone() },
        Policy { functions: &policy.functions & &other.functions, ..policy.clone() },
        Policy { delegates: &policy.delegates & &other.delegates, ..policy.clone() },
        Policy { max_value: least(policy.max_value, other.max_value), ..policy.clone() },
        Policy { max_fee: least(policy.max_fee, other.max_fee), ..policy.clone() },
        Policy {
            allow_contract_creation: policy.allow_contract_creation && other.allow_contract_creation,
            ..policy.clone()
        },
    ]
}

proptest! {
    #[test]
    fn tightening_never_allows_more(policy in any_policy(), other in any_policy(), tx in any_tx()) {
        for tighter in tightened(&policy, &other) {
            prop_assert!(judge(&tighter, &tx).is_err() || judge(&policy, &tx).is_ok(), "{policy:?} {tighter:?}");
        }
    }

    #[test]
    fn a_lower_daily_limit_or_more_spent_never_allows_more(
        limit in 0u64..9, lower in 0u64..9, spent in 0u64..9, more in 0u64..9, value in 0u64..9,
    ) {
        let judge = |limit: u64, spent: u64| judge_daily(Some(U256::from(limit)), U256::from(spent), U256::from(value));
        prop_assert!(judge(limit.min(lower), spent + more).is_err() || judge(limit, spent).is_ok());
    }

    #[test]
    fn what_is_allowed_keeps_every_rule(policy in any_policy(), tx in any_tx()) {
        if judge(&policy, &tx).is_ok() {
            prop_assert!(policy.sign.contains(&Signable::Transaction) && policy.chains.contains(&tx.chain_id()));
            prop_assert!(policy.max_value.is_none_or(|max| tx.value() <= max));
            let fee = U256::from(tx.gas()) * U256::from(tx.max_gas_price()) + tx.max_blob_fee();
            prop_assert!(tx.delegates().all(|delegate| policy.delegates.contains(&delegate)));
            prop_assert!(policy.max_fee.is_none_or(|max| fee <= max));
            prop_assert!(tx.to().is_some() || policy.allow_contract_creation);
            if let (Some(listed), Some(to)) = (&policy.to, tx.to()) {
                prop_assert!(listed.contains(&to));
                let named = |selector| policy.functions.contains(&selector);
                let readable = match Calldata::read(tx.data()).unwrap() {
                    Calldata::Empty => true,
                    Calldata::Token { selector, recipient, hands_on } => {
                        listed.contains(&recipient) && (!hands_on || named(selector))
                    }
                    Calldata::Other { selector } => named(selector),
                };
                prop_assert!(readable);
            }
        }
    }
}
