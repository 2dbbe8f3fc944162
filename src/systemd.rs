//! What systemd is told by the programs that it starts (sd_notify(3)).

use std::cell::Cell;
use std::env;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, send, socket_with,
};

/// Tells systemd how the server is.
pub struct Notifier {
    socket: OwnedFd,
    watchdog: Option<Duration>,
    has_failed: Cell<bool>,
}

impl Notifier {
    /// The one that `NOTIFY_SOCKET` names, a path or, behind an `@`, an abstract name. `None` without it,
    /// and if it can't be reached, which is logged. Connected at once: later it may be out of reach.
    pub fn from_environment() -> Option<Self> {
        let name = env::var("NOTIFY_SOCKET").ok()?;
        match connect_to(&name) {
            Ok(socket) => Some(Self { socket, watchdog: watchdog(), has_failed: Cell::new(false) }),
            Err(error) => {
                log::warn!("can't tell systemd anything at {}: {error}", name.escape_debug());
                None
            }
        }
    }

    /// How long systemd waits for a sign of life; `None` is for ever.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Tells lines of `NAME=value`. It never waits: what systemd has no room for is lost. The first time
    /// that anything is, the log says so.
    pub fn tell(&self, lines: &str) {
        let sent = send(&self.socket, lines.as_bytes(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        if let Err(error) = sent
            && !self.has_failed.replace(true)
        {
            log::warn!("can't tell systemd how it goes: {error}");
        }
    }
}

fn connect_to(name: &str) -> io::Result<OwnedFd> {
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddrUnix::new_abstract_name(name.as_bytes())?,
        None => SocketAddrUnix::new(name)?,
    };
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    connect(&socket, &address)?;
    Ok(socket)
}

/// How long systemd waits for a sign of life of this process (sd_watchdog_enabled(3)).
fn watchdog() -> Option<Duration> {
    let microseconds = env::var("WATCHDOG_USEC").ok()?.parse().ok().filter(|time| *time > 0)?;
    is_for_us("WATCHDOG_PID").then(|| Duration::from_micros(microseconds))
}

/// Whether a variable names this process, or none.
fn is_for_us(variable: &str) -> bool {
    env::var(variable).map_or(true, |pid| pid.parse() == Ok(std::process::id()))
}
