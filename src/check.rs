//! `keygate check`

use std::time::SystemTime;

use keygate_config::{Diagnostics, files};

use crate::ConfigFile;
use crate::output::{self, Failed};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    file: ConfigFile,
    /// Print findings as JSON.
    #[arg(long)]
    json: bool,
}

pub fn check(args: &Args) -> Result<(), Failed> {
    let found = match keygate_config::load(&args.file.path) {
        Err(found) => found,
        Ok(loaded) => {
            let mut all = loaded.warnings.found.clone();
            all.extend(files::check(&loaded, SystemTime::now()));
            Diagnostics::new(loaded.source, all)
        }
    };
    if args.json {
        output::json(&found.json())?;
    } else {
        output::diagnostics(&found);
    }
    let (errors, warnings) = found.count();
    let plural = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let summary = format!("{}: {}, {}", args.file.path.display(), plural(errors, "error"), plural(warnings, "warning"));
    match (errors, args.json) {
        (0, false) if warnings == 0 => output::line(format!("{}: ok", args.file.path.display())),
        (0, false) => output::line(summary),
        (0, true) => {}
        (_, true) => return Err(Failed(None)),
        (_, false) => return Err(Failed(Some(summary))),
    }
    Ok(())
}
