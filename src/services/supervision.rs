//! Signs of life for systemd.

use std::future::pending;
use std::rc::Rc;

use crate::hub::HubHandle;
use crate::systemd::Notifier;

use super::{Service, Stop};

/// Tells systemd that the server lives, with the number of its clients, twice in the time that systemd
/// waits for that (`WatchdogSec=`), and that it stops. If systemd does not wait it does not wake up.
pub struct Supervision {
    notifier: Rc<Notifier>,
}

impl Supervision {
    /// Tells it by `notifier`.
    pub fn new(notifier: Rc<Notifier>) -> Self {
        Self { notifier }
    }

    async fn live(&self, hub: &HubHandle, stop: &Stop) {
        if let Some(patience) = self.notifier.watchdog() {
            loop {
                stop.timer().sleep(Some(patience / 2)).await;
                // The hub is asked, for a server without one is as good as dead.
                let Ok(census) = hub.client_counts().await else { break };
                self.notifier.tell(&format!("WATCHDOG=1\nSTATUS={} clients", census.clients));
            }
        }
        pending().await
    }
}

impl Service for Supervision {
    async fn run(self: Box<Self>, hub: HubHandle, stop: Stop) {
        stop.unless_requested(self.live(&hub, &stop)).await;
        // The drain has all the time that systemd waits.
        self.notifier.tell("STOPPING=1\nWATCHDOG=1\nSTATUS=waiting for the clients to leave");
    }
}
