//! A bounded log of messages, and cursors into it.
//!
//! Nothing is queued for a client: a session sends from its cursor to the end. Whose cursor falls off
//! the log's beginning has lagged.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::SystemTime;

use crate::config::Topics;
use crate::ws::frame::Frame;

use super::client::Client;
use super::topic::TopicName;

/// One message of a topic, encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Publication {
    pub(crate) frame: Frame,
    /// What the publisher says the payload is; `None` leaves it to text or binary.
    pub(crate) media_type: Option<&'static str>,
    pub(crate) published: SystemTime,
}

impl Publication {
    /// What it takes to keep it.
    pub(super) fn cost(&self) -> usize {
        self.frame.len() + size_of::<Self>()
    }
}

/// The newest messages of a topic, numbered from 1 in the order they came. Clones share them.
#[derive(Clone)]
pub(super) struct Log(Rc<Shared>);

struct Shared {
    topic: TopicName,
    entries: RefCell<Entries>,
}

struct Entries {
    kept: VecDeque<Publication>,
    /// The number of the next message.
    next: u64,
    /// Messages before this number are not for who comes later.
    retained_from: u64,
    bytes: usize,
}

impl Default for Entries {
    fn default() -> Self {
        Self { kept: VecDeque::new(), next: 1, retained_from: 1, bytes: 0 }
    }
}

impl Log {
    /// A log with nothing in it.
    pub(super) fn new(topic: TopicName) -> Self {
        Self(Rc::new(Shared { topic, entries: RefCell::default() }))
    }

    /// The topic whose messages these are.
    pub(super) fn topic(&self) -> &TopicName {
        &self.0.topic
    }

    /// Appends a message; the oldest that neither a slow subscriber nor a late one may ask for fall off.
    /// Returns its number.
    pub(super) fn append(&self, publication: Publication, limits: &Topics) -> u64 {
        let mut entries = self.0.entries.borrow_mut();
        entries.bytes += publication.cost();
        entries.kept.push_back(publication);
        entries.next += 1;
        while entries.kept.len() > 1 && !entries.fits(limits) {
            entries.drop_oldest();
        }
        entries.next - 1
    }

    /// Drops the oldest message.
    pub(super) fn drop_oldest(&self) {
        self.0.entries.borrow_mut().drop_oldest();
    }

    /// Lets who comes later find nothing of what there is.
    pub(super) fn clear(&self) {
        let mut entries = self.0.entries.borrow_mut();
        entries.retained_from = entries.next;
    }

    /// How many messages are kept.
    pub(super) fn len(&self) -> usize {
        self.0.entries.borrow().kept.len()
    }

    /// What the kept messages cost.
    pub(super) fn bytes(&self) -> usize {
        self.0.entries.borrow().bytes
    }

    /// The number of the last message; 0 before the first.
    pub(super) fn last(&self) -> u64 {
        self.0.entries.borrow().next - 1
    }

    /// Whether anything is retained for who comes later.
    pub(super) fn is_retaining(&self, limits: &Topics) -> bool {
        self.0.entries.borrow().is_retaining(limits)
    }

    /// The last message and its number, if it is retained.
    pub(super) fn retained_last(&self, limits: &Topics) -> Option<(u64, Publication)> {
        let entries = self.0.entries.borrow();
        let last = entries.kept.back().filter(|_| entries.is_retaining(limits))?;
        Some((entries.next - 1, last.clone()))
    }
}

impl Entries {
    /// The number of the oldest message kept.
    fn first(&self) -> u64 {
        self.next - self.kept.len() as u64
    }

    /// Whether all that is kept may be kept: for those who read slowly, or for who comes later.
    fn fits(&self, limits: &Topics) -> bool {
        let within = |messages, bytes| self.kept.len() <= messages && self.bytes <= bytes;
        within(limits.log_messages, limits.log_bytes)
            || within(limits.retain_messages, limits.retain_bytes)
    }

    fn drop_oldest(&mut self) {
        self.bytes -= self.kept.pop_front().map_or(0, |oldest| oldest.cost());
        if self.kept.is_empty() {
            self.kept = VecDeque::new();
        }
    }

    /// Whether the newest is retained, which is whatever its size.
    fn is_retaining(&self, limits: &Topics) -> bool {
        limits.retain_messages > 0 && !self.kept.is_empty() && self.retained_from < self.next
    }

    /// How many messages are retained for who comes later: the newest, within both limits.
    fn retained(&self, limits: &Topics) -> usize {
        let uncleared = (self.next - self.retained_from.max(self.first())) as usize;
        let mut bytes = 0;
        let newest = self.kept.iter().rev().take(limits.retain_messages.min(uncleared));
        let fitting = newest.enumerate().take_while(|(index, publication)| {
            bytes += publication.cost();
            *index == 0 || bytes <= limits.retain_bytes
        });
        fitting.count()
    }

    /// Where a cursor begins.
    fn start(&self, start: Start, limits: &Topics) -> u64 {
        let end = self.next;
        match start {
            Start::Live => end,
            Start::Last(count) => end - self.retained(limits).min(count) as u64,
            // A number from before a restart: all there is came later.
            Start::After(sequence) if sequence >= end => self.first().max(self.retained_from),
            Start::After(sequence) => (sequence + 1).max(self.retained_from),
        }
    }
}

/// Where in a topic's log a subscriber begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// With what is published from now on.
    Live,
    /// With up to so many of the retained messages.
    Last(usize),
    /// With the message after that number.
    After(u64),
}

/// What a session has of the hub: its record, with a cursor in the log of the topic it is subscribed to.
pub(crate) struct Subscription {
    pub(crate) client: Rc<Client>,
}

/// The next thing to send.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// A frame for this client alone.
    Mail(Frame),
    /// A message of the topic, and its number.
    Published(u64, Frame),
    /// That many messages fell off the log before they were sent; the next is the oldest kept.
    Lagged(u64),
}

impl Subscription {
    /// A cursor of `client` in the log it is subscribed to, if it is to one.
    pub(super) fn new(client: Rc<Client>, start: Start, limits: &Topics) -> Self {
        if let Some(log) = &client.log {
            client.next.set(log.0.entries.borrow().start(start, limits));
        }
        if start != Start::Live {
            client.bell.ring();
        }
        Self { client }
    }

    /// The number of the message before the next one; 0 for who is subscribed to nothing.
    pub(crate) fn sequence(&self) -> u64 {
        self.client.next.get() - 1
    }

    /// Takes what is next for this client: its mail first, then the log.
    pub(crate) fn next(&self) -> Option<Delivery> {
        if let Some(frame) = self.client.take_mail() {
            return Some(Delivery::Mail(frame));
        }
        let entries = self.client.log.as_ref()?.0.entries.borrow();
        let first = entries.first();
        let cursor = &self.client.next;
        let next = cursor.get();
        if next < first {
            cursor.set(first);
            return Some(Delivery::Lagged(first - next));
        }
        let publication = entries.kept.get((next - first) as usize)?;
        cursor.set(next + 1);
        Some(Delivery::Published(next, publication.frame.clone()))
    }
}

#[cfg(test)]
mod tests;
