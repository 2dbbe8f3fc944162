//! Sockets passed by systemd (sd_listen_fds(3)), and notifications to systemd (sd_notify(3)).

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

/// A connection to systemd for status notifications.
pub struct Notifier {
    socket: OwnedFd,
    watchdog: Option<Duration>,
    has_failed: Cell<bool>,
}

impl Notifier {
    /// Connects to the socket in the environment variable `NOTIFY_SOCKET`, with the watchdog timeout of
    /// `WATCHDOG_USEC`. Returns `None` if the variable is not set. A failure is logged and also returns
    /// `None`.
    ///
    /// Must be called before the process drops privileges, because it may not be able to connect later.
    pub fn from_environment() -> Option<Self> {
        let name = env::var("NOTIFY_SOCKET").ok()?;
        match Self::connect(&name, watchdog()) {
            Ok(notifier) => Some(notifier),
            Err(error) => {
                log::warn!("can't connect to systemd: NOTIFY_SOCKET {}: {error}", Escaped(&name));
                None
            }
        }
    }

    /// Connects to the Unix datagram socket `name`: a path, or an abstract name after an `@`. `watchdog`
    /// is the watchdog timeout, if there is one.
    ///
    /// # Errors
    /// If the name is not valid or the socket can't be connected to.
    pub fn connect(name: &str, watchdog: Option<Duration>) -> io::Result<Self> {
        Ok(Self { socket: connect_to(name)?, watchdog, has_failed: Cell::new(false) })
    }

    /// Returns the longest time that systemd waits for the next `WATCHDOG=1`, or `None` if the watchdog
    /// is off.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Sends lines of the form `NAME=value`. Never blocks: a notification that can't be sent at once is
    /// lost. A warning is logged for the first one that is lost.
    pub fn notify(&self, lines: &str) {
        let sent = send(&self.socket, lines.as_bytes(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        if let Err(error) = sent
            && !self.has_failed.replace(true)
        {
            log::warn!("can't notify systemd: {error}");
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

/// Returns the watchdog timeout of this process from the environment (sd_watchdog_enabled(3)).
fn watchdog() -> Option<Duration> {
    let microseconds = env::var("WATCHDOG_USEC").ok()?.parse().ok().filter(|time| *time > 0)?;
    is_for_this_process("WATCHDOG_PID").then(|| Duration::from_micros(microseconds))
}

/// Returns true if the environment variable contains the id of this process, or is not set.
fn is_for_this_process(pid_variable: &str) -> bool {
    env::var(pid_variable).map_or(true, |pid| pid.parse() == Ok(std::process::id()))
}

/// Takes the listening stream sockets that systemd passed to this process.
///
/// # Errors
/// If no sockets were passed, if they were taken before, or if one of them is not a listening stream
/// socket.
pub(crate) fn take_listeners() -> io::Result<Vec<OwnedFd>> {
    let count = env::var("LISTEN_FDS").ok().and_then(|count| count.parse::<usize>().ok());
    let count = count.filter(|count| *count <= MAX_LISTENERS && is_for_this_process("LISTEN_PID"));
    let count = count.unwrap_or(0);
    if count == 0 {
        return Err(io::Error::other(NO_SOCKETS));
    }
    let mut passed = ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..count {
        let not_listening =
            || format!("descriptor {} is not a listening stream socket", FIRST_PASSED + index);
        let listener = take_listener(&mut passed, index);
        listeners.push(listener.ok_or_else(|| io::Error::other(not_listening()))?);
    }
    Ok(listeners)
}

/// Takes the passed socket at `index`, or returns `None` if it is not a listening stream socket.
fn take_listener(passed: &mut ListenFd, index: usize) -> Option<OwnedFd> {
    let listener = match passed.take_tcp_listener(index) {
        Ok(listener) => listener.map(OwnedFd::from),
        Err(_) => passed.take_unix_listener(index).ok()?.map(OwnedFd::from),
    };
    listener.filter(|listener| sockopt::socket_acceptconn(listener).unwrap_or(false))
}

const NO_SOCKETS: &str = "systemd passed no sockets; expected LISTEN_FDS from 1 to 256 in the \
    environment, and the id of this process in LISTEN_PID, if that is set";
/// The first passed descriptor (`SD_LISTEN_FDS_START`).
const FIRST_PASSED: usize = 3;
/// The maximum number of sockets that are accepted. The limit is checked before memory is allocated for
/// `LISTEN_FDS` sockets.
const MAX_LISTENERS: usize = 256;
