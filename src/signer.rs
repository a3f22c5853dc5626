//! `keygate signer`, and what can be asked about it

use clap::Subcommand;

use crate::output::{self, Failed};
use crate::{ConfigFile, run};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    file: ConfigFile,
    #[command(subcommand)]
    query: Option<Query>,
}

#[derive(Subcommand)]
enum Query {
    /// Print the OpenAPI document of the signer's API.
    Openapi,
}

pub fn signer(args: &Args) -> Result<(), Failed> {
    match &args.query {
        None => run::signer(&args.file.path),
        Some(Query::Openapi) => output::json(&keygate_signer::openapi()),
    }
}
