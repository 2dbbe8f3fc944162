//! What is remembered of a request while it is answered: its facts for the log, and its ids.

use std::cell::Cell;
use std::time::SystemTime;

use log::Level;

use crate::http::RequestHead;
use crate::http::response::Envelope;
use crate::hub::CorrelationId;
use crate::net::Peer;

/// A request, when its head is no longer at hand.
pub(super) struct Request {
    pub(super) peer: Peer,
    method: String,
    pub(super) path: String,
    pub(super) id: String,
    /// The id of whoever sent it, if it says one.
    pub(super) correlation: Option<CorrelationId>,
    /// How long its body is.
    pub(super) body_bytes: u64,
    /// Whether the connection ends with its answer.
    pub(super) close: bool,
    /// How much its line in the log matters.
    pub(super) level: Level,
}

impl Request {
    pub(super) fn of(head: &RequestHead<'_>, peer: Peer, correlations: &Correlations) -> Self {
        let said = head.query_value("client").map(str::as_bytes).or(head.single("x-client-id"));
        Self {
            peer,
            method: head.method().to_owned(),
            path: head.path().to_owned(),
            id: correlations.request_id(head),
            correlation: said.and_then(read_id),
            body_bytes: head.content_length().unwrap_or(0),
            close: !head.keeps_alive(),
            level: Level::Info,
        }
    }

    /// What its answer is sent in.
    pub(super) fn envelope(&self) -> Envelope {
        Envelope {
            body: self.method != "HEAD",
            close: self.close,
            request_id: Some(self.id.clone()),
            date: SystemTime::now(),
        }
    }

    /// Whether it only reads.
    pub(super) fn is_read(&self) -> bool {
        matches!(&*self.method, "GET" | "HEAD")
    }

    /// The id of whoever sent it, for the log.
    pub(super) fn correlation(&self) -> String {
        self.correlation.as_ref().map_or("-".to_owned(), CorrelationId::to_string)
    }

    /// Logs what became of it.
    pub(super) fn log(&self, status: u16, verb: &str) {
        // Published messages have lines of their own kind: many of them hide no others.
        let target = if self.is_read() { "falconet::request" } else { "falconet::publish" };
        log::log!(
            target: target, self.level,
            address = self.peer.to_string(), method = &*self.method, path = &*self.path, request = &*self.id,
            correlation = self.correlation(), status;
            "{verb}"
        );
    }
}

/// Makes ids that differ from those of the server's other runs: consecutive numbers from a random one.
pub(crate) struct Correlations {
    next: Cell<u64>,
}

impl Correlations {
    pub(crate) fn new() -> Self {
        let mut first = [0; 8];
        // Without randomness, ids of two runs may be equal; nothing else hangs on them.
        let _ = rustix::rand::getrandom(&mut first, rustix::rand::GetRandomFlags::NONBLOCK);
        Self { next: Cell::new(u64::from_ne_bytes(first)) }
    }

    /// An id for a client that brought none.
    pub(super) fn fresh(&self) -> CorrelationId {
        let number = self.next.get();
        self.next.set(number.wrapping_add(1));
        number.into()
    }

    /// The request's `X-Request-Id`, if it is 1 to 64 harmless bytes, or a fresh id.
    fn request_id(&self, head: &RequestHead<'_>) -> String {
        let said = head.single("x-request-id").and_then(read_id);
        said.unwrap_or_else(|| self.fresh()).to_string()
    }
}

fn read_id(bytes: &[u8]) -> Option<CorrelationId> {
    str::from_utf8(bytes).ok().and_then(CorrelationId::new)
}
