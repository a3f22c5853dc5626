//! Keys in memory stay out of the swap.

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities};

/// Lifts the limit on locked memory, as far as this user may.
pub(super) fn lift_limit() {
    if setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None }).is_err() {
        let maximum = getrlimit(Resource::Memlock).maximum;
        // Up to the hard limit anybody may.
        let _ = setrlimit(Resource::Memlock, Rlimit { current: maximum, maximum });
    }
}

/// Keeps all memory of the process, once it is used, from being swapped out.
///
/// With a limit that holds, memory that is asked for beyond it would be refused, and the process would end: then nothing
/// is locked.
pub(super) fn lock() -> Result<(), String> {
    let above = capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    if let Some(bytes) = getrlimit(Resource::Memlock).current.filter(|_| !above) {
        return Err(format!("the limit on locked memory is {bytes} bytes"));
    }
    let all = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    mlockall(all).map_err(|error| std::io::Error::from(error).to_string())
}
