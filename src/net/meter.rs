//! What the loop counts: bytes, and how long its turns take.

use std::cell::Cell;
use std::time::Duration;

use crate::counters::Count;

/// The counts of one reactor.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    /// Bytes read from sockets, of everything that came.
    pub(crate) received_bytes: Count,
    /// Bytes the sockets took.
    pub(crate) sent_bytes: Count,
    /// Times that descriptors had run out for a peer.
    pub(crate) files_lacked: Count,
    pub(crate) turns: Turns,
}

/// How long the loop's turns took, each from the end of one wait for events to the next wait: what came
/// meanwhile has waited as long at most.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// One for each bound, and one for what is longer.
    buckets: [Count; BOUNDS.len() + 1],
    total_ns: Count,
    worst_ns: Cell<u64>,
}

impl Turns {
    /// Counts a turn.
    pub(crate) fn add(&self, duration: Duration) {
        // 584 years of nanoseconds fit.
        let nanoseconds = duration.as_nanos() as u64;
        let bucket = BOUNDS.iter().position(|(bound, _)| nanoseconds <= *bound);
        self.buckets[bucket.unwrap_or(BOUNDS.len())].add(1);
        self.total_ns.add(nanoseconds);
        self.worst_ns.set(self.worst_ns.get().max(nanoseconds));
    }

    /// How many took no longer than each bound, in seconds as text; the last has none.
    pub(crate) fn cumulative(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let bounds = BOUNDS.iter().map(|(_, text)| *text).chain(["+Inf"]);
        bounds.zip(&self.buckets).scan(0, |sum, (bound, bucket)| {
            *sum += bucket.total();
            Some((bound, *sum))
        })
    }

    /// How long all took together.
    pub(crate) fn total(&self) -> Duration {
        Duration::from_nanos(self.total_ns.total())
    }

    /// The longest since this was asked last.
    pub(crate) fn take_worst(&self) -> Duration {
        Duration::from_nanos(self.worst_ns.take())
    }
}

/// In nanoseconds, and in seconds as text: from a turn of one message to one that everybody notices.
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
    fn a_turn_is_in_every_bucket_from_its_own_on() {
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
    fn the_worst_turn_is_told_once() {
        let turns = Turns::default();
        turns.add(Duration::from_millis(5));
        turns.add(Duration::from_millis(3));
        assert_eq!(turns.take_worst(), Duration::from_millis(5));
        assert_eq!(turns.take_worst(), Duration::ZERO);
    }
}
