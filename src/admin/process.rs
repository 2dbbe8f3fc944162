//! What the kernel knows of this process (proc(5)).

use std::fs;
use std::time::Duration;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// How long all threads have run on a processor.
pub(super) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    // It counts up from 0.
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Resident memory, pages of files among it; 0 without /proc.
pub(super) fn resident_bytes() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").ok();
    let resident = pages.and_then(|pages| pages.split(' ').nth(1)?.parse::<u64>().ok());
    resident.unwrap_or(0) * page_size() as u64
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

/// When the process was started, in seconds since 1970; `None` without /proc.
pub(super) fn start_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is a name, which may have spaces and parentheses in it.
    let ticks: f64 = stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()?;
    let boot = fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.parse().ok()?;
    Some(boot + ticks / clock_ticks_per_second() as f64)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn the_kernel_tells() {
        let before = cpu_time();
        assert!(resident_bytes() > 100_000 && resident_bytes() < 10_000_000_000);
        let files = open_files();
        let _file = fs::File::open("/dev/null").unwrap();
        // Other tests in this process open files, too.
        assert!(files > 3 && files < max_files().unwrap_or(u64::MAX));
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
        let age = now - start_time().unwrap();
        assert!((-2.0..3600.0).contains(&age), "{age}");
        assert!(cpu_time() > before);
    }
}
