//! The signals that ask a program to end, and the thread that waits for them.

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};

/// SIGINT, SIGTERM and SIGHUP. A SIGHUP that was ignored when the program started stays ignored, as
/// nohup(1) wishes.
pub struct StopSignals(());

impl StopSignals {
    /// Finds out what is ignored, for which it needs /proc. To be called before other threads are started.
    pub fn look() -> Self {
        if is_hangup_ignored() {
            // The handler would undo that; a blocked signal never comes.
            let mut hangup = SigSet::empty();
            hangup.add(Signal::SIGHUP);
            // It fails only for a signal that does not exist.
            let _ = hangup.thread_block();
        }
        Self(())
    }

    /// Calls `heed` for every signal, with how many came before it. It runs on a thread of its own and
    /// must not block.
    ///
    /// # Errors
    /// When there is a handler already, or no thread to be had.
    pub fn heed(self, mut heed: impl FnMut(u32) + Send + 'static) -> Result<(), ctrlc::Error> {
        let mut before = 0;
        ctrlc::set_handler(move || {
            heed(before);
            before += 1;
        })
    }
}

/// Gives this thread descriptors of its own: what it opens and closes from now on is open and closed for
/// it alone, and other threads keep what they had. Where that is forbidden, nothing changes.
///
/// Between threads that share them, each system call has to count who uses a descriptor: 1 % of an echo.
pub fn unshare_descriptors() {
    let _ = unshare(CloneFlags::CLONE_FILES);
}

/// Whether this process was started with SIGHUP ignored (proc_pid_status(5)).
fn is_hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim_ascii(), 16).ok());
    ignored.is_some_and(|mask| mask & (1 << (Signal::SIGHUP as u32 - 1)) != 0)
}
