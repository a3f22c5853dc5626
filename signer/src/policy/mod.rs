//! What a caller may have signed.
//!
//! Pure: a policy is given a transaction, or what else is to be signed, and answers. What was spent before comes in as a
//! number; the ledger calls [`judge_window`] inside the transaction that reserves, so that no two requests see the same
//! allowance. So does the time.
//!
//! The default is no. A caller without a policy, and a chain that the file does not name, have nothing signed.

mod abi;
mod calldata;
mod calls;
mod compile;
mod hours;
mod loosened;
mod permit2;
mod permits;
#[cfg(test)]
mod properties;
mod rate;
mod replacement;
mod spend;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod token_tests;
mod tokens;
#[cfg(test)]
mod typed_data_tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use alloy_primitives::{Address, U256};
use keygate_config::units::Rate;
use keygate_config::{Hours, Replacements};

pub use calldata::{Calldata, Malformed, Movement};
pub use calls::CallRule;
pub use keygate_config::Signable;
pub use loosened::loosened;
pub use permits::Permit;
pub(crate) use rate::Limiter;
pub use rate::{Rates, TooOften};
pub use replacement::{There, judge_replacement};
pub use spend::{Allowed, Approval, Asset, Spend, Window, judge_window};
pub use tokens::Token;

use crate::authorization::Authorization;
use crate::message::Message;
use crate::transaction::Transaction;
use crate::typed_data::TypedData;

/// A policy, compiled from the file. The default allows nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// The policy's name: spending is counted under it.
    pub name: String,
    /// Chain ids that may be signed for.
    pub chains: BTreeSet<u64>,
    /// Kinds of thing that may be signed at all.
    pub sign: BTreeSet<Signable>,
    /// Contracts and recipients; none does not restrict.
    pub to: Option<BTreeSet<Address>>,
    /// Tokens that may be moved, by their contracts; none does not restrict.
    pub tokens: Option<BTreeMap<Address, Token>>,
    /// Selectors of the functions that may be called, besides the token calls of [`Calldata`], where `to` or `tokens`
    /// restrict.
    pub functions: BTreeSet<[u8; 4]>,
    /// Functions that may be called with some arguments, where `to` or `tokens` restrict.
    pub calls: Vec<CallRule>,
    /// Contracts whose typed data may be signed though it is not read, besides what [`Permit`] reads, where `to` or
    /// `tokens` restrict.
    pub verifying_contracts: BTreeSet<Address>,
    /// Contracts whose code an account may be given (EIP-7702).
    pub delegates: BTreeSet<Address>,
    /// Most wei in one transaction; none does not restrict.
    pub max_value: Option<U256>,
    /// Most wei in any 24 hours, each chain and key apart; none does not restrict.
    pub daily_value: Option<U256>,
    /// Most wei in any other periods, each chain and key apart.
    pub windows: Vec<Window>,
    /// Most wei of fees in one transaction, those of blobs included; none does not restrict.
    pub max_fee: Option<U256>,
    /// Most wei for one gas; none does not restrict.
    pub max_fee_per_gas: Option<u128>,
    /// Most wei of that for who builds the block; none does not restrict.
    pub max_priority_fee_per_gas: Option<u128>,
    /// Most wei for one gas of blobs; none does not restrict.
    pub max_fee_per_blob_gas: Option<u128>,
    /// Most gas; none does not restrict.
    pub max_gas: Option<u64>,
    /// Signatures for each caller, which [`Rates`] counts; none does not restrict.
    pub rate: Option<Rate>,
    /// When something may be signed; none does not restrict.
    pub hours: Option<Vec<Hours>>,
    /// How a transaction may be replaced; none does not restrict.
    pub replacements: Option<Replacements>,
    /// Wei in one transaction above which somebody else must approve it; none does not ask.
    pub approval_above: Option<U256>,
    /// What nobody has decided about within this time is expired.
    pub approval_expires: Duration,
    /// Names of the callers who may approve; never the one who asked.
    pub approvers: BTreeSet<String>,
    /// Whether callers may say which nonce a transaction has, where keygate does.
    pub allow_nonce: bool,
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

    /// A nonce of the caller's, where keygate chooses them and the policy lets nobody else.
    #[must_use]
    pub fn nonce_given() -> Self {
        Self { rule: "allow_nonce", detail: "the chain's nonces are chosen by keygate: leave the nonce out".to_owned() }
    }

    fn new<T>(rule: &'static str, detail: impl Into<String>) -> Result<T, Self> {
        Err(Self { rule, detail: detail.into() })
    }
}

impl Policy {
    /// Whether `approver` may approve what `caller` asked for: somebody else, whom the policy names.
    #[must_use]
    pub fn may_approve(&self, approver: &str, caller: &str) -> bool {
        approver != caller && self.approvers.contains(approver)
    }

    /// Somebody must approve it, as this rule says.
    fn approval(&self, rule: &'static str, detail: String) -> Approval {
        Approval { rule, detail, from: self.approvers.clone(), expires_after: self.approval_expires }
    }

    /// Every window there is, with what it is of: `native`, or a token's name in the file.
    pub(crate) fn all_windows(&self) -> impl Iterator<Item = (&str, Asset, Window)> {
        let native = self.daily_value.map(daily).into_iter().chain(self.windows.iter().cloned());
        let tokens = self.tokens.iter().flatten().flat_map(|(contract, token)| {
            let windows = token.windows.iter().cloned();
            windows.map(|window| (token.name.as_str(), Asset::Token(*contract), window))
        });
        native.map(|window| ("native", Asset::Native, window)).chain(tokens)
    }

    /// Whether a call is signed only if it can be read: a list of recipients, or of amounts, is none when a function that
    /// nobody here knows carries others.
    fn restricts_calls(&self) -> bool {
        self.to.is_some() || self.tokens.is_some()
    }
}

/// Judges a transaction at a time by everything but what was spent before, which [`judge_window`] does.
///
/// # Errors
/// [`Denied`] by the first rule that says no.
pub fn judge(policy: &Policy, tx: &Transaction, now: SystemTime) -> Result<Allowed, Denied> {
    judge_kind(policy, Signable::Transaction, "transactions")?;
    judge_chain(policy, U256::from(tx.chain_id()))?;
    hours::judge(policy, now)?;
    let moved = match tx.to() {
        None if !policy.allow_contract_creation => {
            return Denied::new("allow_contract_creation", "the policy does not allow contracts to be created");
        }
        None => Allowed::default(),
        Some(to) => judge_call(policy, to, tx.data())?,
    };
    for delegate in tx.delegates() {
        judge_delegate(policy, delegate)?;
    }
    if let Some(max) = policy.max_value
        && tx.value() > max
    {
        return Denied::new("max_value", format!("{} wei is above {max} wei", tx.value()));
    }
    judge_fees(policy, tx)?;
    let native = native(policy, tx.value());
    Ok(Allowed {
        spends: native.spends.into_iter().chain(moved.spends).collect(),
        approval: native.approval.or(moved.approval),
    })
}

/// Judges a transaction that does what another with its nonce would do, for other fees, at a time. One of both is mined: it
/// spends nothing more. It needs the approval that it would need if it were the first; who has approved the same call
/// before, and may still, has given it, if the policy bounds what the fees may come to.
///
/// # Errors
/// [`Denied`] by the first rule that says no.
pub fn judge_again(
    policy: &Policy,
    tx: &Transaction,
    approved_by: &BTreeSet<String>,
    now: SystemTime,
) -> Result<Allowed, Denied> {
    let approval = judge(policy, tx, now)?.approval;
    let given = |approval: &Approval| bounds_fees(policy, tx) && !approval.from.is_disjoint(approved_by);
    Ok(Allowed { spends: Vec::new(), approval: approval.filter(|approval| !given(approval)) })
}

/// Judges a transaction that sends nothing to its own sender, at a time: whom it pays, and what, is no question. It takes
/// a nonce, and costs its fees.
///
/// # Errors
/// [`Denied`] by the first rule that says no.
pub fn judge_nothing(policy: &Policy, tx: &Transaction, now: SystemTime) -> Result<Allowed, Denied> {
    judge_kind(policy, Signable::Transaction, "transactions")?;
    judge_chain(policy, U256::from(tx.chain_id()))?;
    hours::judge(policy, now)?;
    judge_fees(policy, tx)?;
    Ok(Allowed::default())
}

/// What is spent of the chain's own currency.
fn native(policy: &Policy, amount: U256) -> Allowed {
    if amount.is_zero() {
        return Allowed::default();
    }
    let windows = policy.daily_value.map(daily).into_iter().chain(policy.windows.iter().cloned()).collect();
    let approval = policy.approval_above.filter(|above| amount > *above).map(|above| {
        policy.approval("require_approval", format!("{amount} wei is above {above} wei: somebody else must approve it"))
    });
    Allowed { spends: vec![Spend { asset: Asset::Native, amount, windows }], approval }
}

fn daily(max: U256) -> Window {
    Window { rule: "daily_value", period: Duration::from_secs(24 * 60 * 60), max }
}

fn judge_fees(policy: &Policy, tx: &Transaction) -> Result<(), Denied> {
    let caps = [
        ("max_fee_per_gas", Some(tx.max_gas_price()), policy.max_fee_per_gas, "wei a gas"),
        ("max_priority_fee_per_gas", Some(tx.max_priority_fee()), policy.max_priority_fee_per_gas, "wei a gas"),
        ("max_fee_per_blob_gas", tx.max_blob_gas_price(), policy.max_fee_per_blob_gas, "wei a gas of blobs"),
        ("max_gas", Some(tx.gas().into()), policy.max_gas.map(u128::from), "gas"),
    ];
    for (rule, asked, max, unit) in caps {
        if let (Some(asked), Some(max)) = (asked, max)
            && asked > max
        {
            return Denied::new(rule, format!("{asked} {unit} is above {max}"));
        }
    }
    let Some(max) = policy.max_fee else { return Ok(()) };
    match tx.max_fee() {
        Some(fee) if fee <= max => Ok(()),
        Some(fee) => Denied::new("max_fee", format!("fees of up to {fee} wei are above {max} wei")),
        None => Denied::new("max_fee", format!("fees beyond 256 bits are above {max} wei")),
    }
}

/// Whether the fees of such a transaction may come to so much, and no more, without anybody being asked.
fn bounds_fees(policy: &Policy, tx: &Transaction) -> bool {
    let blobs = tx.max_blob_gas_price().is_none() || policy.max_fee_per_blob_gas.is_some();
    policy.max_fee.is_some() || (policy.max_gas.is_some() && policy.max_fee_per_gas.is_some() && blobs)
}

/// Fees that a chain's nodes named come to this in all at most, in wei, where no policy says what is too much: 1 ether, as
/// geth has it for what it sends (`--rpc.txfeecap`).
const MOST_FILLED: U256 = U256::from_limbs([1_000_000_000_000_000_000, 0, 0, 0]);

/// Judges fees that were filled in by what a chain's nodes say: they may be wrong, or lie, and a fee is paid to who builds
/// the block. What a policy says of fees, [`judge`] sees to.
///
/// # Errors
/// [`Denied`] by `max_fee`, though the policy has none.
pub fn judge_filled(policy: &Policy, tx: &Transaction) -> Result<(), Denied> {
    if bounds_fees(policy, tx) || tx.max_fee().is_some_and(|fee| fee <= MOST_FILLED) {
        return Ok(());
    }
    let fee = tx.max_fee().map_or_else(|| "beyond 256 bits".to_owned(), |fee| format!("of up to {fee} wei"));
    let why =
        format!("fees {fee}, by what the chain's nodes say, are above {MOST_FILLED} wei: set max_fee to allow more");
    Denied::new("max_fee", why)
}

/// Judges a message (EIP-191). What it lets somebody do, nobody can read: a policy allows messages, or it does not.
///
/// # Errors
/// [`Denied`] by `sign` or `hours`.
pub fn judge_message(policy: &Policy, _: &Message, now: SystemTime) -> Result<Allowed, Denied> {
    judge_kind(policy, Signable::Message, "messages")?;
    hours::judge(policy, now)?;
    Ok(Allowed::default())
}

/// Judges an authorization to sign (EIP-7702).
///
/// # Errors
/// [`Denied`] by the first rule that says no.
pub fn judge_authorization(policy: &Policy, authorization: &Authorization, now: SystemTime) -> Result<Allowed, Denied> {
    judge_kind(policy, Signable::Authorization, "authorizations")?;
    judge_chain(policy, U256::from(authorization.chain_id()))?;
    hours::judge(policy, now)?;
    judge_delegate(policy, authorization.delegate())?;
    Ok(Allowed::default())
}

/// Judges typed data (EIP-712). With `to`, a permit's tokens, its spender and the contract that is to verify it must be
/// listed; with `tokens`, its tokens and amounts are held to it. With either, anything else is signed for the contracts
/// in `verifying_contracts` only.
///
/// # Errors
/// [`Denied`] by the first rule that says no.
pub fn judge_typed_data(policy: &Policy, data: &TypedData, now: SystemTime) -> Result<Allowed, Denied> {
    judge_kind(policy, Signable::TypedData, "typed data")?;
    match data.chain_id() {
        Some(id) => judge_chain(policy, id)?,
        None => return Denied::new("chains", "the domain has no chainId: the signature would be for every chain"),
    }
    hours::judge(policy, now)?;
    if !policy.restricts_calls() {
        return Ok(Allowed::default());
    }
    let Some(contract) = data.verifying_contract() else {
        return Denied::new("verifying_contracts", "the domain has no verifyingContract");
    };
    let named = policy.verifying_contracts.contains(&contract);
    match Permit::read(data, contract) {
        Permit::Tokens { moves, witness } => {
            if policy.to.as_ref().is_some_and(|listed| !listed.contains(&contract)) {
                return Denied::new("to", format!("{contract}, read from the typed data, is not listed"));
            }
            let allowed = tokens::judge(policy, &moves, named, "the typed data")?;
            if !named && permit2::is_not(policy, contract, &moves) {
                let why = "it names tokens that are not its contract's, which is not Permit2's, and";
                return Denied::new("verifying_contracts", format!("{why} {contract} is not listed"));
            }
            if witness && !named {
                let why = "the permit has a witness, which is not read, and its contract";
                return Denied::new("verifying_contracts", format!("{why} {contract} is not listed"));
            }
            Ok(allowed)
        }
        Permit::Other if named => Ok(Allowed::default()),
        Permit::Other => {
            let name = data.encoded_type().split('(').next().unwrap_or_default();
            Denied::new("verifying_contracts", format!("{name:?} is not read, and {contract} is not listed"))
        }
    }
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

/// With `to` or `tokens`, nothing is called that nobody here can read, unless the policy names it. What is a token call
/// is held to both, whatever `functions` says.
fn judge_call(policy: &Policy, to: Address, data: &[u8]) -> Result<Allowed, Denied> {
    if !policy.restricts_calls() {
        return Ok(Allowed::default());
    }
    if policy.to.as_ref().is_some_and(|listed| !listed.contains(&to)) {
        return Denied::new("to", format!("{to} is not listed"));
    }
    match Calldata::read(to, data) {
        Ok(Calldata::Empty) => Ok(Allowed::default()),
        Ok(Calldata::Token { selector, moves, hands_on }) => {
            let named = policy.functions.contains(&selector);
            let allowed = tokens::judge(policy, &moves, named, "the call's data")?;
            let function = hex::encode(selector);
            if !named && permit2::is_not(policy, to, &moves) {
                let why = "names tokens that are not the contract's, which is not Permit2's, and is not listed";
                return Denied::new("functions", format!("0x{function} {why}"));
            }
            if hands_on && !named {
                return Denied::new(
                    "functions",
                    format!("0x{function} hands bytes on to the recipient, and is not listed"),
                );
            }
            Ok(allowed)
        }
        Ok(Calldata::Other { selector }) if policy.functions.contains(&selector) => Ok(Allowed::default()),
        Ok(Calldata::Other { selector }) => {
            calls::judge(policy, to, selector, &data[selector.len()..]).map(|()| Allowed::default())
        }
        Err(Malformed::NoSelector) => Denied::new("functions", Malformed::NoSelector.to_string()),
        Err(malformed) => Denied::new(if policy.to.is_some() { "to" } else { "tokens" }, malformed.to_string()),
    }
}
