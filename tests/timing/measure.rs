//! Measurements that only the timing tests make.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::support::load::Canaries;
use crate::support::process::Falconet;

/// Waits until no other test of this target runs, and keeps others from running until the guard is dropped.
pub fn serial() -> MutexGuard<'static, ()> {
    static RUNNING: Mutex<()> = Mutex::new(());
    // A test that failed has poisoned the mutex, which is no reason for the others to fail.
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts canaries with `pause` between their messages. The time that the server and the canary waited for
/// a processor does not count as a part of a round trip: a flooder on this machine competes with the
/// server for processors; a remote flooder would not.
pub fn start_canaries(pause: Duration, falconet: &Falconet) -> Canaries {
    let pid = falconet.pid();
    let queued = move || {
        let paths = [format!("/proc/{pid}/schedstat"), "/proc/thread-self/schedstat".to_owned()];
        let nanoseconds = paths.into_iter().filter_map(|path| {
            let text = std::fs::read_to_string(path).ok()?;
            text.split_whitespace().nth(1)?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanoseconds.sum())
    };
    Canaries::start_with(falconet.address(), pause, queued)
}

/// Stops the canaries.
///
/// # Panics
///
/// If one of them lost a message, or if their 99th percentile of round-trip times is not below 50 ms.
pub fn assert_prompt(canaries: Canaries) {
    let times = canaries.finish();
    println!("canaries: p99 {:?} of {}", p99(&times), times.len());
    assert!(p99(&times) < Duration::from_millis(50), "{:?}", p99(&times));
}

/// Returns the 99th percentile of sorted times.
pub fn p99(sorted: &[Duration]) -> Duration {
    sorted[sorted.len() * 99 / 100]
}

/// Returns the number of context switches of all threads of the process, voluntary or not. The number of a
/// sleeping process does not grow.
pub fn context_switches(falconet: &Falconet) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", falconet.pid())).unwrap();
    let switches = tasks.flatten().map(|task| {
        let status = std::fs::read_to_string(task.path().join("status")).unwrap();
        let counts = status.lines().filter(|line| line.contains("ctxt_switches"));
        counts.map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()).sum()
    });
    switches.map(|count: u64| count).sum()
}

/// Returns the descriptor that the process would be given next: the lowest that is not open.
pub fn next_descriptor(falconet: &Falconet) -> u64 {
    let files = std::fs::read_dir(format!("/proc/{}/fd", falconet.pid())).unwrap().flatten();
    let open: Vec<u64> = files.filter_map(|file| file.file_name().to_str()?.parse().ok()).collect();
    (0..).find(|file| !open.contains(file)).unwrap()
}
