use alloy_primitives::{Address, U256, hex};
use serde_json::{Value, json};

use super::*;
use crate::authorization::tests::authorization;
use crate::transaction::Transaction;

pub(super) const LISTED: Address = Address::repeat_byte(0x11);
pub(super) const TOKEN: Address = Address::repeat_byte(0x22);
pub(super) const STRANGER: Address = Address::repeat_byte(0x99);
const MUCH: u64 = 1_000_000;
pub(super) const NOW: SystemTime = SystemTime::UNIX_EPOCH;

pub(super) const ALL: [Signable; 4] =
    [Signable::Transaction, Signable::Message, Signable::TypedData, Signable::Authorization];

pub(super) fn policy() -> Policy {
    Policy {
        name: "payouts".into(),
        chains: [137].into(),
        sign: ALL.into(),
        to: Some([LISTED, TOKEN].into()),
        max_value: Some(U256::from(MUCH)),
        daily_value: Some(U256::from(2 * MUCH)),
        max_fee: Some(U256::from(21_000 * 10)),
        ..Policy::default()
    }
}

fn tx(change: impl FnOnce(&mut Value)) -> Transaction {
    let mut tx = json!({"chainId": 137, "type": 2, "nonce": 7, "to": LISTED.to_string(), "value": MUCH, "gas": 21000,
                        "maxFeePerGas": 10, "maxPriorityFeePerGas": 1});
    change(&mut tx);
    Transaction::parse(tx.to_string().as_bytes()).unwrap()
}

fn rule(policy: &Policy, tx: &Transaction) -> Option<&'static str> {
    judge(policy, tx, NOW).err().map(|denied| denied.rule)
}

pub(super) fn erc20(selector: &str, words: &[Address]) -> String {
    words.iter().fold(format!("0x{selector}"), |data, word| format!("{data}{:0>64}", hex::encode(word)))
}

#[test]
fn each_rule_denies_what_is_just_beyond_it() {
    let at = |field: &'static str, value: Value| tx(move |tx| tx[field] = value);
    let none = |field: &'static str| {
        tx(move |tx| {
            tx[field] = Value::Null;
            tx["data"] = json!("0x00");
        })
    };
    assert_eq!(rule(&policy(), &tx(|_| {})), None);
    for (tx, expected) in [
        (at("chainId", json!(1)), "chains"),
        (at("to", json!(STRANGER.to_string())), "to"),
        (at("value", json!(MUCH + 1)), "max_value"),
        (at("value", json!(U256::MAX.to_string())), "max_value"),
        (at("gas", json!(21_001)), "max_fee"),
        (at("maxFeePerGas", json!(11)), "max_fee"),
        (none("to"), "allow_contract_creation"),
    ] {
        assert_eq!(rule(&policy(), &tx), Some(expected), "{tx:?}");
    }
    assert_eq!(rule(&Policy { sign: [Signable::Message].into(), ..policy() }, &tx(|_| {})), Some("sign"));
    assert_eq!(rule(&Policy { chains: [].into(), ..policy() }, &tx(|_| {})), Some("chains"));
    assert_eq!(rule(&Policy { to: Some([].into()), ..policy() }, &tx(|_| {})), Some("to"));
    assert_eq!(rule(&Policy { allow_contract_creation: true, ..policy() }, &none("to")), None);
}

#[test]
fn fees_do_not_overflow() {
    let most = tx(|tx| {
        tx["gas"] = json!(u64::MAX.to_string());
        tx["maxFeePerGas"] = json!(u128::MAX.to_string());
    });
    assert_eq!(rule(&policy(), &most), Some("max_fee"));
    let legacy = tx(|tx| {
        *tx = json!({"chainId": 137, "type": 0, "nonce": 7, "to": LISTED.to_string(), "gas": 21000, "gasPrice": 11});
    });
    assert_eq!(rule(&policy(), &legacy), Some("max_fee"));
}

fn token_call(to: Address, data: &str) -> Transaction {
    tx(|tx| {
        tx["to"] = json!(to.to_string());
        tx["value"] = json!(0);
        tx["data"] = json!(data);
    })
}

#[test]
fn recipients_of_tokens_must_be_listed_too() {
    let amount = Address::repeat_byte(0);
    for (to, data, expected) in [
        (TOKEN, erc20("a9059cbb", &[LISTED, amount]), None),
        (TOKEN, erc20("a9059cbb", &[STRANGER, amount]), Some("to")),
        (STRANGER, erc20("a9059cbb", &[LISTED, amount]), Some("to")),
        (TOKEN, erc20("23b872dd", &[STRANGER, LISTED, amount]), None),
        (TOKEN, erc20("23b872dd", &[LISTED, STRANGER, amount]), Some("to")),
        (TOKEN, erc20("095ea7b3", &[LISTED, amount]), None),
        (TOKEN, erc20("095ea7b3", &[STRANGER, amount]), Some("to")),
        (TOKEN, erc20("a22cb465", &[STRANGER, amount]), Some("to")),
        (TOKEN, erc20("a9059cbb", &[LISTED]), Some("to")),
        (TOKEN, erc20("a9059cbb", &[LISTED, amount, amount]), Some("to")),
        (TOKEN, erc20("4000aea0", &[STRANGER, amount, amount, amount]), Some("to")),
        (TOKEN, erc20("959b8c3f", &[STRANGER]), Some("to")),
    ] {
        assert_eq!(rule(&policy(), &token_call(to, &data)), expected, "{data}");
        // Naming the function among those that may be called takes nothing off that.
        let selector = data[2..10].parse::<alloy_primitives::FixedBytes<4>>().unwrap().0;
        let named = Policy { functions: [selector].into(), ..policy() };
        assert_eq!(rule(&named, &token_call(to, &data)), expected, "{data}");
    }
    let anywhere = Policy { to: None, ..policy() };
    assert_eq!(rule(&anywhere, &token_call(STRANGER, &erc20("a9059cbb", &[STRANGER, amount]))), None);
}

#[test]
fn delegates_must_be_named() {
    let delegating = |to: Address, every_chain: bool| {
        let id = if every_chain { U256::ZERO } else { U256::from(137) };
        tx(|tx| {
            tx["type"] = json!(4);
            tx["authorizationList"] = json!([authorization(id, LISTED, 0, 9), authorization(id, to, 1, 8)]);
        })
    };
    let named = |delegates: &[Address]| Policy { delegates: delegates.iter().copied().collect(), ..policy() };
    for every_chain in [false, true] {
        // To be in `to` is to be paid, not to be obeyed.
        assert_eq!(rule(&policy(), &delegating(LISTED, every_chain)), Some("delegates"));
        assert_eq!(rule(&named(&[STRANGER]), &delegating(STRANGER, every_chain)), Some("delegates"));
        assert_eq!(rule(&named(&[LISTED, STRANGER]), &delegating(STRANGER, every_chain)), None);
        // Which takes the code away again.
        assert_eq!(rule(&named(&[LISTED]), &delegating(Address::ZERO, every_chain)), Some("delegates"));
        assert_eq!(rule(&named(&[LISTED, Address::ZERO]), &delegating(Address::ZERO, every_chain)), None);
        let anywhere = Policy { to: None, ..policy() };
        assert_eq!(rule(&anywhere, &delegating(LISTED, every_chain)), Some("delegates"));
    }
}

#[test]
fn blobs_cost_fees() {
    let blobs = |price: u64| {
        tx(|tx| {
            tx["type"] = json!(3);
            tx["maxFeePerBlobGas"] = json!(price);
            tx["blobVersionedHashes"] = json!([format!("0x01{:062x}", 1)]);
        })
    };
    assert_eq!(rule(&policy(), &blobs(0)), None);
    assert_eq!(rule(&policy(), &blobs(1)), Some("max_fee"));
    let more = Policy { max_fee: Some(U256::from(21_000 * 10 + 131_072)), ..policy() };
    assert_eq!(rule(&more, &blobs(1)), None);
    assert_eq!(rule(&more, &blobs(2)), Some("max_fee"));
}

#[test]
fn what_cannot_be_read_must_be_named() {
    let signature = |text: &str| text.parse::<keygate_config::Function>().unwrap();
    for name in [
        "deposit()",
        "multicall(bytes[])",
        "multicall(uint256,bytes[])",
        "execute(address,uint256,bytes)",
        "decreaseAllowance(address,uint256)",
        "swapExactTokensForTokens(uint256,uint256,address[],address,uint256)",
    ] {
        let selector = signature(name).selector;
        let data = erc20(&hex::encode(selector), &[STRANGER]);
        assert_eq!(rule(&policy(), &token_call(TOKEN, &data)), Some("functions"), "{name}");
        assert_eq!(rule(&policy(), &token_call(TOKEN, &data[..10])), Some("functions"), "{name}");
        let named = Policy { functions: [selector].into(), ..policy() };
        assert_eq!(rule(&named, &token_call(TOKEN, &data)), None, "{name}");
        assert_eq!(rule(&named, &token_call(STRANGER, &data)), Some("to"), "{name}");
        assert_eq!(rule(&named, &token_call(TOKEN, "0xdeadbeef")), Some("functions"));
        assert_eq!(rule(&Policy { to: None, ..policy() }, &token_call(STRANGER, &data)), None, "{name}");
    }
    // What is shorter than a selector is nothing that could be named.
    for short in ["0x00", "0xa905", "0xa9059c"] {
        let all = Policy { functions: [[0; 4], [0xa9, 0x05, 0x9c, 0]].into(), ..policy() };
        assert_eq!(rule(&all, &token_call(TOKEN, short)), Some("functions"), "{short}");
    }
    assert_eq!(rule(&policy(), &token_call(TOKEN, "0x")), None);
}

#[test]
fn bytes_are_handed_on_by_functions_that_are_named() {
    let number = |n: u8| Address::left_padding_from(&[n]);
    let (selector, amount) = ("4000aea0", number(1));
    let empty = |to| erc20(selector, &[to, amount, number(96), number(0)]);
    let bytes = |to| erc20(selector, &[to, amount, number(96), number(32), STRANGER]);
    let named = Policy { functions: [[0x40, 0x00, 0xae, 0xa0]].into(), ..policy() };
    for (policy, data, expected) in [
        (&policy(), empty(LISTED), None),
        (&policy(), empty(STRANGER), Some("to")),
        (&policy(), bytes(LISTED), Some("functions")),
        (&policy(), bytes(STRANGER), Some("to")),
        (&named, bytes(LISTED), None),
        (&named, bytes(STRANGER), Some("to")),
    ] {
        assert_eq!(rule(policy, &token_call(TOKEN, &data)), expected, "{data}");
    }
}

/// Judges whether `value` more wei may be sent when `spent` were in the last 24 hours.
pub(super) fn judge_daily(limit: Option<U256>, spent: U256, value: U256) -> Result<(), Denied> {
    limit.map_or(Ok(()), |max| judge_window(Asset::Native, &daily(max), spent, value))
}

#[test]
fn the_daily_limit_is_exact() {
    let judge = |limit: Option<u64>, spent: u64, value: u64| {
        judge_daily(limit.map(U256::from), U256::from(spent), U256::from(value)).is_ok()
    };
    assert!(judge(Some(10), 0, 10) && judge(Some(10), 9, 1) && judge(None, 10, 10));
    assert!(!judge(Some(10), 0, 11) && !judge(Some(10), 10, 1));
    assert!(judge(Some(10), 11, 0), "what sends nothing spends nothing");
    assert!(judge_daily(Some(U256::MAX), U256::MAX, U256::ONE).is_err());
}

#[test]
fn compiled_from_the_file() {
    let text = r#"
        [signer]
        listen = "unix:s"
        ledger = "sqlite:l"
        [signer.chains]
        polygon = { id = 137 }
        mainnet = { id = 1 }
        [signer.policies]
        open = {}
        listed = { to = [] }
        named = { to = [], sign = ["transaction", "message"], delegates = ["0x1111111111111111111111111111111111111111"], verifying_contracts = ["0x2222222222222222222222222222222222222222"] }
        tight = { chains = ["polygon"], sign = [], to = [], functions = ["deposit()", "0xac9650d8"], max_value = "1 gwei", daily_value = "2 wei", max_fee = "3 wei" }
    "#;
    let source = keygate_config::Source { path: "keygate.toml".into(), text: text.into() };
    let config = keygate_config::parse(source).unwrap().config.signer.unwrap();
    let compile = |name: &str| Policy::new(name, &config.policies[name], &config.chains);
    let open = Policy { name: "open".into(), chains: [1, 137].into(), sign: ALL.into(), ..Policy::default() };
    assert_eq!(compile("open"), open);
    let tight = Policy {
        name: "tight".into(),
        chains: [137].into(),
        sign: [].into(),
        to: Some([].into()),
        functions: [[0xd0, 0xe3, 0x0d, 0xb0], [0xac, 0x96, 0x50, 0xd8]].into(),
        max_value: Some(U256::from(1_000_000_000)),
        daily_value: Some(U256::from(2)),
        max_fee: Some(U256::from(3)),
        ..open
    };
    assert_eq!(compile("tight"), tight);
    // A message cannot be held to a list: with one, it must be named.
    let mut kinds: BTreeSet<_> = ALL.into();
    kinds.remove(&Signable::Message);
    assert_eq!(compile("listed").sign, kinds);
    let named = compile("named");
    assert_eq!(named.sign, [Signable::Transaction, Signable::Message].into());
    assert_eq!((named.delegates, named.verifying_contracts), ([LISTED].into(), [TOKEN].into()));
}
