//! The hub's record of one client, which the client's session shares.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::frame::{CloseReason, Frame};
use crate::net::{PackedPeer, Peer};

use super::cursor::Step;
use super::cursors::Cursors;
use super::filter::Filter;
use super::ids::{ClientId, CorrelationId, EventId};
use super::liveness::{Liveness, Watch};
use super::notify::Bell;
use super::publication::Publication;

/// The kind of connection that a client has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientKind {
    WebSocket,
    /// Server-sent events.
    Events,
    /// The administrator's events.
    Admin,
}

impl ClientKind {
    /// Returns the name for logs and lists.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Events => "events",
            Self::Admin => "admin",
        }
    }
}

/// The properties of a client that joins the hub.
#[derive(Clone, Debug)]
pub(crate) struct NewClient {
    pub(crate) correlation: CorrelationId,
    pub(crate) peer: Peer,
    pub(crate) kind: ClientKind,
    /// The requested path; `None` stands for the path of the filter that the client subscribes to. All clients
    /// of an endpoint share the text. In the record, an `Rc<String>` takes one word and an `Rc<str>` two.
    pub(crate) path: Option<Rc<String>>,
}

#[cfg(test)]
impl NewClient {
    /// Returns a WebSocket client on this host.
    pub(crate) fn local(correlation: CorrelationId) -> Self {
        Self { correlation, peer: Peer::Unix, kind: ClientKind::WebSocket, path: None }
    }
}

/// One client: its cursors, its mailbox, its deadlines and its counts.
pub(crate) struct Client {
    // The two parts of the `ClientId`, so that a counter fits beside the slot without padding.
    generation: u64,
    slot: u32,
    received: Cell<u32>,
    sent: Cell<u32>,
    lagged: Cell<u32>,
    /// The time of the join, in hundredths of seconds since the hub was opened.
    joined_at: u32,
    pub(crate) kind: ClientKind,
    has_ended: Cell<bool>,
    is_aborted: Cell<bool>,
    /// True if messages that the client requested when it joined are no longer kept, until the client is
    /// notified.
    has_gap: Cell<bool>,
    pub(super) cursors: Cursors,
    pub(crate) correlation: CorrelationId,
    peer: PackedPeer,
    path: Option<Rc<String>>,
    pub(crate) bell: Bell,
    /// Boxed, because few clients have notices.
    notices: Cell<Option<Box<Notices>>>,
    liveness: Liveness,
}

/// The frames that are sent to one client only, and the reason to close its session.
#[derive(Default)]
struct Notices {
    mailbox: VecDeque<Frame>,
    eviction: Option<CloseReason>,
}

/// The next thing to send to a client.
pub(crate) enum Delivery {
    /// A frame for this client only.
    Mail(Frame),
    /// A message of a topic that the client subscribes to.
    Published(Rc<Publication>),
    /// The notice that the messages of a topic were deleted, in place of those that were not sent yet.
    Cleared(Rc<Publication>),
    /// Messages were dropped before they were sent, because the client reads too slowly: this number of them, if
    /// it is known.
    Lagged(Option<u64>),
    /// An unknown number of messages after the id that the client resumed from are no longer kept.
    Gap,
}

impl Client {
    pub(super) fn new(
        id: ClientId,
        new_client: NewClient,
        (cursors, has_gap): (Cursors, bool),
        now: Instant,
        watch: Rc<Watch>,
    ) -> Self {
        let NewClient { correlation, peer, kind, path } = new_client;
        Self {
            generation: id.generation,
            slot: id.slot,
            received: Cell::new(0),
            sent: Cell::new(0),
            lagged: Cell::new(0),
            joined_at: watch.hundredths(now),
            kind,
            has_ended: Cell::new(false),
            is_aborted: Cell::new(false),
            has_gap: Cell::new(has_gap),
            cursors,
            correlation,
            peer: peer.into(),
            path,
            bell: Bell::default(),
            notices: Cell::default(),
            liveness: Liveness::new(watch, now),
        }
    }

    /// Returns the id.
    pub(crate) fn id(&self) -> ClientId {
        ClientId { slot: self.slot, generation: self.generation }
    }

    /// Returns the client's address.
    pub(crate) fn peer(&self) -> Peer {
        self.peer.into()
    }

    /// Returns the filters of the topics that the client subscribes to.
    pub(crate) fn filters(&self) -> impl Iterator<Item = Filter> {
        self.cursors.filters()
    }

    /// Returns the requested path.
    pub(crate) fn path(&self) -> Cow<'_, str> {
        match &self.path {
            Some(path) => Cow::Borrowed(path),
            None => {
                Cow::Owned(self.filters().next().map_or_else(String::new, |filter| filter.path()))
            }
        }
    }

    /// Takes the next delivery: first the frames for this client only, then the notice of a gap, then the
    /// messages.
    pub(crate) fn next_delivery(&self) -> Option<Delivery> {
        if let Some(frame) = self.take_mail() {
            return Some(Delivery::Mail(frame));
        }
        if self.has_gap.take() {
            return Some(Delivery::Gap);
        }
        Some(match self.cursors.next()? {
            Step::Message(cleared) if cleared.is_cleared() => Delivery::Cleared(cleared),
            Step::Message(publication) => Delivery::Published(publication),
            Step::Lagged(lost) => Delivery::Lagged(lost),
            Step::Gap => Delivery::Gap,
        })
    }

    /// Returns the id from which the client would resume to get all later messages; `None` while the client has
    /// not been sent all earlier ones.
    pub(crate) fn caught_up(&self) -> Option<EventId> {
        let is_caught_up = !self.has_gap.get() && self.cursors.is_at_end();
        is_caught_up.then(|| self.watch().newest.get())
    }

    /// Counts a message from the client.
    pub(crate) fn count_received(&self) {
        add(&self.received, 1);
        self.watch().counters.messages_received.add(1);
    }

    /// Counts a message to the client. The server's count does not include messages to the administrator.
    pub(crate) fn count_sent(&self) {
        add(&self.sent, 1);
        if self.kind != ClientKind::Admin {
            self.watch().counters.messages_sent.add(1);
        }
    }

    /// Counts messages that the client missed because it reads too slowly; one, if their number is unknown. The
    /// server's count does not include messages to the administrator.
    pub(crate) fn count_lagged(&self, messages: Option<u64>) {
        let messages = messages.unwrap_or(1);
        add(&self.lagged, u32::try_from(messages).unwrap_or(u32::MAX));
        if self.kind != ClientKind::Admin {
            self.watch().counters.messages_lagged.add(messages);
        }
    }

    /// Logs and counts the end of the client's connection. The line is the client's entry in the access log.
    /// Only the first call has an effect.
    pub(crate) fn end(&self, how: &dyn fmt::Display, code: u16, now: Instant) {
        if self.has_ended.replace(true) {
            return;
        }
        let counters = &self.watch().counters;
        match self.kind {
            ClientKind::WebSocket => counters.websocket_closed.add(code),
            ClientKind::Events => counters.events_closed.add(code),
            ClientKind::Admin => {}
        }
        let [received, sent, _] = self.counts();
        log::info!(
            target: "falconet::ended",
            client = self.id().to_string(), address = self.peer().to_string(),
            correlation = self.correlation.to_string(), kind = self.kind.as_str(), path = self.path(),
            duration_ms = self.age(now).as_millis() as u64, received, sent;
            "connection ended: {how}"
        );
    }

    /// Returns the numbers of messages from the client, to the client, and missed by the client. They stop at
    /// 2^32 - 1.
    pub(crate) fn counts(&self) -> [u32; 3] {
        [&self.received, &self.sent, &self.lagged].map(Cell::get)
    }

    /// Returns the number of messages that are still to be sent to the client.
    pub(crate) fn behind(&self) -> u64 {
        self.cursors.behind()
    }

    /// Returns the time since the client joined.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        let now = self.watch().hundredths(now);
        Duration::from_millis(u64::from(now.saturating_sub(self.joined_at)) * 10)
    }

    /// Returns the time since the client was last [seen](Self::seen).
    pub(crate) fn silence(&self, now: Instant) -> Duration {
        self.liveness.silence(now)
    }

    /// Records that the client is alive: bytes have arrived from it, or it has read what it was sent.
    pub(crate) fn seen(&self, now: Instant) {
        self.liveness.seen(now);
    }

    /// Records that a write to the client is blocked.
    pub(crate) fn write_blocked(&self, now: Instant) {
        self.liveness.write_blocked(now);
    }

    /// Returns true if the session should try a blocked write even if the kernel has not reported that it can
    /// succeed.
    pub(crate) fn is_write_probed(&self) -> bool {
        self.liveness.is_write_probed()
    }

    /// Records that the client has read `bytes` of what a blocked write sends.
    pub(crate) fn write_progressed(&self, bytes: usize, now: Instant) {
        self.liveness.write_progressed(bytes, now);
    }

    /// Records that no write to the client is blocked any more.
    pub(crate) fn write_unblocked(&self, now: Instant) {
        self.liveness.write_unblocked(now);
    }

    /// Records that a message from the client is unfinished.
    pub(crate) fn message_began(&self, now: Instant) {
        self.liveness.message_began(now);
    }

    /// Records that no message from the client is unfinished any more.
    pub(crate) fn message_ended(&self) {
        self.liveness.message_ended();
    }

    /// Evicts the client if one of its deadlines has passed, or sends it a Ping if one is due. If `refreshes`
    /// is true, all deadlines start again before that.
    pub(super) fn sweep(&self, now: Instant, refreshes: bool) {
        if refreshes {
            self.liveness.refresh(now);
        }
        if let Some(reason) = self.liveness.expired(now) {
            self.evict_for_deadline(reason);
            return;
        }
        if self.liveness.begin_probe(now) {
            self.bell.ring();
        }
        if self.liveness.is_ping_due(now) {
            self.liveness.pinged(now);
            // A Ping that does not fit into the mailbox is not needed: the frames in the mailbox are sent
            // first, and detect a dead peer as well.
            self.deliver(Frame::ping());
        }
    }

    /// Returns the earliest time at which a sweep may have something to do for this client; `None` once the
    /// client is evicted.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.eviction().is_some() { None } else { self.liveness.due() }
    }

    /// Asks the client's session to close for `reason`. Only the first call has an effect.
    pub(super) fn evict(&self, reason: CloseReason) {
        if self.eviction().is_none() {
            self.change_notices(|notices| notices.eviction = Some(reason));
            self.bell.ring();
        }
    }

    /// Evicts the client because a deadline has passed.
    fn evict_for_deadline(&self, reason: CloseReason) {
        if self.eviction().is_none() {
            self.watch().counters.swept.add(1);
            self.abort(reason);
        }
    }

    /// Evicts the client without waiting for it: its session waits neither until it can send the Close nor for an
    /// answer.
    pub(crate) fn abort(&self, reason: CloseReason) {
        if self.eviction().is_none() {
            self.is_aborted.set(true);
            self.evict(reason);
        }
    }

    /// Returns the reason to close the session; `None` if the client is not evicted.
    pub(crate) fn eviction(&self) -> Option<CloseReason> {
        let notices = self.notices.take()?;
        let eviction = notices.eviction;
        self.notices.set(Some(notices));
        eviction
    }

    /// Returns true if the client's session ends without waiting for the client.
    pub(crate) fn is_aborted(&self) -> bool {
        self.is_aborted.get()
    }

    /// Puts a frame into the mailbox. Returns false if the mailbox is full.
    pub(super) fn deliver(&self, frame: Frame) -> bool {
        let has_room = self.change_notices(|notices| {
            let has_room = notices.mailbox.len() < MAILBOX_FRAMES;
            if has_room {
                notices.mailbox.push_back(frame);
            }
            has_room
        });
        if has_room {
            self.bell.ring();
        }
        has_room
    }

    /// Takes the next frame out of the mailbox.
    pub(super) fn take_mail(&self) -> Option<Frame> {
        let mut notices = self.notices.take()?;
        let frame = notices.mailbox.pop_front();
        let is_needed = !notices.mailbox.is_empty() || notices.eviction.is_some();
        self.notices.set(is_needed.then_some(notices));
        frame
    }

    /// Changes the notices, which are allocated first if there are none.
    fn change_notices<R>(&self, change: impl FnOnce(&mut Notices) -> R) -> R {
        let mut notices = self.notices.take().unwrap_or_default();
        let result = change(&mut notices);
        self.notices.set(Some(notices));
        result
    }

    fn watch(&self) -> &Watch {
        self.liveness.watch()
    }
}

fn add(count: &Cell<u32>, more: u32) {
    count.set(count.get().saturating_add(more));
}

/// The number of frames that may wait in a client's mailbox. When it is full, senders are refused.
const MAILBOX_FRAMES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// With the two reference counts, 168 bytes fill an allocation. The next larger allocation takes 16 bytes
    /// more with glibc and 48 with musl.
    #[test]
    fn a_client_takes_at_most_168_bytes() {
        assert!(size_of::<Client>() <= 168, "{}", size_of::<Client>());
    }
}
