//! What systemd passes to the programs that it starts (sd_listen_fds(3)), and is told by them
//! (sd_notify(3)).

use std::cell::Cell;
use std::env;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use listenfd::ListenFd;
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, send, socket_with,
    sockopt,
};

use crate::escaped::Escaped;

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
        match Self::connect(&name, watchdog()) {
            Ok(notifier) => Some(notifier),
            Err(error) => {
                log::warn!("can't tell systemd anything at {}: {error}", Escaped(&name));
                None
            }
        }
    }

    /// One that tells whoever listens at `name`, as in `NOTIFY_SOCKET`, and who waits for a sign of life as
    /// long as `watchdog` says.
    ///
    /// # Errors
    /// If nobody listens there.
    pub fn connect(name: &str, watchdog: Option<Duration>) -> io::Result<Self> {
        Ok(Self { socket: connect_to(name)?, watchdog, has_failed: Cell::new(false) })
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

/// Takes the listening stream sockets that systemd passed. A second time there are none.
///
/// # Errors
/// If there are none, or one that is passed is something else.
pub(crate) fn take_listeners() -> io::Result<Vec<OwnedFd>> {
    let count = env::var("LISTEN_FDS").ok().and_then(|count| count.parse::<usize>().ok());
    let count = count.filter(|count| *count <= MOST_LISTENERS && is_for_us("LISTEN_PID"));
    let count = count.unwrap_or(0);
    if count == 0 {
        return Err(io::Error::other("it passed no sockets (LISTEN_FDS, LISTEN_PID)"));
    }
    let mut passed = ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..count {
        let wrong =
            || format!("descriptor {} is no stream socket that listens", FIRST_PASSED + index);
        let listener = take_listener(&mut passed, index);
        listeners.push(listener.ok_or_else(|| io::Error::other(wrong()))?);
    }
    Ok(listeners)
}

fn take_listener(passed: &mut ListenFd, index: usize) -> Option<OwnedFd> {
    let listener = match passed.take_tcp_listener(index) {
        Ok(listener) => listener.map(OwnedFd::from),
        Err(_) => passed.take_unix_listener(index).ok()?.map(OwnedFd::from),
    };
    listener.filter(|listener| sockopt::socket_acceptconn(listener).unwrap_or(false))
}

/// The descriptor that is passed first (SD_LISTEN_FDS_START).
const FIRST_PASSED: usize = 3;
/// More than anybody has; the number is looked at before there is room for so many.
const MOST_LISTENERS: usize = 256;
