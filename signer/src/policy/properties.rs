//! What holds for any policy and whatever is asked for: above all, that less is never more.

use std::time::Duration;

use alloy_primitives::{Address, U256};
use keygate_config::{Argument, Call, EthAddress};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::tests::{ALL, LISTED, NOW, STRANGER, TOKEN, erc20, judge_daily};
use super::*;
use crate::authorization::tests::authorization;

fn any_address() -> impl Strategy<Value = Address> {
    prop_oneof![Just(LISTED), Just(TOKEN), Just(STRANGER)]
}

fn addresses() -> impl Strategy<Value = BTreeSet<Address>> {
    prop::collection::btree_set(any_address(), 0..3)
}

fn small() -> impl Strategy<Value = Option<U256>> {
    prop::option::of((0u64..8).prop_map(U256::from))
}

fn windows(rule: &'static str) -> impl Strategy<Value = Vec<Window>> {
    let window = (1u64..4, 0u64..8).prop_map(move |(days, max)| Window {
        rule,
        period: Duration::from_secs(days * 86_400),
        max: U256::from(max),
    });
    prop::collection::vec(window, 0..2)
}

fn any_token() -> impl Strategy<Value = Token> {
    (small(), windows("tokens"), prop::option::of(addresses()), small()).prop_map(
        |(max_amount, windows, recipients, approval_above)| Token {
            name: "t".into(),
            max_amount,
            windows,
            recipients,
            approval_above,
        },
    )
}

/// A rule for `swap(address,uint256)`, of none, one or both of its arguments.
fn any_call() -> impl Strategy<Value = CallRule> {
    (any_address(), prop::option::of(addresses()), prop::option::of(0u64..4)).prop_map(|(contract, one_of, max)| {
        let argument = |at: usize, one_of, max| Argument { name: at.to_string(), path: vec![at], one_of, max };
        let one_of = one_of.map(|all| argument(0, Some(all.into_iter().map(|one| one.into_word()).collect()), None));
        let max = max.map(|max| argument(1, None, Some(U256::from(max))));
        let function = "swap(address to,uint256 amount)".parse().unwrap();
        let arguments = one_of.into_iter().chain(max).collect();
        CallRule::new(&Call { contract: EthAddress(contract), function, arguments }).unwrap()
    })
}

/// By turns open and closed.
fn any_hours() -> impl Strategy<Value = Vec<Hours>> {
    let hours = ["Thu 00:00-12:00", "Fri 00:00-12:00", "Thu-Fri 00:00-00:01"].map(|text| text.parse().unwrap());
    prop::sample::subsequence(hours.to_vec(), 0..3)
}

prop_compose! {
    fn lists()(
        chains in prop::collection::btree_set(1u64..4, 0..3),
        sign in prop::sample::subsequence(ALL.to_vec(), 2..=4).prop_map(BTreeSet::from_iter),
        to in prop::option::of(addresses()),
        tokens in prop::option::of(prop::collection::btree_map(any_address(), any_token(), 0..3)),
        functions in prop::sample::subsequence(
            vec![[0x87, 0x51, 0x7c, 0x45], [0xd0, 0xe3, 0x0d, 0xb0], [0xa9, 0x05, 0x9c, 0xbb], [0x40, 0x00, 0xae, 0xa0], [0x42, 0x84, 0x2e, 0x0e]],
            0..=5,
        ).prop_map(BTreeSet::from_iter),
        calls in prop::collection::vec(any_call(), 0..3),
        verifying_contracts in addresses(),
        delegates in addresses(),
        approvers in prop::collection::btree_set("[ab]", 0..3),
    ) -> Policy {
        Policy {
            name: "p".into(), chains, sign, to, tokens, functions, calls, verifying_contracts, delegates, approvers,
            ..Policy::default()
        }
    }
}

prop_compose! {
    fn any_policy()(
        lists in lists(),
        max_value in small(),
        daily_value in small(),
        windows in windows("windows"),
        max_fee in small(),
        prices in prop::array::uniform3(prop::option::of(0u128..4)),
        max_gas in prop::option::of(0u64..4),
        rate in prop::option::of((1u32..4, 1u64..4)),
        hours in prop::option::of(any_hours()),
        replacements in prop::option::of((prop::option::of(0u32..3), prop::option::of(0u32..3))),
        approval_above in small(),
        (allow_nonce, allow_contract_creation) in any::<(bool, bool)>(),
    ) -> Policy {
        let [max_fee_per_gas, max_priority_fee_per_gas, max_fee_per_blob_gas] = prices;
        Policy {
            max_value, daily_value, windows, max_fee, max_fee_per_gas, max_priority_fee_per_gas, max_fee_per_blob_gas,
            max_gas, hours, approval_above, allow_nonce, allow_contract_creation,
            rate: rate.map(|(count, seconds)| Rate { count, per: Duration::from_secs(seconds) }),
            replacements: replacements.map(|(max, max_fee_bump_percent)| Replacements { max, max_fee_bump_percent }),
            ..lists
        }
    }
}

fn any_tx() -> impl Strategy<Value = Transaction> {
    let word = |n: u8| Address::left_padding_from(&[n]);
    let data = prop_oneof![
        Just("0x".to_owned()),
        Just("0xd0e30db0".to_owned()),
        // transfer, approve, transferFrom, safeTransferFrom, swap
        (any_address(), 0u8..8).prop_map(move |(to, n)| erc20("a9059cbb", &[to, word(n)])),
        any_address().prop_map(|to| erc20("a9059cbb", &[to])),
        any_address().prop_map(|to| erc20("095ea7b3", &[to, Address::repeat_byte(0xff)])),
        (any_address(), 0u8..8).prop_map(move |(to, n)| erc20("23b872dd", &[LISTED, to, word(n)])),
        any_address().prop_map(|to| erc20("42842e0e", &[LISTED, to, LISTED])),
        (any_address(), 0u8..8).prop_map(move |(to, n)| erc20("d004f0f7", &[to, word(n)])),
        // Permit2: approve, of a token in the arguments
        (any_address(), any_address(), 0u8..8)
            .prop_map(move |(token, to, n)| erc20("87517c45", &[token, to, word(n), word(9)])),
        (any_address(), 0u8..2).prop_map(move |(to, length)| erc20("4000aea0", &[to, LISTED, word(96), word(length)])),
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

/// Typed data of each kind: a permit, one of an id, one of Permit2, one with a witness, and what is not known.
fn any_typed_data() -> impl Strategy<Value = TypedData> {
    let contract = prop::option::of(any_address());
    (0usize..5, prop::option::of(1u64..4), contract, any_address(), any_address(), 0u64..8).prop_map(
        |(kind, chain, contract, token, spender, amount)| {
            let (token, spender) = (token.to_string(), spender.to_string());
            let field = |text: &str| {
                let (kind, name) = text.split_once(' ').unwrap();
                json!({"name": name, "type": kind})
            };
            let fields = |list: &[&str]| list.iter().map(|text| field(text)).collect::<Value>();
            let permissions = fields(&["address token", "uint256 amount"]);
            let permitted = ["TokenPermissions permitted", "address spender", "uint256 nonce", "uint256 deadline"];
            let permitted_token = json!({"token": token, "amount": amount});
            let message = json!({"permitted": permitted_token, "spender": spender, "nonce": 0, "deadline": 9});
            let of_nft = ["address spender", "uint256 tokenId", "uint256 nonce", "uint256 deadline"];
            let own = ["address owner", "address spender", "uint256 value", "uint256 nonce", "uint256 deadline"];
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
                3 => (
                    "Permit",
                    json!({"Permit": fields(&own)}),
                    json!({"owner": token, "spender": spender, "value": amount, "nonce": 0, "deadline": 9}),
                ),
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

fn least<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    a.into_iter().chain(b).min()
}

fn both(a: Option<&BTreeSet<Address>>, b: Option<&BTreeSet<Address>>) -> Option<BTreeSet<Address>> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a & b),
        (one, None) | (None, one) => one.cloned(),
    }
}

fn tighter_token(token: &Token, other: &Token) -> Token {
    Token {
        name: token.name.clone(),
        max_amount: least(token.max_amount, other.max_amount),
        windows: [&token.windows[..], &other.windows].concat(),
        recipients: both(token.recipients.as_ref(), other.recipients.as_ref()),
        approval_above: least(token.approval_above, other.approval_above),
    }
}

/// The policy with each field, by turns, as tight as in both.
fn tightened(policy: &Policy, other: &Policy) -> Vec<Policy> {
    let tokens = match (&policy.tokens, &other.tokens) {
        (Some(a), Some(b)) => {
            let shared = a.iter().filter_map(|(contract, a)| Some((*contract, tighter_token(a, b.get(contract)?))));
            Some(shared.collect())
        }
        (one, None) | (None, one) => one.clone(),
    };
    let fewer = policy.calls.iter().skip(1).cloned().collect();
    let hours = match (&policy.hours, &other.hours) {
        (Some(a), Some(b)) => Some(a.iter().filter(|hours| b.contains(hours)).copied().collect()),
        (one, None) | (None, one) => one.clone(),
    };
    let with = |change: &dyn Fn(&mut Policy)| {
        let mut changed = policy.clone();
        change(&mut changed);
        changed
    };
    vec![
        with(&|it| it.chains = &policy.chains & &other.chains),
        with(&|it| it.sign = &policy.sign & &other.sign),
        with(&|it| it.to = both(policy.to.as_ref(), other.to.as_ref())),
        with(&|it| it.tokens = tokens.clone()),
        with(&|it| it.functions = &policy.functions & &other.functions),
        with(&|it| it.calls = policy.calls.iter().filter(|rule| other.calls.contains(rule)).cloned().collect()),
        Policy { calls: fewer, ..policy.clone() },
        with(&|it| it.verifying_contracts = &policy.verifying_contracts & &other.verifying_contracts),
        with(&|it| it.delegates = &policy.delegates & &other.delegates),
        with(&|it| it.max_value = least(policy.max_value, other.max_value)),
        with(&|it| it.daily_value = least(policy.daily_value, other.daily_value)),
        with(&|it| it.windows = [&policy.windows[..], &other.windows].concat()),
        with(&|it| it.max_fee = least(policy.max_fee, other.max_fee)),
        with(&|it| it.max_fee_per_gas = least(policy.max_fee_per_gas, other.max_fee_per_gas)),
        with(&|it| {
            it.max_priority_fee_per_gas = least(policy.max_priority_fee_per_gas, other.max_priority_fee_per_gas);
        }),
        with(&|it| it.max_fee_per_blob_gas = least(policy.max_fee_per_blob_gas, other.max_fee_per_blob_gas)),
        with(&|it| it.max_gas = least(policy.max_gas, other.max_gas)),
        with(&|it| it.hours = hours.clone()),
        with(&|it| it.approval_above = least(policy.approval_above, other.approval_above)),
        with(&|it| it.allow_nonce = policy.allow_nonce && other.allow_nonce),
        with(&|it| it.allow_contract_creation = policy.allow_contract_creation && other.allow_contract_creation),
    ]
}

/// What may become of a request, from least to most: denied, held, signed.
fn ranks(policy: &Policy, request: &Asked, spent: U256) -> [u8; 4] {
    let rank = |verdict: Result<Allowed, Denied>| {
        let Ok(allowed) = verdict else { return 0 };
        let windows = |spend: &Spend| {
            spend.windows.iter().map(|w| judge_window(spend.asset, w, spent, spend.amount)).all(|v| v.is_ok())
        };
        match allowed.approval {
            _ if !allowed.spends.iter().all(windows) => 0,
            Some(_) => 1,
            None => 2,
        }
    };
    let (tx, data, authorization) = request;
    let message = Message::parse(br#"{"message": "x"}"#).unwrap();
    [
        rank(judge(policy, tx, NOW)),
        rank(judge_typed_data(policy, data, NOW)),
        rank(judge_authorization(policy, authorization, NOW)),
        rank(judge_message(policy, &message, NOW)),
    ]
}

type Asked = (Transaction, TypedData, Authorization);

fn any_request() -> impl Strategy<Value = Asked> {
    (any_tx(), any_typed_data(), any_authorization())
}

proptest! {
    #[test]
    fn tightening_never_allows_more(
        policy in any_policy(), other in any_policy(), request in any_request(), spent in (0u64..8).prop_map(U256::from),
    ) {
        for tighter in tightened(&policy, &other) {
            for (less, more) in ranks(&tighter, &request, spent).into_iter().zip(ranks(&policy, &request, spent)) {
                prop_assert!(less <= more, "{policy:?} {tighter:?}");
            }
            prop_assert_eq!(loosened(&policy, &tighter), Vec::<String>::new());
        }
    }

    /// From a policy to one that is near, and to any other.
    #[test]
    fn whatever_allows_more_is_named(
        policy in any_policy(), other in any_policy(), request in any_request(), spent in (0u64..8).prop_map(U256::from),
    ) {
        let pairs = tightened(&policy, &other).into_iter().map(|tighter| (tighter, &policy));
        for (old, new) in pairs.chain([(other.clone(), &policy)]) {
            let (before, after) = (ranks(&old, &request, spent), ranks(new, &request, spent));
            let more = before.iter().zip(after).any(|(before, after)| after > *before);
            prop_assert!(!more || !loosened(&old, new).is_empty(), "{old:?} {new:?}");
        }
        prop_assert_eq!(loosened(&policy, &policy), Vec::<String>::new());
    }

    #[test]
    fn typed_data_that_is_allowed_keeps_every_rule(policy in any_policy(), data in any_typed_data()) {
        if judge_typed_data(&policy, &data, NOW).is_ok() {
            prop_assert!(policy.sign.contains(&Signable::TypedData));
            prop_assert!(data.chain_id().is_some_and(|id| policy.chains.contains(&id.to::<u64>())));
            if policy.restricts_calls() {
                let contract = data.verifying_contract().unwrap();
                let named = policy.verifying_contracts.contains(&contract);
                match Permit::read(&data, contract) {
                    Permit::Tokens { moves, witness } => prop_assert!(keeps(&policy, contract, &moves, named) && (!witness || named)),
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
        if let Ok(allowed) = judge(&policy, &tx, NOW) {
            prop_assert!(policy.sign.contains(&Signable::Transaction) && policy.chains.contains(&tx.chain_id()));
            prop_assert!(policy.max_value.is_none_or(|max| tx.value() <= max));
            let fee = U256::from(tx.gas()) * U256::from(tx.max_gas_price()) + tx.max_blob_fee();
            prop_assert!(tx.delegates().all(|delegate| policy.delegates.contains(&delegate)));
            prop_assert!(policy.max_fee.is_none_or(|max| fee <= max));
            prop_assert!(policy.max_fee_per_gas.is_none_or(|max| tx.max_gas_price() <= max));
            prop_assert!(policy.max_gas.is_none_or(|max| tx.gas() <= max));
            prop_assert!(tx.to().is_some() || policy.allow_contract_creation);
            let native: Vec<_> = allowed.spends.iter().filter(|spend| spend.asset == Asset::Native).collect();
            prop_assert_eq!(native.len(), usize::from(!tx.value().is_zero()));
            prop_assert!(native.iter().all(|spend| spend.amount == tx.value()));
            if let (true, Some(to)) = (policy.restricts_calls(), tx.to()) {
                prop_assert!(policy.to.as_ref().is_none_or(|listed| listed.contains(&to)));
                let named = |selector| policy.functions.contains(&selector);
                let readable = match Calldata::read(to, tx.data()).unwrap() {
                    Calldata::Empty => true,
                    Calldata::Token { selector, moves, hands_on } => {
                        keeps(&policy, to, &moves, named(selector)) && (!hands_on || named(selector))
                    }
                    Calldata::Other { selector } => {
                        named(selector) || policy.calls.iter().any(|rule| (rule.contract, rule.selector) == (to, selector))
                    }
                };
                prop_assert!(readable);
            }
        }
    }
}

/// Whether what is moved is held to the policy's lists and amounts.
fn keeps(policy: &Policy, contract: Address, moves: &[Movement], named: bool) -> bool {
    let listed = |address| policy.to.as_ref().is_none_or(|listed| listed.contains(&address));
    let within = |moved: &Movement| match policy.tokens.as_ref().map(|tokens| tokens.get(&moved.token)) {
        None => true,
        Some(None) => false,
        Some(Some(token)) => {
            token.recipients.as_ref().is_none_or(|all| all.contains(&moved.recipient))
                && moved.amount.map_or(named, |amount| token.max_amount.is_none_or(|max| amount <= max))
        }
    };
    listed(contract) && moves.iter().all(|moved| listed(moved.token) && listed(moved.recipient) && within(moved))
}
