//! The time, to everybody, at regular intervals (article).

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use futures_lite::FutureExt;
use tz::{TimeZone, UtcDateTime};

use crate::hub::{HubGone, HubHandle, TopicName};

use super::{Service, Stop};

/// Publishes `Server time: …` to the topic `broadcast`, on a fixed grid that begins with the server.
/// While nobody is subscribed it does not even wake up.
pub struct Timestamp {
    every: Duration,
    clock: LocalClock,
}

impl Timestamp {
    /// Broadcasts every `every`; the article's servers do it every 15 s.
    pub fn new(every: Duration) -> Self {
        // A grid of zero width would never come to its next line.
        Self { every: every.max(Duration::from_millis(1)), clock: LocalClock::new() }
    }

    async fn broadcast_on_grid(&self, hub: &HubHandle, stop: &Stop) -> Result<(), HubGone> {
        let (start, topic) = (Instant::now(), TopicName::broadcast());
        loop {
            hub.until_subscribed(&topic).await?;
            let wait = until_next_on_grid(self.every, start.elapsed());
            let due = async {
                stop.timer().sleep(Some(wait)).await;
                Ok(true)
            };
            let vacant = async { hub.until_unsubscribed(&topic).await.map(|()| false) };
            if due.or(vacant).await? {
                hub.broadcast(format!("Server time: {}", self.clock.now())).await?;
            }
        }
    }
}

impl Service for Timestamp {
    async fn run(self: Box<Self>, hub: HubHandle, stop: Stop) {
        let _ = stop.unless_requested(self.broadcast_on_grid(&hub, &stop)).await;
    }
}

/// How long it is to the next line of the grid, when `passed` since its first.
fn until_next_on_grid(every: Duration, passed: Duration) -> Duration {
    let beyond = passed.as_nanos() % every.as_nanos();
    // 584 years of nanoseconds fit.
    every - Duration::from_nanos(beyond as u64)
}

/// Tells the local time, in the zone `TZ` or `/etc/localtime` named when it was made.
pub struct LocalClock {
    zone: TimeZone,
}

impl LocalClock {
    /// Reads the zone; UTC where there is none.
    pub fn new() -> Self {
        let zone = match std::env::var("TZ") {
            Ok(zone) => TimeZone::from_posix_tz(&zone),
            Err(_) => TimeZone::local(),
        };
        Self { zone: zone.unwrap_or_else(|_| TimeZone::utc()) }
    }

    /// The time now.
    pub fn now(&self) -> LocalTime {
        // What was before 1970, no clock of today says.
        self.at(SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default())
    }

    fn at(&self, since_1970: Duration) -> LocalTime {
        let seconds = since_1970.as_secs() as i64;
        // A zone may lack rules for the far future, which is where a broken clock may be.
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

/// A local time. Displayed as .NET's round-trip format "o" does, `2019-08-18T07:34:21.1234567-04:00`,
/// or with as many decimals as a precision asks for.
#[derive(Clone, Copy, Debug)]
pub struct LocalTime {
    /// What clocks show there; `None` far from our time.
    time: Option<UtcDateTime>,
    /// How many seconds they are ahead of UTC.
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
    fn the_time_is_written_as_dot_net_writes_it() {
        let time = local(1_566_128_061, 123_456_789, -4 * 3600);
        assert_eq!(time.to_string(), "2019-08-18T07:34:21.1234567-04:00");
        let time = local(1_566_128_061, 5, 5 * 3600 + 45 * 60);
        assert_eq!(time.to_string(), "2019-08-18T17:19:21.0000000+05:45");
        assert_eq!(format!("{:.3}", local(0, 7_999_999, 0)), "1970-01-01T00:00:00.007+00:00");
        assert_eq!(local(u64::MAX / 2, 0, 3600).to_string(), "unknown");
    }

    #[test]
    fn the_grid_does_not_drift() {
        let every = Duration::from_secs(15);
        for (passed, next) in [(0, 15), (1, 15), (14_999, 15), (15_000, 30), (44_000, 45)] {
            let passed = Duration::from_millis(passed);
            assert_eq!(passed + until_next_on_grid(every, passed), Duration::from_secs(next));
        }
    }

    #[test]
    fn the_grid_has_no_end() {
        let (every, years) = (Duration::from_millis(1), Duration::from_secs(10 * 365 * 86_400));
        assert_eq!(until_next_on_grid(every, years), every);
        assert_eq!(until_next_on_grid(every, years + every / 4), every * 3 / 4);
        assert_eq!(until_next_on_grid(Duration::MAX, years), Duration::MAX - years);
    }
}
