//! What keeps the process' secrets in, and its hands off everything else.

mod files;
mod memory;
mod user;

use std::io;
use std::path::Path;

use landlock::RulesetStatus;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

use keygate_config::Ledger;
pub use user::UserError;
pub(crate) use user::user;

/// Keeps secrets of this process out of core dumps, and other processes of its user out of its memory.
///
/// Sets `RLIMIT_CORE` to 0, which children inherit, and `PR_SET_DUMPABLE` to 0, which also forbids `ptrace`.
///
/// # Errors
/// The operating system's word.
pub fn harden() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Gives up what a signer does not need once its sockets are bound: root, if the file names another user; memory that
/// may be swapped out, where keys are local; all files that the configuration at `file` does not name (Landlock), and
/// new privileges by starting another program.
///
/// To be called before any thread is started: the kernel holds those to it that are started afterwards. It says in the
/// log what is in force; what the system does not have is done without.
///
/// # Errors
/// [`UserError`]: the signer must not go on as another user than the file says.
pub fn confine(config: &keygate_config::Signer, file: &Path) -> Result<(), UserError> {
    let local = config.keys.values().any(|key| key.local.is_some());
    if local {
        // While it is root's to do.
        memory::lift_limit();
    }
    if let Some(user) = user(config)? {
        user::become_user(&user)?;
        // The kernel forgets it with the user.
        harden().map_err(|error| UserError::System(user.name.clone(), error))?;
    }
    let locked = local.then(memory::lock);
    if let Some(Err(why)) = &locked {
        tracing::warn!(why, "memory is not locked: a local key may get to the swap. Set LimitMEMLOCK=infinity");
    }
    let locked = locked.map(|locked| locked.is_ok());
    let files = confine_files(config, file);
    let user = nix::unistd::geteuid().as_raw();
    tracing::info!(uid = user, memory_locked = locked, landlock = files, "confined: no core dumps, no ptrace");
    Ok(())
}

/// Answers how far files are restricted.
fn confine_files(config: &keygate_config::Signer, file: &Path) -> &'static str {
    // What is made at the start must be there to be allowed. If it cannot be made, the ledger says so.
    if let Ledger::Sqlite(path) = &config.ledger.value {
        let _ = path.parent().map(std::fs::create_dir_all);
    }
    let allowed = match files::allowed(config, file, files::variable, files::text) {
        Ok(allowed) => allowed,
        Err(file) => {
            let file = file.display();
            tracing::warn!(%file, "files are not restricted: a credential_process would be held to the same ones");
            return "none";
        }
    };
    match files::restrict(&allowed).map(|status| status.ruleset) {
        Ok(RulesetStatus::FullyEnforced) => "full",
        Ok(RulesetStatus::PartiallyEnforced) => "partial",
        Ok(RulesetStatus::NotEnforced) => "none",
        Err(error) => {
            tracing::warn!(%error, "files are not restricted");
            "none"
        }
    }
}
