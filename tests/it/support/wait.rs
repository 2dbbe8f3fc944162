//! Waiting with a deadline.

use std::time::{Duration, Instant};

/// The limit of every wait. A healthy server needs far less, so only a test that hangs reaches it.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// Polls until `condition` holds, for conditions that no event announces.
///
/// # Panics
///
/// If `condition` does not hold within [`TIMEOUT`].
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !condition() {
        assert!(Instant::now() < deadline, "timed out waiting: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
