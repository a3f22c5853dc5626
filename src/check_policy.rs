//! `keygate signer check-policy`

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use keygate_config::Signable;
use keygate_signer::policy::{Allowed, Asset, Spend, Window};
use keygate_signer::transaction::MAX_BODY_WITH_BLOBS;
use keygate_signer::{Question, Verdict};
use serde_json::{Value, json};

use crate::ConfigFile;
use crate::output::{self, Failed};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    file: ConfigFile,
    /// The caller who asks, by its name in the file.
    #[arg(long, value_name = "NAME")]
    caller: String,
    /// The key to sign with, by its name in the file.
    #[arg(long, value_name = "NAME")]
    key: String,
    /// What the request is.
    #[arg(long, value_enum, default_value_t = Kind::Transaction)]
    kind: Kind,
    /// When it is asked for, such as 2026-03-01T09:30:00Z; left out, now.
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<SystemTime>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// A file with the request's body, as the API takes it; - is standard input.
    #[arg(value_name = "REQUEST")]
    request: PathBuf,
}

fn time(text: &str) -> Result<SystemTime, &'static str> {
    humantime::parse_rfc3339(text).map_err(|_| "expected a time in UTC, such as 2026-03-01T09:30:00Z")
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Kind {
    Transaction,
    TypedData,
    Message,
    Authorization,
}

pub fn check_policy(args: &Args) -> ExitCode {
    match judge(args) {
        Ok(verdict) => {
            if args.json {
                output::line(format!("{:#}", in_json(&verdict)));
            } else {
                print(&verdict);
            }
            if verdict.judged.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(Failed(why)) => {
            if let Some(why) = why {
                eprintln!("keygate: {why}");
            }
            // 1 is a verdict: denied.
            ExitCode::from(2)
        }
    }
}

fn judge(args: &Args) -> Result<Verdict, Failed> {
    let loaded = output::load(&args.file.path)?;
    let Some(signer) = &loaded.config.signer else {
        return Err(Failed(Some(format!("{} has no [signer]", args.file.path.display()))));
    };
    let request = read(&args.request).map_err(|error| format!("{}: {error}", args.request.display()))?;
    let question = Question {
        caller: &args.caller,
        key: &args.key,
        kind: match args.kind {
            Kind::Transaction => Signable::Transaction,
            Kind::TypedData => Signable::TypedData,
            Kind::Message => Signable::Message,
            Kind::Authorization => Signable::Authorization,
        },
        request: &request,
        now: args.at.unwrap_or_else(SystemTime::now),
    };
    Ok(keygate_signer::check_policy(signer, question)?)
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut request = Vec::new();
    // What is longer is refused for it.
    let most = MAX_BODY_WITH_BLOBS as u64 + 1;
    if path == Path::new("-") {
        std::io::stdin().take(most).read_to_end(&mut request)?;
    } else {
        File::open(path)?.take(most).read_to_end(&mut request)?;
    }
    Ok(request)
}

fn print(verdict: &Verdict) {
    let by = verdict.policy.as_ref().map(|policy| format!(" by policy {policy:?}")).unwrap_or_default();
    let Allowed { spends, approval } = match &verdict.judged {
        Ok(allowed) => allowed,
        Err(denied) => return output::line(format!("denied{by}: {denied}")),
    };
    output::line(format!("allowed{by}, as far as the file says"));
    for Spend { asset, amount, windows } in spends {
        output::line(format!("  counts {amount} {asset}"));
        for Window { rule, period, max } in windows {
            output::line(format!("    {rule}: at most {max} in {}", humantime::format_duration(*period)));
        }
    }
    if let Some(approval) = approval {
        output::line(format!("  held until approved by one of {}", verdict.approvers.join(", ")));
        output::line(format!("    {}: {}", approval.rule, approval.detail));
    }
    if let Some(rate) = verdict.rate {
        output::line(format!("  rate: at most {} in {}", rate.count, humantime::format_duration(rate.per)));
    }
}

fn in_json(verdict: &Verdict) -> Value {
    let mut body = match &verdict.judged {
        Err(denied) => json!({ "verdict": "denied", "rule": denied.rule, "detail": denied.detail }),
        Ok(Allowed { spends, approval }) => {
            let window = |window: &Window| json!({ "rule": window.rule, "seconds": window.period.as_secs_f64(), "max": window.max.to_string() });
            let spend = |spend: &Spend| {
                let asset = match spend.asset {
                    Asset::Native => "native".to_owned(),
                    Asset::Token(contract) => contract.to_string(),
                };
                let windows: Vec<_> = spend.windows.iter().map(window).collect();
                json!({ "asset": asset, "amount": spend.amount.to_string(), "windows": windows })
            };
            let approval = approval
                .as_ref()
                .map(|approval| json!({ "rule": approval.rule, "detail": approval.detail, "from": verdict.approvers }));
            let spends: Vec<_> = spends.iter().map(spend).collect();
            json!({ "verdict": "allowed", "spends": spends, "approval": approval })
        }
    };
    body["policy"] = json!(verdict.policy);
    body["rate"] = json!(verdict.rate.map(|rate| json!({ "count": rate.count, "seconds": rate.per.as_secs_f64() })));
    body
}
