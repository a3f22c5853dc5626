//! What callers may have signed.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{EthAddress, ReadMethod, Signer};
use crate::Diagnostic;
use crate::function::Function;
use crate::place::At;
use crate::units::Wei;
use crate::validate::reference;

/// What a caller may have signed. A field left out does not restrict.
///
/// `max_value` and `daily_value` count the chain's own currency only: not tokens, which `to` is for, and not fees, which
/// `max_fee` is for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Names of `chains`.
    pub chains: Option<Vec<At<String>>>,
    /// Kinds of thing; left out, all of them, but for messages where `to` restricts: nobody can hold a message to it.
    pub sign: Option<Vec<Signable>>,
    /// Contracts and recipients. For token transfers and approvals, recipients are read from the call and must be
    /// listed as well; any other call is allowed by `functions` only.
    pub to: Option<Vec<EthAddress>>,
    /// Functions that may be called on what `to` lists, besides token transfers and approvals: selectors
    /// (`"0xd0e30db0"`) or signatures (`"deposit()"`). Recipients in their arguments are not read.
    pub functions: Option<Vec<Function>>,
    /// Contracts whose typed data is signed though it is not read, besides permits and authorizations of tokens that
    /// `to` lists.
    pub verifying_contracts: Option<Vec<EthAddress>>,
    /// Contracts whose code an account may be given (EIP-7702). Left out, none.
    pub delegates: Option<Vec<EthAddress>>,
    /// Most of the chain's currency in one transaction: not tokens, not fees.
    pub max_value: Option<Wei>,
    /// Most of the chain's currency in any 24 hours: not tokens, not fees; each chain and key apart.
    pub daily_value: Option<Wei>,
    /// Most that one transaction may cost in fees: gas times the highest gas price, that of blobs included.
    pub max_fee: Option<Wei>,
    /// Whether a transaction may create a contract.
    #[serde(default)]
    pub allow_contract_creation: bool,
    /// Methods of JSON-RPC that are passed on to the chain's `rpc`: all that read, where this is left out.
    pub rpc_methods: Option<Vec<ReadMethod>>,
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
        if policy.functions.is_some() && policy.to.is_none() {
            found.push(
                Diagnostic::error(format!("policy {name:?} lists functions, and not on what they may be called"))
                    .at(&policy.span)
                    .help("without `to`, any function may be called: list the contracts there"),
            );
        }
        if policy.verifying_contracts.is_some() && policy.to.is_none() {
            found.push(
                Diagnostic::error(format!("policy {name:?} lists verifying_contracts, and restricts nothing by it"))
                    .at(&policy.span)
                    .help("without `to`, any typed data is signed: list contracts and recipients there"),
            );
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
        limits(name, policy, found);
    }
}

/// Who limits value means to limit what can be lost. Neither tokens nor fees are value.
fn limits(name: &str, policy: &At<Policy>, found: &mut Vec<Diagnostic>) {
    if policy.max_value.is_none() && policy.daily_value.is_none() {
        return;
    }
    let mut warn = |what: &str, help: &str| {
        let message = format!("policy {name:?} limits value, and {what}");
        found.push(Diagnostic::warning(message).at(&policy.span).help(help));
    };
    if policy.to.is_none() {
        warn(
            "not who may be paid: tokens can be sent to anybody, in any amount",
            "list contracts and recipients in `to`: max_value and daily_value count the chain's own currency only",
        );
    }
    if policy.max_fee.is_none() {
        warn(
            "not fees: one transaction may cost any amount of them",
            "set max_fee: max_value and daily_value do not count fees",
        );
    }
}
