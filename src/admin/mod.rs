//! What the administrator sees and does, on a listener of its own.

mod api;
mod dashboard;
mod metrics;
mod process;
mod stats;

use std::fmt;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use crate::counters::{Counters, ProcessErrors};
use crate::hub::HubHandle;
use crate::net::{ListenUrl, Meter};
use crate::services::Stop;

pub(crate) use api::{AdminRequest, Errand};
pub(crate) use stats::{History, Stats};

/// Where the administrator's errands are done.
pub(crate) struct AdminState {
    pub(crate) hub: HubHandle,
    /// What stops the public part of the server, and tells that it drains.
    pub(crate) stop: Stop,
    pub(crate) counters: Rc<Counters>,
    pub(crate) process_errors: ProcessErrors,
    /// How things were.
    pub(crate) history: History,
}

impl AdminState {
    fn meter(&self) -> &Meter {
        self.stop.timer().reactor().meter()
    }
}

/// A time in seconds with six decimals. As a float it would take 20 KB of code to write.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0.as_secs(), self.0.subsec_micros())
    }
}

/// Whether the administrator may listen at `url`: where only this host can come.
///
/// # Errors
/// What the resolver says of the host name.
pub(crate) fn may_listen_at(url: &ListenUrl) -> io::Result<bool> {
    if *url == ListenUrl::Systemd {
        return Ok(false);
    }
    // Of a Unix socket there is none.
    Ok(url.resolve()?.iter().all(|address| address.ip().to_canonical().is_loopback()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_have_six_decimals() {
        assert_eq!(Seconds(Duration::from_micros(1_000_020)).to_string(), "1.000020");
    }

    #[test]
    fn the_administrator_listens_where_only_this_host_can_come() {
        for (url, may) in [
            ("unix:/run/falconet-admin.sock", true),
            ("http://localhost:1", true),
            ("http://127.0.0.1:1", true),
            ("http://127.9.9.9:1", true),
            ("http://[::1]:1", true),
            ("http://[::ffff:127.0.0.1]:1", true),
            ("systemd", false),
            ("http://0.0.0.0:1", false),
            ("http://[::]:1", false),
            ("http://192.0.2.1:1", false),
            ("http://[2001:db8::1]:1", false),
        ] {
            assert_eq!(may_listen_at(&url.parse().unwrap()).unwrap(), may, "{url}");
        }
    }
}
