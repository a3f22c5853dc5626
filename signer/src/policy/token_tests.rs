//! What a policy says of amounts of tokens, of arguments, fees and approvals, as the file writes it.

use std::time::Duration;

use alloy_primitives::{Address, U256, hex};
use serde_json::json;

use super::permit2::PERMIT2;
use super::tests::{LISTED, NOW, STRANGER, TOKEN, erc20};
use super::*;

/// A rule for one function.
fn call_rule(contract: Address, function: &str, arguments: &str) -> CallRule {
    let policy = compile(&format!(
        "tokens = {{}}\ncalls = [{{ contract = \"{contract}\", function = \"{function}\", arguments = {{ {arguments} }} }}]"
    ));
    policy.calls[0].clone()
}

/// The policy with these lines.
fn compile(lines: &str) -> Policy {
    let text = format!(
        "[signer]\nlisten = \"unix:s\"\nledger = \"sqlite:l\"\nallow_local_keys = true\n\
         [signer.keys.k]\nlocal = {{ path = \"k\" }}\n[signer.chains.polygon]\nid = 137\n\
         [signer.callers.security]\nuid = 1\nkeys = []\n[signer.policies.p]\n{lines}"
    );
    let source = keygate_config::Source { path: "keygate.toml".into(), text };
    let config = keygate_config::parse(source).unwrap_or_else(|found| panic!("{}", found.render(false)));
    let config = config.config.signer.unwrap();
    Policy::new("p", &config.policies["p"], &config.chains)
}

fn tx(to: Address, value: u64, data: &str) -> Transaction {
    let tx = json!({"chainId": 137, "type": 2, "nonce": 7, "to": to.to_string(), "value": value, "gas": 21000,
                    "maxFeePerGas": 10, "maxPriorityFeePerGas": 2, "data": data});
    Transaction::parse(tx.to_string().as_bytes()).unwrap()
}

fn word(n: u64) -> Address {
    Address::left_padding_from(&n.to_be_bytes())
}

/// A selector, and words.
fn data(selector: &str, words: &[U256]) -> String {
    words.iter().fold(format!("0x{selector}"), |data, word| data + &hex::encode(word.to_be_bytes::<32>()))
}

fn of(address: Address) -> U256 {
    address.into_word().into()
}

fn rule(policy: &Policy, tx: &Transaction) -> Option<&'static str> {
    judge(policy, tx, NOW).err().map(|denied| denied.rule)
}

fn usd() -> Policy {
    compile(&format!(
        "tokens.usd = {{ address = \"{TOKEN}\", decimals = 2, max_amount = \"10\", approval_above = \"5\", \
         recipients = [\"{LISTED}\"], windows = [{{ period = \"24h\", max = \"12.5\" }}] }}\n\
         require_approval = {{ from = [\"security\"] }}"
    ))
}

#[test]
fn amounts_are_limited_counted_and_held() {
    let policy = usd();
    let transfer = |amount| tx(TOKEN, 0, &erc20("a9059cbb", &[LISTED, word(amount)]));
    let windows = vec![Window { rule: "tokens", period: Duration::from_secs(86_400), max: U256::from(1250) }];
    let spend =
        |amount: u64| Spend { asset: Asset::Token(TOKEN), amount: U256::from(amount), windows: windows.clone() };
    let allowed = judge(&policy, &transfer(500), NOW).unwrap();
    assert_eq!(allowed, Allowed { spends: vec![spend(500)], approval: None });
    let held = judge(&policy, &transfer(501), NOW).unwrap();
    assert_eq!(held.spends, [spend(501)]);
    assert_eq!(held.approval.unwrap().rule, "tokens");
    assert_eq!(rule(&policy, &transfer(1000)), None);
    let denied = judge(&policy, &transfer(1001), NOW).unwrap_err();
    assert_eq!(denied, Denied { rule: "tokens", detail: "1001 of usd is above its max_amount, 1000".into() });
    assert_eq!(judge(&policy, &transfer(0), NOW), Ok(Allowed::default()));
    assert!(policy.may_approve("security", "payments") && !policy.may_approve("security", "security"));
    assert!(!policy.may_approve("payments", "security"));
}

/// Every way there is to move so many of a token, or to let somebody.
#[test]
fn every_way_is_counted_alike() {
    let (policy, n) = (usd(), U256::from(700));
    let (to, from, z) = (of(LISTED), of(STRANGER), U256::ZERO);
    let unbound = U256::MAX;
    for (call, amount) in [
        (data("a9059cbb", &[to, n]), n),
        (data("23b872dd", &[from, to, n]), n),
        (data("095ea7b3", &[to, n]), n),
        (data("39509351", &[to, n]), n),
        (data("d505accf", &[from, to, n, z, z, z, z]), n),
        (data("8fcbaf0c", &[from, to, z, z, U256::ONE, z, z, z]), unbound),
        (data("8fcbaf0c", &[from, to, z, z, z, z, z, z]), z),
        (data("e3ee160e", &[from, to, n, z, z, z, z, z, z]), n),
        (data("ef55bec6", &[from, to, n, z, z, z, z, z, z]), n),
        (data("cf092995", &[from, to, n, z, z, z, U256::from(224), z]), n),
        (data("a22cb465", &[to, U256::ONE]), unbound),
        (data("a22cb465", &[to, z]), z),
        (data("095ea7b3", &[to, unbound]), unbound),
        (data("959b8c3f", &[to]), unbound),
    ] {
        let judged = judge(&policy, &tx(TOKEN, 0, &call), NOW);
        let counted = |allowed: Allowed| allowed.spends.first().map_or(z, |spend| spend.amount);
        if amount == unbound {
            assert_eq!(judged.unwrap_err().rule, "tokens", "{call}");
            // Without a cap it is counted, and fits no window.
            let mut open = policy.clone();
            open.tokens.as_mut().unwrap().get_mut(&TOKEN).unwrap().max_amount = None;
            let allowed = judge(&open, &tx(TOKEN, 0, &call), NOW).unwrap();
            let Spend { asset, amount, windows } = &allowed.spends[0];
            assert_eq!(*amount, unbound);
            assert_eq!(judge_window(*asset, &windows[0], z, *amount).unwrap_err().rule, "tokens");
        } else {
            assert_eq!(judged.map(counted), Ok(amount), "{call}");
        }
        // Another token, another recipient.
        assert_eq!(rule(&policy, &tx(STRANGER, 0, &call)), Some("tokens"), "{call}");
        let other = call.replace(&hex::encode(LISTED), &hex::encode(TOKEN));
        assert_eq!(rule(&policy, &tx(TOKEN, 0, &other)), Some("tokens"), "{call}");
    }
}

#[test]
fn a_batch_is_counted_together() {
    // Permit2's transferFrom of many.
    let policy = usd();
    let one = |amount: U256| [of(STRANGER), of(LISTED), amount, of(TOKEN)];
    let batch = |amounts: [u64; 2]| {
        let [a, b] = amounts.map(|amount| one(U256::from(amount)));
        let words = [&[U256::from(32), U256::from(2)][..], &a, &b].concat();
        judge(&policy, &tx(PERMIT2, 0, &data("0d58b1db", &words)), NOW)
    };
    assert_eq!(batch([400, 600]).unwrap().spends[0].amount, U256::from(1000));
    assert_eq!(batch([400, 601]).unwrap_err().rule, "tokens");
    // On another contract, the function is one that nobody knows.
    let words = [&[U256::from(32), U256::from(1)][..], &one(U256::ONE)].concat();
    let elsewhere = tx(STRANGER, 0, &data("0d58b1db", &words));
    let nothing = tx(STRANGER, 0, &data("0d58b1db", &[U256::from(32), U256::ZERO]));
    let named = Policy { functions: [[0x0d, 0x58, 0xb1, 0xdb]].into(), ..policy.clone() };
    for tx in [&elsewhere, &nothing] {
        assert_eq!((rule(&policy, tx), rule(&named, tx)), (Some("functions"), None));
    }
    // What is not written as the ABI writes it is not read.
    let mut words = [&[U256::from(32), U256::from(1)][..], &one(U256::ONE)].concat();
    assert_eq!(rule(&policy, &tx(PERMIT2, 0, &data("0d58b1db", &words))), None);
    words.push(U256::ZERO);
    assert_eq!(rule(&policy, &tx(PERMIT2, 0, &data("0d58b1db", &words))), Some("tokens"));
}

#[test]
fn what_cannot_be_counted_must_be_named() {
    let policy = usd();
    let nft = tx(TOKEN, 0, &erc20("42842e0e", &[STRANGER, LISTED, word(1)]));
    let unknown = tx(TOKEN, 0, "0xac9650d8");
    let elsewhere = tx(STRANGER, 0, "0xac9650d8");
    assert_eq!(rule(&policy, &nft), Some("tokens"));
    assert_eq!(rule(&policy, &unknown), Some("functions"));
    assert_eq!(rule(&policy, &elsewhere), Some("functions"));
    assert_eq!(rule(&policy, &tx(TOKEN, 0, "0xa9059c")), Some("functions"));
    let named = Policy { functions: [[0x42, 0x84, 0x2e, 0x0e], [0xac, 0x96, 0x50, 0xd8]].into(), ..policy };
    for tx in [&nft, &unknown, &elsewhere] {
        assert_eq!(judge(&named, tx, NOW), Ok(Allowed::default()));
    }
    // Sending the chain's own currency is no business of `tokens`.
    assert_eq!(rule(&named, &tx(STRANGER, 5, "0x")), None);
}

#[test]
fn tokens_and_recipients_are_held_to_both_lists() {
    let policy = Policy { to: Some([TOKEN, LISTED].into()), ..usd() };
    let transfer = |to| tx(TOKEN, 0, &erc20("a9059cbb", &[to, word(1)]));
    assert_eq!(rule(&policy, &transfer(LISTED)), None);
    assert_eq!(rule(&policy, &transfer(STRANGER)), Some("to"));
    assert_eq!(rule(&policy, &transfer(TOKEN)), Some("tokens"));
}

#[test]
fn arguments_are_held_to_their_rules() {
    let swap = |to: Address, amount: u64| tx(STRANGER, 0, &erc20("d004f0f7", &[to, word(amount)]));
    let calls = |rules: &[&str]| Policy {
        calls: rules.iter().map(|rules| call_rule(STRANGER, "swap(address to,uint256 amount)", rules)).collect(),
        ..usd()
    };
    let listed = format!("to = {{ one_of = [\"{LISTED}\"] }}, amount = {{ max = 9 }}");
    let one = calls(&[&listed]);
    assert_eq!(rule(&one, &swap(LISTED, 9)), None);
    let denied = judge(&one, &swap(LISTED, 10), NOW).unwrap_err();
    let expected = format!("swap(address,uint256) on {STRANGER}: amount is 10, above 9");
    assert_eq!(denied, Denied { rule: "calls", detail: expected });
    assert_eq!(rule(&one, &swap(TOKEN, 9)), Some("calls"));
    assert_eq!(rule(&one, &tx(TOKEN, 0, &erc20("d004f0f7", &[LISTED, word(9)]))), Some("functions"));
    // Neither more data, nor an address with more than an address.
    assert_eq!(rule(&one, &tx(STRANGER, 0, &erc20("d004f0f7", &[LISTED, word(9), word(0)]))), Some("calls"));
    assert_eq!(
        rule(&one, &tx(STRANGER, 0, &data("d004f0f7", &[of(LISTED) | (U256::ONE << 160), U256::ONE]))),
        Some("calls")
    );
    // Each entry by itself.
    let either = calls(&[&listed, "amount = { max = 1 }"]);
    assert_eq!(rule(&either, &swap(TOKEN, 1)), None);
    assert_eq!(rule(&either, &swap(TOKEN, 2)), Some("calls"));
    assert_eq!(rule(&calls(&[""]), &swap(TOKEN, 2)), None);
}

#[test]
fn arguments_in_arrays_and_tuples_are_found() {
    let function = "pay((address to,uint256 amount)[] all,uint256[2] limits)";
    let one_of = format!("\"all.to\" = {{ one_of = [\"{LISTED}\"] }}, \"0.1\" = {{ max = 5 }}, limits = {{ max = 7 }}");
    let policy = Policy { calls: vec![call_rule(STRANGER, function, &one_of)], ..usd() };
    let selector = hex::encode(policy.calls[0].selector);
    let pay = |all: &[(Address, u64)], limits: [u64; 2]| {
        let head = [U256::from(96), U256::from(limits[0]), U256::from(limits[1]), U256::from(all.len())];
        let items = all.iter().flat_map(|(to, amount)| [of(*to), U256::from(*amount)]);
        tx(STRANGER, 0, &data(&selector, &head.into_iter().chain(items).collect::<Vec<_>>()))
    };
    assert_eq!(rule(&policy, &pay(&[(LISTED, 5), (LISTED, 0)], [7, 0])), None);
    assert_eq!(rule(&policy, &pay(&[], [7, 0])), None);
    for bad in
        [pay(&[(LISTED, 5), (TOKEN, 0)], [7, 0]), pay(&[(LISTED, 5), (LISTED, 6)], [7, 0]), pay(&[(LISTED, 5)], [7, 8])]
    {
        assert_eq!(rule(&policy, &bad), Some("calls"));
    }
}

#[test]
fn fees_are_capped_one_by_one() {
    for (cap, expected) in [
        ("max_fee_per_gas = \"9 wei\"", Some("max_fee_per_gas")),
        ("max_fee_per_gas = \"10 wei\"", None),
        ("max_priority_fee_per_gas = \"1 wei\"", Some("max_priority_fee_per_gas")),
        ("max_priority_fee_per_gas = \"2 wei\"", None),
        ("max_gas = 20999", Some("max_gas")),
        ("max_gas = 21000", None),
        ("max_fee_per_blob_gas = \"0 wei\"", None),
    ] {
        assert_eq!(rule(&compile(cap), &tx(LISTED, 1, "0x")), expected, "{cap}");
    }
    // All of a legacy transaction's price may go to who builds the block.
    let legacy = json!({"chainId": 137, "type": 0, "nonce": 7, "to": LISTED.to_string(), "gas": 21000, "gasPrice": 3});
    let legacy = Transaction::parse(legacy.to_string().as_bytes()).unwrap();
    assert_eq!(rule(&compile("max_priority_fee_per_gas = \"2 wei\""), &legacy), Some("max_priority_fee_per_gas"));
    let blobs = json!({"chainId": 137, "type": 3, "nonce": 7, "to": LISTED.to_string(), "gas": 21000, "maxFeePerGas": 3,
                       "maxPriorityFeePerGas": 3, "maxFeePerBlobGas": 5, "blobVersionedHashes": [format!("0x01{:062x}", 1)]});
    let blobs = Transaction::parse(blobs.to_string().as_bytes()).unwrap();
    assert_eq!(rule(&compile("max_fee_per_blob_gas = \"4 wei\""), &blobs), Some("max_fee_per_blob_gas"));
    assert_eq!(rule(&compile("max_fee_per_blob_gas = \"5 wei\""), &blobs), None);
}

#[test]
fn value_fits_every_window_and_is_held_above_an_amount() {
    let policy = compile(
        "daily_value = \"9 wei\"\nwindows = [{ period = \"1h\", max = \"4 wei\" }]\nmax_fee = \"1 ether\"\nto = []\n\
         require_approval = { above = \"3 wei\", from = [\"security\"] }",
    );
    let policy = Policy { to: None, ..policy };
    let window =
        |rule, hours: u64, max: u64| Window { rule, period: Duration::from_secs(hours * 3600), max: U256::from(max) };
    let windows = vec![window("daily_value", 24, 9), window("windows", 1, 4)];
    let spend =
        |amount: u64| vec![Spend { asset: Asset::Native, amount: U256::from(amount), windows: windows.clone() }];
    let judge = |value| judge(&policy, &tx(LISTED, value, "0x"), NOW).unwrap();
    assert_eq!(judge(3), Allowed { spends: spend(3), approval: None });
    let held = judge(4);
    assert_eq!(held.spends, spend(4));
    assert_eq!(held.approval.unwrap().rule, "require_approval");
    assert_eq!(judge(0), Allowed::default());
}

/// What was approved for the same call holds for other fees where the policy bounds them, and nowhere else.
#[test]
fn a_replacement_needs_the_approval_of_a_first_request() {
    let tokens = format!(
        "tokens.usd = {{ address = \"{TOKEN}\", approval_above = \"5\", max_amount = \"9\", windows = [{{ period = \"1h\", max = \"9\" }}] }}"
    );
    let policy = |fees: &str| {
        compile(&format!("require_approval = {{ above = \"3 wei\", from = [\"security\"] }}\n{fees}\n{tokens}"))
    };
    let token = |amount: u64| tx(TOKEN, 0, &data("a9059cbb", &[of(LISTED), U256::from(amount)]));
    let again = |fees: &str, tx: &Transaction, by: &[&str]| {
        let by = by.iter().map(|by| (*by).to_owned()).collect();
        judge_again(&policy(fees), tx, &by, NOW).unwrap()
    };
    let bounds = ["max_fee = \"1 ether\"", "max_gas = 21000\nmax_fee_per_gas = \"1 gwei\""];
    let none = ["", "max_gas = 21000", "max_fee_per_gas = \"1 gwei\"", "max_priority_fee_per_gas = \"1 gwei\""];
    for (large, small) in [(tx(LISTED, 4, "0x"), tx(LISTED, 3, "0x")), (token(6), token(5))] {
        for fees in bounds.into_iter().chain(none) {
            assert_eq!(again(fees, &small, &[]), Allowed::default(), "below the limit nobody is asked");
            // By nobody: what was signed when it needed none. By somebody who may not any more.
            for by in [&[][..], &["somebody"]] {
                assert!(again(fees, &large, by).approval.is_some(), "{fees} {by:?}");
            }
            let bounded = bounds.contains(&fees);
            let given = again(fees, &large, &["somebody", "security"]);
            assert_eq!((given.approval.is_none(), given.spends.len()), (bounded, 0), "{fees}");
        }
    }
    // What blobs cost is bounded apart.
    let mut blobs: serde_json::Value = serde_json::from_str(&tx(LISTED, 4, "0x").body()).unwrap();
    for (name, value) in
        [("type", "3"), ("maxFeePerGas", "9"), ("maxPriorityFeePerGas", "9"), ("maxFeePerBlobGas", "9")]
    {
        blobs[name] = value.into();
    }
    blobs["blobVersionedHashes"] = serde_json::json!([format!("0x01{}", "22".repeat(31))]);
    let blobs = Transaction::from_body(&blobs.to_string()).unwrap();
    for (more, bounded) in [("", false), ("\nmax_fee_per_blob_gas = \"1 gwei\"", true)] {
        let given = again(&format!("{}{more}", bounds[1]), &blobs, &["security"]);
        assert_eq!(given.approval.is_none(), bounded, "{more:?}");
        // By what a node says of them, at 131072 gas a blob: above 1 ether.
        let mut dear: serde_json::Value = serde_json::from_str(&blobs.body()).unwrap();
        dear["maxFeePerBlobGas"] = "10000000000000".into();
        let dear = Transaction::from_body(&dear.to_string()).unwrap();
        assert_eq!(judge_filled(&policy(&format!("{}{more}", bounds[1])), &dear).is_ok(), bounded, "{more:?}");
    }
    // All else is judged as it is of a first request.
    let by = BTreeSet::from(["security".to_owned()]);
    let rule = |fees: &str, tx: &Transaction| judge_again(&policy(fees), tx, &by, NOW).unwrap_err().rule;
    assert_eq!(rule("max_fee = \"209999 wei\"", &tx(LISTED, 4, "0x")), "max_fee");
    assert_eq!(rule("max_value = \"3 wei\"\nmax_fee = \"1 ether\"", &tx(LISTED, 4, "0x")), "max_value");
    assert_eq!(rule("", &token(10)), "tokens");
}

/// From the text of a policy to another.
type Change = fn(&str) -> String;

#[test]
fn every_field_that_allows_more_is_named() {
    let full = |change: Change| {
        let text = format!(
            "chains = [\"polygon\"]\nsign = [\"transaction\"]\nto = [\"{TOKEN}\", \"{LISTED}\"]\nfunctions = [\"f()\"]\n\
             verifying_contracts = []\ndelegates = []\nmax_value = \"5 wei\"\ndaily_value = \"5 wei\"\n\
             windows = [{{ period = \"1h\", max = \"5 wei\" }}]\nmax_fee = \"5 wei\"\nmax_fee_per_gas = \"5 wei\"\n\
             max_priority_fee_per_gas = \"5 wei\"\nmax_fee_per_blob_gas = \"5 wei\"\nmax_gas = 5\nrate = \"5/m\"\n\
             hours = [\"Mon-Fri 08:00-18:00\"]\nreplacements = {{ max = 5, max_fee_bump_percent = 5 }}\n\
             require_approval = {{ above = \"5 wei\", from = [\"security\"] }}\nallow_nonce = false\n\
             allow_contract_creation = false\n\
             calls = [{{ contract = \"{TOKEN}\", function = \"g(uint8)\", arguments = {{ 0 = {{ max = 5 }} }} }}]\n\
             tokens.usd = {{ address = \"{TOKEN}\", max_amount = \"5\", approval_above = \"5\", \
             recipients = [\"{LISTED}\"], windows = [{{ period = \"2h\", max = \"5\" }}] }}"
        );
        compile(&change(&text).replace(", ,", ","))
    };
    let old = full(str::to_owned);
    assert_eq!(loosened(&old, &old), Vec::<String>::new());
    let changes: [(Change, &str); 26] = [
        (|text| text.replace("[\"transaction\"]", "[\"message\"]"), "sign"),
        (|text| text.replace(&format!("to = [\"{TOKEN}\""), &format!("to = [\"{STRANGER}\", \"{TOKEN}\"")), "to"),
        (|text| text.replace("[\"f()\"]", "[\"f()\", \"h()\"]"), "functions"),
        (|text| text.replace("{ max = 5 } }", "{ max = 6 } }"), "calls"),
        (|text| text.replace("_contracts = []", &format!("_contracts = [\"{TOKEN}\"]")), "verifying_contracts"),
        (|text| text.replace("delegates = []", &format!("delegates = [\"{TOKEN}\"]")), "delegates"),
        (|text| text.replace("max_value = \"5 wei\"", "max_value = \"6 wei\""), "max_value"),
        (|text| text.replace("daily_value = \"5 wei\"", ""), "daily_value"),
        (
            |text| {
                text.replace("period = \"1h\"", "period = \"30m\"")
                    .replace("daily_value = \"5 wei\"", "daily_value = \"6 wei\"")
            },
            "daily_value windows",
        ),
        (|text| text.replace("max_fee = \"5 wei\"", "max_fee = \"6 wei\""), "max_fee"),
        (|text| text.replace("max_fee_per_gas = \"5 wei\"", ""), "max_fee_per_gas"),
        (|text| text.replace("max_priority_fee_per_gas = \"5 wei\"", ""), "max_priority_fee_per_gas"),
        (|text| text.replace("max_fee_per_blob_gas = \"5 wei\"", ""), "max_fee_per_blob_gas"),
        (|text| text.replace("max_gas = 5", ""), "max_gas"),
        (|text| text.replace("5/m", "6/m"), "rate"),
        (|text| text.replace("5/m", "5/59s"), "rate"),
        (|text| text.replace("18:00", "18:01"), "hours"),
        (|text| text.replace("max = 5, max_fee", "max_fee"), "replacements"),
        (|text| text.replace("above = \"5 wei\"", "above = \"6 wei\""), "require_approval"),
        (|text| text.replace("above = \"5 wei\"", "above = \"5 wei\", expires_after = \"25h\""), "require_approval"),
        (|text| text.replace("allow_nonce = false", "allow_nonce = true"), "allow_nonce"),
        (|text| text.replace("creation = false", "creation = true"), "allow_contract_creation"),
        (|text| text.replace("max_amount = \"5\"", ""), "tokens.usd.max_amount"),
        (|text| text.replace("approval_above = \"5\"", "approval_above = \"6\""), "tokens.usd.approval_above"),
        (|text| text.replace("period = \"2h\"", "period = \"1h\""), "tokens.usd.windows"),
        (|text| text.replace(&format!("recipients = [\"{LISTED}\"],"), ""), "tokens.usd.recipients"),
    ];
    for (change, expected) in changes {
        let new = full(change);
        assert_ne!(new, old, "{expected}");
        assert_eq!(loosened(&old, &new).join(" "), expected);
    }
    // A day's window may do for an hour's.
    let daily = Policy { windows: vec![], ..old.clone() };
    assert_eq!(loosened(&old, &daily), Vec::<String>::new());
    let without = Policy { tokens: None, ..old.clone() };
    assert_eq!(loosened(&old, &without), ["tokens"]);
    assert_eq!(loosened(&without, &old), Vec::<String>::new());
}
