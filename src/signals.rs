//! Signals that ask the program to stop, and the thread that waits for them.

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};

/// The signals SIGINT, SIGTERM and SIGHUP. If SIGHUP was ignored when the program was started, as by
/// nohup(1), it stays ignored.
pub struct StopSignals(());

impl StopSignals {
    /// Checks in /proc whether this process ignores SIGHUP. If so, blocks SIGHUP for this thread. Must be
    /// called before other threads are started, because they inherit the blocked signals.
    pub fn detect() -> Self {
        if is_hangup_ignored() {
            // A handler would receive the signal even if it was ignored before. A blocked signal is not
            // delivered to the handler.
            let mut hangup = SigSet::empty();
            hangup.add(Signal::SIGHUP);
            // Fails only for an invalid signal number.
            let _ = hangup.thread_block();
        }
        Self(())
    }

    /// Calls `on_signal` for each signal, with the number of earlier signals. `on_signal` runs on a
    /// separate thread and must not block.
    ///
    /// # Errors
    /// If there is a signal handler already, or if the thread can't be started.
    pub fn handle(
        self,
        mut on_signal: impl FnMut(u32) + Send + 'static,
    ) -> Result<(), ctrlc::Error> {
        let mut count = 0;
        ctrlc::set_handler(move || {
            on_signal(count);
            count += 1;
        })
    }
}

/// Gives the calling thread its own copy of the descriptor table. Descriptors that it opens or closes
/// later do not change in other threads. If the system does not permit this, nothing happens.
///
/// While threads share a table, each system call must count the references to its descriptor. This
/// takes 1 % of the time of an echo.
pub fn unshare_descriptors() {
    let _ = unshare(CloneFlags::CLONE_FILES);
}

/// Returns true if this process ignores SIGHUP (proc_pid_status(5)).
fn is_hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim_ascii(), 16).ok());
    ignored.is_some_and(|mask| mask & (1 << (Signal::SIGHUP as u32 - 1)) != 0)
}
