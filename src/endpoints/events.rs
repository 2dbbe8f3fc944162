//! A topic as server-sent events: what `curl -N` shows and EventSource understands.

use std::cell::RefCell;
use std::fmt::Write;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use base64ct::{Base64, Encoding as _};

use crate::access::AddressPermit;
use crate::config::SlowConsumer;
use crate::http::Response;
use crate::hub::{CorrelationId, Delivery, Eviction, Membership};
use crate::net::Transport;
use crate::ws::frame::{CloseReason, Frame};
use crate::ws::{Outlet, SessionEnd, SessionShared};

use super::Stage;
use super::topic::EVENT_STREAM;

/// The head of the response that the events follow: those after the message of number `sequence`.
pub(crate) fn response(correlation: &CorrelationId, sequence: u64) -> Response {
    Response::endless(EVENT_STREAM)
        .with_header("Cache-Control", "no-cache")
        .with_header("X-Sequence", sequence.to_string())
        .with_header("X-Client-Id", correlation.to_string())
}

/// A client that listens.
pub(crate) struct EventStream {
    outlet: Outlet,
    encoder: Encoder,
    shared: Rc<SessionShared>,
    _permit: Option<AddressPermit>,
    ignored_bytes: u32,
}

impl EventStream {
    /// A stream on a connection whose response head has been sent.
    pub(crate) fn new(
        transport: Transport,
        permit: Option<AddressPermit>,
        membership: Membership,
        encoder: Encoder,
        shared: Rc<SessionShared>,
    ) -> Self {
        let outlet = Outlet::new(transport, membership);
        Self { outlet, encoder, shared, _permit: permit, ignored_bytes: 0 }
    }

    /// Sends what is published until the client leaves or must go.
    pub(crate) fn begin(mut self) -> Stage {
        Stage::last(async move {
            let end = poll_fn(|cx| self.poll_end(cx)).await;
            match (end, self.outlet.client().eviction()) {
                // It gives no sign of life: nobody waits for it.
                (_, Some(Eviction { answering: false, .. })) => self.outlet.transport().shut_down(),
                // Boxed, so that who listens holds no room for it.
                (SessionEnd::Evicted(_), _) => Box::pin(self.finish()).await,
                _ => {}
            }
            end.tell(self.outlet.client(), self.outlet.transport().timer().now());
        })
    }

    async fn finish(&mut self) {
        let timeouts = self.shared.config.timeouts.clone();
        let timer = self.outlet.transport().timer();
        let deadline = timer.sleep(Some(timeouts.close_handshake));
        timer.until(deadline, self.say_the_rest()).await;
        self.outlet.transport().see_off(timeouts.linger).await;
    }

    /// Sends what was published before, if it is the hub that ends the stream.
    async fn say_the_rest(&mut self) {
        if self.outlet.client().eviction().is_some() {
            let _ = poll_fn(|cx| self.poll_deliver(cx)).await;
        }
        let _ = self.outlet.drained().await;
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<SessionEnd> {
        self.outlet.client().bell.listen(cx);
        if let Some(eviction) = self.outlet.client().eviction() {
            return Poll::Ready(SessionEnd::Evicted(eviction.reason));
        }
        if self.poll_gone(cx).is_ready() {
            return Poll::Ready(SessionEnd::TransportLost);
        }
        match ready!(self.poll_deliver(cx)) {
            Err(end) => Poll::Ready(end),
            Ok(()) => Poll::Pending,
        }
    }

    /// Is ready when the client has left. Who listens has nothing to say: some of it is ignored.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.ignored_bytes < MAX_IGNORED_BYTES {
            match ready!(self.outlet.transport().poll_recv_with(cx, <[u8]>::len)) {
                Ok(0) | Err(_) => break,
                Ok(count) => self.ignored_bytes += count as u32,
            }
        }
        Poll::Ready(())
    }

    /// Sends what the hub has for this client, as fast as the client reads.
    fn poll_deliver(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SessionEnd>> {
        loop {
            if ready!(self.outlet.poll_drained(cx)).is_err() {
                return Poll::Ready(Err(SessionEnd::TransportLost));
            }
            if !self.outlet.client().bell.is_rung() {
                return Poll::Ready(Ok(()));
            }
            let Some(delivery) = self.outlet.membership().subscription.next() else {
                self.outlet.client().bell.hush();
                continue;
            };
            match &delivery {
                Delivery::Mail(frame) if frame.is_ping() => {}
                Delivery::Mail(_) | Delivery::Published(..) => self.outlet.client().count_sent(),
                Delivery::Lagged(messages) => self.outlet.client().count_lagged(*messages),
            }
            let event = self.encoder.encode(&delivery);
            if self.outlet.send_shared(cx, &event).is_err() {
                return Poll::Ready(Err(SessionEnd::TransportLost));
            }
            // It says nothing, so its sign of life is that it has taken what was sent before; TCP gives
            // up on who is not there to take anything.
            self.outlet.client().seen(self.outlet.transport().timer().now());
            let closes = self.shared.config.topics.slow_consumer == SlowConsumer::Close;
            if closes && matches!(delivery, Delivery::Lagged(_)) {
                return Poll::Ready(Err(SessionEnd::Evicted(CloseReason::SLOW_CONSUMER)));
            }
        }
    }
}

/// Encodes events: a message that many hear, once.
#[derive(Clone, Default)]
pub(crate) struct Encoder(Rc<Encoding>);

#[derive(Default)]
struct Encoding {
    /// The type of the events; without one it is that of all events without.
    kind: Option<&'static str>,
    last: RefCell<Option<Encoded>>,
}

/// A message, its number, and the event that it is.
struct Encoded {
    frame: Frame,
    sequence: u64,
    event: Rc<[u8]>,
}

impl Encoder {
    /// Encodes messages as events of a type.
    pub(crate) fn of_kind(kind: &'static str) -> Self {
        Self(Rc::new(Encoding { kind: Some(kind), last: RefCell::default() }))
    }

    /// Encodes one event, or finds it encoded.
    fn encode(&self, delivery: &Delivery) -> Rc<[u8]> {
        let mut last = self.0.last.borrow_mut();
        if let (Delivery::Published(sequence, frame), Some(last)) = (delivery, &*last)
            && *sequence == last.sequence
            && Rc::ptr_eq(frame.shared(), last.frame.shared())
        {
            return last.event.clone();
        }
        let mut event = String::with_capacity(match delivery {
            Delivery::Published(_, frame) | Delivery::Mail(frame) => FIELDS_BYTES + frame.len(),
            Delivery::Lagged(_) => FIELDS_BYTES,
        });
        if let (Some(kind), Delivery::Published(..)) = (self.0.kind, delivery) {
            let _ = writeln!(event, "event: {kind}");
        }
        write_event(&mut event, delivery);
        let event: Rc<[u8]> = event.into_bytes().into();
        if let Delivery::Published(sequence, frame) = delivery {
            let (frame, sequence, event) = (frame.clone(), *sequence, event.clone());
            *last = Some(Encoded { frame, sequence, event });
        }
        event
    }
}

/// Writing to a string never fails.
fn write_event(event: &mut String, delivery: &Delivery) {
    match delivery {
        Delivery::Mail(frame) if frame.is_ping() => event.push_str(":\n"),
        Delivery::Mail(frame) => encode_payload(event, frame),
        Delivery::Published(sequence, frame) => {
            let _ = writeln!(event, "id: {sequence}");
            encode_payload(event, frame);
        }
        Delivery::Lagged(lost) => _ = writeln!(event, "event: lagged\ndata: {lost}"),
    }
    event.push('\n');
}

fn encode_payload(buffer: &mut String, frame: &Frame) {
    match str::from_utf8(frame.payload()).ok().filter(|_| frame.is_text()) {
        Some(text) => {
            let mut rest = text;
            // All three ends of a line that a reader knows; it will put LF in their place.
            while let Some(end) = rest.bytes().position(|byte| matches!(byte, b'\r' | b'\n')) {
                let _ = writeln!(buffer, "data: {}", &rest[..end]);
                let line_end = if rest[end..].starts_with("\r\n") { 2 } else { 1 };
                rest = &rest[end + line_end..];
            }
            let _ = writeln!(buffer, "data: {rest}");
        }
        None => {
            buffer.push_str("event: binary\ndata: ");
            encode_base64(buffer, frame.payload());
            buffer.push('\n');
        }
    }
}

/// In pieces, which need no memory of their own.
fn encode_base64(buffer: &mut String, bytes: &[u8]) {
    let mut encoded = [0; 64];
    for piece in bytes.chunks(48) {
        let piece = Base64::encode(piece, &mut encoded);
        buffer.push_str(piece.expect("48 bytes are 64 in base64"));
    }
}

/// What an event of one line takes beside its payload.
const FIELDS_BYTES: usize = 48;
/// How much of a client that should only listen is ignored; then it is let go.
const MAX_IGNORED_BYTES: u32 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(delivery: Delivery) -> String {
        String::from_utf8(Encoder::default().encode(&delivery).to_vec()).unwrap()
    }

    fn published(text: bool, payload: &[u8]) -> String {
        encoded(Delivery::Published(7, Frame::data(text, payload)))
    }

    #[test]
    fn events_are_what_event_source_reads() {
        assert_eq!(published(true, b"21.5"), "id: 7\ndata: 21.5\n\n");
        assert_eq!(published(true, b""), "id: 7\ndata: \n\n");
        assert_eq!(
            published(true, b"a\nb\r\nc\rd"),
            "id: 7\ndata: a\ndata: b\ndata: c\ndata: d\n\n"
        );
        assert_eq!(published(true, b"a\n"), "id: 7\ndata: a\ndata: \n\n");
        assert_eq!(published(true, b"\r\n\r"), "id: 7\ndata: \ndata: \ndata: \n\n");
        assert_eq!(published(false, &[0, 255]), "id: 7\nevent: binary\ndata: AP8=\n\n");
        assert_eq!(encoded(Delivery::Lagged(3)), "event: lagged\ndata: 3\n\n");
        assert_eq!(encoded(Delivery::Mail(Frame::ping())), ":\n\n");
    }

    #[test]
    fn events_of_a_kind_say_so() {
        let delivery = Delivery::Published(7, Frame::data(true, b"{}"));
        let event = Encoder::of_kind("stats").encode(&delivery);
        assert_eq!(*event, *b"event: stats\nid: 7\ndata: {}\n\n");
    }

    #[test]
    fn messages_of_two_topics_are_not_taken_for_each_other() {
        let encoder = Encoder::default();
        let [one, other] = [b"one", b"two"].map(|payload| Frame::data(true, payload));
        for (sequence, frame) in [(7, &one), (7, &other), (7, &other), (8, &other), (7, &one)] {
            let event = encoder.encode(&Delivery::Published(sequence, frame.clone()));
            let text = str::from_utf8(frame.payload()).unwrap();
            assert_eq!(*event, *format!("id: {sequence}\ndata: {text}\n\n").as_bytes());
        }
    }

    #[test]
    fn base64_in_pieces_is_base64() {
        let bytes: Vec<u8> = (0..=255).cycle().take(1000).collect();
        for length in [0, 1, 47, 48, 49, 96, 1000] {
            let mut buffer = String::new();
            encode_base64(&mut buffer, &bytes[..length]);
            assert_eq!(buffer, Base64::encode_string(&bytes[..length]));
        }
    }
}
