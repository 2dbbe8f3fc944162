//! The line in the access log for a connection that carries only HTTP requests.

use std::cell::Cell;
use std::time::Instant;

use log::Level;

use super::request::Request;

/// The data for the line about the end of a connection. Dropping the entry writes the line. The level of the
/// line is debug: a request that went wrong has had a line of its own. The end of a session is logged by the
/// hub's record of the client instead.
pub(super) struct AccessLogEntry {
    accepted: Instant,
    requests: u32,
    /// The last request and the status of its response. `None` before the first request, and if the level
    /// debug is not logged: then no line is written.
    last: Option<Box<(Request, u16)>>,
    received_bytes: u64,
    sent_bytes: Cell<u64>,
    end: &'static str,
}

impl AccessLogEntry {
    /// Creates the entry of a connection that was accepted at this time. Unless [`end`](Self::end) is
    /// called, the line says that the connection was aborted.
    pub(super) fn new(accepted: Instant) -> Self {
        let sent_bytes = Cell::new(0);
        Self { accepted, requests: 0, last: None, received_bytes: 0, sent_bytes, end: "aborted" }
    }

    /// Adds a request that has been answered with `status`.
    pub(super) fn add_request(&mut self, request: Request, status: u16) {
        self.requests += 1;
        if log::log_enabled!(target: TARGET, Level::Debug) {
            self.last = Some(Box::new((request, status)));
        }
    }

    /// Counts bytes that were read.
    pub(super) fn count_received(&mut self, bytes: usize) {
        self.received_bytes += bytes as u64;
    }

    /// Counts bytes that were written.
    pub(super) fn count_sent(&self, bytes: usize) {
        self.sent_bytes.set(self.sent_bytes.get() + bytes as u64);
    }

    /// Sets the reason for the end of the connection.
    pub(super) fn end(&mut self, reason: &'static str) {
        self.end = reason;
    }

    /// Discards the line: the connection is upgraded, and the end of the session has its own line.
    pub(super) fn discard(&mut self) {
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
            duration_ms = self.accepted.elapsed().as_millis() as u64,
            received_bytes = self.received_bytes, sent_bytes = self.sent_bytes.get();
            "connection ended: {}", self.end
        );
    }
}

const TARGET: &str = "falconet::ended";
