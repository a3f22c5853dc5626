//! `keygate signer`, which runs it, and what goes with it

use std::io::Read;

use keygate_config::TokenHash;

use crate::output::{self, Failed};
use crate::{ConfigFile, run};

/// More is no token.
const LONGEST: u64 = 64 << 10;

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
}

pub fn signer(args: &Args) -> Result<(), Failed> {
    match args.command {
        None => run::signer(&args.file.path),
        Some(Command::HashToken) => hash_token(),
    }
}

fn hash_token() -> Result<(), Failed> {
    let mut token = String::new();
    std::io::stdin().take(LONGEST).read_to_string(&mut token)?;
    output::line(TokenHash::of_line(&token)?.line());
    Ok(())
}
