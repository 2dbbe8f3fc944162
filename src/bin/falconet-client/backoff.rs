//! How long to wait before the next attempt.

use std::time::Duration;

use rustix::rand::{GetRandomFlags, getrandom};

/// Exponential backoff with full jitter: any time from nothing to a ceiling that doubles with each
/// attempt, so that the clients of a server that comes back do not all come back at once.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// How long to wait this time.
    pub(crate) fn next_delay(&mut self) -> Duration {
        let mut random = [0xff; 8];
        // Without randomness it is the ceiling.
        let _ = getrandom(&mut random, GetRandomFlags::empty());
        self.next_ceiling().mul_f64(u64::from_ne_bytes(random) as f64 / u64::MAX as f64)
    }

    /// Begins anew if a connection lasted so long that it was a good one.
    pub(crate) fn note_connection(&mut self, lasted: Duration) {
        if lasted >= GOOD_AGE {
            self.reset();
        }
    }

    /// Begins anew.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }

    fn next_ceiling(&mut self) -> Duration {
        let ceiling = BASE.saturating_mul(1 << self.attempts.min(16)).min(CAP);
        self.attempts = self.attempts.saturating_add(1);
        ceiling
    }
}

/// The first attempt comes within this.
const BASE: Duration = Duration::from_millis(500);
/// No attempt comes later than this.
const CAP: Duration = Duration::from_secs(30);
/// A connection that lasted this long was a good one.
const GOOD_AGE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_the_cap_and_begins_anew() {
        let mut backoff = Backoff::default();
        let ceilings: Vec<u128> = (0..8).map(|_| backoff.next_ceiling().as_millis()).collect();
        assert_eq!(ceilings, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
        backoff.attempts = u32::MAX;
        assert_eq!(backoff.next_ceiling(), CAP);
        backoff.note_connection(GOOD_AGE / 2);
        assert_eq!(backoff.next_ceiling(), CAP);
        backoff.note_connection(GOOD_AGE);
        assert_eq!(backoff.next_ceiling(), BASE);
    }

    #[test]
    fn the_delay_is_anywhere_below_the_ceiling() {
        let delays: Vec<Duration> = (0..64).map(|_| Backoff::default().next_delay()).collect();
        assert!(delays.iter().all(|delay| *delay <= BASE));
        assert!(delays.iter().any(|delay| *delay < BASE / 2));
        assert!(delays.iter().any(|delay| *delay > BASE / 2));
    }
}
