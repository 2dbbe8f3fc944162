//! The hub's record of one client, which its session shares.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::config::Timeouts;
use crate::ws::frame::{CloseCode, CloseReason, Frame};

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
pub struct CorrelationId(Rc<str>);

impl CorrelationId {
    /// Reads an id: 1 to 64 of `A–Z a–z 0–9 . _ -`, which can stand in headers and log lines.
    pub fn new(id: &str) -> Option<Self> {
        let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let fits = (1..=MAX_CORRELATION_BYTES).contains(&id.len());
        (fits && id.bytes().all(harmless)).then(|| Self(id.into()))
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CorrelationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One client: what is for it alone, and when it last gave signs of life.
pub(crate) struct Client {
    pub(crate) id: ClientId,
    pub(crate) correlation: CorrelationId,
    /// The topic it is subscribed to, and where it stands among the subscribers.
    pub(super) topic: Option<TopicName>,
    pub(super) place: Cell<u32>,
    pub(crate) bell: Bell,
    mailbox: RefCell<VecDeque<Frame>>,
    eviction: Cell<Option<Eviction>>,
    last_seen: Cell<Instant>,
    last_ping: Cell<Instant>,
    write_blocked_since: Cell<Option<Instant>>,
    message_started: Cell<Option<Instant>>,
    alarm: Rc<Alarm>,
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
        correlation: CorrelationId,
        topic: Option<TopicName>,
        now: Instant,
        alarm: Rc<Alarm>,
    ) -> Self {
        Self {
            id,
            correlation,
            topic,
            place: Cell::new(0),
            bell: Bell::default(),
            mailbox: RefCell::default(),
            eviction: Cell::new(None),
            last_seen: Cell::new(now),
            last_ping: Cell::new(now),
            write_blocked_since: Cell::new(None),
            message_started: Cell::new(None),
            alarm,
        }
    }

    /// Notes that bytes have come.
    pub(crate) fn seen(&self, now: Instant) {
        self.last_seen.set(now);
    }

    /// Notes that a write is blocked.
    pub(crate) fn write_blocked(&self, now: Instant, timeouts: &Timeouts) {
        self.write_blocked_since.set(Some(now));
        self.watch(Some(now), timeouts.write);
    }

    /// Notes that no write is blocked any more. Nothing was read meanwhile, so an unfinished message
    /// has its time again.
    pub(crate) fn write_unblocked(&self, now: Instant, timeouts: &Timeouts) {
        self.write_blocked_since.set(None);
        self.message_started.set(self.message_started.get().map(|_| now));
        self.watch(self.message_started.get(), timeouts.message);
    }

    /// Notes since when a message is unfinished, if one is.
    pub(crate) fn set_message_started(&self, since: Option<Instant>, timeouts: &Timeouts) {
        if self.message_started.replace(since).is_none() {
            self.watch(since, timeouts.message);
        }
    }

    /// Since when a message is unfinished.
    pub(crate) fn message_started(&self) -> Option<Instant> {
        self.message_started.get()
    }

    /// Has the session closed for `reason`; the first reason stands.
    pub(super) fn evict(&self, reason: CloseReason) {
        self.set_eviction(Eviction { reason, answering: true });
    }

    /// The same for a client that gives no sign of life: nobody waits for its answer.
    pub(super) fn give_up(&self, reason: CloseReason) {
        self.set_eviction(Eviction { reason, answering: false });
    }

    /// Why the session must close, if it must.
    pub(crate) fn eviction(&self) -> Option<Eviction> {
        self.eviction.get()
    }

    /// Puts a frame into the mailbox; false if it is full.
    pub(super) fn deliver(&self, frame: Frame) -> bool {
        let mut mailbox = self.mailbox.borrow_mut();
        let room = mailbox.len() < MAILBOX_FRAMES;
        if room {
            mailbox.push_back(frame);
            self.bell.ring();
        }
        room
    }

    /// Takes the next frame out of the mailbox.
    pub(crate) fn take_mail(&self) -> Option<Frame> {
        let mut mailbox = self.mailbox.borrow_mut();
        let frame = mailbox.pop_front();
        if mailbox.is_empty() {
            *mailbox = VecDeque::new();
        }
        frame
    }

    /// Sends a Ping. With the mailbox full there is traffic enough to find a dead peer by.
    pub(super) fn ping(&self, now: Instant) {
        self.last_ping.set(now);
        self.deliver(Frame::ping());
    }

    /// Why the client must be given up at `now`, if it must.
    pub(super) fn expired(&self, now: Instant, timeouts: &Timeouts) -> Option<CloseReason> {
        let passed =
            |since: Option<Instant>, limit| deadline(since, limit).is_some_and(|at| at <= now);
        if passed(self.write_blocked_since.get(), timeouts.write) {
            Some(CloseReason::new(CloseCode::Policy, "not reading"))
        } else if passed(self.message_being_read(), timeouts.message) {
            Some(CloseReason::new(CloseCode::Policy, "message unfinished"))
        } else if passed(Some(self.last_seen.get()), timeouts.idle) && self.was_asked(timeouts) {
            Some(CloseReason::new(CloseCode::Policy, "idle timeout"))
        } else {
            None
        }
    }

    /// Whether it is time to ask for a sign of life.
    pub(super) fn is_silent(&self, now: Instant, timeouts: &Timeouts) -> bool {
        self.ping_due(timeouts).is_some_and(|due| due <= now)
    }

    /// When the next sweep could find something to do here.
    pub(super) fn due(&self, timeouts: &Timeouts) -> Option<Instant> {
        if self.eviction.get().is_some() {
            return None;
        }
        let deadlines = [
            self.ping_due(timeouts),
            deadline(Some(self.last_seen.get()), timeouts.idle),
            deadline(self.write_blocked_since.get(), timeouts.write),
            deadline(self.message_being_read(), timeouts.message),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Lets every running deadline start again.
    pub(super) fn refresh(&self, now: Instant) {
        self.last_seen.set(now);
        for since in [&self.write_blocked_since, &self.message_started] {
            since.set(since.get().map(|_| now));
        }
    }

    /// Since when a message is unfinished that we would read.
    fn message_being_read(&self) -> Option<Instant> {
        self.message_started.get().filter(|_| self.write_blocked_since.get().is_none())
    }

    /// Whether it has had a Ping to answer since it was last seen; without pings silence is enough.
    /// Sweeps are some time apart: the one that finds the idle timeout over may be the first since the
    /// Ping was due.
    fn was_asked(&self, timeouts: &Timeouts) -> bool {
        timeouts.ping_every.is_none() || self.last_ping.get() > self.last_seen.get()
    }

    fn ping_due(&self, timeouts: &Timeouts) -> Option<Instant> {
        deadline(Some(self.last_seen.get().max(self.last_ping.get())), timeouts.ping_every)
    }

    fn set_eviction(&self, eviction: Eviction) {
        if self.eviction.get().is_none() {
            self.eviction.set(Some(eviction));
            self.bell.ring();
        }
    }

    fn watch(&self, since: Option<Instant>, limit: Option<Duration>) {
        if let Some(due) = deadline(since, limit) {
            self.alarm.set_at_latest(due);
        }
    }
}

/// When `limit` is over; never if either is missing.
fn deadline(since: Option<Instant>, limit: Option<Duration>) -> Option<Instant> {
    since?.checked_add(limit?)
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

    /// Clears the flag, before looking at what there is.
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
