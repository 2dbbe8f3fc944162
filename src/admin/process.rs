//! Statistics of the kernel about this process (proc(5)).

use std::fs;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};

/// The times in `/proc/self/stat`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// The processor time of all threads.
    pub(super) cpu: Duration,
    /// The start of the process, as the time since the beginning of 1970.
    pub(super) start: Duration,
}

impl Times {
    /// Reads the times. Returns `None` if /proc cannot be read.
    pub(super) fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The second field is a name in parentheses, which may contain spaces and parentheses.
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        let time = |index: usize| {
            let ticks: u64 = fields.get(index)?.parse().ok()?;
            Some(Duration::from_millis(ticks.saturating_mul(TICK_MS)))
        };
        let boot = fs::read_to_string("/proc/stat").ok()?;
        let boot = boot.lines().find_map(|line| line.strip_prefix("btime "))?.parse().ok()?;
        let start = Duration::from_secs(boot) + time(START_TIME)?;
        Some(Self { cpu: time(USER_TIME)? + time(SYSTEM_TIME)?, start })
    }
}

/// Returns the resident memory in bytes, including pages of files; 0 if /proc cannot be read.
pub(super) fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = resident.and_then(|text| text.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Returns the number of open descriptors; 0 if /proc cannot be read.
pub(crate) fn open_files() -> u64 {
    match fs::metadata("/proc/self/fd").map(|directory| directory.len()) {
        // Before Linux 6.2, the size of the directory is 0 and the entries must be counted. One of them is
        // the descriptor that reads the directory.
        Ok(0) => fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64 - 1),
        Ok(files) => files,
        Err(_) => 0,
    }
}

/// Returns the limit of open descriptors, or `None` if there is no limit.
pub(super) fn max_files() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// The kernel's unit of the times in /proc, in milliseconds. It is the same on every architecture that
/// falconet is built for (time(7)).
const TICK_MS: u64 = 10;
/// The indices of fields in `/proc/self/stat`, counted from the field after the name.
const USER_TIME: usize = 11;
const SYSTEM_TIME: usize = 12;
const START_TIME: usize = 19;

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn the_statistics_of_this_process_are_plausible() {
        assert!(resident_bytes() > 100_000 && resident_bytes() < 10_000_000_000);
        let _file = fs::File::open("/dev/null").unwrap();
        // Other tests in this process open files, too.
        assert!(open_files() >= 1 && open_files() < max_files().unwrap_or(u64::MAX));
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let times = Times::read().unwrap();
        let age = now.as_secs_f64() - times.start.as_secs_f64();
        assert!((-2.0..3600.0).contains(&age), "{age}");
        assert!(times.cpu < Duration::from_secs(3600), "{times:?}");
    }
}
