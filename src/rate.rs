//! Rate limiting with the generic cell rate algorithm (ITU-T I.371).

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// A rate limit: a number of events per second, and a burst that is allowed at once after an idle time. All
/// limited clients share one `Rate`; each client has its own [`RateState`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    epoch: Instant,
    interval_ns: u64,
    burst_ns: u64,
}

/// The state of one limited client: the time, in nanoseconds since the rate's epoch, from which the full
/// burst is available again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RateState(u64);

impl Rate {
    /// Creates a rate of `per_second` events per second, with a burst of the same number. A time before
    /// `epoch` counts as `epoch`.
    pub(crate) fn new(per_second: NonZeroU32, epoch: Instant) -> Self {
        Self::with_burst(per_second, per_second, epoch)
    }

    /// Creates a rate of `per_second` events per second, with a burst of `burst` events. A time before
    /// `epoch` counts as `epoch`.
    pub(crate) fn with_burst(per_second: NonZeroU32, burst: NonZeroU32, epoch: Instant) -> Self {
        let interval_ns = SECOND_NS / u64::from(per_second.get());
        Self { epoch, interval_ns, burst_ns: interval_ns * u64::from(burst.get()) }
    }

    /// Returns `factor` times this rate, which must not be 0. The burst is the same number of times larger.
    pub(crate) fn times(self, factor: u8) -> Self {
        // The full burst still takes the same time.
        Self { interval_ns: self.interval_ns / u64::from(factor), ..self }
    }

    /// Admits one event at the time `now`.
    ///
    /// # Errors
    /// If the limit is reached, the time until the next event can be admitted. `state` does not change.
    pub(crate) fn admit(&self, state: &mut RateState, now: Instant) -> Result<(), Duration> {
        let (next, wait) = self.next(*state, now);
        if !wait.is_zero() {
            return Err(wait);
        }
        *state = next;
        Ok(())
    }

    /// Reserves the next event for the time at which the limit allows it. Returns the time until then, which
    /// is zero if the event is admitted at once. Returns `None` if it is longer than `longest`; `state` does not
    /// change then.
    pub(crate) fn reserve(
        &self,
        state: &mut RateState,
        now: Instant,
        longest: Duration,
    ) -> Option<Duration> {
        let (next, wait) = self.next(*state, now);
        (wait <= longest).then(|| {
            *state = next;
            wait
        })
    }

    /// Returns true if the full burst is available, as with a new state.
    pub(crate) fn is_idle(&self, state: RateState, now: Instant) -> bool {
        state.0 <= self.since_epoch(now)
    }

    /// Returns the state after the next event, and the time until the event can be admitted.
    fn next(&self, state: RateState, now: Instant) -> (RateState, Duration) {
        let now_ns = self.since_epoch(now);
        let full_ns = state.0.max(now_ns).saturating_add(self.interval_ns);
        let wait_ns = full_ns.saturating_sub(self.burst_ns).saturating_sub(now_ns);
        (RateState(full_ns), Duration::from_nanos(wait_ns))
    }

    fn since_epoch(&self, now: Instant) -> u64 {
        // A u64 holds 584 years of nanoseconds.
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
    fn a_rate_state_is_eight_bytes() {
        assert_eq!(size_of::<RateState>(), 8);
    }

    #[test]
    fn a_burst_is_admitted_at_once_and_then_one_event_per_interval() {
        let (rate, start) = rate(10);
        let mut state = RateState::default();
        for _ in 0..10 {
            assert_eq!(rate.admit(&mut state, start), Ok(()));
        }
        let tenth = Duration::from_millis(100);
        assert_eq!(rate.admit(&mut state, start), Err(tenth));
        assert_eq!(rate.admit(&mut state, start + tenth / 2), Err(tenth / 2));
        assert_eq!(rate.admit(&mut state, start + tenth), Ok(()), "a refused event has no effect");
        assert_eq!(rate.admit(&mut state, start + tenth), Err(tenth));
    }

    #[test]
    fn reserved_events_follow_one_per_interval_until_the_wait_is_too_long() {
        let (rate, start) = rate(10);
        let mut state = RateState::default();
        let longest = Duration::from_millis(250);
        let waits: Vec<_> = (0..14).map(|_| rate.reserve(&mut state, start, longest)).collect();
        let milliseconds = |wait: &Option<Duration>| wait.map(|wait| wait.as_millis());
        assert_eq!(waits[..10], [Some(Duration::ZERO); 10]);
        let waits: Vec<_> = waits[10..].iter().map(milliseconds).collect();
        assert_eq!(waits, [Some(100), Some(200), None, None]);
        assert_eq!(rate.reserve(&mut state, start + longest, longest).unwrap().as_millis(), 50);
    }

    #[test]
    fn four_times_a_rate_has_four_times_the_burst_and_the_average() {
        let (rate, start) = rate(10);
        let (rate, mut state) = (rate.times(4), RateState::default());
        let mut count = |at| (0..100).filter(|_| rate.admit(&mut state, at).is_ok()).count();
        assert_eq!(count(start), 40);
        assert_eq!(count(start + Duration::from_millis(500)), 20);
        assert_eq!(count(start + Duration::from_secs(60)), 40);
    }

    #[test]
    fn an_idle_time_restores_one_burst_and_no_more() {
        let (rate, start) = rate(5);
        let mut state = RateState::default();
        let late = start + Duration::from_secs(3600);
        assert_eq!((0..100).filter(|_| rate.admit(&mut state, late).is_ok()).count(), 5);
        assert!(!rate.is_idle(state, late));
        assert!(rate.is_idle(state, late + Duration::from_secs(1)));
    }

    #[test]
    fn the_long_term_average_is_the_rate() {
        for per_second in [1, 3, 1000, 1_000_000, u32::MAX] {
            let (rate, start) = rate(per_second);
            let mut state = RateState::default();
            let times = |elapsed_us: u64| start + Duration::from_micros(elapsed_us);
            let asked = (0..10_000_000_u64).step_by(100);
            let admitted = asked.filter(|us| rate.admit(&mut state, times(*us)).is_ok()).count();
            let expected = (u64::from(per_second) * 11).min(100_000);
            assert!((admitted as u64).abs_diff(expected) <= 1, "{per_second}: {admitted}");
        }
    }

    #[test]
    fn a_time_before_the_epoch_counts_as_the_epoch() {
        let later = Instant::now() + Duration::from_secs(5);
        let rate = Rate::new(NonZeroU32::MIN, later);
        let mut state = RateState::default();
        assert_eq!(rate.admit(&mut state, later - Duration::from_secs(5)), Ok(()));
        assert!(rate.admit(&mut state, later).is_err());
    }
}
