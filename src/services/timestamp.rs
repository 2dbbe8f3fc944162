//! A service that broadcasts the time at regular intervals.

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use futures_lite::FutureExt;
use tz::{TimeZone, UtcDateTime};

use crate::hub::{HubGone, HubHandle, TopicName};

use super::service::Service;
use super::stop::Stop;

/// A service that publishes `Server time: …` to the topic `broadcast` at fixed intervals from its
/// start. While the topic has no subscriber, the service does not wake up.
pub struct Timestamp {
    every: Duration,
    clock: LocalClock,
}

impl Timestamp {
    /// Creates a service with the interval `every`. An interval of less than 1 ms becomes 1 ms.
    pub fn new(every: Duration) -> Self {
        // `until_next_tick` divides by the interval.
        Self { every: every.max(Duration::from_millis(1)), clock: LocalClock::new() }
    }

    async fn broadcast_every_tick(&self, hub: &HubHandle, stop: &Stop) -> Result<(), HubGone> {
        let (start, topic) = (Instant::now(), TopicName::broadcast());
        loop {
            hub.until_subscribed(&topic).await?;
            let wait = until_next_tick(self.every, start.elapsed());
            let due = async {
                stop.timer().sleep(Some(wait)).await;
                Ok(true)
            };
            let unsubscribed = async { hub.until_unsubscribed(&topic).await.map(|()| false) };
            if due.or(unsubscribed).await? {
                hub.broadcast(format!("Server time: {}", self.clock.now())).await?;
            }
        }
    }
}

impl Service for Timestamp {
    async fn run(self: Box<Self>, hub: HubHandle, stop: Stop) {
        let _ = stop.unless_requested(self.broadcast_every_tick(&hub, &stop)).await;
    }
}

/// Returns the time until the next tick. `passed` is the time since the first tick.
fn until_next_tick(every: Duration, passed: Duration) -> Duration {
    let since_last_tick = passed.as_nanos() % every.as_nanos();
    // 584 years of nanoseconds fit into a u64.
    every - Duration::from_nanos(since_last_tick as u64)
}

/// A clock that shows the local time, in the time zone of `TZ` or else of `/etc/localtime`. The
/// zone is read when the clock is created.
pub struct LocalClock {
    zone: TimeZone,
}

impl LocalClock {
    /// Creates a clock and reads the time zone. Without a valid zone, the clock shows UTC.
    pub fn new() -> Self {
        let zone = match std::env::var("TZ") {
            Ok(zone) => TimeZone::from_posix_tz(&zone),
            Err(_) => TimeZone::local(),
        };
        Self { zone: zone.unwrap_or_else(|_| TimeZone::utc()) }
    }

    /// Returns the current time.
    pub fn now(&self) -> LocalTime {
        // A system clock that is set to a time before 1970 counts as 1970.
        self.at(SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default())
    }

    fn at(&self, since_1970: Duration) -> LocalTime {
        let seconds = since_1970.as_secs() as i64;
        // The zone may have no rules for the far future, to which a wrong system clock may be set.
        let offset = self.zone.find_local_time_type(seconds).map_or(0, |kind| kind.ut_offset());
        let shown = seconds.saturating_add(offset.into());
        LocalTime {
            time: UtcDateTime::from_timespec(shown, since_1970.subsec_nanos()).ok(),
            offset,
        }
    }
}

impl Default for LocalClock {
    fn default() -> Self {
        Self::new()
    }
}

/// A local time.
///
/// It is displayed like .NET's round-trip format "o", `2019-08-18T07:34:21.1234567-04:00`. A
/// precision sets the number of decimals, from 1 to 9; the default is 7.
#[derive(Clone, Copy, Debug)]
pub struct LocalTime {
    /// The date and time in the time zone. `None` if the year is out of range.
    time: Option<UtcDateTime>,
    /// The offset of the time zone from UTC, in seconds. Positive for zones east of Greenwich.
    offset: i32,
}

impl fmt::Display for LocalTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { time: Some(time), offset } = self else { return f.write_str("unknown") };
        let decimals = f.precision().unwrap_or(7).clamp(1, 9);
        let fraction = time.nanoseconds() / 10_u32.pow(9 - decimals as u32);
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{fraction:0decimals$}{}{:02}:{:02}",
            time.year(),
            time.month(),
            time.month_day(),
            time.hour(),
            time.minute(),
            time.second(),
            if *offset < 0 { '-' } else { '+' },
            offset.abs() / 3600,
            offset.abs() / 60 % 60,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(seconds: u64, nanoseconds: u32, offset: i32) -> LocalTime {
        let clock = LocalClock { zone: TimeZone::fixed(offset).unwrap() };
        clock.at(Duration::new(seconds, nanoseconds))
    }

    #[test]
    fn the_time_is_displayed_in_the_round_trip_format_of_dot_net() {
        let time = local(1_566_128_061, 123_456_789, -4 * 3600);
        assert_eq!(time.to_string(), "2019-08-18T07:34:21.1234567-04:00");
        let time = local(1_566_128_061, 5, 5 * 3600 + 45 * 60);
        assert_eq!(time.to_string(), "2019-08-18T17:19:21.0000000+05:45");
        assert_eq!(format!("{:.3}", local(0, 7_999_999, 0)), "1970-01-01T00:00:00.007+00:00");
        assert_eq!(local(u64::MAX / 2, 0, 3600).to_string(), "unknown");
    }

    #[test]
    fn ticks_do_not_drift() {
        let every = Duration::from_secs(15);
        for (passed, next) in [(0, 15), (1, 15), (14_999, 15), (15_000, 30), (44_000, 45)] {
            let passed = Duration::from_millis(passed);
            assert_eq!(passed + until_next_tick(every, passed), Duration::from_secs(next));
        }
    }

    #[test]
    fn ticks_continue_after_years() {
        let (every, years) = (Duration::from_millis(1), Duration::from_secs(10 * 365 * 86_400));
        assert_eq!(until_next_tick(every, years), every);
        assert_eq!(until_next_tick(every, years + every / 4), every * 3 / 4);
        assert_eq!(until_next_tick(Duration::MAX, years), Duration::MAX - years);
    }
}
