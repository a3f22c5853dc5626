//! `keygate`: the command line. One file a subcommand; what they do is in the libraries.

mod admin;
mod audit;
mod check;
mod check_policy;
mod completions;
mod demo;
mod doctor;
mod keys;
mod output;
mod process;
mod run;
mod schema;
mod signer;
mod supervise;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// An edge gateway with a signing core.
///
/// Exit codes: 0 done, 1 refused or failed, 2 wrong usage.
#[derive(Parser)]
#[command(name = "keygate", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// The configuration file.
#[derive(clap::Args)]
struct ConfigFile {
    /// The configuration file.
    #[arg(short = 'c', long = "config", value_name = "FILE", default_value = "keygate.toml")]
    path: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// Start everything on loopback, and print what to try.
    Demo(demo::Args),
    /// Run gateway and signer, as the file configures: the signer as a child process.
    Run(ConfigFile),
    /// Run the gateway.
    Gateway(ConfigFile),
    /// Run the signer, or help with it.
    Signer(signer::Args),
    /// Validate the file and everything it refers to.
    Check(check::Args),
    /// Have the running gateway, or the signer if there is no gateway, read its file again.
    Reload(admin::Target),
    /// Show what the running gateway, or the signer if there is no gateway, does.
    Status(admin::Target),
    /// Show the running gateway's routes and weights.
    Routes(admin::Target),
    /// Show the running gateway's certificates.
    Certs(admin::Target),
    /// Show or set a route's live weights.
    #[command(subcommand)]
    Weights(admin::Weights),
    /// Show the signer's keys and their addresses.
    Keys(keys::Args),
    /// Check or print the signer's audit trail, while it runs or not.
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Print the JSON Schema of the configuration file.
    Schema,
    /// Print completions for a shell.
    Completions(completions::Args),
}

fn main() -> ExitCode {
    // Before anything else can install another: only aws-lc-rs has X25519MLKEM768.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let done = match Cli::parse().command {
        Command::Demo(args) => demo::demo(&args),
        Command::Run(file) => run::run(&file.path),
        Command::Gateway(file) => run::gateway(&file.path),
        Command::Signer(args) => match signer::signer(&args) {
            Ok(code) => return code,
            Err(failed) => Err(failed),
        },
        Command::Check(args) => check::check(&args),
        Command::Reload(target) => admin::reload(&target),
        Command::Status(target) => admin::status(&target),
        Command::Routes(target) => admin::routes(&target),
        Command::Certs(target) => admin::certs(&target),
        Command::Weights(weights) => admin::weights(&weights),
        Command::Keys(args) => keys::keys(&args),
        Command::Audit(command) => return audit::audit(&command),
        Command::Schema => schema::schema(),
        Command::Completions(args) => completions::completions(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(output::Failed(Some(why))) => {
            eprintln!("keygate: {why}");
            ExitCode::FAILURE
        }
        Err(output::Failed(None)) => ExitCode::FAILURE,
    }
}
