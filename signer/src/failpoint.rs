//! Places where a test has this process end, as `kill -9` would have it: to see what the next start makes of it.

/// Ends the process, if `KEYGATE_FAILPOINT` in its environment is this name.
#[cfg(debug_assertions)]
pub(crate) fn failpoint(name: &str) {
    use std::sync::LazyLock;
    static NAMED: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("KEYGATE_FAILPOINT").ok());
    if NAMED.as_deref() == Some(name) {
        std::process::abort();
    }
}

/// There are none in a release.
#[cfg(not(debug_assertions))]
pub(crate) const fn failpoint(_: &str) {}
