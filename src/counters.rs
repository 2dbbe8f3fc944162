//! What is counted. Counting is one add to a cell; nobody waits for it and nothing hangs on it.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Count(Cell<u64>);

impl Count {
    /// Counts so many more.
    pub(crate) fn add(&self, more: u64) {
        self.0.set(self.0.get().wrapping_add(more));
    }

    /// How many there were.
    pub(crate) fn total(&self) -> u64 {
        self.0.get()
    }
}

/// A number that grows and shrinks.
#[derive(Debug, Default)]
pub(crate) struct Level(Cell<usize>);

impl Level {
    /// One more.
    pub(crate) fn rise(&self) {
        self.0.set(self.0.get() + 1);
    }

    /// One less, of those that rose.
    pub(crate) fn fall(&self) {
        self.0.set(self.0.get() - 1);
    }

    /// How many there are.
    pub(crate) fn now(&self) -> usize {
        self.0.get()
    }
}

/// What one server has counted since its start. What passes on its sockets, the reactor counts.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Connections open now, those of the administrator among them.
    pub(crate) connections: Level,
    /// Connections open now on the listener of the administrator.
    pub(crate) admin_connections: Level,
    pub(crate) accepted: Count,
    rejected: [Count; REJECTIONS.len()],
    refused: [Count; REFUSALS.len()],
    requests: [Count; REQUEST_CLASSES.len()],
    pub(crate) messages_received: Count,
    pub(crate) messages_sent: Count,
    pub(crate) messages_lagged: Count,
    pub(crate) websocket_closed: Closings,
    /// Of listeners to server-sent events; not those of the administrator.
    pub(crate) events_closed: Closings,
    pub(crate) swept: Count,
    published: [Count; SOURCES.len()],
}

/// How sessions have ended, by close code.
#[derive(Debug, Default)]
pub(crate) struct Closings([Count; CLOSE_CODES.len()]);

impl Closings {
    /// Counts a session by the code it closed with.
    pub(crate) fn add(&self, code: u16) {
        let known = CLOSE_CODES.iter().position(|(known, _)| *known == code);
        self.0[known.unwrap_or(CLOSE_CODES.len() - 1)].add(1);
    }

    /// The closed sessions by code.
    pub(crate) fn by_code(&self) -> impl Iterator<Item = (&'static str, u64)> {
        CLOSE_CODES.into_iter().map(|(_, code)| code).zip(self.0.iter().map(Count::total))
    }
}

/// Why a connection got nothing of what it came for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// There were too many already.
    Connections,
    /// There were too many of its address already.
    Address,
    /// Its bytes were no request.
    Head,
    /// No request came in time.
    Timeout,
    /// It did not speak TLS where that is spoken, or not in time.
    Tls,
    /// A proxy did not say for whom it is, or not in time.
    Proxy,
}

/// Why a request got nothing of what it asked for, by who sent it and not by what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The server does not go by that name.
    Host,
    /// A page from elsewhere sent it.
    Origin,
    /// The proxy that brought it names two clients.
    Proxy,
    /// A proxy brought it, and there were too many of its client's address already.
    Address,
    /// It does not say who sent it (401).
    Unauthenticated,
    /// Whoever sent it may not do that (403).
    Forbidden,
    /// Whoever sent it publishes too fast (429).
    Rate,
}

/// Where a published message came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    WebSocket,
    Http,
    /// The program itself: a service or an endpoint.
    Service,
    Stdin,
    Admin,
}

impl Counters {
    /// Counts a connection that was refused.
    pub(crate) fn reject(&self, why: Rejection) {
        self.rejected[why as usize].add(1);
    }

    /// Counts a request that was refused.
    pub(crate) fn refuse(&self, why: Refusal) {
        self.refused[why as usize].add(1);
    }

    /// Counts a request by the status of its response.
    pub(crate) fn answer(&self, status: u16) {
        let class = usize::from(status / 100).clamp(1, REQUEST_CLASSES.len());
        self.requests[class - 1].add(1);
    }

    /// Counts a published message.
    pub(crate) fn publish(&self, source: Source) {
        self.published[source as usize].add(1);
    }

    /// The refused connections by reason.
    pub(crate) fn rejected(&self) -> impl Iterator<Item = (&'static str, u64)> {
        REJECTIONS.into_iter().zip(self.rejected.iter().map(Count::total))
    }

    /// The refused requests by reason.
    pub(crate) fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        REFUSALS.into_iter().zip(self.refused.iter().map(Count::total))
    }

    /// The requests by class of status.
    pub(crate) fn requests(&self) -> impl Iterator<Item = (&'static str, u64)> {
        REQUEST_CLASSES.into_iter().zip(self.requests.iter().map(Count::total))
    }

    /// The published messages by source.
    pub(crate) fn published(&self) -> impl Iterator<Item = (&'static str, u64)> {
        SOURCES.into_iter().zip(self.published.iter().map(Count::total))
    }
}

/// What goes wrong where only the process as a whole can see it. Clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct ProcessErrors(Arc<[AtomicU64; 2]>);

impl ProcessErrors {
    /// Counts a panic; says which it is, counted from 1.
    pub(crate) fn panicked(&self) -> u64 {
        self.0[0].fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Counts a line that did not get into the log.
    pub(crate) fn dropped_line(&self) {
        self.0[1].fetch_add(1, Ordering::Relaxed);
    }

    /// How many panics there were.
    pub fn panics(&self) -> u64 {
        self.0[0].load(Ordering::Relaxed)
    }

    /// How many log lines were suppressed, for there were many of their kind, or could not be written.
    pub fn log_lines_dropped(&self) -> u64 {
        self.0[1].load(Ordering::Relaxed)
    }
}

/// In the order of [`Rejection`].
const REJECTIONS: [&str; 6] = ["connections", "address", "head", "timeout", "tls", "proxy"];
/// In the order of [`Refusal`].
const REFUSALS: [&str; 7] =
    ["host", "origin", "proxy", "address", "unauthenticated", "forbidden", "rate"];
const REQUEST_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
/// In the order of [`Source`].
const SOURCES: [&str; 5] = ["websocket", "http", "service", "stdin", "admin"];
/// The registered codes (RFC 6455 §7.4.1); the last stands for all that peers may make up.
const CLOSE_CODES: [(u16, &str); 14] = [
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
    (0, "other"),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Those that were counted, with how often.
    fn counted(each: impl Iterator<Item = (&'static str, u64)>) -> Vec<(&'static str, u64)> {
        each.filter(|(_, count)| *count > 0).collect()
    }

    #[test]
    fn everything_is_counted_under_its_name() {
        let counters = Counters::default();
        for (why, name) in [
            (Rejection::Connections, "connections"),
            (Rejection::Address, "address"),
            (Rejection::Head, "head"),
            (Rejection::Timeout, "timeout"),
            (Rejection::Tls, "tls"),
            (Rejection::Proxy, "proxy"),
        ] {
            let before = counted(counters.rejected()).len();
            counters.reject(why);
            assert_eq!(counted(counters.rejected())[before..], [(name, 1)]);
        }
        for (why, name) in [
            (Refusal::Host, "host"),
            (Refusal::Origin, "origin"),
            (Refusal::Proxy, "proxy"),
            (Refusal::Address, "address"),
            (Refusal::Unauthenticated, "unauthenticated"),
            (Refusal::Forbidden, "forbidden"),
            (Refusal::Rate, "rate"),
        ] {
            let before = counted(counters.refused()).len();
            counters.refuse(why);
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
    fn what_peers_make_up_makes_no_new_labels() {
        let counters = Counters::default();
        for code in 0..=u16::MAX {
            counters.websocket_closed.add(code);
            counters.answer(code);
        }
        assert_eq!(counted(counters.websocket_closed.by_code()).len(), CLOSE_CODES.len());
        assert_eq!(
            counted(counters.websocket_closed.by_code()).last(),
            Some(&("other", 65_536 - 13))
        );
        assert_eq!(counted(counters.requests()).len(), 5);
        assert_eq!(counted(counters.requests())[3], ("4xx", 100));
    }
}
