//! The delay before the next attempt to connect.

use std::time::Duration;

use rustix::rand::{GetRandomFlags, getrandom};

/// Exponential backoff with full jitter: a delay is random between zero and a ceiling that doubles with each
/// attempt. So the clients of a restarted server do not all reconnect at the same time.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// Returns the delay before the next attempt.
    pub(crate) fn next_delay(&mut self) -> Duration {
        let mut random = [0xff; 8];
        // Without random bytes the delay is the ceiling.
        let _ = getrandom(&mut random, GetRandomFlags::empty());
        self.next_ceiling().mul_f64(u64::from_ne_bytes(random) as f64 / u64::MAX as f64)
    }

    /// Resets the ceiling if a connection lasted at least [`STABLE_AGE`].
    pub(crate) fn note_connection(&mut self, lasted: Duration) {
        if lasted >= STABLE_AGE {
            self.reset();
        }
    }

    /// Resets the ceiling.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }

    fn next_ceiling(&mut self) -> Duration {
        let ceiling = BASE.saturating_mul(1 << self.attempts.min(16)).min(CAP);
        self.attempts = self.attempts.saturating_add(1);
        ceiling
    }
}

/// The ceiling of the first delay.
const BASE: Duration = Duration::from_millis(500);
/// The highest ceiling.
const CAP: Duration = Duration::from_secs(30);
/// The age from which a connection counts as stable.
const STABLE_AGE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_the_cap_and_is_reset_by_a_stable_connection() {
        let mut backoff = Backoff::default();
        let ceilings: Vec<u128> = (0..8).map(|_| backoff.next_ceiling().as_millis()).collect();
        assert_eq!(ceilings, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
        backoff.attempts = u32::MAX;
        assert_eq!(backoff.next_ceiling(), CAP);
        backoff.note_connection(STABLE_AGE / 2);
        assert_eq!(backoff.next_ceiling(), CAP);
        backoff.note_connection(STABLE_AGE);
        assert_eq!(backoff.next_ceiling(), BASE);
    }

    #[test]
    fn delays_are_spread_below_the_ceiling() {
        let delays: Vec<Duration> = (0..64).map(|_| Backoff::default().next_delay()).collect();
        assert!(delays.iter().all(|delay| *delay <= BASE));
        assert!(delays.iter().any(|delay| *delay < BASE / 2));
        assert!(delays.iter().any(|delay| *delay > BASE / 2));
    }
}
