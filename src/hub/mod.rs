//! Who is connected, and what is said to them.
//!
//! The [`Hub`] is pure: no executor, no clock, no sockets. The hub task in [`inbox`] applies commands
//! to it; sessions read what their [`Subscription`] shows.

mod client;
mod inbox;
mod log;

use std::rc::Rc;
use std::time::{Duration, Instant};

use slab::Slab;

use crate::config::Timeouts;
use crate::ws::frame::{CloseReason, Frame};

pub use client::ClientId;
pub(crate) use client::{Alarm, Bell, Client, Eviction};
pub use inbox::{HubGone, HubHandle};
pub(crate) use inbox::{Membership, open, run};
use log::Log;
pub(crate) use log::{Delivery, Subscription};

/// Everybody connected, and the log of what is broadcast.
pub(crate) struct Hub {
    clients: Slab<Rc<Client>>,
    joins: u64,
    log: Log,
    timeouts: Timeouts,
    alarm: Rc<Alarm>,
    draining: Option<CloseReason>,
}

/// How many connected clients there are and were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Clients connected now.
    pub clients: usize,
    /// Clients that ever joined.
    pub joins: u64,
}

impl Hub {
    /// An empty hub. Its alarm tells when the next sweep is due.
    pub(crate) fn new(timeouts: Timeouts, alarm: Rc<Alarm>) -> Self {
        Self {
            clients: Slab::new(),
            joins: 0,
            log: Log::default(),
            timeouts,
            alarm,
            draining: None,
        }
    }

    /// Takes a new client in; it gets what is broadcast from now on. While draining it is evicted at
    /// once.
    pub(crate) fn join(&mut self, now: Instant) -> Subscription {
        self.joins += 1;
        let entry = self.clients.vacant_entry();
        let id = ClientId { slot: entry.key() as u32, generation: self.joins };
        let client = Rc::new(Client::new(id, now, self.alarm.clone()));
        if let Some(reason) = self.draining {
            client.evict(reason);
        }
        entry.insert(client.clone());
        if let Some(due) = client.due(&self.timeouts) {
            self.alarm.set_at_latest(due);
        }
        Subscription::new(&self.log, client)
    }

    /// Forgets a client; a stale id is nobody's.
    pub(crate) fn leave(&mut self, id: ClientId) {
        if self.client(id).is_some() {
            self.clients.remove(id.slot as usize);
        }
        self.rest_if_empty();
    }

    /// Appends a frame to the log everybody reads. Who reads it must be told with [`Self::ring`].
    pub(crate) fn broadcast(&mut self, frame: Frame) {
        if !self.clients.is_empty() {
            self.log.append(frame);
        }
    }

    /// Rings up to `count` clients from slot `from` on; returns where to go on, if there is more.
    pub(crate) fn ring(&self, from: usize, count: usize) -> Option<usize> {
        let end = from.saturating_add(count);
        for slot in from..end.min(self.clients.capacity()) {
            if let Some(client) = self.clients.get(slot) {
                client.bell.ring();
            }
        }
        (end < self.clients.capacity()).then_some(end)
    }

    /// Puts a frame into one client's mailbox; false if the client is gone or its mailbox full.
    pub(crate) fn send_to(&self, id: ClientId, frame: Frame) -> bool {
        self.client(id).is_some_and(|client| client.deliver(frame))
    }

    /// Has one client's session closed with `reason`; false if the client is gone.
    pub(crate) fn evict(&self, id: ClientId, reason: CloseReason) -> bool {
        self.client(id).map(|client| client.evict(reason)).is_some()
    }

    /// Looks at the deadlines of every client: pings the silent, evicts the dead, forgets who left
    /// without a word. Sets the alarm for the next sweep.
    ///
    /// A sweep long overdue means that this process stood still; then nobody else is to blame, and
    /// everybody starts afresh.
    pub(crate) fn sweep(&mut self, now: Instant) {
        let overdue = self.alarm.due().map(|due| now.saturating_duration_since(due));
        let stood_still = overdue.is_some_and(|overdue| overdue > LATE);
        self.clients.retain(|_, client| Rc::strong_count(client) > 1);
        self.rest_if_empty();
        let mut next = None;
        for (_, client) in &self.clients {
            if stood_still {
                client.refresh(now);
            }
            if let Some(reason) = client.expired(now, &self.timeouts) {
                client.give_up(reason);
            } else if client.is_silent(now, &self.timeouts) {
                client.ping(now);
            }
            next = [next, client.due(&self.timeouts)].into_iter().flatten().min();
        }
        match next {
            // Not more often than this, however the deadlines are spread.
            Some(next) => self.alarm.set(next.max(now + SWEEP_EVERY)),
            None => self.alarm.clear(),
        }
    }

    /// Evicts everybody, and everybody who still joins.
    pub(crate) fn drain(&mut self, reason: CloseReason) {
        self.draining = Some(reason);
        for (_, client) in &self.clients {
            client.evict(reason);
        }
    }

    /// Counts.
    pub(crate) fn census(&self) -> Census {
        Census { clients: self.clients.len(), joins: self.joins }
    }

    /// With nobody there, gives the memory of a crowd back, and nothing is due.
    fn rest_if_empty(&mut self) {
        if self.clients.is_empty() {
            self.clients = Slab::new();
            self.alarm.clear();
        }
    }

    fn client(&self, id: ClientId) -> Option<&Rc<Client>> {
        self.clients.get(id.slot as usize).filter(|client| client.id == id)
    }
}

/// How far apart sweeps are at least.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How late a sweep must be to tell that the whole process stood still, as after SIGSTOP.
const LATE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
