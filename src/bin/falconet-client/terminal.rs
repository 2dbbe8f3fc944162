//! The mode of the terminal, and its restoration.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::termios::{
    InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};

/// A terminal mode in which each keystroke is read at once and nothing is echoed. When dropped, also by a
/// panic, it restores the previous mode.
pub(crate) struct RawMode {
    terminal: Arc<Terminal>,
}

/// A terminal and its original mode.
pub(crate) struct Terminal {
    fd: OwnedFd,
    original: Termios,
}

impl RawMode {
    /// Changes the mode of `fd`. Returns `None` if `fd` is not a terminal.
    ///
    /// Output is still translated, and Ctrl+C still sends SIGINT. Ctrl+Z and Ctrl+\ are keystrokes, because
    /// their signals would stop or end the process without restoring the mode.
    ///
    /// # Errors
    /// The error of the terminal.
    pub(crate) fn enter(fd: impl AsFd) -> io::Result<Option<Self>> {
        let fd = fd.as_fd();
        if !fd.is_terminal() {
            return Ok(None);
        }
        let original = tcgetattr(fd)?;
        let mut raw = original.clone();
        raw.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::IEXTEN;
        raw.input_modes -= InputModes::IXON;
        raw.special_codes[SpecialCodeIndex::VMIN] = 1;
        raw.special_codes[SpecialCodeIndex::VTIME] = 0;
        raw.special_codes[SpecialCodeIndex::VQUIT] = DISABLED;
        raw.special_codes[SpecialCodeIndex::VSUSP] = DISABLED;
        let terminal = Arc::new(Terminal { fd: fd.try_clone_to_owned()?, original });
        tcsetattr(&terminal.fd, OptionalActions::Now, &raw)?;
        Ok(Some(Self { terminal }))
    }

    /// Returns the terminal, so that another thread can restore its mode.
    pub(crate) fn terminal(&self) -> Arc<Terminal> {
        self.terminal.clone()
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        self.terminal.restore();
    }
}

impl Terminal {
    /// Restores the original mode of the terminal.
    pub(crate) fn restore(&self) {
        // Fails if the terminal has been closed; then there is no mode to restore.
        let _ = tcsetattr(&self.fd, OptionalActions::Now, &self.original);
    }
}

/// The value that disables a special character (`_POSIX_VDISABLE`).
const DISABLED: u8 = 0;

#[cfg(test)]
mod tests {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    use super::*;

    /// Returns the parts of the mode that a user would notice.
    fn modes(fd: impl AsFd) -> (InputModes, LocalModes, u8, u8) {
        let mode = tcgetattr(fd).unwrap();
        let [quit, min] = [SpecialCodeIndex::VQUIT, SpecialCodeIndex::VMIN];
        (mode.input_modes, mode.local_modes, mode.special_codes[quit], mode.special_codes[min])
    }

    #[test]
    fn a_panic_restores_the_terminal() {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let path = ptsname(&keyboard, Vec::new()).unwrap();
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
        let tty = rustix::fs::open(path, flags, rustix::fs::Mode::empty()).unwrap();
        let original = modes(&tty);
        let panicked = std::thread::scope(|scope| {
            let client = scope.spawn(|| {
                let _raw = RawMode::enter(&tty).unwrap().expect("it is a terminal");
                assert!(!modes(&tty).1.intersects(LocalModes::ICANON | LocalModes::ECHO));
                assert_eq!(modes(&tty).2, DISABLED);
                std::panic::resume_unwind(Box::new("as if in the middle of it"));
            });
            client.join().is_err()
        });
        assert!(panicked);
        assert_eq!(modes(&tty), original);
    }

    #[test]
    fn a_file_that_is_not_a_terminal_is_left_unchanged() {
        let (reader, _writer) = std::io::pipe().unwrap();
        assert!(RawMode::enter(&reader).unwrap().is_none());
    }
}
