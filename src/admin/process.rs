//! What the kernel knows of this process (proc(5)).

use std::fs;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};

/// What is in `/proc/self/stat`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// How long all threads have run on a processor.
    pub(super) cpu: Duration,
    /// How long after the beginning of 1970 the process was started.
    pub(super) start: Duration,
}

impl Times {
    /// Reads them; `None` without /proc.
    pub(super) fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The second field is a name, which may have spaces and parentheses in it.
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

/// Resident memory, pages of files among it; 0 without /proc.
pub(super) fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = resident.and_then(|text| text.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Open descriptors; 0 without /proc.
pub(super) fn open_files() -> u64 {
    match fs::metadata("/proc/self/fd").map(|folder| folder.len()) {
        // Since Linux 6.2 it is the folder's size; to count them takes the longer the more there are.
        Ok(0) => fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64 - 1),
        Ok(files) => files,
        Err(_) => 0,
    }
}

/// How many descriptors there may be; `None` is as many as one likes.
pub(super) fn max_files() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// The kernel's unit of time for programs, on every architecture falconet is built for (time(7)).
const TICK_MS: u64 = 10;
/// Where the fields stand that follow the name.
const USER_TIME: usize = 11;
const SYSTEM_TIME: usize = 12;
const START_TIME: usize = 19;

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn the_kernel_tells() {
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
