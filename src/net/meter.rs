//! Counters of the event loop: bytes, and the duration of its turns.

use std::cell::Cell;
use std::time::Duration;

use crate::counters::Count;

/// The counters of one reactor.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    /// Bytes read from sockets, TLS and protocol overhead included.
    pub(crate) received_bytes: Count,
    /// Bytes written to sockets, TLS and protocol overhead included.
    pub(crate) sent_bytes: Count,
    /// Accepts that failed because descriptors or memory had run out.
    pub(crate) descriptor_shortages: Count,
    pub(crate) turns: Turns,
}

/// A histogram of the duration of the loop's turns. A turn lasts from the end of one wait for events
/// to the start of the next wait, so an event that arrives in between waits at most one turn.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// One bucket for each bound, and one for longer turns.
    buckets: [Count; BOUNDS.len() + 1],
    total_ns: Count,
    worst_ns: Cell<u64>,
}

impl Turns {
    /// Counts a turn.
    pub(crate) fn add(&self, duration: Duration) {
        // A u64 holds 584 years of nanoseconds.
        let nanoseconds = duration.as_nanos() as u64;
        let bucket = BOUNDS.iter().position(|(bound, _)| nanoseconds <= *bound);
        self.buckets[bucket.unwrap_or(BOUNDS.len())].add(1);
        self.total_ns.add(nanoseconds);
        self.worst_ns.set(self.worst_ns.get().max(nanoseconds));
    }

    /// Returns, for each bound, the number of turns that took no longer. Bounds are in seconds, as
    /// text; the last one is `+Inf`.
    pub(crate) fn cumulative(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let bounds = BOUNDS.iter().map(|(_, text)| *text).chain(["+Inf"]);
        bounds.zip(&self.buckets).scan(0, |sum, (bound, bucket)| {
            *sum += bucket.total();
            Some((bound, *sum))
        })
    }

    /// Returns the total duration of all turns.
    pub(crate) fn total(&self) -> Duration {
        Duration::from_nanos(self.total_ns.total())
    }

    /// Returns the duration of the longest turn since the last call.
    pub(crate) fn take_longest(&self) -> Duration {
        Duration::from_nanos(self.worst_ns.take())
    }
}

/// The bounds of the buckets in nanoseconds, and in seconds as text. The lowest one is about the
/// duration of a turn with one message; the highest one is a delay that every user notices.
const BOUNDS: [(u64, &str); 8] = [
    (100_000, "0.0001"),
    (500_000, "0.0005"),
    (1_000_000, "0.001"),
    (5_000_000, "0.005"),
    (10_000_000, "0.01"),
    (50_000_000, "0.05"),
    (250_000_000, "0.25"),
    (1_000_000_000, "1"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cumulative_buckets_contain_all_shorter_turns() {
        let turns = Turns::default();
        for milliseconds in [0, 1, 7, 7, 2000] {
            turns.add(Duration::from_millis(milliseconds));
        }
        let cumulative: Vec<_> = turns.cumulative().collect();
        let expected = ["0.0001", "0.0005", "0.001", "0.005", "0.01", "0.05", "0.25", "1", "+Inf"];
        assert_eq!(
            cumulative,
            expected.into_iter().zip([1, 1, 2, 2, 4, 4, 4, 4, 5]).collect::<Vec<_>>()
        );
        assert_eq!(turns.total(), Duration::from_millis(2015));
    }

    #[test]
    fn the_longest_turn_is_returned_once() {
        let turns = Turns::default();
        turns.add(Duration::from_millis(5));
        turns.add(Duration::from_millis(3));
        assert_eq!(turns.take_longest(), Duration::from_millis(5));
        assert_eq!(turns.take_longest(), Duration::ZERO);
    }
}
