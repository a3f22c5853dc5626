//! `keygate completions`

use clap::CommandFactory;
use clap_complete::Shell;

use crate::Cli;
use crate::output::Failed;

#[derive(clap::Args)]
pub struct Args {
    /// The shell.
    shell: Shell,
}

pub fn completions(args: &Args) -> Result<(), Failed> {
    clap_complete::generate(args.shell, &mut Cli::command(), "keygate", &mut std::io::stdout());
    Ok(())
}
