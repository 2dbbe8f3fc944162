//! The delay before the next attempt to connect.

use std::time::Duration;

use rustix::rand::{GetRandomFlags, getrandom};

/// Exponential backoff with full jitter: a delay is random between zero and a ceiling that doubles with each
/// attempt. So the clients of a restarted server do not all reconnect at the same time.
#[derive(Debug)]
pub(crate) struct Backoff {
    limit: Option<u32>,
    retries: u32,
}

impl Backoff {
    /// Creates a backoff that allows at most `limit` retries in a row; `None` is no limit.
    pub(crate) fn new(limit: Option<u32>) -> Self {
        Self { limit, retries: 0 }
    }

    /// Returns the delay before the next retry, which is at least `minimum`, or `None` if no retry is left.
    pub(crate) fn next_delay(&mut self, minimum: Duration) -> Option<Duration> {
        if self.limit.is_some_and(|limit| self.retries >= limit) {
            return None;
        }
        let mut random = [0xff; 8];
        // Without random bytes the delay is the ceiling.
        let _ = getrandom(&mut random, GetRandomFlags::empty());
        let fraction = u64::from_ne_bytes(random) as f64 / u64::MAX as f64;
        Some(self.next_ceiling().mul_f64(fraction).max(minimum))
    }

    /// Returns the number of retries since the last reset.
    pub(crate) fn retries(&self) -> u32 {
        self.retries
    }

    /// Resets the backoff if a connection lasted at least [`STABLE_AGE`].
    pub(crate) fn note_connection(&mut self, lasted: Duration) {
        if lasted >= STABLE_AGE {
            self.reset();
        }
    }

    /// Resets the ceiling and the number of retries.
    pub(crate) fn reset(&mut self) {
        self.retries = 0;
    }

    fn next_ceiling(&mut self) -> Duration {
        let ceiling = BASE.saturating_mul(1 << self.retries.min(16)).min(CAP);
        self.retries = self.retries.saturating_add(1);
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
        let mut backoff = Backoff::new(None);
        let ceilings: Vec<u128> = (0..8).map(|_| backoff.next_ceiling().as_millis()).collect();
        assert_eq!(ceilings, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
        backoff.retries = u32::MAX;
        assert_eq!(backoff.next_ceiling(), CAP);
        backoff.note_connection(STABLE_AGE / 2);
        assert_eq!(backoff.next_ceiling(), CAP);
        backoff.note_connection(STABLE_AGE);
        assert_eq!(backoff.next_ceiling(), BASE);
    }

    #[test]
    fn delays_are_spread_below_the_ceiling() {
        let delay = |_| Backoff::new(None).next_delay(Duration::ZERO).unwrap();
        let delays: Vec<Duration> = (0..64).map(delay).collect();
        assert!(delays.iter().all(|delay| *delay <= BASE));
        assert!(delays.iter().any(|delay| *delay < BASE / 2));
        assert!(delays.iter().any(|delay| *delay > BASE / 2));
    }

    #[test]
    fn a_delay_is_at_least_the_one_that_the_server_asks_for() {
        let minimum = 2 * BASE;
        assert_eq!(Backoff::new(None).next_delay(minimum), Some(minimum));
    }

    #[test]
    fn retries_are_limited_until_a_reset() {
        let mut backoff = Backoff::new(Some(2));
        for _ in 0..2 {
            assert!(backoff.next_delay(Duration::ZERO).is_some());
            assert!(backoff.next_delay(Duration::ZERO).is_some());
            assert_eq!((backoff.next_delay(Duration::ZERO), backoff.retries()), (None, 2));
            backoff.reset();
        }
        assert_eq!(Backoff::new(Some(0)).next_delay(Duration::ZERO), None);
    }
}
