//! What is remembered of a connection of plain requests, for its line in the access log.

use std::cell::Cell;
use std::time::Instant;

use log::Level;

use super::request::Request;

/// A connection that made requests and was nothing else. However it ends, its drop logs that, as the end
/// of a session is logged; but for debugging only, for each of its requests has had a line.
pub(super) struct AccessLogEntry {
    begun: Instant,
    requests: u32,
    /// The last request and the status it was answered with; none while nobody reads of it.
    last: Option<Box<(Request, u16)>>,
    received_bytes: u64,
    sent_bytes: Cell<u64>,
    end: &'static str,
}

impl AccessLogEntry {
    /// A access_log that begins now, and has been aborted if nobody says how it ended.
    pub(super) fn new(begun: Instant) -> Self {
        let sent_bytes = Cell::new(0);
        Self { begun, requests: 0, last: None, received_bytes: 0, sent_bytes, end: "aborted" }
    }

    /// Notes that a request is done with.
    pub(super) fn note(&mut self, request: Request, status: u16) {
        self.requests += 1;
        if log::log_enabled!(target: TARGET, Level::Debug) {
            self.last = Some(Box::new((request, status)));
        }
    }

    pub(super) fn count_received(&mut self, bytes: usize) {
        self.received_bytes += bytes as u64;
    }

    pub(super) fn count_sent(&self, bytes: usize) {
        self.sent_bytes.set(self.sent_bytes.get() + bytes as u64);
    }

    /// Says how it ends.
    pub(super) fn end(&mut self, how: &'static str) {
        self.end = how;
    }

    /// Says that the connection goes on as something else, whose end has a line of its own.
    pub(super) fn hand_over(&mut self) {
        self.last = None;
    }
}

impl Drop for AccessLogEntry {
    fn drop(&mut self) {
        let Some((request, status)) = self.last.take().map(|last| *last) else { return };
        log::debug!(
            target: TARGET,
            address = request.peer.to_string(), correlation = request.correlation(), kind = "http",
            path = &*request.path, request = &*request.id, requests = self.requests, status,
            duration_ms = self.begun.elapsed().as_millis() as u64,
            received_bytes = self.received_bytes, sent_bytes = self.sent_bytes.get();
            "connection ended: {}", self.end
        );
    }
}

const TARGET: &str = "falconet::ended";
