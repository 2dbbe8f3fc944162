//! How often something may happen.

use std::time::Duration;

use crate::hub::Moment;

/// A rate that some may exceed for a while (the generic cell rate algorithm): eight bytes remember when
/// the burst taken so far is made up for.
#[derive(Default)]
pub(crate) struct Pace {
    made_up_at: Option<Moment>,
}

impl Pace {
    /// Takes one of `burst`, which come back one `every` so long. Says false if there is none left.
    pub(crate) fn take(&mut self, now: Moment, every: Duration, burst: u32) -> bool {
        let made_up_at = self.made_up_at.map_or(now, |at| at.max(now)).after(every);
        let in_time = made_up_at <= now.after(every * burst);
        if in_time {
            self.made_up_at = Some(made_up_at);
        }
        in_time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_millis(100);

    #[test]
    fn a_burst_may_come_at_once_and_then_as_many_as_come_back() {
        let start = Moment::default();
        let mut pace = Pace::default();
        assert_eq!((0..30).filter(|_| pace.take(start, EVERY, 20)).count(), 20);
        let soon = start.after(EVERY * 5 / 2);
        assert_eq!((0..30).filter(|_| pace.take(soon, EVERY, 20)).count(), 2);
        let late = start.after(EVERY * 1000);
        assert_eq!((0..30).filter(|_| pace.take(late, EVERY, 20)).count(), 20);
    }

    #[test]
    fn what_comes_at_the_rate_may_come_for_ever() {
        let mut now = Moment::default();
        let mut pace = Pace::default();
        for _ in 0..10_000 {
            now = now.after(EVERY);
            assert!(pace.take(now, EVERY, 1));
            assert!(!pace.take(now, EVERY, 1));
        }
    }
}
