//! What a policy says of messages, typed data and authorizations.

use alloy_primitives::{Address, U256};
use serde_json::{Value, json};

use super::tests::{LISTED, NOW, STRANGER, TOKEN, policy};
use super::*;

/// The name of a type, and its fields: `("Permit", &["address owner", ...])`.
type Struct = (&'static str, &'static [&'static str]);

const DETAILS: Struct = ("PermitDetails", &["address token", "uint160 amount", "uint48 expiration", "uint48 nonce"]);
const PERMISSIONS: Struct = ("TokenPermissions", &["address token", "uint256 amount"]);

/// The message is of the first type.
fn typed(types: &[Struct], message: Value, domain: Value) -> TypedData {
    let field = |text: &&str| {
        let (kind, name) = text.split_once(' ').unwrap();
        json!({"name": name, "type": kind})
    };
    let fields = |fields: &[&str]| fields.iter().map(field).collect::<Value>();
    let types: serde_json::Map<_, _> = types.iter().map(|(name, of)| ((*name).to_owned(), fields(of))).collect();
    let primary = message_of(&message);
    let json = json!({"types": types, "primaryType": primary, "domain": domain, "message": message["of"]});
    TypedData::parse(json.to_string().as_bytes()).unwrap_or_else(|error| panic!("{error}: {json}"))
}

fn message_of(message: &Value) -> &str {
    message["type"].as_str().unwrap()
}

fn domain(contract: Address) -> Value {
    json!({"name": "USD", "version": "1", "chainId": 137, "verifyingContract": contract.to_string()})
}

fn permit(token: Address, spender: Address) -> TypedData {
    permit_in(domain(token), spender)
}

fn permit_in(domain: Value, spender: Address) -> TypedData {
    let kind: Struct =
        ("Permit", &["address owner", "address spender", "uint256 value", "uint256 nonce", "uint256 deadline"]);
    let of = json!({"owner": LISTED.to_string(), "spender": spender.to_string(), "value": U256::MAX.to_string(),
                    "nonce": 0, "deadline": U256::MAX.to_string()});
    typed(&[kind], json!({"type": "Permit", "of": of}), domain)
}

fn rule(policy: &Policy, data: &TypedData) -> Option<&'static str> {
    judge_typed_data(policy, data, NOW).err().map(|denied| denied.rule)
}

fn with_contracts(contracts: &[Address]) -> Policy {
    Policy { verifying_contracts: contracts.iter().copied().collect(), ..policy() }
}

/// Every message that is known, for a token, with a spender or recipient: and whether it has a witness.
fn every_permit(token: Address, spender: Address) -> Vec<(TypedData, bool)> {
    let (t, s, a) = (token.to_string(), spender.to_string(), LISTED.to_string());
    let authorization: &[&str] =
        &["address from", "address to", "uint256 value", "uint256 validAfter", "uint256 validBefore", "bytes32 nonce"];
    let transfer =
        json!({"from": a, "to": s, "value": 1, "validAfter": 0, "validBefore": 9, "nonce": format!("0x{:064x}", 1)});
    let details = json!({"token": t, "amount": 1, "expiration": 9, "nonce": 0});
    let listed_details = json!({"token": a, "amount": 1, "expiration": 9, "nonce": 0});
    let permissions = json!({"token": t, "amount": 1});
    let own = domain(token);
    // Permit2 itself is listed, here.
    let permit2 = domain(LISTED);
    let of = |name: &str, of: Value| json!({"type": name, "of": of});
    let single: Struct = ("PermitSingle", &["PermitDetails details", "address spender", "uint256 sigDeadline"]);
    let batch: Struct = ("PermitBatch", &["PermitDetails[] details", "address spender", "uint256 sigDeadline"]);
    let from: Struct =
        ("PermitTransferFrom", &["TokenPermissions permitted", "address spender", "uint256 nonce", "uint256 deadline"]);
    let from_many: Struct = (
        "PermitBatchTransferFrom",
        &["TokenPermissions[] permitted", "address spender", "uint256 nonce", "uint256 deadline"],
    );
    let witness: Struct = (
        "PermitWitnessTransferFrom",
        &["TokenPermissions permitted", "address spender", "uint256 nonce", "uint256 deadline", "Order order"],
    );
    let witness_many: Struct = (
        "PermitBatchWitnessTransferFrom",
        &["TokenPermissions[] permitted", "address spender", "uint256 nonce", "uint256 deadline", "Order order"],
    );
    let order: Struct = ("Order", &["address to"]);
    let unread = json!({"to": STRANGER.to_string()});
    let mut with_order = json!({"permitted": permissions, "spender": s, "nonce": 0, "deadline": 9, "order": unread});
    let without = |with: &Value| {
        let mut without = with.clone();
        without.as_object_mut().unwrap().remove("order");
        without
    };
    let one = (without(&with_order), with_order.clone());
    with_order["permitted"] = json!([{"token": a, "amount": 1}, permissions]);
    let many = (without(&with_order), with_order);
    vec![
        (permit(token, spender), false),
        (
            typed(
                &[(
                    "Permit",
                    &["address holder", "address spender", "uint256 nonce", "uint256 expiry", "bool allowed"],
                )],
                of("Permit", json!({"holder": a, "spender": s, "nonce": 0, "expiry": 0, "allowed": true})),
                own.clone(),
            ),
            false,
        ),
        (
            typed(
                &[("Permit", &["address spender", "uint256 tokenId", "uint256 nonce", "uint256 deadline"])],
                of("Permit", json!({"spender": s, "tokenId": 1, "nonce": 0, "deadline": 9})),
                own.clone(),
            ),
            false,
        ),
        (
            typed(
                &[("PermitForAll", &["address operator", "bool approved", "uint256 nonce", "uint256 deadline"])],
                of("PermitForAll", json!({"operator": s, "approved": true, "nonce": 0, "deadline": 9})),
                own.clone(),
            ),
            false,
        ),
        (
            typed(
                &[("TransferWithAuthorization", authorization)],
                of("TransferWithAuthorization", transfer.clone()),
                own.clone(),
            ),
            false,
        ),
        (typed(&[("ReceiveWithAuthorization", authorization)], of("ReceiveWithAuthorization", transfer), own), false),
        (
            typed(
                &[single, DETAILS],
                of("PermitSingle", json!({"details": details, "spender": s, "sigDeadline": 9})),
                permit2.clone(),
            ),
            false,
        ),
        (
            typed(
                &[batch, DETAILS],
                of("PermitBatch", json!({"details": [listed_details, details], "spender": s, "sigDeadline": 9})),
                permit2.clone(),
            ),
            false,
        ),
        (typed(&[from, PERMISSIONS], of("PermitTransferFrom", one.0), permit2.clone()), false),
        (typed(&[from_many, PERMISSIONS], of("PermitBatchTransferFrom", many.0), permit2.clone()), false),
        (typed(&[witness, PERMISSIONS, order], of("PermitWitnessTransferFrom", one.1), permit2.clone()), true),
        (typed(&[witness_many, PERMISSIONS, order], of("PermitBatchWitnessTransferFrom", many.1), permit2), true),
    ]
}

#[test]
fn permits_are_held_to_the_list() {
    let witnesses = with_contracts(&[LISTED]);
    for (data, witness) in every_permit(TOKEN, LISTED) {
        let kind = data.encoded_type().to_owned();
        assert_eq!(rule(&policy(), &data), witness.then_some("verifying_contracts"), "{kind}");
        assert_eq!(rule(&witnesses, &data), None, "{kind}");
    }
    // Neither a spender nor a token that is not listed; and naming the contract takes nothing off that.
    let every = with_contracts(&[LISTED, TOKEN, STRANGER]);
    for (token, spender) in [(TOKEN, STRANGER), (STRANGER, LISTED), (STRANGER, STRANGER)] {
        for (data, _) in every_permit(token, spender) {
            for policy in [&policy(), &every] {
                assert_eq!(rule(policy, &data), Some("to"), "{token} {spender} {}", data.encoded_type());
            }
            assert_eq!(rule(&Policy { to: None, ..policy() }, &data), None);
        }
    }
}

#[test]
fn permits_count_as_transfers_do() {
    let limits = Token { name: "usd".into(), max_amount: Some(U256::from(5)), ..Token::default() };
    let tokens = [(TOKEN, limits), (LISTED, Token::default())];
    let named = Policy { to: None, tokens: Some(tokens.clone().into()), ..with_contracts(&[LISTED, TOKEN]) };
    let unbound =
        Policy { tokens: Some([(TOKEN, Token::default()), (LISTED, Token::default())].into()), ..named.clone() };
    let spent = |policy: &Policy, data: &TypedData| {
        let allowed = judge_typed_data(policy, data, NOW)?;
        let of = |spend: &&Spend| spend.asset == Asset::Token(TOKEN);
        Ok(allowed.spends.iter().find(of).map(|spend| spend.amount))
    };
    let (one, all) = (Some(U256::ONE), Some(U256::MAX));
    // EIP-2612, DAI, an NFT's, for all, EIP-3009 twice, Permit2's.
    let expected = [all, all, None, all, one, one, one, one, one, one, one, one];
    for ((data, _), expected) in every_permit(TOKEN, STRANGER).iter().zip(expected) {
        let kind = data.encoded_type();
        assert_eq!(spent(&unbound, data), Ok(expected), "{kind}");
        let rule = |policy: &Policy| spent(policy, data).err().map(|denied: Denied| denied.rule);
        assert_eq!(rule(&named), (expected == all).then_some("tokens"), "{kind}");
        let other = Policy { tokens: Some([].into()), ..named.clone() };
        assert_eq!(rule(&other), Some("tokens"), "{kind}");
        let limits = Token { recipients: Some([LISTED].into()), ..Token::default() };
        let recipients = Policy { tokens: Some([(TOKEN, limits), tokens[1].clone()].into()), ..named.clone() };
        assert_eq!(rule(&recipients), Some("tokens"), "{kind}");
        // What has no amount, or others' tokens and is not Permit2's, takes its contract's name.
        let unnamed = Policy { verifying_contracts: [].into(), ..unbound.clone() };
        let expected = match data.verifying_contract() {
            _ if expected.is_none() => Some("tokens"),
            Some(TOKEN) => None,
            _ => Some("verifying_contracts"),
        };
        assert_eq!(rule(&unnamed), expected, "{kind}");
    }
}

#[test]
fn permit2_itself_must_be_listed() {
    let [.., (single, _)] = &every_permit(TOKEN, TOKEN)[..7] else { panic!() };
    assert!(single.encoded_type().starts_with("PermitSingle(") && single.verifying_contract() == Some(LISTED));
    for (listed, expected) in [(&[TOKEN, LISTED][..], None), (&[TOKEN], Some("to"))] {
        let policy = Policy { to: Some(listed.iter().copied().collect()), ..policy() };
        assert_eq!(rule(&policy, single), expected);
    }
}

#[test]
fn a_chain_is_one_that_the_policy_names() {
    let of = |change: fn(&mut Value)| {
        let mut domain = domain(TOKEN);
        change(&mut domain);
        permit_in(domain, LISTED)
    };
    assert_eq!(rule(&policy(), &of(|_| {})), None);
    let anything = Policy { to: None, ..policy() };
    for policy in [&policy(), &anything] {
        assert_eq!(rule(policy, &of(|domain| domain["chainId"] = json!(1))), Some("chains"));
        assert_eq!(rule(policy, &of(|domain| domain["chainId"] = json!("0x10000000000000089"))), Some("chains"));
        let missing = of(|domain| drop(domain.as_object_mut().unwrap().remove("chainId")));
        assert_eq!(rule(policy, &missing), Some("chains"));
    }
}

#[test]
fn what_is_not_read_must_be_named() {
    let vote =
        |domain| typed(&[("Vote", &["uint256 proposal"])], json!({"type": "Vote", "of": {"proposal": 1}}), domain);
    // As if it were a permit, but for a type that contracts do not know.
    let almost = |contract| {
        let kind: Struct =
            ("Permit", &["address owner", "address spender", "uint128 value", "uint256 nonce", "uint256 deadline"]);
        let of =
            json!({"owner": LISTED.to_string(), "spender": LISTED.to_string(), "value": 1, "nonce": 0, "deadline": 9});
        typed(&[kind], json!({"type": "Permit", "of": of}), domain(contract))
    };
    for contract in [LISTED, STRANGER] {
        for data in [vote(domain(contract)), almost(contract)] {
            assert_eq!(rule(&policy(), &data), Some("verifying_contracts"));
            assert_eq!(rule(&with_contracts(&[contract]), &data), None);
            assert_eq!(rule(&with_contracts(&[TOKEN]), &data), Some("verifying_contracts"));
            assert_eq!(rule(&Policy { to: None, ..policy() }, &data), None);
        }
    }
    let nowhere = vote(json!({"chainId": 137}));
    assert_eq!(rule(&with_contracts(&[Address::ZERO]), &nowhere), Some("verifying_contracts"));
    assert_eq!(rule(&Policy { to: None, ..policy() }, &nowhere), None);
}

#[test]
fn kinds_are_allowed_one_by_one() {
    let message = Message::parse(br#"{"message": "hello"}"#).unwrap();
    let json = json!({"chainId": 137, "address": LISTED.to_string(), "nonce": 0});
    let authorization = Authorization::parse(json.to_string().as_bytes()).unwrap();
    let permit = permit(TOKEN, LISTED);
    for kind in [Signable::Transaction, Signable::Message, Signable::TypedData, Signable::Authorization] {
        let only = Policy { sign: [kind].into(), delegates: [LISTED].into(), ..policy() };
        assert_eq!(judge_message(&only, &message, NOW).is_ok(), kind == Signable::Message);
        assert_eq!(judge_typed_data(&only, &permit, NOW).is_ok(), kind == Signable::TypedData);
        assert_eq!(judge_authorization(&only, &authorization, NOW).is_ok(), kind == Signable::Authorization);
    }
    let rule = |policy: &Policy| judge_authorization(policy, &authorization, NOW).err().map(|denied| denied.rule);
    assert_eq!(rule(&policy()), Some("delegates"));
    assert_eq!(rule(&Policy { chains: [1].into(), delegates: [LISTED].into(), ..policy() }), Some("chains"));
}
