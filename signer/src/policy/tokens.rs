//! How much of which token may be moved, and to whom.

use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::{Address, U256};

use super::calldata::Movement;
use super::{Allowed, Asset, Denied, Policy, Spend, Window};

/// What a policy says of a token, in its smallest unit. What is none does not restrict.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Token {
    /// What the file calls it.
    pub name: String,
    /// Most in one request.
    pub max_amount: Option<U256>,
    /// Most in any periods, each chain and key apart.
    pub windows: Vec<Window>,
    /// Who may have it or be allowed to take it.
    pub recipients: Option<BTreeSet<Address>>,
    /// In one request, above this somebody else must approve it.
    pub approval_above: Option<U256>,
}

impl Token {
    pub(super) fn new(name: &str, token: &keygate_config::Token) -> Self {
        let windows =
            token.windows.iter().map(|window| Window { rule: "tokens", period: window.period.0, max: window.max });
        Self {
            name: name.to_owned(),
            max_amount: token.max_amount,
            windows: windows.collect(),
            recipients: token.recipients.as_ref().map(|all| all.iter().map(|address| address.0).collect()),
            approval_above: token.approval_above,
        }
    }
}

/// Judges what a call or typed data moves, and says what that spends of the policy's tokens. What has no amount is
/// allowed where limits of amounts are only if it is `named`, and is not counted.
pub(super) fn judge(policy: &Policy, moves: &[Movement], named: bool, source: &str) -> Result<Allowed, Denied> {
    if let Some(listed) = &policy.to {
        let all = moves.iter().flat_map(|moved| [moved.token, moved.recipient]);
        if let Some(other) = all.into_iter().find(|address| !listed.contains(address)) {
            return Denied::new("to", format!("{other}, read from {source}, is not listed"));
        }
    }
    let Some(tokens) = &policy.tokens else {
        return Ok(Allowed::default());
    };
    // A batch may move a token more than once.
    let mut sums = BTreeMap::new();
    for Movement { token: contract, recipient, amount } in moves {
        let Some(token) = tokens.get(contract) else {
            return Denied::new("tokens", format!("{contract}, moved by {source}, is not listed"));
        };
        if token.recipients.as_ref().is_some_and(|recipients| !recipients.contains(recipient)) {
            return Denied::new("tokens", format!("{recipient} is not among the recipients of {}", token.name));
        }
        match amount {
            None if named => {}
            None => {
                let why = "it says by an id what is moved, and not how much, and is not named";
                return Denied::new("tokens", format!("{} in {source}: {why}", token.name));
            }
            Some(amount) => {
                let (_, sum) = sums.entry(contract).or_insert((token, U256::ZERO));
                // Beyond 256 bits is without bound.
                *sum = sum.saturating_add(*amount);
            }
        }
    }
    let mut allowed = Allowed::default();
    for (contract, (token, amount)) in sums.into_iter().filter(|(_, (_, amount))| !amount.is_zero()) {
        if let Some(max) = token.max_amount
            && amount > max
        {
            return Denied::new("tokens", format!("{amount} of {} is above its max_amount, {max}", token.name));
        }
        if let Some(above) = token.approval_above
            && amount > above
        {
            let detail = format!("{amount} of {} is above {above}: somebody else must approve it", token.name);
            allowed.approval.get_or_insert_with(|| policy.approval("tokens", detail));
        }
        allowed.spends.push(Spend { asset: Asset::Token(*contract), amount, windows: token.windows.clone() });
    }
    Ok(allowed)
}
