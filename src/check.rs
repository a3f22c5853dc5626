//! `keygate check`

use std::time::SystemTime;

use keygate_config::{Diagnostic, Diagnostics, Loaded, Severity, files};

use crate::ConfigFile;
use crate::output::{self, Failed};
use crate::process;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    file: ConfigFile,
    /// Print findings as JSON.
    #[arg(long)]
    json: bool,
}

pub fn check(args: &Args) -> Result<(), Failed> {
    let found = match keygate_config::load(&args.file.path) {
        Err(found) => found,
        Ok(loaded) => {
            let mut all = loaded.warnings.found.clone();
            all.extend(files::check(&loaded, SystemTime::now()));
            if all.iter().all(|found| found.severity == Severity::Warning) {
                all.extend(starts(&loaded)?);
            }
            Diagnostics::new(loaded.source, all)
        }
    };
    if args.json {
        output::json(&found.json())?;
    } else {
        output::diagnostics(&found);
    }
    let (errors, warnings) = found.count();
    let plural = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let summary = format!("{}: {}, {}", args.file.path.display(), plural(errors, "error"), plural(warnings, "warning"));
    match (errors, args.json) {
        (0, false) if warnings == 0 => output::line(format!("{}: ok", args.file.path.display())),
        (0, false) => output::line(summary),
        (0, true) => {}
        (_, true) => return Err(Failed(None)),
        (_, false) => return Err(Failed(Some(summary))),
    }
    Ok(())
}

/// What gateway and signer would refuse to start with. KMS is not asked: whoever checks need not be let near its keys.
fn starts(loaded: &Loaded) -> Result<Vec<Diagnostic>, Failed> {
    let mut found = Vec::new();
    if !loaded.config.listeners.is_empty() {
        found.extend(keygate_gateway::check(loaded.clone()).err().map(|error| Diagnostic::error(error.to_string())));
    }
    if let Some(signer) = &loaded.config.signer {
        keygate_signer::harden()?;
        let mut local = signer.clone();
        local.keys.retain(|_, key| key.local.is_some());
        let keys = process::runtime()?.block_on(keygate_signer::load_keys(&local));
        found.extend(keys.err().map(|error| key_error(signer, &error)));
    }
    Ok(found)
}

/// What is wrong with a key, where the file has it.
fn key_error(signer: &keygate_config::Signer, error: &keygate_signer::StartError) -> Diagnostic {
    use keygate_signer::StartError::{Key, SameKey};
    let what = Diagnostic::error(error.to_string());
    let (Key { name, .. } | SameKey { name, .. }) = error else { return what };
    match signer.keys.get(name) {
        Some(key) => what.at(&key.span),
        None => what,
    }
}
