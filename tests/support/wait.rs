use std::time::{Duration, Instant};

/// Far longer than anything here takes, so that a busy machine fails no test.
pub const SOON: Duration = Duration::from_secs(20);

/// Asks `condition` until it has an answer.
///
/// # Panics
/// When there is none `within` that time; the message is `what`.
#[track_caller]
pub fn wait_until<T>(within: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(answer) = condition() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {within:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
