//! `keygate signer`

use std::process::ExitCode;

use crate::ConfigFile;
use crate::check_policy;
use crate::output::Failed;
use crate::run;

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
    /// Say what a policy would say of a request, by the file alone: no key is asked, nothing is signed or counted.
    ///
    /// Exit codes: 0 allowed, 1 denied, 2 wrong usage, which a file or a request is that is not right.
    CheckPolicy(check_policy::Args),
}

pub fn signer(args: &Args) -> Result<ExitCode, Failed> {
    match &args.command {
        None => run::signer(&args.file.path).map(|()| ExitCode::SUCCESS),
        Some(Command::CheckPolicy(args)) => Ok(check_policy::check_policy(args)),
    }
}
