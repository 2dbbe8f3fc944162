//! A service that checks the deadlines of all clients when one is due.

use std::future::pending;

use futures_lite::FutureExt;

use crate::hub::HubHandle;

use super::service::Service;
use super::stop::Stop;

/// A service with one timer for all deadlines of all clients. It does not wake up while there is no
/// client.
pub(crate) struct Sweep;

impl Service for Sweep {
    async fn run(self: Box<Self>, hub: HubHandle, stop: Stop) {
        while stop.unless_requested(next_due(&hub, &stop)).await.is_some() {
            // The timer's time is that of the last batch of events, which may be old by now.
            if hub.sweep(std::time::Instant::now()).await.is_err() {
                return;
            }
        }
    }
}

/// Waits until the alarm is due. The alarm may be reset while this function waits.
async fn next_due(hub: &HubHandle, stop: &Stop) {
    let alarm = hub.alarm();
    loop {
        let due = async {
            match alarm.due() {
                Some(due) => stop.timer().sleep_until(due).await,
                None => pending().await,
            }
            true
        };
        let reset = async {
            alarm.bell.ringing().await;
            false
        };
        if due.or(reset).await {
            return;
        }
    }
}
