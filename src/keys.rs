//! `keygate keys`

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

pub fn keys(args: &Args) -> Result<(), Failed> {
    let loaded = output::load(&args.file.path)?;
    let Some(signer) = &loaded.config.signer else {
        return Err(Failed(Some(format!("{} has no [signer]", args.file.path.display()))));
    };
    keygate_signer::harden()?;
    let keys = process::runtime()?.block_on(keygate_signer::load_keys(signer))?;
    if args.json {
        return output::json(&keys);
    }
    for key in &keys {
        output::line(format!("{} ({})", key.name, key.kind));
        output::line(format!("  address     {}", key.address));
        output::line(format!("  public key  {}", key.public_key));
    }
    Ok(())
}
