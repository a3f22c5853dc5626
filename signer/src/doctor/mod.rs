//! `keygate signer doctor`: whether everything is there that a signer needs, and what to do if it is not.
//!
//! It changes nothing that lasts, and takes nothing that a running signer has: the ledger is opened for reading, its lock
//! is looked at and not taken. A key is asked for its public key, and for one signature, which nobody sees.

mod chains;
mod files;
mod kms;

use serde::Serialize;

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// It works, and should be looked at.
    Warn,
    /// It would not work.
    Fail,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was checked, such as `key hot-wallet eu-central-1 sign`.
    pub check: String,
    /// How it went.
    pub outcome: Outcome,
    /// What was found; never a secret.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// Findings, in the order of the checks.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn ok(&mut self, check: &str, found: impl Into<String>) {
        self.add(check, Outcome::Ok, found, None);
    }

    fn warn(&mut self, check: &str, found: impl Into<String>, fix: impl Into<String>) {
        self.add(check, Outcome::Warn, found, Some(fix.into()));
    }

    fn fail(&mut self, check: &str, found: impl Into<String>, fix: impl Into<String>) {
        self.add(check, Outcome::Fail, found, Some(fix.into()));
    }

    fn add(&mut self, check: &str, outcome: Outcome, found: impl Into<String>, fix: Option<String>) {
        self.0.push(Finding { check: check.to_owned(), outcome, found: found.into(), fix });
    }
}

/// Checks everything that the file names: credentials, keys, ledger, callers' tokens, chains' nodes.
pub async fn doctor(config: &keygate_config::Signer) -> Vec<Finding> {
    let mut findings = Findings::default();
    kms::identity(config, &mut findings).await;
    for (name, key) in &config.keys {
        match (&key.kms, &key.local) {
            (Some(kms), None) => kms::key(name, kms, key.address.map(|address| address.0), &mut findings).await,
            _ => files::local_key(name, key, config.allow_local_keys, &mut findings).await,
        }
    }
    files::ledger(config, &mut findings);
    files::tokens(config, &mut findings);
    chains::nodes(config, &mut findings).await;
    findings.0
}
