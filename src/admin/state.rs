//! The state that the administrator's API and the sampling service share.

use std::rc::Rc;
use std::time::Instant;

use crate::counters::{Counters, ProcessErrors};
use crate::hub::{HubHandle, HubStats};
use crate::net::Meter;
use crate::services::Stop;

use super::history::{History, Sample};
use super::process;

/// The state that the administrator's API and the sampling service share.
pub(crate) struct AdminState {
    pub(crate) hub: HubHandle,
    /// Requests the stop of the server, and shows if the public connections drain.
    pub(crate) stop: Stop,
    pub(crate) counters: Rc<Counters>,
    pub(crate) process_errors: ProcessErrors,
    history: History,
}

impl AdminState {
    /// Creates the state, with an empty history.
    pub(crate) fn new(
        hub: HubHandle,
        stop: Stop,
        counters: Rc<Counters>,
        process_errors: ProcessErrors,
    ) -> Self {
        Self { hub, stop, counters, process_errors, history: History::default() }
    }

    /// Returns the counters of the event loop.
    pub(super) fn meter(&self) -> &Meter {
        self.stop.timer().reactor().meter()
    }

    /// Returns the memory of unfinished input and output, in bytes.
    pub(super) fn pending_bytes(&self) -> usize {
        self.stop.timer().reactor().pending().total()
    }

    /// Returns the current time.
    pub(super) fn now(&self) -> Instant {
        self.stop.timer().now()
    }

    /// Returns the number of public connections that are not upgraded.
    pub(super) fn http_connections(&self, stats: &HubStats) -> usize {
        let counters = &self.counters;
        let others = counters.admin_connections.now() + stats.websocket + stats.events;
        // `stats` may still contain clients whose connection has just ended.
        counters.connections.now().saturating_sub(others)
    }

    /// Takes a sample, adds it to the history, and returns it as JSON.
    pub(super) fn sample(&self, stats: &HubStats) -> String {
        let (counters, meter) = (&self.counters, self.meter());
        let sample = Sample {
            at: self.now(),
            stats: *stats,
            http: self.http_connections(stats),
            accepted: counters.accepted.total(),
            received: counters.messages_received.total(),
            sent: counters.messages_sent.total(),
            lagged: counters.messages_lagged.total(),
            published: counters.published().map(|(_, count)| count).sum(),
            resident_bytes: process::resident_bytes(),
            worst_turn: meter.turns.take_longest(),
            is_draining: self.stop.is_requested(),
        };
        let mut json = String::new();
        sample.write(&mut json, self.now());
        self.history.add(sample);
        json
    }

    /// Returns the history as a server-sent event. The administrator's event stream begins with it.
    pub(super) fn history_event(&self) -> String {
        self.history.event(self.now())
    }
}
