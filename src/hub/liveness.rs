//! The deadlines of a client, and the time of the next sweep.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::config::Timeouts;
use crate::counters::Counters;
use crate::features::Feature;
use crate::frame::{CloseCode, CloseReason};

use super::ids::{Epoch, EventId};
use super::notify::Bell;

/// The state that all clients of a hub share: the configured deadlines, the time of the next sweep, and the
/// counters.
pub(crate) struct Watch {
    /// The time at which the hub was created.
    opened: Instant,
    timeouts: Timeouts,
    alarm: Alarm,
    pub(super) counters: Rc<Counters>,
    /// The id of the message that was published last.
    pub(super) newest: Cell<EventId>,
}

/// The time of the next sweep; `None` while there is no deadline.
#[derive(Default)]
pub(crate) struct Alarm {
    due: Cell<Option<Instant>>,
    /// Rings when the time changes.
    pub(crate) bell: Bell,
}

/// The time at which a client was last seen alive, and the events that the server waits for.
pub(super) struct Liveness {
    watch: Rc<Watch>,
    last_seen: Cell<Moment>,
    /// The time from `last_seen` to the last Ping, in milliseconds; 0 if no Ping was sent since.
    pinged_after: Cell<u32>,
    is_write_blocked: Cell<bool>,
    /// True if the session should find out whether the client has read anything, because the deadline of the
    /// blocked write is near.
    is_write_probed: Cell<bool>,
    is_message_open: Cell<bool>,
    /// The time from which the deadline of the blocked write counts; without one, the time at which the
    /// unfinished message began.
    waiting_since: Cell<Moment>,
}

/// A time in nanoseconds since the hub was created. It has half the size of an `Instant`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Moment(u64);

impl Liveness {
    /// Creates the state of a client that was seen `now`.
    pub(super) fn new(watch: Rc<Watch>, now: Instant) -> Self {
        let now = watch.moment(now);
        Self {
            watch,
            last_seen: Cell::new(now),
            pinged_after: Cell::new(0),
            is_write_blocked: Cell::new(false),
            is_write_probed: Cell::new(false),
            is_message_open: Cell::new(false),
            waiting_since: Cell::new(now),
        }
    }

    /// Returns the state that all clients share.
    pub(super) fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Returns the time since the client was last seen.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        self.watch.since(self.last_seen.get(), now)
    }

    /// Records that the client is alive.
    pub(super) fn seen(&self, now: Instant) {
        self.last_seen.set(self.watch.moment(now));
        self.pinged_after.set(0);
    }

    /// Records that a Ping is sent.
    pub(super) fn pinged(&self, now: Instant) {
        let after = self.silence(now).as_millis().saturating_add(1);
        self.pinged_after.set(u32::try_from(after).unwrap_or(u32::MAX));
    }

    /// Records that a write is blocked.
    pub(super) fn write_blocked(&self, now: Instant) {
        self.is_write_blocked.set(true);
        self.is_write_probed.set(false);
        self.wait_from(now, self.probe_after().or(self.watch.timeouts.write));
    }

    /// Records that the client has read `bytes` of what a blocked write sends. The client is alive, and has
    /// renewed the deadline of the write.
    pub(super) fn write_progressed(&self, bytes: usize, now: Instant) {
        self.seen(now);
        self.is_write_probed.set(false);
        let renewal = self.watch.timeouts.renewal(bytes).as_nanos();
        let renewal = u64::try_from(renewal).unwrap_or(u64::MAX);
        let since = Moment(self.waiting_since.get().0.saturating_add(renewal));
        self.waiting_since.set(since.min(self.watch.moment(now)));
    }

    /// Records that no write is blocked any more. Nothing was read in the meantime, so the deadline of an
    /// unfinished message starts again.
    pub(super) fn write_unblocked(&self, now: Instant) {
        self.is_write_blocked.set(false);
        if self.is_message_open.get() {
            self.wait_from(now, self.watch.timeouts.message);
        }
    }

    /// Records that a message is unfinished. Only the first call for a message starts its deadline, which is
    /// suspended while a write is blocked.
    pub(super) fn message_began(&self, now: Instant) {
        let was_open = self.is_message_open.replace(true);
        if !was_open && !self.is_write_blocked.get() {
            self.wait_from(now, self.watch.timeouts.message);
        }
    }

    /// Records that no message is unfinished any more.
    pub(super) fn message_ended(&self) {
        self.is_message_open.set(false);
    }

    /// Returns true if the deadline of a blocked write is near, and records that the session should probe. The
    /// kernel reports that a write can succeed only when a third of the send buffer or more is free. A write
    /// that is tried anyway is accepted earlier.
    pub(super) fn begin_probe(&self, now: Instant) -> bool {
        let is_due = self.probe_due().is_some_and(|due| due <= now);
        if is_due {
            self.is_write_probed.set(true);
        }
        is_due
    }

    /// Returns true if the session should try to write even if the kernel has not reported that it can.
    pub(super) fn is_write_probed(&self) -> bool {
        self.is_write_probed.get()
    }

    /// Returns the reason to close the connection, if a deadline has passed.
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

    /// Returns the earliest time at which a sweep may have something to do for this client.
    pub(super) fn due(&self) -> Option<Instant> {
        let timeouts = &self.watch.timeouts;
        let deadlines = [
            self.ping_due(),
            self.watch.deadline(Some(self.last_seen.get()), timeouts.idle),
            self.probe_due(),
            self.watch.deadline(self.write_blocked_since(), timeouts.write),
            self.watch.deadline(self.message_read_since(), timeouts.message),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Starts all deadlines again.
    pub(super) fn refresh(&self, now: Instant) {
        let now = self.watch.moment(now);
        self.last_seen.set(now);
        self.pinged_after.set(0);
        self.waiting_since.set(now);
    }

    /// Returns the time at which the session should probe a blocked write, if there is one to probe.
    fn probe_due(&self) -> Option<Instant> {
        let since = self.write_blocked_since().filter(|_| !self.is_write_probed.get());
        self.watch.deadline(since, self.probe_after())
    }

    /// Returns the time after which a blocked write is probed. A write with a short time limit is not probed:
    /// the sweep for the probe would delay the sweep at the deadline.
    fn probe_after(&self) -> Option<Duration> {
        let limit = self.watch.timeouts.write.filter(|limit| *limit >= 2 * PROBE_BEFORE)?;
        Feature::Full.is_built_in().then(|| limit - PROBE_BEFORE)
    }

    /// Returns the time from which the deadline of the blocked write counts, if there is one.
    fn write_blocked_since(&self) -> Option<Moment> {
        self.is_write_blocked.get().then(|| self.waiting_since.get())
    }

    /// Returns the time at which the unfinished message began, if there is one and no write is blocked.
    fn message_read_since(&self) -> Option<Moment> {
        let is_read = self.is_message_open.get() && !self.is_write_blocked.get();
        is_read.then(|| self.waiting_since.get())
    }

    /// Returns true if the client was sent a Ping since it was last seen, or if Pings are disabled. An
    /// expired idle timeout alone is not enough: sweeps are some time apart, so the sweep that detects it may
    /// be the first one since the Ping was due.
    fn was_pinged(&self) -> bool {
        self.watch.timeouts.ping_every.is_none() || self.pinged_after.get() > 0
    }

    /// Returns the time at which the next Ping is due.
    fn ping_due(&self) -> Option<Instant> {
        let after = Duration::from_millis(self.pinged_after.get().into());
        let every = self.watch.timeouts.ping_every?.saturating_add(after);
        self.watch.deadline(Some(self.last_seen.get()), Some(every))
    }

    /// Starts the deadline of a write or a message. A sweep must follow after `sweep_after` at the latest.
    fn wait_from(&self, now: Instant, sweep_after: Option<Duration>) {
        self.waiting_since.set(self.watch.moment(now));
        if let Some(due) = sweep_after.and_then(|limit| now.checked_add(limit)) {
            self.watch.alarm.set_at_latest(due);
        }
    }
}

impl Watch {
    /// Creates the state. The alarm is not set.
    pub(super) fn new(timeouts: Timeouts, counters: Rc<Counters>) -> Self {
        let newest = Cell::new(EventId { epoch: Epoch::random(), number: 0 });
        Self { opened: Instant::now(), timeouts, alarm: Alarm::default(), counters, newest }
    }

    /// Returns the alarm.
    pub(crate) fn alarm(&self) -> &Alarm {
        &self.alarm
    }

    /// Returns the time from the creation of the hub to `at`, in hundredths of seconds. It stops at 497 days.
    pub(super) fn hundredths(&self, at: Instant) -> u32 {
        u32::try_from(self.moment(at).0 / 10_000_000).unwrap_or(u32::MAX)
    }

    /// Converts a time.
    fn moment(&self, at: Instant) -> Moment {
        let passed = at.saturating_duration_since(self.opened);
        // 64 bits hold 584 years.
        let nanoseconds = passed.as_secs() * 1_000_000_000 + u64::from(passed.subsec_nanos());
        Moment(nanoseconds)
    }

    /// Returns the time from a moment to `now`.
    fn since(&self, moment: Moment, now: Instant) -> Duration {
        Duration::from_nanos(self.moment(now).0.saturating_sub(moment.0))
    }

    /// Returns the time at which `limit` has passed; `None` if one of the arguments is `None`.
    fn deadline(&self, since: Option<Moment>, limit: Option<Duration>) -> Option<Instant> {
        let since = Duration::from_nanos(since?.0);
        self.opened.checked_add(since)?.checked_add(limit?)
    }
}

impl Alarm {
    /// Returns the time of the next sweep.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due.get()
    }

    /// Sets the time.
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

    /// Clears the time.
    pub(super) fn clear(&self) {
        if self.due.take().is_some() {
            self.bell.ring();
        }
    }
}

/// The time between the probe of a blocked write and its deadline: that between two sweeps.
const PROBE_BEFORE: Duration = Duration::from_secs(1);
