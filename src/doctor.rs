//! `keygate signer doctor`

use keygate_signer::doctor::{Outcome, doctor as examine};
use serde_json::json;

use crate::ConfigFile;
use crate::output::{self, Failed};
use crate::process;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    file: ConfigFile,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn doctor(args: &Args) -> Result<(), Failed> {
    process::log("error");
    let loaded = output::load(&args.file.path)?;
    let Some(signer) = &loaded.config.signer else {
        return Err(Failed(Some(format!("{} has no [signer]", args.file.path.display()))));
    };
    keygate_signer::harden()?;
    let findings = process::runtime()?.block_on(examine(signer));
    let count = |outcome| findings.iter().filter(|finding| finding.outcome == outcome).count();
    let (warned, failed) = (count(Outcome::Warn), count(Outcome::Fail));
    if args.json {
        output::json(&json!({ "ok": failed == 0, "findings": findings }))?;
    } else {
        for finding in &findings {
            let outcome = match finding.outcome {
                Outcome::Ok => "ok  ",
                Outcome::Warn => "warn",
                Outcome::Fail => "FAIL",
            };
            output::line(format!("{outcome}  {}: {}", finding.check, finding.found));
            if let Some(fix) = &finding.fix {
                output::line(format!("      -> {fix}"));
            }
        }
        output::line(format!("{} checks: {failed} failed, {warned} to look at", findings.len()));
    }
    if failed == 0 { Ok(()) } else { Err(Failed(None)) }
}
