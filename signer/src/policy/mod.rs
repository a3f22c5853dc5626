//! What a caller may have signed.
//!
//! Pure: a policy is given a transaction, or what else is to be signed, and answers. What was spent before comes in as a
//! number; the ledger calls [`judge_window`] inside the transaction that reserves, so that no two requests see the same
//! allowance. So does the time.
//!
//! The default is no. A caller without a policy, and a chain that the file does not name, have nothing signed.

mod calldata;
mod permits;
#[cfg(test)]
mod properties;
mod spend;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod typed_data_tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use alloy_primitives::{Address, U256};
pub use keygate_config::Signable;

pub use calldata::{Calldata, Malformed};
pub use permits::Permit;
pub use spend::{Allowed, Approval, Asset, Spend, Window, judge_window};

use crate::authorization::Authorization;
use crate::message::Message;
use crate::transaction::Transaction;
use crate::typed_data::TypedData;

/// A policy, compiled from the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The policy's name: spending is counted under it.
    pub name: String,
    /// Chain ids that may be signed for.
    pub chains: BTreeSet<u64>,
    /// Kinds of thing that may be signed at all.
    pub sign: BTreeSet<Signable>,
    /// Contracts and recipients; none does not restrict.
    pub to: Option<BTreeSet<Address>>,
    /// Selectors of the functions that `to` lets be called besides the token calls of [`Calldata`].
    pub functions: BTreeSet<[u8; 4]>,
    /// Contracts whose typed data `to` lets be signed though it is not read, besides what [`Permit`] reads.
    pub verifying_contracts: BTreeSet<Address>,
    /// Contracts whose code an account may be given (EIP-7702).
    pub delegates: BTreeSet<Address>,
    /// Most wei in one transaction; none does not restrict.
    pub max_value: Option<U256>,
    /// Most wei in any 24 hours, each chain and key apart; none does not restrict.
    pub daily_value: Option<U256>,
    /// Most wei of fees in one transaction, those of blobs included; none does not restrict.
    pub max_fee: Option<U256>,
    /// Whether a contract may be created.
    pub allow_contract_creation: bool,
}

/// Why a transaction is not signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{rule}: {detail}")]
pub struct Denied {
    /// The rule, named as the field of the policy; `policy` when the caller has none.
    pub rule: &'static str,
    /// What the transaction had against it.
    pub detail: String,
}

impl Denied {
    /// The default: a caller without a policy may have nothing signed.
    #[must_use]
    pub fn no_policy() -> Self {
        Self { rule: "policy", detail: "the caller has no policy, and may have nothing signed".to_owned() }
    }

    fn new<T>(rule: &'static str, detail: impl Into<String>) -> Result<T, Self> {
        Err(Self { rule, detail: detail.into() })
    }
}

impl Policy {
    /// Compiles the policy `name` of the file. A policy that lists no chains allows those that the file names.
    ///
    /// Names of chains that do not exist are left out: that can only allow less. The file's validation reports them.
    #[must_use]
    pub fn new(
        name: &str,
        policy: &keygate_config::Policy,
        chains: &BTreeMap<String, keygate_config::At<keygate_config::Chain>>,
    ) -> Self {
        let wei = |amount: Option<keygate_config::units::Wei>| amount.map(|wei| U256::from(wei.0));
        let set =
            |list: &Option<Vec<keygate_config::EthAddress>>| list.iter().flatten().map(|address| address.0).collect();
        let chains = match &policy.chains {
            None => chains.values().map(|chain| chain.id).collect(),
            Some(names) => names.iter().filter_map(|name| chains.get(&name.value)).map(|chain| chain.id).collect(),
        };
        let sign = match &policy.sign {
            Some(kinds) => kinds.iter().copied().collect(),
            None => {
                let mut kinds = BTreeSet::from([Signable::Transaction, Signable::TypedData, Signable::Authorization]);
                // Whom a message lets be paid, nobody can read: where recipients are listed, it takes its name.
                if policy.to.is_none() {
                    kinds.insert(Signable::Message);
                }
                kinds
            }
        };
        Self {
            name: name.to_owned(),
            chains,
            sign,
            to: policy.to.as_ref().map(|to| to.iter().map(|address| address.0).collect()),
            functions: policy.functions.iter().flatten().map(|function| function.selector).collect(),
            verifying_contracts: set(&policy.verifying_contracts),
            delegates: set(&policy.delegates),
            max_value: wei(policy.max_value),
            daily_value: wei(policy.daily_value),
            max_fee: wei(policy.max_fee),
            allow_contract_creation: policy.allow_contract_creation,
        }
    }
}

/// Judges a transaction at a time by everything but what was spent before, which [`judge_window`] does.
///
/// # Errors
/// [`Denied`] by the first rule that says no.
pub fn judge(policy: &Policy, tx: &Transaction, _now: SystemTime) -> Result<Allowed, Denied> {
    judge_kind(policy, Signable::Transaction, "transactions")?;
    judge_chain(policy, U256::from(tx.chain_id()))?;
    match tx.to() {
        None if !policy.allow_contract_creation => {
            return Denied::new("allow_contract_creation", "the policy does not allow contracts to be created");
        }
        None => {}
        Some(to) => judge_call(policy, to, tx.data())?,
    }
    for delegate in tx.delegates() {
        judge_delegate(policy, delegate)?;
    }
    if let Some(max) = policy.max_value
        && tx.value() > max
    {
        return Denied::new("max_value", format!("{} wei is above {max} wei", tx.value()));
    }
    if let Some(max) = policy.max_fee {
        match tx.max_fee() {
            Some(fee) if fee <= max => {}
            Some(fee) => return Denied::new("max_fee", format!("fees of up to {fee} wei are above {max} wei")),
            None => return Denied::new("max_fee", format!("fees beyond 256 bits are above {max} wei")),
        }
    }
    Ok(Allowed { spends: native(policy, tx.value()).into_iter().collect(), approval: None })
}

/// What is spent of the chain's own currency.
fn native(policy: &Policy, amount: U256) -> Option<Spend> {
    let windows = policy.daily_value.map(daily).into_iter().collect();
    (!amount.is_zero()).then_some(Spend { asset: Asset::Native, amount, windows })
}

fn daily(max: U256) -> Window {
    Window { rule: "daily_value", period: Duration::from_secs(24 * 60 * 60), max }
}

/// Judges a message (EIP-191). What it lets somebody do, nobody can read: a policy allows messages, or it does not.
///
/// # Errors
/// [`Denied`] by `sign`.
pub fn judge_message(policy: &Policy, _: &Message, _now: SystemTime) -> Result<Allowed, Denied> {
    judge_kind(policy, Signable::Message, "messages")?;
    Ok(Allowed::default())
}

/// Judges an authorization to sign (EIP-7702).
///
/// # Errors
/// [`Denied`] by the first rule that says no.
pub fn judge_authorization(
    policy: &Policy,
    authorization: &Authorization,
    _now: SystemTime,
) -> Result<Allowed, Denied> {
    judge_kind(policy, Signable::Authorization, "authorizations")?;
    judge_chain(policy, U256::from(authorization.chain_id()))?;
    judge_delegate(policy, authorization.delegate())?;
    Ok(Allowed::default())
}

/// Judges typed data (EIP-712). With `to`, a permit's tokens, its spender and the contract that is to verify it must be
/// listed; anything else is signed for the contracts in `verifying_contracts` only.
///
/// # Errors
/// [`Denied`] by the first rule that says no.
pub fn judge_typed_data(policy: &Policy, data: &TypedData, _now: SystemTime) -> Result<Allowed, Denied> {
    judge_kind(policy, Signable::TypedData, "typed data")?;
    match data.chain_id() {
        Some(id) => judge_chain(policy, id)?,
        None => return Denied::new("chains", "the domain has no chainId: the signature would be for every chain"),
    }
    let Some(listed) = &policy.to else {
        return Ok(Allowed::default());
    };
    let Some(contract) = data.verifying_contract() else {
        return Denied::new("verifying_contracts", "the domain has no verifyingContract");
    };
    let unlisted = !policy.verifying_contracts.contains(&contract);
    match Permit::read(data, contract) {
        Permit::Tokens { tokens, recipient, witness } => {
            if let Some(other) = [contract, recipient].iter().chain(&tokens).find(|other| !listed.contains(*other)) {
                return Denied::new("to", format!("{other}, read from the typed data, is not listed"));
            }
            if witness && unlisted {
                let why = "the permit has a witness, which is not read, and its contract";
                return Denied::new("verifying_contracts", format!("{why} {contract} is not listed"));
            }
            Ok(Allowed::default())
        }
        Permit::Other if unlisted => {
            let name = data.encoded_type().split('(').next().unwrap_or_default();
            Denied::new("verifying_contracts", format!("{name:?} is not read, and {contract} is not listed"))
        }
        Permit::Other => Ok(Allowed::default()),
    }
}

/// Judges whether `value` more wei may be sent when `spent` were in the last 24 hours.
///
/// # Errors
/// [`Denied`] by `daily_value`.
pub fn judge_daily(limit: Option<U256>, spent: U256, value: U256) -> Result<(), Denied> {
    limit.map_or(Ok(()), |max| judge_window(Asset::Native, &daily(max), spent, value))
}

fn judge_kind(policy: &Policy, kind: Signable, name: &str) -> Result<(), Denied> {
    if policy.sign.contains(&kind) { Ok(()) } else { Denied::new("sign", format!("the policy does not allow {name}")) }
}

fn judge_chain(policy: &Policy, id: U256) -> Result<(), Denied> {
    if policy.chains.iter().any(|chain| U256::from(*chain) == id) {
        Ok(())
    } else {
        Denied::new("chains", format!("chain {id} is not allowed"))
    }
}

/// An account with a delegate's code does what that says: nothing else here could hold it.
fn judge_delegate(policy: &Policy, delegate: Address) -> Result<(), Denied> {
    if policy.delegates.contains(&delegate) {
        Ok(())
    } else {
        Denied::new("delegates", format!("{delegate} is not listed, and an account would have its code"))
    }
}

/// With `to`, nothing is called that nobody here can read, unless the policy names it: an allow-list of recipients is
/// none when a function that it knows nothing of carries others. What is a token call has its recipient checked,
/// whatever `functions` says.
fn judge_call(policy: &Policy, to: Address, data: &[u8]) -> Result<(), Denied> {
    let Some(listed) = &policy.to else {
        return Ok(());
    };
    if !listed.contains(&to) {
        return Denied::new("to", format!("{to} is not listed"));
    }
    let unlisted = |selector| !policy.functions.contains(selector);
    match Calldata::read(data) {
        Ok(Calldata::Token { recipient, .. }) if !listed.contains(&recipient) => {
            Denied::new("to", format!("{recipient}, read from the call's data, is not listed"))
        }
        Ok(Calldata::Token { selector, hands_on: true, .. }) if unlisted(&selector) => {
            let function = hex::encode(selector);
            Denied::new("functions", format!("0x{function} hands bytes on to the recipient, and is not listed"))
        }
        Ok(Calldata::Other { selector }) if unlisted(&selector) => {
            Denied::new("functions", format!("0x{} is no token call, and is not listed", hex::encode(selector)))
        }
        Ok(_) => Ok(()),
        Err(Malformed::NoSelector) => Denied::new("functions", Malformed::NoSelector.to_string()),
        Err(malformed) => Denied::new("to", malformed.to_string()),
    }
}
