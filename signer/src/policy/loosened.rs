//! By what a policy allows more than another.

use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::Address;
use keygate_config::{Hours, units::Rate};

use super::{Policy, Token, Window, daily};

/// Names each field by which `new` allows more than `old`, or might: of none, nothing is allowed that was not. What a
/// policy is called is no part of that, though what is spent is counted under its name.
#[must_use]
pub fn loosened(old: &Policy, new: &Policy) -> Vec<String> {
    let all = |policy: &Policy| -> Vec<Window> {
        policy.daily_value.map(daily).into_iter().chain(policy.windows.iter().cloned()).collect()
    };
    let (windows, old_daily) = (all(new), old.daily_value.map(daily).into_iter().collect::<Vec<_>>());
    let replacements =
        |policy: &Policy| policy.replacements.map_or((None, None), |limits| (limits.max, limits.max_fee_bump_percent));
    let ((old_times, old_bump), (times, bump)) = (replacements(old), replacements(new));
    // Where everything may be called, naming a function changes nothing.
    let calls = new
        .calls
        .iter()
        .all(|rule| old.functions.contains(&rule.selector) || old.calls.iter().any(|other| rule.is_within(other)));
    let fields = [
        ("chains", !new.chains.is_subset(&old.chains)),
        ("sign", !new.sign.is_subset(&old.sign)),
        ("to", !within(new.to.as_ref(), old.to.as_ref())),
        ("functions", old.restricts_calls() && !new.functions.is_subset(&old.functions)),
        ("calls", old.restricts_calls() && !calls),
        ("verifying_contracts", old.restricts_calls() && !new.verifying_contracts.is_subset(&old.verifying_contracts)),
        ("delegates", !new.delegates.is_subset(&old.delegates)),
        ("max_value", raised(old.max_value, new.max_value)),
        ("daily_value", !kept(&old_daily, &windows)),
        ("windows", !kept(&old.windows, &windows)),
        ("max_fee", raised(old.max_fee, new.max_fee)),
        ("max_fee_per_gas", raised(old.max_fee_per_gas, new.max_fee_per_gas)),
        ("max_priority_fee_per_gas", raised(old.max_priority_fee_per_gas, new.max_priority_fee_per_gas)),
        ("max_fee_per_blob_gas", raised(old.max_fee_per_blob_gas, new.max_fee_per_blob_gas)),
        ("max_gas", raised(old.max_gas, new.max_gas)),
        ("rate", faster(old.rate, new.rate)),
        ("hours", longer(old.hours.as_deref(), new.hours.as_deref())),
        ("replacements", raised(old_times, times) || raised(old_bump, bump)),
        (
            "require_approval",
            raised(old.approval_above, new.approval_above)
                || (asks(old) && !new.approvers.is_subset(&old.approvers))
                || (asks(old) && new.approval_expires > old.approval_expires),
        ),
        ("allow_nonce", new.allow_nonce && !old.allow_nonce),
        ("allow_contract_creation", new.allow_contract_creation && !old.allow_contract_creation),
    ];
    let fields = fields.into_iter().filter(|(_, loosened)| *loosened).map(|(name, _)| name.to_owned());
    fields.chain(tokens(old.tokens.as_ref(), new.tokens.as_ref())).collect()
}

fn tokens(old: Option<&BTreeMap<Address, Token>>, new: Option<&BTreeMap<Address, Token>>) -> Vec<String> {
    let (old, new) = match (old, new) {
        (None, _) => return Vec::new(),
        (Some(_), None) => return vec!["tokens".to_owned()],
        (Some(old), Some(new)) => (old, new),
    };
    let mut found = Vec::new();
    for (contract, new) in new {
        let Some(old) = old.get(contract) else {
            found.push(format!("tokens.{}", new.name));
            continue;
        };
        let fields = [
            ("max_amount", raised(old.max_amount, new.max_amount)),
            ("windows", !kept(&old.windows, &new.windows)),
            ("recipients", !within(new.recipients.as_ref(), old.recipients.as_ref())),
            ("approval_above", raised(old.approval_above, new.approval_above)),
        ];
        let fields = fields.into_iter().filter(|(_, loosened)| *loosened);
        found.extend(fields.map(|(field, _)| format!("tokens.{}.{field}", new.name)));
    }
    found
}

/// Whether anything must be approved.
fn asks(policy: &Policy) -> bool {
    let mut tokens = policy.tokens.iter().flatten();
    policy.approval_above.is_some() || tokens.any(|(_, token)| token.approval_above.is_some())
}

fn raised<T: Ord>(old: Option<T>, new: Option<T>) -> bool {
    old.is_some_and(|old| new.is_none_or(|new| new > old))
}

fn within(new: Option<&BTreeSet<Address>>, old: Option<&BTreeSet<Address>>) -> bool {
    old.is_none_or(|old| new.is_some_and(|new| new.is_subset(old)))
}

/// Whether each window still holds, by one that is as long or longer and has no more room.
fn kept(old: &[Window], new: &[Window]) -> bool {
    old.iter().all(|old| new.iter().any(|new| new.period >= old.period && new.max <= old.max))
}

/// By more at once, or by more in the long run.
fn faster(old: Option<Rate>, new: Option<Rate>) -> bool {
    let Some(old) = old else { return false };
    new.is_none_or(|new| {
        // 32 bits times 366 days of nanoseconds.
        let product = |count: u32, per: std::time::Duration| u128::from(count) * per.as_nanos();
        new.count > old.count || product(new.count, old.per) > product(old.count, new.per)
    })
}

fn longer(old: Option<&[Hours]>, new: Option<&[Hours]>) -> bool {
    let Some(old) = old else { return false };
    let contain = |hours: &[Hours], minute| hours.iter().any(|hours| hours.contain(minute));
    (0..Hours::WEEK).any(|minute| !contain(old, minute) && new.is_none_or(|new| contain(new, minute)))
}
