//! Event streams: sends the messages of topics as server-sent events, which `curl -N` prints and a browser reads
//! with EventSource. In a stream of more than one topic, the data of the events are JSON.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use crate::access::AddressPermit;
use crate::config::SlowConsumer;
use crate::frame::CloseReason;
use crate::http::{RequestHead, Response, chunk};
use crate::hub::{
    ClientKind, Delivery, Membership, Publication, Start, Subscription, TopicName, encode_event,
};
use crate::net::Transport;
use crate::resource::{Joining, Stage, Upgrade, Upgraded, Welcome};
use crate::ws::{Outlet, SessionEnd, SessionShared, TurnShare};

/// An upgrade to an event stream.
pub(crate) struct EventUpgrade {
    kind: ClientKind,
    /// The requested path; `None` stands for the path of the topic.
    path: Option<Rc<String>>,
    subscription: Subscription,
    /// The encoded events that the stream begins with.
    prologue: Rc<[u8]>,
    format: Format,
    shared: Rc<SessionShared>,
}

/// The form of the events of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    /// True if each event is sent in a chunk; false for a client of HTTP/1.0.
    pub(crate) is_chunked: bool,
    /// True if the data of the events are JSON, which names the topic.
    pub(crate) is_json: bool,
}

impl EventUpgrade {
    /// Creates an upgrade to a stream of the messages of topics.
    pub(super) fn of_topics(
        head: &RequestHead<'_>,
        subscription: Subscription,
        shared: Rc<SessionShared>,
    ) -> Self {
        let is_json = subscription.topic().is_none();
        let path = is_json.then(|| Rc::new(head.encoded_path().to_owned()));
        let format = Format { is_chunked: head.is_http_1_1(), is_json };
        Self {
            kind: ClientKind::Events,
            path,
            subscription,
            prologue: Rc::default(),
            format,
            shared,
        }
    }

    /// Creates an upgrade to the stream of the administrator's events. The stream begins with the event
    /// `prologue`, which is encoded.
    pub(crate) fn of_stats(
        head: &RequestHead<'_>,
        prologue: String,
        shared: Rc<SessionShared>,
    ) -> Self {
        let (kind, path) = (ClientKind::Admin, Some(Rc::new(head.path().to_owned())));
        let subscription = Subscription::to(TopicName::stats(), Start::Live);
        let format = Format { is_chunked: head.is_http_1_1(), is_json: false };
        let prologue = match format.is_chunked {
            true => chunk::encode(prologue),
            false => prologue.into_bytes().into(),
        };
        Self { kind, path, subscription, prologue, format, shared }
    }
}

impl Upgrade for EventUpgrade {
    fn joining(&self) -> Joining {
        let subscription = self.subscription.clone();
        Joining { kind: self.kind, path: self.path.clone(), subscription }
    }

    fn status(&self) -> u16 {
        200
    }

    fn response(&self, welcome: &Welcome<'_>) -> Vec<u8> {
        let mut response = Response::events(self.format.is_chunked)
            .with_header("X-Client-Id", welcome.correlation.to_string());
        if self.kind == ClientKind::Events {
            response = response.with_header("Last-Event-ID", welcome.before.to_string());
        }
        let mut bytes = response.encode(welcome.envelope);
        bytes.extend_from_slice(&self.prologue);
        bytes
    }

    fn begin(self: Box<Self>, connection: Upgraded) -> Stage {
        let Upgraded { transport, membership, permit, .. } = connection;
        EventStream::new(transport, permit, membership, self.format, self.shared).begin()
    }
}

/// The event stream of one client.
pub(crate) struct EventStream {
    outlet: Outlet,
    _permit: Option<AddressPermit>,
    format: Format,
    /// The number of bytes that the client has sent. They are ignored.
    ignored_bytes: u32,
    /// True until the replay has ended and the client has been sent the id to resume from.
    is_replaying: Cell<bool>,
}

impl EventStream {
    /// Creates a stream on a connection whose response head has been sent.
    pub(crate) fn new(
        transport: Transport,
        permit: Option<AddressPermit>,
        membership: Membership,
        format: Format,
        shared: Rc<SessionShared>,
    ) -> Self {
        let outlet = Outlet::new(transport, membership, shared);
        let is_replaying = Cell::new(outlet.client().kind == ClientKind::Events);
        if is_replaying.get() {
            outlet.client().bell.ring();
        }
        Self { outlet, _permit: permit, format, ignored_bytes: 0, is_replaying }
    }

    /// Returns the stage that sends the messages, until the client closes the connection or is evicted.
    pub(crate) fn begin(mut self) -> Stage {
        Stage::last(async move {
            let end = poll_fn(|cx| self.poll_end(cx)).await;
            if self.outlet.client().is_aborted() {
                // The client would not read the remaining messages in time, or they take too much memory.
                self.outlet.transport().shut_down();
            } else if let SessionEnd::Evicted(_) = end {
                // Boxed, so that the stream reserves no memory for this until then.
                Box::pin(self.finish()).await;
            }
            end.record(self.outlet.client(), self.outlet.transport().timer().now());
        })
    }

    /// Sends the remaining messages to an evicted client, and closes the connection.
    async fn finish(&self) {
        let timeouts = &self.outlet.shared().config.timeouts;
        let timer = self.outlet.transport().timer();
        let deadline = timer.sleep(Some(timeouts.close_handshake));
        match timer.until(deadline, self.send_remaining()).await {
            Some(()) => self.outlet.transport().close_gracefully(timeouts.linger).await,
            None => self.outlet.transport().shut_down(),
        }
    }

    /// Sends the messages that were published before the hub evicted the client, and then the last chunk. A
    /// stream on a connection that has failed gets none, so that its client does not regard it as complete.
    async fn send_remaining(&self) {
        if self.outlet.client().eviction().is_some()
            && let Err(SessionEnd::TransportLost) = poll_fn(|cx| self.poll_deliver(cx)).await
        {
            return;
        }
        if self.outlet.drained().await.is_ok() && self.format.is_chunked {
            let sent = poll_fn(|cx| Poll::Ready(self.outlet.send(cx, chunk::LAST, &[]))).await;
            if sent.is_ok() {
                let _ = self.outlet.drained().await;
            }
        }
    }

    /// Sends messages until the stream ends. Returns the way in which it ended.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<SessionEnd> {
        self.outlet.client().bell.listen(cx);
        if let Some(reason) = self.outlet.client().eviction() {
            return Poll::Ready(SessionEnd::Evicted(reason));
        }
        if self.poll_closed(cx).is_ready() {
            return Poll::Ready(SessionEnd::TransportLost);
        }
        match ready!(self.poll_deliver(cx)) {
            // The outlet evicts a client whose unsent bytes take too much memory.
            Err(end) => {
                let eviction = self.outlet.client().eviction();
                Poll::Ready(eviction.map_or(end, SessionEnd::Evicted))
            }
            Ok(()) => Poll::Pending,
        }
    }

    /// Completes when the client has closed the connection, or has sent more bytes than are ignored.
    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.ignored_bytes < MAX_IGNORED_BYTES {
            match ready!(self.outlet.transport().poll_recv_with(cx, <[u8]>::len)) {
                Ok(0) | Err(_) => break,
                Ok(count) => self.ignored_bytes += count as u32,
            }
        }
        Poll::Ready(())
    }

    /// Sends the deliveries that wait for this client, a limited number in one turn. Is pending while the client
    /// does not read them.
    fn poll_deliver(&self, cx: &mut Context<'_>) -> Poll<Result<(), SessionEnd>> {
        let mut share = TurnShare::default();
        loop {
            if ready!(self.outlet.poll_drained(cx)).is_err() {
                return Poll::Ready(Err(SessionEnd::TransportLost));
            }
            if !self.outlet.client().bell.is_rung() {
                return Poll::Ready(Ok(()));
            }
            ready!(self.outlet.poll_share(cx, &share));
            let delivery = self.outlet.client().next_delivery();
            let event = match &delivery {
                Some(delivery) => self.event(delivery),
                None if self.is_replaying.take() => chunk::encode(self.id_to_resume_from() + "\n"),
                None => {
                    self.outlet.client().bell.clear();
                    continue;
                }
            };
            share.add(event.len());
            if self.send(cx, &event).is_err() {
                return Poll::Ready(Err(SessionEnd::TransportLost));
            }
            // The client of an event stream sends nothing. The client is regarded as alive because it has
            // read the events before this one. TCP closes the connection of a peer that acknowledges nothing.
            self.outlet.client().seen(self.outlet.transport().timer().now());
            let closes = self.outlet.shared().config.topics.slow_consumer == SlowConsumer::Close;
            if closes && matches!(delivery, Some(Delivery::Lagged(_))) {
                return Poll::Ready(Err(SessionEnd::Evicted(CloseReason::SLOW_CONSUMER)));
            }
        }
    }

    /// Sends an event, given as a chunk.
    fn send(&self, cx: &mut Context<'_>, event: &Rc<[u8]>) -> io::Result<()> {
        match self.format.is_chunked {
            true => self.outlet.send_event(cx, event),
            false => self.outlet.send(cx, chunk::data_of(event), &[]),
        }
    }

    /// Returns a field with the id from which the client would resume; no field if the client has not been sent all
    /// earlier messages. A block without data is no event, but clients keep its id (HTML Standard, section 9.2.6).
    fn id_to_resume_from(&self) -> String {
        let client = self.outlet.client();
        let id = client.caught_up().filter(|_| client.kind == ClientKind::Events);
        id.map_or_else(String::new, |id| format!("id: {id}\n"))
    }

    /// Encodes a delivery as an event in a chunk, and counts it.
    fn event(&self, delivery: &Delivery) -> Rc<[u8]> {
        let client = self.outlet.client();
        match delivery {
            Delivery::Published(publication) => {
                client.count_sent();
                self.encoded(publication).clone()
            }
            Delivery::Cleared(cleared) => self.encoded(cleared).clone(),
            Delivery::Mail(frame) if frame.is_ping() => {
                chunk::encode(format!(":\n{}\n", self.id_to_resume_from()))
            }
            Delivery::Mail(frame) => {
                client.count_sent();
                chunk::encode(encode_event(None, None, frame))
            }
            Delivery::Lagged(lost) => {
                client.count_lagged(*lost);
                lagged(*lost)
            }
            Delivery::Gap => lagged(None),
        }
    }

    /// Returns a publication as an event in a chunk, in the form of this stream.
    fn encoded<'p>(&self, publication: &'p Publication) -> &'p Rc<[u8]> {
        match self.format.is_json {
            true => publication.json_event(),
            false => publication.event(),
        }
    }
}

/// Encodes the notice that messages are missing, in a chunk. EventSource does not dispatch an event without data.
fn lagged(messages: Option<u64>) -> Rc<[u8]> {
    let count = messages.map_or("unknown".to_owned(), |messages| messages.to_string());
    chunk::encode(format!("event: lagged\ndata: {count}\n\n"))
}

/// The number of bytes that are ignored from a client before it is disconnected.
const MAX_IGNORED_BYTES: u32 = 64 * 1024;
