//! What keeps the process' secrets in, and its hands off everything else.

mod user;

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

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

/// Gives up what a signer does not need once its sockets are bound: root, if the file names another user.
///
/// # Errors
/// [`UserError`]: the signer must not go on as another user than the file says.
pub fn confine(config: &keygate_config::Signer) -> Result<(), UserError> {
    if let Some(user) = user(config)? {
        user::become_user(&user)?;
        // The kernel forgets it with the user.
        harden().map_err(|error| UserError::System(user.name.clone(), error))?;
    }
    Ok(())
}
