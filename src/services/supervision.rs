//! A service that reports the server's state to systemd.

use std::future::pending;
use std::rc::Rc;

use crate::hub::HubHandle;
use crate::systemd::Notifier;

use super::service::Service;
use super::stop::Stop;

/// A service that notifies systemd that the server is alive, with the number of clients, and that
/// the server is stopping. The notifications are sent twice per watchdog timeout (`WatchdogSec=`).
/// Without a timeout, the service does not wake up until the server stops.
pub struct Supervision {
    notifier: Rc<Notifier>,
}

impl Supervision {
    /// Creates a service that sends its notifications with `notifier`.
    pub fn new(notifier: Rc<Notifier>) -> Self {
        Self { notifier }
    }

    async fn keep_alive(&self, hub: &HubHandle, stop: &Stop) {
        if let Some(timeout) = self.notifier.watchdog() {
            loop {
                stop.timer().sleep(Some(timeout / 2)).await;
                // If the hub does not answer, the server is not alive.
                let Ok(counts) = hub.client_counts().await else { break };
                self.notifier.notify(&format!("WATCHDOG=1\nSTATUS={} clients", counts.clients));
            }
        }
        pending().await
    }
}

impl Service for Supervision {
    async fn run(self: Box<Self>, hub: HubHandle, stop: Stop) {
        stop.unless_requested(self.keep_alive(&hub, &stop)).await;
        // WATCHDOG=1 restarts the watchdog timeout, so that the drain may take the whole timeout.
        self.notifier
            .notify("STOPPING=1\nWATCHDOG=1\nSTATUS=waiting for the clients to disconnect");
    }
}
