//! A policy, from what the file says.

use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::U256;
use keygate_config::units::Wei;
use keygate_config::{At, Chain, EthAddress};

use super::{CallRule, Policy, Signable, Token, Window};

impl Policy {
    /// Compiles the policy `name` of the file. A policy that lists no chains allows those that the file names.
    ///
    /// Names of chains that do not exist are left out: that can only allow less. The file's validation reports them.
    #[must_use]
    pub fn new(name: &str, policy: &keygate_config::Policy, chains: &BTreeMap<String, At<Chain>>) -> Self {
        let wei = |amount: Option<Wei>| amount.map(|wei| U256::from(wei.0));
        let price = |amount: Option<Wei>| amount.map(|wei| wei.0);
        let set = |list: &Option<Vec<EthAddress>>| list.iter().flatten().map(|address| address.0).collect();
        let chains = match &policy.chains {
            None => chains.values().map(|chain| chain.id).collect(),
            Some(names) => names.iter().filter_map(|name| chains.get(&name.value)).map(|chain| chain.id).collect(),
        };
        let windows = policy.windows.iter().map(|window| Window {
            rule: "windows",
            period: window.period.0,
            max: U256::from(window.max.0),
        });
        let tokens = policy.tokens.as_ref().map(|tokens| {
            let address = |name, token| keygate_config::Policy::token_address(name, token);
            tokens.iter().filter_map(|(name, token)| Some((address(name, token)?.0, Token::new(name, token)))).collect()
        });
        let approval = policy.require_approval.as_ref();
        Self {
            name: name.to_owned(),
            chains,
            sign: kinds(policy),
            to: policy.to.as_ref().map(|to| to.iter().map(|address| address.0).collect()),
            tokens,
            functions: policy.functions.iter().flatten().map(|function| function.selector).collect(),
            calls: policy.calls.iter().flatten().filter_map(|call| CallRule::new(call)).collect(),
            verifying_contracts: set(&policy.verifying_contracts),
            delegates: set(&policy.delegates),
            max_value: wei(policy.max_value),
            daily_value: wei(policy.daily_value),
            windows: windows.collect(),
            max_fee: wei(policy.max_fee),
            max_fee_per_gas: price(policy.max_fee_per_gas),
            max_priority_fee_per_gas: price(policy.max_priority_fee_per_gas),
            max_fee_per_blob_gas: price(policy.max_fee_per_blob_gas),
            max_gas: policy.max_gas,
            rate: policy.rate,
            hours: policy.hours.as_ref().map(|hours| hours.value.clone()),
            replacements: policy.replacements,
            approval_above: approval.and_then(|approval| wei(approval.above)),
            approval_expires: approval.map(|approval| approval.expires_after.0).unwrap_or_default(),
            approvers: approval.iter().flat_map(|approval| &approval.from).map(|name| name.value.clone()).collect(),
            allow_nonce: policy.allow_nonce,
            allow_contract_creation: policy.allow_contract_creation,
        }
    }
}

fn kinds(policy: &keygate_config::Policy) -> BTreeSet<Signable> {
    if let Some(kinds) = &policy.sign {
        return kinds.iter().copied().collect();
    }
    let mut kinds = BTreeSet::from([Signable::Transaction, Signable::TypedData, Signable::Authorization]);
    // Whom a message lets be paid, nobody can read: where recipients or amounts are limited, it takes its name.
    if policy.to.is_none() && policy.tokens.is_none() {
        kinds.insert(Signable::Message);
    }
    kinds
}
