//! The hub's record of one client, which its session shares.

use std::borrow::Cow;
use std::cell::{Cell, OnceCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::config::Timeouts;
use crate::counters::Counters;
use crate::net::{PackedPeer, Peer};
use crate::ws::frame::{CloseCode, CloseReason, Frame};

use super::inbox::HubHandle;
use super::log::Log;
use super::topic::TopicName;

/// Names one client for as long as the server runs. Slots are reused, generations are not, so the id
/// of a client that left never means a newer one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientId {
    pub(super) slot: u32,
    pub(super) generation: u64,
}

impl fmt::Display for ClientId {
    /// The generation: the number of the client's join, counted from 1.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.generation.fmt(f)
    }
}

/// Ties together the connections of one person or program: all that came with the same id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorrelationId(Id);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Id {
    /// 16 hexadecimal digits, as the server makes them: most clients bring none, and this needs no
    /// memory of its own.
    Number(u64),
    Text(Rc<str>),
}

impl CorrelationId {
    /// Reads an id: 1 to 64 of `A–Z a–z 0–9 . _ -`, which can stand in headers and log lines.
    pub fn new(id: &str) -> Option<Self> {
        let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let fits = (1..=MAX_CORRELATION_BYTES).contains(&id.len());
        let number = || u64::from_str_radix(id, 16).ok().map(Self::from);
        (fits && id.bytes().all(harmless)).then(|| {
            // A number said in any other way is another id.
            number().filter(|number| number.to_string() == id).unwrap_or(Self(Id::Text(id.into())))
        })
    }
}

impl From<u64> for CorrelationId {
    /// The id of 16 hexadecimal digits that is this number.
    fn from(number: u64) -> Self {
        Self(Id::Number(number))
    }
}

impl fmt::Display for CorrelationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Id::Number(number) => write!(f, "{number:016x}"),
            Id::Text(text) => f.write_str(text),
        }
    }
}

/// How a client is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientKind {
    WebSocket,
    /// Server-sent events.
    Events,
    /// The administrator's events.
    Admin,
}

impl ClientKind {
    /// Its name in logs and lists.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Events => "events",
            Self::Admin => "admin",
        }
    }
}

/// Who joins.
#[derive(Clone, Debug)]
pub(crate) struct Newcomer {
    pub(crate) correlation: CorrelationId,
    pub(crate) peer: Peer,
    pub(crate) kind: ClientKind,
    /// The path it came to; `None` is that of the topic it hears. Shared by all who came there, and one
    /// pointer where a `Rc<str>` is two.
    pub(crate) path: Option<Rc<String>>,
}

#[cfg(test)]
impl Newcomer {
    /// A WebSocket client of this host.
    pub(crate) fn local(correlation: CorrelationId) -> Self {
        Self { correlation, peer: Peer::Unix, kind: ClientKind::WebSocket, path: None }
    }
}

/// One client: what is for it alone, and when it last gave signs of life.
pub(crate) struct Client {
    // Not one `ClientId`, so that the place fits beside.
    generation: u64,
    slot: u32,
    /// Where it stands among the topic's subscribers.
    pub(super) place: Cell<u32>,
    /// The log of the topic it is subscribed to.
    pub(super) log: Option<Log>,
    /// The number of the next message it is sent of that.
    pub(super) next: Cell<u64>,
    pub(crate) correlation: CorrelationId,
    peer: PackedPeer,
    pub(crate) kind: ClientKind,
    path: Option<Rc<String>>,
    received: Cell<u32>,
    sent: Cell<u32>,
    lagged: Cell<u32>,
    /// When it joined, in hundredths of seconds since the hub was opened.
    joined_at: u32,
    pub(crate) bell: Bell,
    #[allow(clippy::box_collection, reason = "hardly anybody has any mail")]
    mailbox: Cell<Option<Box<VecDeque<Frame>>>>,
    eviction: OnceCell<Box<Eviction>>,
    last_seen: Cell<Moment>,
    /// How many milliseconds after that it was last sent a Ping; 0 if it was not.
    pinged_after: Cell<u32>,
    is_write_blocked: Cell<bool>,
    is_message_open: Cell<bool>,
    has_ended: Cell<bool>,
    /// Since when a write is blocked; else, since when a message is unfinished.
    waiting_since: Cell<Moment>,
    /// The way to the hub, and what its sweep goes by.
    pub(crate) hub: HubHandle,
}

/// That a client must go, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Eviction {
    pub(crate) reason: CloseReason,
    /// Whether its answer to our Close is worth waiting for.
    pub(crate) answering: bool,
}

impl Client {
    pub(super) fn new(
        id: ClientId,
        newcomer: Newcomer,
        log: Option<Log>,
        now: Instant,
        hub: HubHandle,
    ) -> Self {
        let now = hub.watch().moment(now);
        let Newcomer { correlation, peer, kind, path } = newcomer;
        Self {
            generation: id.generation,
            slot: id.slot,
            place: Cell::new(0),
            log,
            next: Cell::new(1),
            correlation,
            peer: peer.into(),
            kind,
            path,
            received: Cell::new(0),
            sent: Cell::new(0),
            lagged: Cell::new(0),
            joined_at: hub.watch().hundredths(now),
            bell: Bell::default(),
            mailbox: Cell::default(),
            eviction: OnceCell::new(),
            last_seen: Cell::new(now),
            pinged_after: Cell::new(0),
            is_write_blocked: Cell::new(false),
            is_message_open: Cell::new(false),
            has_ended: Cell::new(false),
            waiting_since: Cell::new(now),
            hub,
        }
    }

    /// Its id.
    pub(crate) fn id(&self) -> ClientId {
        ClientId { slot: self.slot, generation: self.generation }
    }

    /// Who it is on the network.
    pub(crate) fn peer(&self) -> Peer {
        self.peer.into()
    }

    /// The topic it hears, if it hears one.
    pub(crate) fn topic(&self) -> Option<&TopicName> {
        self.log.as_ref().map(Log::topic)
    }

    /// The path it came to.
    pub(crate) fn path(&self) -> Cow<'_, str> {
        match (&self.path, &self.log) {
            (Some(path), _) => Cow::Borrowed(path),
            (None, Some(log)) => Cow::Owned(log.topic().path()),
            (None, None) => Cow::Borrowed(""),
        }
    }

    /// Counts a message it has sent us.
    pub(crate) fn count_received(&self) {
        add(&self.received, 1);
        self.watch().counters.messages_received.add(1);
    }

    /// Counts a message that is sent to it. Who looks at the counts is no part of them.
    pub(crate) fn count_sent(&self) {
        add(&self.sent, 1);
        if self.kind != ClientKind::Admin {
            self.watch().counters.messages_sent.add(1);
        }
    }

    /// Counts messages that were gone before it took them.
    pub(crate) fn count_lagged(&self, messages: u64) {
        add(&self.lagged, u32::try_from(messages).unwrap_or(u32::MAX));
        self.watch().counters.messages_lagged.add(messages);
    }

    /// Logs and counts that its connection has ended, and how: the line of an access log. The first to
    /// say so knows best.
    pub(crate) fn end(&self, how: &dyn fmt::Display, code: CloseCode, now: Instant) {
        if self.has_ended.replace(true) {
            return;
        }
        let counters = &self.watch().counters;
        match self.kind {
            ClientKind::WebSocket => counters.websocket_closed.add(code.into()),
            ClientKind::Events => counters.events_closed.add(code.into()),
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

    /// How many messages it has sent us, was sent and has lost. They count no further than 2^32.
    pub(crate) fn counts(&self) -> [u32; 3] {
        [&self.received, &self.sent, &self.lagged].map(Cell::get)
    }

    /// How many messages of its topic are still to be sent to it.
    pub(crate) fn behind(&self) -> u64 {
        self.log.as_ref().map_or(0, |log| (log.last() + 1).saturating_sub(self.next.get()))
    }

    /// How long it has been here.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        let now = self.watch().hundredths(self.watch().moment(now));
        Duration::from_millis(u64::from(now.saturating_sub(self.joined_at)) * 10)
    }

    /// How long ago it gave its last sign of life.
    pub(crate) fn silence(&self, now: Instant) -> Duration {
        self.watch().since(self.last_seen.get(), now)
    }

    /// Notes that bytes have come.
    pub(crate) fn seen(&self, now: Instant) {
        self.last_seen.set(self.watch().moment(now));
        self.pinged_after.set(0);
    }

    /// Notes that a write is blocked.
    pub(crate) fn write_blocked(&self, now: Instant) {
        self.is_write_blocked.set(true);
        self.wait_from(now, self.watch().timeouts.write);
    }

    /// Notes that no write is blocked any more. Nothing was read meanwhile, so an unfinished message
    /// has its time again.
    pub(crate) fn write_unblocked(&self, now: Instant) {
        self.is_write_blocked.set(false);
        if self.is_message_open.get() {
            self.wait_from(now, self.watch().timeouts.message);
        }
    }

    /// Notes that a message has begun. While a write is blocked, its time does not run.
    pub(crate) fn message_began(&self, now: Instant) {
        self.is_message_open.set(true);
        if !self.is_write_blocked.get() {
            self.wait_from(now, self.watch().timeouts.message);
        }
    }

    /// Notes that no message is unfinished any more.
    pub(crate) fn message_ended(&self) {
        self.is_message_open.set(false);
    }

    /// Has the session closed for `reason`; the first reason stands.
    pub(super) fn evict(&self, reason: CloseReason) {
        self.set_eviction(Eviction { reason, answering: true });
    }

    /// The same for a client that gives no sign of life: nobody waits for its answer.
    pub(super) fn give_up(&self, reason: CloseReason) {
        if self.set_eviction(Eviction { reason, answering: false }) {
            self.watch().counters.swept.add(1);
        }
    }

    /// Why the session must close, if it must.
    pub(crate) fn eviction(&self) -> Option<Eviction> {
        self.eviction.get().map(|eviction| **eviction)
    }

    /// Puts a frame into the mailbox; false if it is full.
    pub(super) fn deliver(&self, frame: Frame) -> bool {
        let mut mailbox = self.mailbox.take().unwrap_or_default();
        let room = mailbox.len() < MAILBOX_FRAMES;
        if room {
            mailbox.push_back(frame);
            self.bell.ring();
        }
        self.mailbox.set(Some(mailbox));
        room
    }

    /// Takes the next frame out of the mailbox.
    pub(crate) fn take_mail(&self) -> Option<Frame> {
        let mut mailbox = self.mailbox.take()?;
        let frame = mailbox.pop_front();
        self.mailbox.set(Some(mailbox).filter(|mailbox| !mailbox.is_empty()));
        frame
    }

    /// Sends a Ping. With the mailbox full there is traffic enough to find a dead peer by.
    pub(super) fn ping(&self, now: Instant) {
        let after = self.silence(now).as_millis().saturating_add(1);
        self.pinged_after.set(u32::try_from(after).unwrap_or(u32::MAX));
        self.deliver(Frame::ping());
    }

    /// Why the client must be given up at `now`, if it must.
    pub(super) fn expired(&self, now: Instant) -> Option<CloseReason> {
        let timeouts = &self.watch().timeouts;
        let passed = |since, limit| self.watch().deadline(since, limit).is_some_and(|at| at <= now);
        if passed(self.write_blocked_since(), timeouts.write) {
            Some(CloseReason::new(CloseCode::Policy, "not reading"))
        } else if passed(self.message_being_read(), timeouts.message) {
            Some(CloseReason::new(CloseCode::Policy, "message unfinished"))
        } else if passed(Some(self.last_seen.get()), timeouts.idle) && self.was_asked() {
            Some(CloseReason::new(CloseCode::Policy, "idle timeout"))
        } else {
            None
        }
    }

    /// Whether it is time to ask for a sign of life.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        self.ping_due().is_some_and(|due| due <= now)
    }

    /// When the next sweep could find something to do here.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.eviction.get().is_some() {
            return None;
        }
        let timeouts = &self.watch().timeouts;
        let deadlines = [
            self.ping_due(),
            self.watch().deadline(Some(self.last_seen.get()), timeouts.idle),
            self.watch().deadline(self.write_blocked_since(), timeouts.write),
            self.watch().deadline(self.message_being_read(), timeouts.message),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Lets every running deadline start again.
    pub(super) fn refresh(&self, now: Instant) {
        let now = self.watch().moment(now);
        self.last_seen.set(now);
        self.pinged_after.set(0);
        self.waiting_since.set(now);
    }

    fn write_blocked_since(&self) -> Option<Moment> {
        self.is_write_blocked.get().then(|| self.waiting_since.get())
    }

    /// Since when a message is unfinished that we would read.
    fn message_being_read(&self) -> Option<Moment> {
        let is_read = self.is_message_open.get() && !self.is_write_blocked.get();
        is_read.then(|| self.waiting_since.get())
    }

    /// Whether it has had a Ping to answer since it was last seen; without pings silence is enough.
    /// Sweeps are some time apart: the one that finds the idle timeout over may be the first since the
    /// Ping was due.
    fn was_asked(&self) -> bool {
        self.watch().timeouts.ping_every.is_none() || self.pinged_after.get() > 0
    }

    fn ping_due(&self) -> Option<Instant> {
        let after = Duration::from_millis(self.pinged_after.get().into());
        let every = self.watch().timeouts.ping_every?.saturating_add(after);
        self.watch().deadline(Some(self.last_seen.get()), Some(every))
    }

    /// Says whether it is the first.
    fn set_eviction(&self, eviction: Eviction) -> bool {
        let is_first = self.eviction.set(Box::new(eviction)).is_ok();
        if is_first {
            self.bell.ring();
        }
        is_first
    }

    fn watch(&self) -> &Watch {
        self.hub.watch()
    }

    fn wait_from(&self, now: Instant, limit: Option<Duration>) {
        self.waiting_since.set(self.watch().moment(now));
        if let Some(due) = limit.and_then(|limit| now.checked_add(limit)) {
            self.watch().alarm.set_at_latest(due);
        }
    }
}

fn add(count: &Cell<u32>, more: u32) {
    count.set(count.get().saturating_add(more));
}

/// A time in nanoseconds since the hub was opened: half as large as an `Instant`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Moment(u64);

/// What the sweep goes by: since when, how long, and when it is due; and where clients are counted.
pub(crate) struct Watch {
    opened: Instant,
    pub(super) timeouts: Timeouts,
    pub(crate) alarm: Alarm,
    pub(super) counters: Rc<Counters>,
}

impl Watch {
    pub(super) fn new(timeouts: Timeouts, counters: Rc<Counters>) -> Self {
        Self { opened: Instant::now(), timeouts, alarm: Alarm::default(), counters }
    }

    fn moment(&self, at: Instant) -> Moment {
        let passed = at.saturating_duration_since(self.opened);
        // In 64 bits they last for 584 years.
        let nanoseconds = passed.as_secs() * 1_000_000_000 + u64::from(passed.subsec_nanos());
        Moment(nanoseconds)
    }

    /// A time in hundredths of seconds; after 497 days it stands still.
    fn hundredths(&self, moment: Moment) -> u32 {
        u32::try_from(moment.0 / 10_000_000).unwrap_or(u32::MAX)
    }

    /// How long before `now` that was.
    fn since(&self, moment: Moment, now: Instant) -> Duration {
        Duration::from_nanos(self.moment(now).0.saturating_sub(moment.0))
    }

    /// When `limit` is over; never if either is missing.
    fn deadline(&self, since: Option<Moment>, limit: Option<Duration>) -> Option<Instant> {
        let since = Duration::from_nanos(since?.0);
        self.opened.checked_add(since)?.checked_add(limit?)
    }
}

/// Calls one task: a flag that says there is something to look at, and whom to wake.
#[derive(Default)]
pub(crate) struct Bell {
    rung: Cell<bool>,
    listener: Cell<Option<Waker>>,
}

impl Bell {
    /// Sets the flag and wakes the listener.
    pub(crate) fn ring(&self) {
        self.rung.set(true);
        if let Some(listener) = self.listener.take() {
            listener.wake();
        }
    }

    /// Whether it rang since the last [`Self::hush`].
    pub(crate) fn is_rung(&self) -> bool {
        self.rung.get()
    }

    /// Clears the flag, when there is nothing more.
    pub(crate) fn hush(&self) {
        self.rung.set(false);
    }

    /// Waits for a ring and clears the flag.
    pub(crate) async fn ringing(&self) {
        poll_fn(|cx| {
            self.listen(cx);
            if self.rung.take() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Has the next ring wake `cx`.
    pub(crate) fn listen(&self, cx: &mut Context<'_>) {
        let listener = match self.listener.take() {
            Some(listener) if listener.will_wake(cx.waker()) => listener,
            _ => cx.waker().clone(),
        };
        self.listener.set(Some(listener));
    }
}

/// When the next sweep is due; `None` while nothing is.
#[derive(Default)]
pub(crate) struct Alarm {
    due: Cell<Option<Instant>>,
    /// Rings when the time changes.
    pub(crate) bell: Bell,
}

impl Alarm {
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due.get()
    }

    pub(super) fn set(&self, due: Instant) {
        self.due.set(Some(due));
        self.bell.ring();
    }

    pub(super) fn set_at_latest(&self, due: Instant) {
        if self.due.get().is_none_or(|set| due < set) {
            self.set(due);
        }
    }

    pub(super) fn clear(&self) {
        if self.due.take().is_some() {
            self.bell.ring();
        }
    }
}

/// How many frames may wait for one client alone; one more is refused to its sender.
const MAILBOX_FRAMES: usize = 16;
const MAX_CORRELATION_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_the_same_however_it_comes() {
        let made = CorrelationId::from(0xabc);
        assert_eq!(made.to_string(), "0000000000000abc");
        assert_eq!(CorrelationId::new(&made.to_string()), Some(made));
        for other in ["abc", "0000000000000ABC", "+000000000000abc", "00000000000000abc", "a-b"] {
            let id = CorrelationId::new(other);
            assert_eq!(
                id.map(|id| id.to_string()).as_deref(),
                (!other.contains('+')).then_some(other)
            );
        }
    }

    #[test]
    fn a_client_takes_little_memory() {
        assert!(size_of::<Client>() <= 168, "{}", size_of::<Client>());
    }
}
