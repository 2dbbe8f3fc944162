//! The terminal's mode, and giving it back.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::termios::{
    InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};

/// A terminal in which each keystroke is read at once and nothing is echoed. Dropped, also by a panic,
/// it gives the terminal back as it was.
pub(crate) struct RawMode {
    terminal: Arc<Terminal>,
}

/// A terminal as it was found.
pub(crate) struct Terminal {
    fd: OwnedFd,
    found: Termios,
}

impl RawMode {
    /// Changes the mode of `fd`, if it is a terminal. Output is still translated, and Ctrl+C is still
    /// SIGINT; Ctrl+Z and Ctrl+\ are keystrokes, since both would leave the mode behind.
    ///
    /// # Errors
    /// What the terminal says.
    pub(crate) fn enter(fd: impl AsFd) -> io::Result<Option<Self>> {
        let fd = fd.as_fd();
        if !fd.is_terminal() {
            return Ok(None);
        }
        let found = tcgetattr(fd)?;
        let mut raw = found.clone();
        raw.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::IEXTEN;
        raw.input_modes -= InputModes::IXON;
        raw.special_codes[SpecialCodeIndex::VMIN] = 1;
        raw.special_codes[SpecialCodeIndex::VTIME] = 0;
        raw.special_codes[SpecialCodeIndex::VQUIT] = DISABLED;
        raw.special_codes[SpecialCodeIndex::VSUSP] = DISABLED;
        let terminal = Arc::new(Terminal { fd: fd.try_clone_to_owned()?, found });
        tcsetattr(&terminal.fd, OptionalActions::Now, &raw)?;
        Ok(Some(Self { terminal }))
    }

    /// What another thread needs to give the terminal back.
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
    /// Gives the terminal back as it was found.
    pub(crate) fn restore(&self) {
        // It fails when the terminal is gone; then there is nothing to give back.
        let _ = tcsetattr(&self.fd, OptionalActions::Now, &self.found);
    }
}

/// The key that is no key (`_POSIX_VDISABLE`).
const DISABLED: u8 = 0;

#[cfg(test)]
mod tests {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    use super::*;

    /// What of the mode a user would notice.
    fn modes(fd: impl AsFd) -> (InputModes, LocalModes, u8, u8) {
        let mode = tcgetattr(fd).unwrap();
        let [quit, min] = [SpecialCodeIndex::VQUIT, SpecialCodeIndex::VMIN];
        (mode.input_modes, mode.local_modes, mode.special_codes[quit], mode.special_codes[min])
    }

    #[test]
    fn a_panic_gives_the_terminal_back() {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let path = ptsname(&keyboard, Vec::new()).unwrap();
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
        let tty = rustix::fs::open(path, flags, rustix::fs::Mode::empty()).unwrap();
        let found = modes(&tty);
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
        assert_eq!(modes(&tty), found);
    }

    #[test]
    fn what_is_no_terminal_is_left_alone() {
        let (reader, _writer) = std::io::pipe().unwrap();
        assert!(RawMode::enter(&reader).unwrap().is_none());
    }
}
