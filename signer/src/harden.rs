use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

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
