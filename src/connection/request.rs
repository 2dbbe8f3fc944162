//! The properties of a request that are needed after its head has been consumed: for the response and for
//! the log.

use std::cell::{Cell, RefCell};
use std::time::SystemTime;

use log::Level;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::access::Access;
use crate::features::Feature;
use crate::http::RequestHead;
use crate::http::accept::asks_for_events;
use crate::http::body::Framing;
use crate::http::response::Envelope;
use crate::hub::CorrelationId;
use crate::net::Peer;

/// The properties of a request that are needed after its head has been consumed.
pub(super) struct Request {
    pub(super) peer: Peer,
    method: String,
    /// The path as it was sent, so that the log shows its spaces and control characters encoded.
    pub(super) path: String,
    pub(super) id: String,
    /// The correlation id that the client sent, if any.
    pub(super) correlation: Option<CorrelationId>,
    /// True if the client asks for an event stream.
    pub(super) wants_events: bool,
    pub(super) body: Framing,
    /// The header lines of the response for pages of other origins.
    cors_lines: String,
    /// True if the connection is closed after the response.
    pub(super) close: bool,
}

impl Request {
    /// Copies the properties of a request from its head.
    pub(super) fn of(
        head: &RequestHead<'_>,
        peer: Peer,
        ids: &IdGenerator,
        access: &Access,
    ) -> Self {
        let correlation =
            head.query_value("client").map(str::as_bytes).or(head.single("x-client-id"));
        Self {
            peer,
            method: head.method().to_owned(),
            path: head.encoded_path().to_owned(),
            id: ids.request_id(head),
            correlation: correlation.and_then(read_id),
            wants_events: Feature::Full.is_built_in() && asks_for_events(head),
            body: head.body(),
            cors_lines: access.cors_lines(head.single("origin")),
            close: !head.keeps_alive(),
        }
    }

    /// Returns the envelope of the response.
    pub(super) fn envelope(&self) -> Envelope {
        Envelope {
            body: self.method != "HEAD",
            close: self.close,
            request_id: Some(self.id.clone()),
            cors_lines: self.cors_lines.clone(),
            date: SystemTime::now(),
        }
    }

    /// Returns the correlation id as text for the log; `-` without one.
    pub(super) fn correlation(&self) -> String {
        self.correlation.as_ref().map_or("-".to_owned(), CorrelationId::to_string)
    }

    /// Logs the response: its status, and `outcome` as the text of the line. The level should be debug if the
    /// request succeeded: a producer or a monitoring system may send a request every second, which the metrics
    /// count.
    pub(super) fn log(&self, level: Level, status: u16, outcome: &str) {
        // The number of lines per target is limited. With a target of their own, many published messages do
        // not suppress the lines about other requests.
        let is_read = matches!(&*self.method, "GET" | "HEAD" | "OPTIONS");
        let target = if is_read { "falconet::request" } else { "falconet::publish" };
        log::log!(
            target: target, level,
            address = self.peer.to_string(), method = &*self.method, path = &*self.path, request = &*self.id,
            correlation = self.correlation(), status;
            "{outcome}"
        );
    }
}

/// A generator of random ids for clients and requests. A client that knows its own id learns nothing about the
/// ids of others.
#[derive(Default)]
pub(crate) struct IdGenerator {
    /// Random numbers for ids. They are read from the kernel many at a time, to save system calls.
    numbers: RefCell<[[u8; 8]; IDS_AT_ONCE]>,
    /// The number of random numbers that no id has used yet.
    unused: Cell<usize>,
}

impl IdGenerator {
    /// Returns a new id, for a client or request that has none.
    pub(super) fn generate(&self) -> CorrelationId {
        let mut numbers = self.numbers.borrow_mut();
        if self.unused.get() == 0 {
            if getrandom(numbers.as_flattened_mut(), GetRandomFlags::NONBLOCK).is_err() {
                return time_number().into();
            }
            self.unused.set(IDS_AT_ONCE);
        }
        self.unused.update(|unused| unused - 1);
        u64::from_ne_bytes(numbers[self.unused.get()]).into()
    }

    /// Returns the request's `X-Request-Id` if it has the form of a [`CorrelationId`], or else a new id.
    fn request_id(&self, head: &RequestHead<'_>) -> String {
        let sent = head.single("x-request-id").and_then(read_id);
        sent.unwrap_or_else(|| self.generate()).to_string()
    }
}

/// Returns the time as a number, in place of a random number, which the kernel does not have while it boots.
/// Other clients can guess such an id, but an id grants no rights.
fn time_number() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.as_nanos() as u64
}

fn read_id(bytes: &[u8]) -> Option<CorrelationId> {
    str::from_utf8(bytes).ok().and_then(CorrelationId::new)
}

/// The number of ids for which random numbers are read at once.
const IDS_AT_ONCE: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_cannot_be_guessed_from_the_one_before() {
        let generator = IdGenerator::default();
        let numbers: Vec<u64> = (0..4 * IDS_AT_ONCE)
            .map(|_| u64::from_str_radix(&generator.generate().to_string(), 16).unwrap())
            .collect();
        for pair in numbers.windows(2) {
            assert!(pair[0].abs_diff(pair[1]) > 1 << 32, "{pair:x?}");
        }
    }
}
