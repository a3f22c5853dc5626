//! What holds for any policy and whatever is asked for: above all, that less is never more.

use alloy_primitives::{Address, U256};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::tests::{ALL, LISTED, NOW, STRANGER, TOKEN, erc20};
use super::*;
use crate::authorization::tests::authorization;

fn any_address() -> impl Strategy<Value = Address> {
    prop_oneof![Just(LISTED), Just(TOKEN), Just(STRANGER)]
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let amount = || prop::option::of((0u64..8).prop_map(U256::from));
    let to = prop::option::of(prop::collection::btree_set(any_address(), 0..3));
    let chains = prop::collection::btree_set(1u64..4, 0..3);
    let known = [[0xd0, 0xe3, 0x0d, 0xb0], [0xa9, 0x05, 0x9c, 0xbb], [0x40, 0x00, 0xae, 0xa0]];
    let functions = prop::sample::subsequence(known.to_vec(), 0..=3).prop_map(BTreeSet::from_iter);
    let sign = prop::sample::subsequence(ALL.to_vec(), 2..=4).prop_map(BTreeSet::from_iter);
    let delegates = prop::collection::btree_set(any_address(), 0..3);
    let contracts = prop::collection::btree_set(any_address(), 0..3);
    (chains, sign, to, functions, (contracts, delegates), amount(), amount(), any::<bool>()).prop_map(
        |(
            chains,
            sign,
            to,
            functions,
            (verifying_contracts, delegates),
            max_value,
            max_fee,
            allow_contract_creation,
        )| Policy {
            name: "p".into(),
            chains,
            sign,
            to,
            functions,
            verifying_contracts,
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

/// Typed data of each kind: a permit, one of Permit2, one with a witness, and what is not known.
fn any_typed_data() -> impl Strategy<Value = TypedData> {
    let contract = prop::option::of(any_address());
    (0usize..4, prop::option::of(1u64..4), contract, any_address(), any_address()).prop_map(
        |(kind, chain, contract, token, spender)| {
            let (token, spender) = (token.to_string(), spender.to_string());
            let field = |text: &str| {
                let (kind, name) = text.split_once(' ').unwrap();
                json!({"name": name, "type": kind})
            };
            let fields = |list: &[&str]| list.iter().map(|text| field(text)).collect::<Value>();
            let permissions = fields(&["address token", "uint256 amount"]);
            let permitted = ["TokenPermissions permitted", "address spender", "uint256 nonce", "uint256 deadline"];
            let permitted_token = json!({"token": token, "amount": 1});
            let message = json!({"permitted": permitted_token, "spender": spender, "nonce": 0, "deadline": 9});
            let of_nft = ["address spender", "uint256 tokenId", "uint256 nonce", "uint256 deadline"];
            let (name, types, message) = match kind {
                0 => (
                    "Permit",
                    json!({"Permit": fields(&of_nft)}),
                    json!({"spender": spender, "tokenId": 1, "nonce": 0, "deadline": 9}),
                ),
                1 => (
                    "PermitTransferFrom",
                    json!({"PermitTransferFrom": fields(&permitted), "TokenPermissions": permissions}),
                    message,
                ),
                2 => {
                    let mut with = message;
                    with["witness"] = json!(true);
                    let of = fields(&[&permitted[..], &["bool witness"]].concat());
                    let types = json!({"PermitWitnessTransferFrom": of, "TokenPermissions": permissions});
                    ("PermitWitnessTransferFrom", types, with)
                }
                _ => ("Vote", json!({"Vote": fields(&["address to"])}), json!({"to": spender})),
            };
            let mut domain = json!({});
            if let Some(chain) = chain {
                domain["chainId"] = json!(chain);
            }
            if let Some(contract) = contract {
                domain["verifyingContract"] = json!(contract.to_string());
            }
            let data = json!({"types": types, "primaryType": name, "domain": domain, "message": message});
            TypedData::parse(data.to_string().as_bytes()).unwrap()
        },
    )
}

fn any_authorization() -> impl Strategy<Value = Authorization> {
    (1u64..4, any_address()).prop_map(|(chain, delegate)| {
        let json = json!({"chainId": chain, "address": delegate.to_string(), "nonce": 0});
        Authorization::parse(json.to_string().as_bytes()).unwrap()
    })
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
        Policy { verifying_contracts: &policy.verifying_contracts & &other.verifying_contracts, ..policy.clone() },
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
    fn tightening_never_allows_more(
        policy in any_policy(), other in any_policy(), tx in any_tx(), data in any_typed_data(),
        authorization in any_authorization(),
    ) {
        let message = Message::parse(br#"{"message": "x"}"#).unwrap();
        let allowed = |policy: &Policy| [
            judge(policy, &tx, NOW).is_ok(),
            judge_typed_data(policy, &data, NOW).is_ok(),
            judge_authorization(policy, &authorization, NOW).is_ok(),
            judge_message(policy, &message, NOW).is_ok(),
        ];
        for tighter in tightened(&policy, &other) {
            for (less, more) in allowed(&tighter).into_iter().zip(allowed(&policy)) {
                prop_assert!(more || !less, "{policy:?} {tighter:?}");
            }
        }
    }

    #[test]
    fn typed_data_that_is_allowed_keeps_every_rule(policy in any_policy(), data in any_typed_data()) {
        if judge_typed_data(&policy, &data, NOW).is_ok() {
            prop_assert!(policy.sign.contains(&Signable::TypedData));
            prop_assert!(data.chain_id().is_some_and(|id| policy.chains.contains(&id.to::<u64>())));
            if let Some(listed) = &policy.to {
                let contract = data.verifying_contract().unwrap();
                let named = policy.verifying_contracts.contains(&contract);
                match Permit::read(&data, contract) {
                    Permit::Tokens { tokens, recipient, witness } => {
                        let all = tokens.into_iter().chain([recipient, contract]);
                        prop_assert!(all.into_iter().all(|address| listed.contains(&address)) && (!witness || named));
                    }
                    Permit::Other => prop_assert!(named),
                }
            }
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
        if judge(&policy, &tx, NOW).is_ok() {
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
