//! A bounded log of the newest messages of a topic.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use crate::config::Topics;

use super::ids::EventId;
use super::publication::{Publication, RECORD_BYTES};
use super::topic_name::TopicName;

/// The newest messages of a topic. Clones share them.
///
/// A *position* counts the messages that were ever appended to this log. Positions have no gaps. The numbers
/// of [`EventId`]s have gaps, because all topics share one counter.
#[derive(Clone)]
pub(super) struct Log(Rc<Shared>);

struct Shared {
    topic: TopicName,
    /// The position of the last deletion; 0 before the first one. The messages before it were withdrawn.
    cleared_at: Cell<u64>,
    entries: RefCell<Entries>,
}

#[derive(Default)]
struct Entries {
    kept: VecDeque<Rc<Publication>>,
    /// The position of the oldest message kept.
    first: u64,
    /// Entries before this position are not for later subscribers.
    retained_from: u64,
    /// The highest number of a message that was dropped or withdrawn.
    gone: u64,
    /// The size of the payloads of the messages kept, in bytes.
    payload_bytes: usize,
    /// The id of the newest message ever appended.
    last: Option<EventId>,
}

/// The place in a topic's log at which a subscriber begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// At the next message that is published.
    Live,
    /// At most this number of retained messages before the end.
    Last(usize),
    /// At the message after this id. `None` stands for an id that cannot be parsed.
    After(Option<EventId>),
}

impl Start {
    /// Returns the id that the subscriber resumes from.
    pub(super) fn id(self) -> Option<EventId> {
        match self {
            Self::After(id) => id,
            Self::Live | Self::Last(_) => None,
        }
    }
}

/// The result of reading at a position.
pub(super) enum Read {
    /// The message at the position.
    Message(Rc<Publication>),
    /// The message was dropped from the log.
    FellBehind {
        /// The position of the oldest message kept.
        oldest: u64,
    },
    /// The position is the end of the log.
    End,
}

impl Log {
    /// Creates a log without messages. `gone` is the highest number that a message of an earlier topic with
    /// this name may have had.
    pub(super) fn new(topic: TopicName, gone: u64) -> Self {
        let entries = RefCell::new(Entries { gone, ..Entries::default() });
        Self(Rc::new(Shared { topic, cleared_at: Cell::new(0), entries }))
    }

    /// Returns the name of the topic.
    pub(super) fn topic(&self) -> &TopicName {
        &self.0.topic
    }

    /// Appends a message. Then drops the oldest messages, while the messages kept exceed both the limits for
    /// slow subscribers and those for later subscribers. The new message is always kept.
    pub(super) fn append(&self, publication: Rc<Publication>, limits: &Topics) {
        let mut entries = self.0.entries.borrow_mut();
        entries.payload_bytes += publication.payload_bytes();
        entries.last = publication.id();
        entries.kept.push_back(publication);
        while entries.kept.len() > 1 && !entries.fits(limits) {
            entries.drop_oldest();
        }
    }

    /// Drops the oldest message.
    pub(super) fn drop_oldest(&self) {
        self.0.entries.borrow_mut().drop_oldest();
    }

    /// Withdraws all messages, and appends `cleared`, which only the current subscribers get.
    pub(super) fn clear(&self, cleared: Rc<Publication>) {
        let mut entries = self.0.entries.borrow_mut();
        entries.first = entries.end();
        self.0.cleared_at.set(entries.first);
        entries.gone = cleared.number();
        entries.payload_bytes = cleared.payload_bytes();
        entries.kept = VecDeque::from([cleared]);
        entries.retained_from = entries.end();
    }

    /// Returns the position of the last deletion. Readers before it continue there, because the messages before it
    /// were withdrawn.
    pub(super) fn cleared_at(&self) -> u64 {
        self.0.cleared_at.get()
    }

    /// Returns the number of messages kept.
    pub(super) fn len(&self) -> usize {
        self.0.entries.borrow().kept.len()
    }

    /// Returns the size of the payloads of the messages kept, in bytes.
    #[cfg(test)]
    pub(super) fn payload_bytes(&self) -> usize {
        self.0.entries.borrow().payload_bytes
    }

    /// Returns the memory of the messages kept, in bytes: their payloads and records. Their encodings do not
    /// count, because they come and go with the subscribers.
    pub(super) fn memory_bytes(&self) -> usize {
        let entries = self.0.entries.borrow();
        entries.payload_bytes + entries.kept.len() * RECORD_BYTES
    }

    /// Returns the id of the newest message, even if the message is not kept; `None` before the first
    /// message.
    pub(super) fn last(&self) -> Option<EventId> {
        self.0.entries.borrow().last
    }

    /// Returns the highest number that a message of this topic, or of an earlier one with its name, has had.
    pub(super) fn highest(&self) -> u64 {
        self.0.entries.borrow().highest()
    }

    /// Returns the position after the newest message.
    pub(super) fn end(&self) -> u64 {
        self.0.entries.borrow().end()
    }

    /// Returns true if any message is retained for later subscribers.
    pub(super) fn is_retaining(&self, limits: &Topics) -> bool {
        self.0.entries.borrow().is_retaining(limits)
    }

    /// Returns the newest message, if the message is retained.
    pub(super) fn retained_last(&self, limits: &Topics) -> Option<Rc<Publication>> {
        let entries = self.0.entries.borrow();
        entries.kept.back().filter(|_| entries.is_retaining(limits)).cloned()
    }

    /// Returns the position at which a subscriber begins, and true if messages that the subscriber requests
    /// are no longer kept. `counter` is the id of the message that was published last.
    pub(super) fn start(&self, start: Start, counter: EventId, limits: &Topics) -> (u64, bool) {
        self.0.entries.borrow().start(start, counter, limits)
    }

    /// Reads the message at a position.
    pub(super) fn read(&self, position: u64) -> Read {
        let entries = self.0.entries.borrow();
        let Some(index) = position.checked_sub(entries.first) else {
            return Read::FellBehind { oldest: entries.first };
        };
        entries.kept.get(index as usize).map_or(Read::End, |next| Read::Message(next.clone()))
    }

    /// Returns the number of the message at a position; `None` if no message is kept there.
    pub(super) fn number_at(&self, position: u64) -> Option<u64> {
        let entries = self.0.entries.borrow();
        let index = position.checked_sub(entries.first)?;
        entries.kept.get(index as usize).map(|publication| publication.number())
    }
}

impl Entries {
    fn end(&self) -> u64 {
        self.first + self.kept.len() as u64
    }

    fn highest(&self) -> u64 {
        self.kept.back().map_or(self.gone, |newest| newest.number().max(self.gone))
    }

    /// Returns true if the messages kept are within the limits for slow subscribers, or within those for
    /// later subscribers.
    fn fits(&self, limits: &Topics) -> bool {
        let within = |messages, bytes| self.kept.len() <= messages && self.payload_bytes <= bytes;
        within(limits.log_messages, limits.log_bytes)
            || within(limits.retain_messages, limits.retain_bytes)
    }

    fn drop_oldest(&mut self) {
        let Some(oldest) = self.kept.pop_front() else { return };
        self.payload_bytes -= oldest.payload_bytes();
        self.gone = self.gone.max(oldest.number());
        self.first += 1;
        if self.kept.is_empty() {
            self.kept = VecDeque::new();
        }
    }

    /// Returns true if the newest message is retained. Its size does not matter.
    fn is_retaining(&self, limits: &Topics) -> bool {
        limits.retain_messages > 0 && !self.kept.is_empty() && self.retained_from < self.end()
    }

    /// Returns the number of messages retained for later subscribers: the newest ones within the limits of
    /// number and size. The newest one is retained whatever its size.
    fn retained(&self, limits: &Topics) -> usize {
        let not_withdrawn = (self.end() - self.retained_from.max(self.first)) as usize;
        let mut bytes = 0;
        let newest = self.kept.iter().rev().take(limits.retain_messages.min(not_withdrawn));
        let fitting = newest.enumerate().take_while(|(index, publication)| {
            bytes += publication.payload_bytes();
            *index == 0 || bytes <= limits.retain_bytes
        });
        fitting.count()
    }

    fn start(&self, start: Start, counter: EventId, limits: &Topics) -> (u64, bool) {
        let oldest = self.first.max(self.retained_from);
        match start {
            Start::Live => (self.end(), false),
            Start::Last(count) => (self.end() - self.retained(limits).min(count) as u64, false),
            Start::After(Some(EventId { epoch, number }))
                if epoch == counter.epoch && number <= counter.number =>
            {
                let seen = self.kept.partition_point(|kept| kept.number() <= number) as u64;
                ((self.first + seen).max(oldest), number < self.gone)
            }
            // An id that cannot be parsed, belongs to another epoch or has not been assigned yet: the
            // subscriber may have missed any message.
            Start::After(_) => (oldest, true),
        }
    }
}

#[cfg(test)]
mod tests;
