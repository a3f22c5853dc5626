//! `keygate audit`

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::process::ExitCode;

use keygate_signer::ledger::audit::Head;
use keygate_signer::ledger::{Trail, VerifyError, Whole, verify_export};
use serde_json::json;

use crate::ConfigFile;
use crate::output::{self, Failed};

#[derive(clap::Subcommand)]
pub enum Audit {
    /// See that the audit trail is whole, and that the ledger holds what it says was signed, and nothing else.
    ///
    /// Exit codes: 0 it is, 1 something was changed, 2 it could not be read, or wrong usage.
    Verify(Verify),
    /// Print the audit trail as JSON lines: each entry as it was hashed, with its number and hash.
    Export(Export),
}

#[derive(clap::Args)]
pub struct Verify {
    #[command(flatten)]
    config: ConfigFile,
    /// A head of the trail that was kept elsewhere: it must be in it.
    #[arg(long, value_name = "SEQ:HASH")]
    head: Option<Head>,
    /// A whole export, instead of the ledger: no configuration is read.
    #[arg(long, value_name = "EXPORT")]
    file: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub struct Export {
    #[command(flatten)]
    config: ConfigFile,
    /// The first entry's number.
    #[arg(long, value_name = "SEQ", default_value_t = 1)]
    from: u64,
}

pub fn audit(command: &Audit) -> ExitCode {
    let done = match command {
        Audit::Verify(args) => verify(args),
        Audit::Export(args) => export(args),
    };
    done.unwrap_or_else(|Failed(why)| {
        if let Some(why) = why {
            eprintln!("keygate: {why}");
        }
        // 1 is a verdict: something was changed.
        ExitCode::from(2)
    })
}

fn verify(args: &Verify) -> Result<ExitCode, Failed> {
    let (what, verified) = match &args.file {
        Some(path) => {
            let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
            (path.display().to_string(), verify_export(BufReader::new(file), args.head))
        }
        None => {
            let (what, mut trail) = open(&args.config)?;
            (what, trail.verify(args.head))
        }
    };
    match verified {
        Ok(whole) => {
            if args.json {
                let Whole { head, transactions, statements, refused, summed } = whole;
                output::json(&json!({
                    "whole": true, "head": head.to_string(), "entries": head.seq, "transactions": transactions,
                    "statements": statements, "refused": refused, "summed": summed,
                }))?;
            } else {
                print(&what, args, whole);
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(error @ (VerifyError::Broken(_) | VerifyError::Line(_))) => {
            if args.json {
                output::json(&json!({ "whole": false, "why": error.to_string() }))?;
            } else {
                output::line(format!("{what}: the audit trail was changed"));
                output::line(format!("  {error}"));
            }
            Ok(ExitCode::FAILURE)
        }
        Err(error) => Err(Failed(Some(format!("{what}: {error}")))),
    }
}

fn print(what: &str, args: &Verify, Whole { head, transactions, statements, refused, summed }: Whole) {
    output::line(format!("{what}: the audit trail is whole"));
    output::line(format!("  {} entries, each with the hash of all before it", head.seq));
    let told = format!("{transactions} signed transactions and {statements} other signatures");
    output::line(match &args.file {
        Some(_) => format!("  they tell of {told}; what the ledger holds was not looked at"),
        None => format!("  {told}: those that the ledger holds"),
    });
    output::line(format!("  {refused} requests that were refused or held, {summed} of them in sums"));
    match args.head {
        Some(kept) => output::line(format!("  the head {kept}, which was kept elsewhere, is in it")),
        None => output::line("  without a head that was kept elsewhere, nobody can tell whether its end was cut off"),
    }
    output::line(format!("head {head}"));
}

fn export(args: &Export) -> Result<ExitCode, Failed> {
    let (what, mut trail) = open(&args.config)?;
    let to = std::io::BufWriter::new(std::io::stdout().lock());
    match trail.export(args.from, to) {
        Ok(_) => Ok(ExitCode::SUCCESS),
        Err(error @ VerifyError::Broken(_)) => {
            eprintln!("keygate: {what}: {error}");
            Ok(ExitCode::FAILURE)
        }
        Err(error) => Err(Failed(Some(format!("{what}: {error}")))),
    }
}

/// The ledger that a file names, and what it is called.
fn open(file: &ConfigFile) -> Result<(String, Trail), Failed> {
    let loaded = output::load(&file.path)?;
    let Some(signer) = &loaded.config.signer else {
        return Err(Failed(Some(format!("{} has no [signer]", file.path.display()))));
    };
    let ledger = &signer.ledger.value;
    let trail = Trail::open(ledger).map_err(|error| Failed(Some(format!("ledger {error}"))))?;
    Ok((ledger.to_string(), trail))
}
