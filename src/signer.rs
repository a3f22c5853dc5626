//! `keygate signer`, which runs it, and what goes with it

use std::io::Read;
use std::process::ExitCode;

use keygate_config::TokenHash;

use crate::output::{self, Failed};
use crate::{ConfigFile, check_policy, doctor, run};

/// More is no token.
const LONGEST: u64 = 64 << 10;

/// Without a command, the signer runs.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(flatten)]
    file: ConfigFile,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Read a bearer token from standard input, and print its hash as `token_file` takes it; `token_sha256` takes
    /// what is behind the colon.
    HashToken,
    /// Say what a policy would say of a request, by the file alone: no key is asked, nothing is signed or counted.
    ///
    /// Exit codes: 0 allowed, 1 denied, 2 wrong usage, which a file or a request is that is not right.
    CheckPolicy(check_policy::Args),
    /// Check credentials, keys, permissions, ledger, clock and tokens, and say what to do.
    Doctor(doctor::Args),
    /// Print the OpenAPI document of the signer's API.
    Openapi,
}

pub fn signer(args: &Args) -> Result<ExitCode, Failed> {
    match &args.command {
        None => run::signer(&args.file.path)?,
        Some(Command::HashToken) => hash_token()?,
        Some(Command::Openapi) => output::json(&keygate_signer::openapi())?,
        Some(Command::Doctor(args)) => doctor::doctor(args)?,
        Some(Command::CheckPolicy(args)) => return Ok(check_policy::check_policy(args)),
    }
    Ok(ExitCode::SUCCESS)
}

fn hash_token() -> Result<(), Failed> {
    let mut token = String::new();
    std::io::stdin().take(LONGEST).read_to_string(&mut token)?;
    output::line(TokenHash::of_line(&token)?.line());
    Ok(())
}
