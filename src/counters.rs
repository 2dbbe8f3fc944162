//! Counters for statistics and metrics. Counting is one addition to a [`Cell`] and never waits.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Count(Cell<u64>);

impl Count {
    /// Adds `more` to the total.
    pub(crate) fn add(&self, more: u64) {
        self.0.set(self.0.get().wrapping_add(more));
    }

    /// Returns the total.
    pub(crate) fn total(&self) -> u64 {
        self.0.get()
    }
}

/// A number that grows and shrinks.
#[derive(Debug, Default)]
pub(crate) struct Gauge(Cell<usize>);

impl Gauge {
    /// Adds one.
    pub(crate) fn increment(&self) {
        self.0.set(self.0.get() + 1);
    }

    /// Subtracts one. Each call must follow a call of [`increment`](Self::increment).
    pub(crate) fn decrement(&self) {
        self.0.set(self.0.get() - 1);
    }

    /// Returns the current number.
    pub(crate) fn now(&self) -> usize {
        self.0.get()
    }
}

/// The counters of one server since its start. The bytes on its sockets are counted by the reactor.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Open connections, including those on the administrator's listener.
    pub(crate) connections: Gauge,
    /// Open connections on the administrator's listener.
    pub(crate) admin_connections: Gauge,
    /// Connections accepted on the public listeners.
    pub(crate) accepted: Count,
    rejected: [Count; REJECTIONS.len()],
    refused: [Count; REFUSALS.len()],
    requests: [Count; REQUEST_CLASSES.len()],
    pub(crate) messages_received: Count,
    pub(crate) messages_sent: Count,
    /// Messages that subscribers missed because they read too slowly.
    pub(crate) messages_lagged: Count,
    pub(crate) websocket_closed: Closings,
    /// Closed streams of server-sent events, without those of the administrator.
    pub(crate) events_closed: Closings,
    /// Clients evicted by the sweep: silent, not reading, or with an unfinished message.
    pub(crate) swept: Count,
    published: [Count; SOURCES.len()],
}

/// The numbers of closed sessions by close code.
#[derive(Debug, Default)]
pub(crate) struct Closings([Count; CLOSE_CODES.len()]);

impl Closings {
    /// Counts a session that closed with `code`.
    pub(crate) fn add(&self, code: u16) {
        let known = CLOSE_CODES.iter().position(|(known, _)| *known == code);
        self.0[known.unwrap_or(CLOSE_CODES.len() - 1)].add(1);
    }

    /// Returns the number of closed sessions for each close code.
    pub(crate) fn by_code(&self) -> impl Iterator<Item = (&'static str, u64)> {
        CLOSE_CODES.into_iter().map(|(_, code)| code).zip(self.0.iter().map(Count::total))
    }
}

/// The reason why a connection was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// The server has too many connections.
    Connections,
    /// The client's address has too many connections or TLS handshakes.
    Address,
    /// The bytes are not a valid request head.
    Head,
    /// No request head arrived in time.
    Timeout,
    /// The peer broke the TLS protocol or did not use TLS, or the handshake did not end in time.
    Tls,
    /// The header of the PROXY protocol was missing, malformed or late.
    Proxy,
    /// The memory for unfinished requests is used up.
    Memory,
}

/// The reason why a request was refused because of its sender or of a limit. A request that is refused because
/// of its content has no such reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The Host header is not a name of the server.
    Host,
    /// A page of another origin sent the request.
    Origin,
    /// The headers of a trusted proxy do not name one client.
    Proxy,
    /// The address of the client that a trusted proxy named has too many connections.
    Address,
    /// A proxy on this host named a client, and the server has too many connections.
    Connections,
    /// The request has no valid credentials (401).
    Unauthenticated,
    /// The client may not do what it requests (403).
    Forbidden,
    /// The client publishes too fast (429).
    Rate,
    /// The server sends too many files already (503).
    Files,
}

/// The kind of source of a published message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    WebSocket,
    Http,
    /// A service or an endpoint of this program.
    Service,
    Stdin,
    Admin,
}

impl Counters {
    /// Returns the number of open connections, without the administrator's.
    pub(crate) fn public_connections(&self) -> usize {
        self.connections.now() - self.admin_connections.now()
    }

    /// Counts a connection that was rejected.
    pub(crate) fn reject(&self, reason: Rejection) {
        self.rejected[reason as usize].add(1);
    }

    /// Counts a request that was refused.
    pub(crate) fn refuse(&self, reason: Refusal) {
        self.refused[reason as usize].add(1);
    }

    /// Counts a request by the status code of its response.
    pub(crate) fn answer(&self, status: u16) {
        let class = usize::from(status / 100).clamp(1, REQUEST_CLASSES.len());
        self.requests[class - 1].add(1);
    }

    /// Counts a published message.
    pub(crate) fn publish(&self, source: Source) {
        self.published[source as usize].add(1);
    }

    /// Returns the number of rejected connections for each reason.
    pub(crate) fn rejected(&self) -> impl Iterator<Item = (&'static str, u64)> {
        REJECTIONS.into_iter().zip(self.rejected.iter().map(Count::total))
    }

    /// Returns the number of refused requests for each reason.
    pub(crate) fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        REFUSALS.into_iter().zip(self.refused.iter().map(Count::total))
    }

    /// Returns the number of requests for each class of status codes.
    pub(crate) fn requests(&self) -> impl Iterator<Item = (&'static str, u64)> {
        REQUEST_CLASSES.into_iter().zip(self.requests.iter().map(Count::total))
    }

    /// Returns the number of published messages for each source.
    pub(crate) fn published(&self) -> impl Iterator<Item = (&'static str, u64)> {
        SOURCES.into_iter().zip(self.published.iter().map(Count::total))
    }
}

/// The numbers of panics and lost log lines in this process. Clones share the numbers.
#[derive(Clone, Debug, Default)]
pub struct ProcessErrors(Arc<[AtomicU64; 2]>);

impl ProcessErrors {
    /// Counts a panic and returns its number, which begins with 1.
    pub(crate) fn panicked(&self) -> u64 {
        self.0[0].fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Counts a line that was not written to the log.
    pub(crate) fn dropped_line(&self) {
        self.0[1].fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of panics.
    pub fn panics(&self) -> u64 {
        self.0[0].load(Ordering::Relaxed)
    }

    /// Returns the number of log lines that were suppressed, because there were too many of the
    /// same kind, or could not be written.
    pub fn log_lines_dropped(&self) -> u64 {
        self.0[1].load(Ordering::Relaxed)
    }
}

/// In the order of [`Rejection`].
const REJECTIONS: [&str; 7] =
    ["connections", "address", "head", "timeout", "tls", "proxy", "memory"];
/// In the order of [`Refusal`].
const REFUSALS: [&str; 9] = [
    "host",
    "origin",
    "proxy",
    "address",
    "connections",
    "unauthenticated",
    "forbidden",
    "rate",
    "files",
];
const REQUEST_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
/// In the order of [`Source`].
const SOURCES: [&str; 5] = ["websocket", "http", "service", "stdin", "admin"];
/// The registered close codes (RFC 6455 §7.4.1). The last entry stands for all other codes, so that
/// peers can't add labels.
const CLOSE_CODES: [(u16, &str); 15] = [
    (1000, "1000"),
    (1001, "1001"),
    (1002, "1002"),
    (1003, "1003"),
    (1005, "1005"),
    (1006, "1006"),
    (1007, "1007"),
    (1008, "1008"),
    (1009, "1009"),
    (1010, "1010"),
    (1011, "1011"),
    (1012, "1012"),
    (1013, "1013"),
    (1014, "1014"),
    (0, "other"),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the entries whose count is not zero.
    fn counted(each: impl Iterator<Item = (&'static str, u64)>) -> Vec<(&'static str, u64)> {
        each.filter(|(_, count)| *count > 0).collect()
    }

    #[test]
    fn each_reason_and_source_is_counted_under_its_label() {
        let counters = Counters::default();
        for (reason, name) in [
            (Rejection::Connections, "connections"),
            (Rejection::Address, "address"),
            (Rejection::Head, "head"),
            (Rejection::Timeout, "timeout"),
            (Rejection::Tls, "tls"),
            (Rejection::Proxy, "proxy"),
        ] {
            let before = counted(counters.rejected()).len();
            counters.reject(reason);
            assert_eq!(counted(counters.rejected())[before..], [(name, 1)]);
        }
        for (reason, name) in [
            (Refusal::Host, "host"),
            (Refusal::Origin, "origin"),
            (Refusal::Proxy, "proxy"),
            (Refusal::Address, "address"),
            (Refusal::Connections, "connections"),
            (Refusal::Unauthenticated, "unauthenticated"),
            (Refusal::Forbidden, "forbidden"),
            (Refusal::Rate, "rate"),
            (Refusal::Files, "files"),
        ] {
            let before = counted(counters.refused()).len();
            counters.refuse(reason);
            assert_eq!(counted(counters.refused())[before..], [(name, 1)]);
        }
        for (source, name) in [
            (Source::WebSocket, "websocket"),
            (Source::Http, "http"),
            (Source::Service, "service"),
            (Source::Stdin, "stdin"),
            (Source::Admin, "admin"),
        ] {
            let before = counted(counters.published()).len();
            counters.publish(source);
            assert_eq!(counted(counters.published())[before..], [(name, 1)]);
        }
    }

    #[test]
    fn unknown_codes_add_no_labels() {
        let counters = Counters::default();
        for code in 0..=u16::MAX {
            counters.websocket_closed.add(code);
            counters.answer(code);
        }
        assert_eq!(counted(counters.websocket_closed.by_code()).len(), CLOSE_CODES.len());
        assert_eq!(
            counted(counters.websocket_closed.by_code()).last(),
            Some(&("other", 65_536 - 14))
        );
        assert_eq!(counted(counters.requests()).len(), 5);
        assert_eq!(counted(counters.requests())[3], ("4xx", 100));
    }
}
