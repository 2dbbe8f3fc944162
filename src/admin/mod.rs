//! Administration: a dashboard, metrics, and an API for clients and topics, on a listener of their own.

mod api;
mod dashboard;
mod history;
mod metrics;
mod process;
mod seconds;
mod state;
mod stats;

use std::io;

use crate::net::ListenUrl;

pub(crate) use api::AdminApi;
pub(crate) use process::open_files;
pub(crate) use state::AdminState;
pub(crate) use stats::Stats;

/// Returns true if only this host can reach `url`. Only then may the administrator's listener be there
/// without an authorizer.
///
/// # Errors
/// The error of resolving the host name.
pub(crate) fn may_listen_at(url: &ListenUrl) -> io::Result<bool> {
    if *url == ListenUrl::Systemd {
        return Ok(false);
    }
    // A Unix socket resolves to no address.
    Ok(url.resolve()?.iter().all(|address| address.ip().to_canonical().is_loopback()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_admin_listener_is_allowed_only_where_other_hosts_cannot_connect() {
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
