//! How often something may happen, and how often it has.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// So many times a second, and so many at once after a rest. One for all whom it limits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    epoch: Instant,
    interval_ns: u64,
    burst_ns: u64,
}

/// How far one of them has used its share: the moment, in nanoseconds since the rate's epoch, when it
/// is whole again (the generic cell rate algorithm, ITU-T I.371).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pace(u64);

impl Rate {
    /// A rate of so many a second, and as many at once, that counts time from `epoch`; what comes before
    /// that counts as then.
    pub(crate) fn new(per_second: NonZeroU32, epoch: Instant) -> Self {
        Self::with_burst(per_second, per_second, epoch)
    }

    /// The same, with so many at once.
    pub(crate) fn with_burst(per_second: NonZeroU32, burst: NonZeroU32, epoch: Instant) -> Self {
        let interval_ns = SECOND_NS / u64::from(per_second.get());
        Self { epoch, interval_ns, burst_ns: interval_ns * u64::from(burst.get()) }
    }

    /// Lets it happen once more, or says after how long it may.
    ///
    /// # Errors
    /// How long to wait. What is refused uses up nothing.
    pub(crate) fn admit(&self, pace: &mut Pace, now: Instant) -> Result<(), Duration> {
        let now_ns = self.since_epoch(now);
        let whole_ns = pace.0.max(now_ns).saturating_add(self.interval_ns);
        match whole_ns.saturating_sub(self.burst_ns).checked_sub(now_ns) {
            None | Some(0) => {
                pace.0 = whole_ns;
                Ok(())
            }
            Some(wait_ns) => Err(Duration::from_nanos(wait_ns)),
        }
    }

    /// Whether `pace` is as if nothing had ever happened.
    pub(crate) fn is_rested(&self, pace: Pace, now: Instant) -> bool {
        pace.0 <= self.since_epoch(now)
    }

    fn since_epoch(&self, now: Instant) -> u64 {
        // Beyond five centuries the rate is no longer our concern.
        u64::try_from(now.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX)
    }
}

const SECOND_NS: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_second: u32) -> (Rate, Instant) {
        let epoch = Instant::now();
        (Rate::new(NonZeroU32::new(per_second).unwrap(), epoch), epoch)
    }

    #[test]
    fn a_pace_is_eight_bytes() {
        assert_eq!(size_of::<Pace>(), 8);
    }

    #[test]
    fn a_seconds_worth_may_come_at_once_and_then_one_at_a_time() {
        let (rate, start) = rate(10);
        let mut pace = Pace::default();
        for _ in 0..10 {
            assert_eq!(rate.admit(&mut pace, start), Ok(()));
        }
        let tenth = Duration::from_millis(100);
        assert_eq!(rate.admit(&mut pace, start), Err(tenth));
        assert_eq!(rate.admit(&mut pace, start + tenth / 2), Err(tenth / 2));
        assert_eq!(rate.admit(&mut pace, start + tenth), Ok(()), "asking uses up nothing");
        assert_eq!(rate.admit(&mut pace, start + tenth), Err(tenth));
    }

    #[test]
    fn rest_gives_back_a_seconds_worth_and_no_more() {
        let (rate, start) = rate(5);
        let mut pace = Pace::default();
        let late = start + Duration::from_secs(3600);
        assert_eq!((0..100).filter(|_| rate.admit(&mut pace, late).is_ok()).count(), 5);
        assert!(!rate.is_rested(pace, late));
        assert!(rate.is_rested(pace, late + Duration::from_secs(1)));
    }

    #[test]
    fn over_a_long_time_it_is_the_rate() {
        for per_second in [1, 3, 1000, 1_000_000, u32::MAX] {
            let (rate, start) = rate(per_second);
            let mut pace = Pace::default();
            let times = |elapsed_us: u64| start + Duration::from_micros(elapsed_us);
            let asked = (0..10_000_000_u64).step_by(100);
            let admitted = asked.filter(|us| rate.admit(&mut pace, times(*us)).is_ok()).count();
            let expected = (u64::from(per_second) * 11).min(100_000);
            assert!((admitted as u64).abs_diff(expected) <= 1, "{per_second}: {admitted}");
        }
    }

    #[test]
    fn a_clock_before_the_epoch_is_taken_for_the_epoch() {
        let later = Instant::now() + Duration::from_secs(5);
        let rate = Rate::new(NonZeroU32::MIN, later);
        let mut pace = Pace::default();
        assert_eq!(rate.admit(&mut pace, later - Duration::from_secs(5)), Ok(()));
        assert!(rate.admit(&mut pace, later).is_err());
    }
}
