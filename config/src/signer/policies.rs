//! What callers may have signed.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Call, EthAddress, Hours, ReadMethod, Signer, TOKEN_FUNCTIONS, Token};
use crate::Diagnostic;
use crate::function::Function;
use crate::place::At;
use crate::units::{Period, Rate, Wei};
use crate::validate::reference;

/// What a caller may have signed. A field left out does not restrict.
///
/// `max_value`, `windows` and `daily_value` count the chain's own currency only: not tokens, which `tokens` is for, and
/// not fees, which `max_fee` is for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Names of `chains`.
    pub chains: Option<Vec<At<String>>>,
    /// Kinds of thing; left out, all of them, but for messages where `to` or `tokens` restrict: nobody can hold a message
    /// to those.
    pub sign: Option<Vec<Signable>>,
    /// Contracts and recipients. For token transfers and approvals, recipients are read from the call and must be
    /// listed as well; any other call is allowed by `functions` only.
    pub to: Option<Vec<EthAddress>>,
    /// Tokens that may be moved, and how many of them, by any name; the contract's address is the name or `address`.
    /// Left out, any, in any amount.
    pub tokens: Option<BTreeMap<String, At<Token>>>,
    /// Functions that may be called where `to` or `tokens` restrict, besides token transfers and approvals: selectors
    /// (`"0xd0e30db0"`) or signatures (`"deposit()"`). Their arguments are not read.
    pub functions: Option<Vec<Function>>,
    /// Functions that may be called where `to` or `tokens` restrict, with some arguments.
    pub calls: Option<Vec<At<Call>>>,
    /// Contracts whose typed data is signed though it is not read, where `to` or `tokens` restrict, besides permits and
    /// authorizations of their tokens.
    pub verifying_contracts: Option<Vec<EthAddress>>,
    /// Contracts whose code an account may be given (EIP-7702). Left out, none.
    pub delegates: Option<Vec<EthAddress>>,
    /// Most of the chain's currency in one transaction: not tokens, not fees.
    pub max_value: Option<Wei>,
    /// Most of the chain's currency in any 24 hours: not tokens, not fees; each chain and key apart.
    pub daily_value: Option<Wei>,
    /// Most of the chain's currency in any period of these lengths: not tokens, not fees; each chain and key apart.
    #[serde(default)]
    pub windows: Vec<NativeWindow>,
    /// Most that one transaction may cost in fees: gas times the highest gas price, that of blobs included.
    pub max_fee: Option<Wei>,
    /// Most for one gas: `maxFeePerGas`, or `gasPrice`.
    pub max_fee_per_gas: Option<Wei>,
    /// Most of that for who builds the block: `maxPriorityFeePerGas`, or `gasPrice`, all of which may be.
    pub max_priority_fee_per_gas: Option<Wei>,
    /// Most for one gas of blobs: `maxFeePerBlobGas`.
    pub max_fee_per_blob_gas: Option<Wei>,
    /// Most gas.
    pub max_gas: Option<u64>,
    /// So many signatures for each caller, of whatever kind, and as many at once; each signer counts by itself.
    pub rate: Option<Rate>,
    /// When something may be signed, in UTC: `"Mon-Fri 08:00-18:00"`.
    pub hours: Option<At<Vec<Hours>>>,
    /// How a transaction may be replaced by another with its nonce.
    pub replacements: Option<Replacements>,
    /// What somebody else must approve first.
    pub require_approval: Option<At<RequireApproval>>,
    /// Whether callers may say which nonce a transaction has, on chains where keygate does.
    #[serde(default)]
    pub allow_nonce: bool,
    /// Whether a transaction may create a contract.
    #[serde(default)]
    pub allow_contract_creation: bool,
    /// Methods of JSON-RPC that are passed on to the chain's `rpc`: all that read, where this is left out.
    pub rpc_methods: Option<Vec<ReadMethod>>,
}

/// Most of the chain's currency in any period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NativeWindow {
    /// How long.
    pub period: Period,
    /// How much.
    pub max: Wei,
}

/// How a transaction may be replaced. A field left out does not restrict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Replacements {
    /// So many times.
    pub max: Option<u32>,
    /// By so many percent each time, at most, the fees may grow: for one gas, for one gas of blobs, and in all.
    pub max_fee_bump_percent: Option<u32>,
}

/// What somebody else must approve first.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RequireApproval {
    /// Transactions with more of the chain's own currency than this; tokens have `approval_above`.
    pub above: Option<Wei>,
    /// Names of `callers` that may approve, and never what they asked for themselves.
    pub from: Vec<At<String>>,
    /// What nobody has decided about within this time is expired, for ever.
    #[serde(default = "default_expires_after")]
    pub expires_after: Period,
}

/// Long enough for who is awake tomorrow; and fees are seldom worth paying longer.
fn default_expires_after() -> Period {
    Period(Duration::from_secs(24 * 60 * 60))
}

impl Policy {
    /// The contract of a token in `tokens`: what it says, or what its table is named. The file's validation sees to it
    /// that there is one.
    #[must_use]
    pub fn token_address(name: &str, token: &Token) -> Option<EthAddress> {
        token.address.or_else(|| name.parse().ok())
    }

    /// Whether a call is signed only if it can be read.
    fn restricts_calls(&self) -> bool {
        self.to.is_some() || self.tokens.is_some()
    }
}

/// A kind of thing to sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Signable {
    /// A transaction.
    Transaction,
    /// A message (EIP-191).
    Message,
    /// Typed data (EIP-712).
    TypedData,
    /// An authorization of EIP-7702, of a delegate that `delegates` lists.
    Authorization,
}

pub(super) fn validate(signer: &Signer, found: &mut Vec<Diagnostic>) {
    for (name, policy) in &signer.policies {
        for chain in policy.chains.iter().flatten() {
            reference("signer.chains", chain, &signer.chains, found);
        }
        if policy.functions.is_some() && !policy.restricts_calls() {
            found.push(
                Diagnostic::error(format!("policy {name:?} lists functions, and not on what they may be called"))
                    .at(&policy.span)
                    .help("without `to` or `tokens`, any function may be called: list the contracts in `to`"),
            );
        }
        if policy.calls.is_some() && !policy.restricts_calls() {
            found.push(
                Diagnostic::error(format!("policy {name:?} lists calls, and restricts nothing by it"))
                    .at(&policy.span)
                    .help("without `to` or `tokens`, any function may be called: list the contracts in `to`"),
            );
        }
        if policy.verifying_contracts.is_some() && !policy.restricts_calls() {
            found.push(
                Diagnostic::error(format!("policy {name:?} lists verifying_contracts, and restricts nothing by it"))
                    .at(&policy.span)
                    .help("without `to` or `tokens`, any typed data is signed: list contracts and recipients in `to`"),
            );
        }
        if let Some(hours) = &policy.hours
            && hours.is_empty()
        {
            found.push(Diagnostic::error(format!("policy {name:?} has no hours")).at(&hours.span));
        }
        let authorizations = policy.sign.iter().flatten().any(|kind| *kind == Signable::Authorization);
        if authorizations && policy.delegates.is_none() {
            found.push(
                Diagnostic::error(format!("policy {name:?} allows authorizations, and none to anybody"))
                    .at(&policy.span)
                    .help("list in `delegates` whose code an account may be given"),
            );
        }
    }
    for (name, policy) in &signer.policies {
        tokens(name, policy, found);
        calls(policy, found);
        approvals(name, policy, signer, found);
        limits(name, policy, found);
    }
}

fn tokens(policy_name: &str, policy: &Policy, found: &mut Vec<Diagnostic>) {
    let mut known = BTreeMap::new();
    for (name, token) in policy.tokens.iter().flatten() {
        let Some(address) = Policy::token_address(name, token) else {
            found.push(
                Diagnostic::error(format!("token {name:?} has no address"))
                    .at(&token.span)
                    .help("give it its contract's `address`, or name the table by it"),
            );
            continue;
        };
        if name.starts_with("0x") && name.parse() != Ok(address) {
            found.push(
                Diagnostic::error(format!("token {name:?} is named by an address that is not its")).at(&token.span),
            );
        }
        if let Some(other) = known.insert(address.0, name) {
            found.push(
                Diagnostic::error(format!("tokens {other:?} and {name:?} are the same contract")).at(&token.span),
            );
        }
        if token.approval_above.is_some() && policy.require_approval.is_none() {
            found.push(
                Diagnostic::error(format!("token {name:?} has approval_above, and nobody may approve it"))
                    .at(&token.span)
                    .help("name who may in the policy's `require_approval.from`"),
            );
        }
        let Some(listed) = &policy.to else { continue };
        let all = std::iter::once(&address).chain(token.recipients.iter().flatten());
        for missing in all.filter(|address| !listed.contains(address)) {
            found.push(
                Diagnostic::error(format!("{missing}, of token {name:?}, is not in `to` of policy {policy_name:?}"))
                    .at(&token.span)
                    .help("with `to`, a token and whom it goes to must be listed there as well"),
            );
        }
    }
}

fn calls(policy: &Policy, found: &mut Vec<Diagnostic>) {
    let reads = |function: &Function| TOKEN_FUNCTIONS.iter().any(|known| known.parse().as_ref() == Ok(function));
    for call in policy.calls.iter().flatten() {
        let (contract, name) = (call.contract, &call.function.canonical);
        if policy.to.as_ref().is_some_and(|listed| !listed.contains(&contract)) {
            found.push(
                Diagnostic::error(format!("{contract}, on which {name} may be called, is not in `to`"))
                    .at(&call.span)
                    .help("with `to`, whatever is called must be listed there as well"),
            );
        }
        if policy.functions.iter().flatten().any(|function| *function == call.function.function) {
            found.push(
                Diagnostic::error(format!("{name} may be called with any arguments: `functions` names it"))
                    .at(&call.span)
                    .help("take it out of `functions`, or out of `calls`"),
            );
        }
        if reads(&call.function.function) {
            found.push(
                Diagnostic::error(format!("{name} is read without being named"))
                    .at(&call.span)
                    .help("limit whom it names by `to`, and amounts and whom it names by `tokens`"),
            );
        }
    }
}

fn approvals(name: &str, policy: &At<Policy>, signer: &Signer, found: &mut Vec<Diagnostic>) {
    let Some(approval) = &policy.require_approval else { return };
    let tokens = policy.tokens.iter().flatten().any(|(_, token)| token.approval_above.is_some());
    if approval.above.is_none() && !tokens {
        found.push(
            Diagnostic::error(format!("policy {name:?} says who approves, and not what"))
                .at(&approval.span)
                .help("set `above`, or `approval_above` of a token"),
        );
    }
    for approver in &approval.from {
        reference("signer.callers", approver, &signer.callers, found);
    }
    // Who has no key asks for nothing.
    let asking = signer
        .callers
        .iter()
        .filter(|(_, caller)| !caller.keys.is_empty() && caller.policy.as_ref().is_some_and(|of| of.value == name));
    for (caller, _) in asking {
        if approval.from.iter().all(|approver| approver.value == *caller) {
            found.push(
                Diagnostic::error(format!("nobody may approve what caller {caller:?} asks for"))
                    .at(&approval.span)
                    .help("name another caller in `from`: nobody approves what they asked for themselves"),
            );
        }
    }
}

/// Who limits value means to limit what can be lost. Neither tokens nor fees are value.
fn limits(name: &str, policy: &At<Policy>, found: &mut Vec<Diagnostic>) {
    if policy.max_value.is_none() && policy.daily_value.is_none() && policy.windows.is_empty() {
        return;
    }
    let mut warn = |what: &str, help: &str| {
        let message = format!("policy {name:?} limits value, and {what}");
        found.push(Diagnostic::warning(message).at(&policy.span).help(help));
    };
    if policy.to.is_none() && policy.tokens.is_none() {
        warn(
            "not who may be paid: tokens can be sent to anybody, in any amount",
            "list contracts and recipients in `to`, or limit `tokens`: max_value and daily_value count the chain's own \
             currency only",
        );
    }
    if policy.max_fee.is_none() && (policy.max_gas.is_none() || policy.max_fee_per_gas.is_none()) {
        warn(
            "not fees: one transaction may cost any amount of them",
            "set max_fee: max_value and daily_value do not count fees",
        );
    }
}
