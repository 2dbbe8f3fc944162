//! The date format of HTTP.

use std::time::SystemTime;

use tz::UtcDateTime;

/// Formats a time as `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 §5.6.7).
///
/// Fractions of a second are dropped. The format has four digits for the year: a time outside the
/// years 0 to 9999 becomes the first or the last second of that range.
pub(crate) fn http_date(time: SystemTime) -> String {
    let seconds = unix_seconds(time).clamp(YEAR_0, END_OF_YEAR_9999);
    let date = UtcDateTime::from_timespec(seconds, 0)
        .expect("every second of the years 0 to 9999 has a date");
    format!(
        "{}, {:02} {} {:04} {:02}:{:02}:{:02} GMT",
        WEEK_DAYS[usize::from(date.week_day())],
        date.month_day(),
        MONTHS[usize::from(date.month()) - 1],
        date.year(),
        date.hour(),
        date.minute(),
        date.second(),
    )
}

/// Returns the seconds since 1970, rounded down; negative for a time before 1970.
fn unix_seconds(time: SystemTime) -> i64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
        Err(error) => {
            let before = error.duration();
            let partial = u64::from(before.subsec_nanos() > 0);
            i64::try_from(before.as_secs().saturating_add(partial)).map_or(i64::MIN, |count| -count)
        }
    }
}

const WEEK_DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/// The first second of the year 0, in seconds since 1970.
const YEAR_0: i64 = -62_167_219_200;
/// The last second of the year 9999, in seconds since 1970.
const END_OF_YEAR_9999: i64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn at(seconds: i64) -> SystemTime {
        let distance = Duration::from_secs(seconds.unsigned_abs());
        if seconds < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
    }

    #[test]
    fn dates_match_the_calendar() {
        for (seconds, expected) in [
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (86_399, "Thu, 01 Jan 1970 23:59:59 GMT"),
            (86_400, "Fri, 02 Jan 1970 00:00:00 GMT"),
            (68_169_599, "Mon, 28 Feb 1972 23:59:59 GMT"),
            (68_169_600, "Tue, 29 Feb 1972 00:00:00 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (951_868_800, "Wed, 01 Mar 2000 00:00:00 GMT"),
            (978_307_199, "Sun, 31 Dec 2000 23:59:59 GMT"),
            (1_566_113_661, "Sun, 18 Aug 2019 07:34:21 GMT"),
            (2_147_483_647, "Tue, 19 Jan 2038 03:14:07 GMT"),
            (2_147_483_648, "Tue, 19 Jan 2038 03:14:08 GMT"),
            // 2100 is not a leap year.
            (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (-1, "Wed, 31 Dec 1969 23:59:59 GMT"),
            (-2_208_988_800, "Mon, 01 Jan 1900 00:00:00 GMT"),
        ] {
            assert_eq!(http_date(at(seconds)), expected, "{seconds}");
        }
    }

    #[test]
    fn a_fraction_of_a_second_is_rounded_down() {
        let half = Duration::from_millis(500);
        assert_eq!(http_date(at(86_399) + half), "Thu, 01 Jan 1970 23:59:59 GMT");
        assert_eq!(http_date(at(-1) - half), "Wed, 31 Dec 1969 23:59:58 GMT");
        assert_eq!(http_date(at(0) - half), "Wed, 31 Dec 1969 23:59:59 GMT");
    }

    #[test]
    fn a_time_outside_the_years_0_to_9999_is_clamped() {
        let (first, last) = ("Sat, 01 Jan 0000 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT");
        for (seconds, expected) in [
            (YEAR_0, first),
            (YEAR_0 - 1, first),
            (i64::MIN, first),
            (END_OF_YEAR_9999, last),
            (END_OF_YEAR_9999 + 1, last),
            (i64::MAX, last),
        ] {
            assert_eq!(http_date(at(seconds)), expected, "{seconds}");
        }
    }
}
