//! The deadlines of a client, and when the next sweep is due.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::config::Timeouts;
use crate::counters::Counters;
use crate::frame::{CloseCode, CloseReason};

use super::notify::Bell;

/// What all clients of a hub share: the deadlines of the configuration, the time of the next sweep, and
/// the counters.
pub(crate) struct Watch {
    opened: Instant,
    timeouts: Timeouts,
    alarm: Alarm,
    pub(super) counters: Rc<Counters>,
}

/// The time of the next sweep; `None` while no deadline is running.
#[derive(Default)]
pub(crate) struct Alarm {
    due: Cell<Option<Instant>>,
    /// Rings when the time changes.
    pub(crate) bell: Bell,
}

/// The time of a client's last sign of life, and what the server waits for from it.
pub(super) struct Liveness {
    watch: Rc<Watch>,
    last_seen: Cell<Moment>,
    /// The time from the last sign of life to the last Ping, in milliseconds; 0 if no Ping was sent.
    pinged_after: Cell<u32>,
    is_write_blocked: Cell<bool>,
    is_message_open: Cell<bool>,
    /// The time since when a write is blocked; else, since when a message is unfinished.
    waiting_since: Cell<Moment>,
}

/// A time in nanoseconds since the hub was opened: half the size of an `Instant`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Moment(u64);

impl Liveness {
    /// A client that has just given a sign of life.
    pub(super) fn new(watch: Rc<Watch>, now: Instant) -> Self {
        let now = watch.moment(now);
        Self {
            watch,
            last_seen: Cell::new(now),
            pinged_after: Cell::new(0),
            is_write_blocked: Cell::new(false),
            is_message_open: Cell::new(false),
            waiting_since: Cell::new(now),
        }
    }

    pub(super) fn watch(&self) -> &Watch {
        &self.watch
    }

    /// The time since the last sign of life.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        self.watch.since(self.last_seen.get(), now)
    }

    /// Notes that bytes have arrived.
    pub(super) fn seen(&self, now: Instant) {
        self.last_seen.set(self.watch.moment(now));
        self.pinged_after.set(0);
    }

    /// Notes that a Ping is sent.
    pub(super) fn pinged(&self, now: Instant) {
        let after = self.silence(now).as_millis().saturating_add(1);
        self.pinged_after.set(u32::try_from(after).unwrap_or(u32::MAX));
    }

    /// Notes that a write is blocked.
    pub(super) fn write_blocked(&self, now: Instant) {
        self.is_write_blocked.set(true);
        self.wait_from(now, self.watch.timeouts.write);
    }

    /// Notes that no write is blocked any more. Nothing was read meanwhile, so the time of an unfinished
    /// message begins anew.
    pub(super) fn write_unblocked(&self, now: Instant) {
        self.is_write_blocked.set(false);
        if self.is_message_open.get() {
            self.wait_from(now, self.watch.timeouts.message);
        }
    }

    /// Notes that a message has begun. Its time does not run while a write is blocked.
    pub(super) fn message_began(&self, now: Instant) {
        self.is_message_open.set(true);
        if !self.is_write_blocked.get() {
            self.wait_from(now, self.watch.timeouts.message);
        }
    }

    /// Notes that no message is unfinished any more.
    pub(super) fn message_ended(&self) {
        self.is_message_open.set(false);
    }

    /// The reason to close the connection, if a deadline has passed at `now`.
    pub(super) fn expired(&self, now: Instant) -> Option<CloseReason> {
        let timeouts = &self.watch.timeouts;
        let passed = |since, limit| self.watch.deadline(since, limit).is_some_and(|at| at <= now);
        if passed(self.write_blocked_since(), timeouts.write) {
            Some(CloseReason::new(CloseCode::Policy, "not reading"))
        } else if passed(self.message_read_since(), timeouts.message) {
            Some(CloseReason::new(CloseCode::Policy, "message unfinished"))
        } else if passed(Some(self.last_seen.get()), timeouts.idle) && self.was_pinged() {
            Some(CloseReason::new(CloseCode::Policy, "idle timeout"))
        } else {
            None
        }
    }

    /// Returns true if it is time to send a Ping.
    pub(super) fn is_ping_due(&self, now: Instant) -> bool {
        self.ping_due().is_some_and(|due| due <= now)
    }

    /// The time when the next sweep may find something to do for this client.
    pub(super) fn due(&self) -> Option<Instant> {
        let timeouts = &self.watch.timeouts;
        let deadlines = [
            self.ping_due(),
            self.watch.deadline(Some(self.last_seen.get()), timeouts.idle),
            self.watch.deadline(self.write_blocked_since(), timeouts.write),
            self.watch.deadline(self.message_read_since(), timeouts.message),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Starts every running deadline again.
    pub(super) fn refresh(&self, now: Instant) {
        let now = self.watch.moment(now);
        self.last_seen.set(now);
        self.pinged_after.set(0);
        self.waiting_since.set(now);
    }

    fn write_blocked_since(&self) -> Option<Moment> {
        self.is_write_blocked.get().then(|| self.waiting_since.get())
    }

    /// The time since when a message is unfinished that is being read.
    fn message_read_since(&self) -> Option<Moment> {
        let is_read = self.is_message_open.get() && !self.is_write_blocked.get();
        is_read.then(|| self.waiting_since.get())
    }

    /// Returns true if the client had a Ping to answer since its last sign of life. Without pings,
    /// silence is enough. Sweeps are some time apart, so the sweep that finds the idle timeout passed may
    /// be the first one since the Ping was due.
    fn was_pinged(&self) -> bool {
        self.watch.timeouts.ping_every.is_none() || self.pinged_after.get() > 0
    }

    fn ping_due(&self) -> Option<Instant> {
        let after = Duration::from_millis(self.pinged_after.get().into());
        let every = self.watch.timeouts.ping_every?.saturating_add(after);
        self.watch.deadline(Some(self.last_seen.get()), Some(every))
    }

    fn wait_from(&self, now: Instant, limit: Option<Duration>) {
        self.waiting_since.set(self.watch.moment(now));
        if let Some(due) = limit.and_then(|limit| now.checked_add(limit)) {
            self.watch.alarm.set_at_latest(due);
        }
    }
}

impl Watch {
    pub(super) fn new(timeouts: Timeouts, counters: Rc<Counters>) -> Self {
        Self { opened: Instant::now(), timeouts, alarm: Alarm::default(), counters }
    }

    /// The time of the next sweep.
    pub(crate) fn alarm(&self) -> &Alarm {
        &self.alarm
    }

    /// The time since the hub was opened, in hundredths of seconds. It stops at 497 days.
    pub(super) fn hundredths(&self, at: Instant) -> u32 {
        u32::try_from(self.moment(at).0 / 10_000_000).unwrap_or(u32::MAX)
    }

    fn moment(&self, at: Instant) -> Moment {
        let passed = at.saturating_duration_since(self.opened);
        // 64 bits hold 584 years.
        let nanoseconds = passed.as_secs() * 1_000_000_000 + u64::from(passed.subsec_nanos());
        Moment(nanoseconds)
    }

    /// The time from a moment to `now`.
    fn since(&self, moment: Moment, now: Instant) -> Duration {
        Duration::from_nanos(self.moment(now).0.saturating_sub(moment.0))
    }

    /// The time when `limit` has passed; `None` if either is missing.
    fn deadline(&self, since: Option<Moment>, limit: Option<Duration>) -> Option<Instant> {
        let since = Duration::from_nanos(since?.0);
        self.opened.checked_add(since)?.checked_add(limit?)
    }
}

impl Alarm {
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due.get()
    }

    pub(super) fn set(&self, due: Instant) {
        self.due.set(Some(due));
        self.bell.ring();
    }

    /// Sets the time, unless an earlier one is set.
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
