//! A bounded log of the newest messages of a topic.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use crate::config::Topics;

use super::ids::EventId;
use super::publication::Publication;
use super::topic_name::TopicName;

/// The newest messages of a topic. Clones share them.
///
/// A *position* counts the messages that were ever appended to this log: positions have no gaps, while
/// the numbers of [`EventId`]s have, since all topics share one counter.
#[derive(Clone)]
pub(super) struct Log(Rc<Shared>);

struct Shared {
    topic: TopicName,
    entries: RefCell<Entries>,
}

#[derive(Default)]
struct Entries {
    kept: VecDeque<Rc<Publication>>,
    /// The position of the oldest message kept.
    first: u64,
    /// Messages before this position are not for later subscribers.
    retained_from: u64,
    /// The highest number of a message that was lost or cleared.
    gone: u64,
    /// The payloads of the messages kept.
    payload_bytes: usize,
    /// The id of the newest message ever appended.
    last: Option<EventId>,
}

/// The place in a topic's log where a subscriber begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// With the next message that is published.
    Live,
    /// With up to this many of the retained messages.
    Last(usize),
    /// With the message after the one of this id. `None` is an id that cannot be read.
    After(Option<EventId>),
}

/// What a log gives to a cursor.
pub(super) enum Read {
    /// The message at the cursor's position.
    Message(Rc<Publication>),
    /// That message has fallen off the log; the oldest kept is at this position.
    FellBehind { oldest: u64 },
    /// All messages have been read.
    End,
}

impl Log {
    /// A log without messages. `gone` is the highest number that an earlier topic of this name may have
    /// lost.
    pub(super) fn new(topic: TopicName, gone: u64) -> Self {
        let entries = RefCell::new(Entries { gone, ..Entries::default() });
        Self(Rc::new(Shared { topic, entries }))
    }

    /// The topic whose messages these are.
    pub(super) fn topic(&self) -> &TopicName {
        &self.0.topic
    }

    /// Appends a message. The oldest messages are dropped that neither a slow subscriber nor a later one
    /// is entitled to.
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

    /// Withdraws all messages from later subscribers. Subscribers that are connected still get them.
    pub(super) fn clear(&self) {
        let mut entries = self.0.entries.borrow_mut();
        entries.retained_from = entries.end();
        entries.gone = entries.highest();
    }

    /// The number of messages kept.
    pub(super) fn len(&self) -> usize {
        self.0.entries.borrow().kept.len()
    }

    /// The size of all payloads kept, in bytes.
    pub(super) fn payload_bytes(&self) -> usize {
        self.0.entries.borrow().payload_bytes
    }

    /// The id of the newest message, kept or not; `None` before the first.
    pub(super) fn last(&self) -> Option<EventId> {
        self.0.entries.borrow().last
    }

    /// The highest number that this log has or had.
    pub(super) fn highest(&self) -> u64 {
        self.0.entries.borrow().highest()
    }

    /// The position after the newest message.
    pub(super) fn end(&self) -> u64 {
        self.0.entries.borrow().end()
    }

    /// Returns true if anything is retained for later subscribers.
    pub(super) fn is_retaining(&self, limits: &Topics) -> bool {
        self.0.entries.borrow().is_retaining(limits)
    }

    /// The newest message, if it is retained.
    pub(super) fn retained_last(&self, limits: &Topics) -> Option<Rc<Publication>> {
        let entries = self.0.entries.borrow();
        entries.kept.back().filter(|_| entries.is_retaining(limits)).cloned()
    }

    /// The position where a subscriber begins, and whether messages that it asks for are gone. `counter`
    /// is the id given last.
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

    /// The number of the message at a position; `None` if it is not kept.
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

    /// Returns true if everything that is kept may be kept: for slow subscribers, or for later ones.
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

    /// Returns true if the newest message is retained, which it is whatever its size.
    fn is_retaining(&self, limits: &Topics) -> bool {
        limits.retain_messages > 0 && !self.kept.is_empty() && self.retained_from < self.end()
    }

    /// The number of messages retained for later subscribers: the newest, within both limits.
    fn retained(&self, limits: &Topics) -> usize {
        let uncleared = (self.end() - self.retained_from.max(self.first)) as usize;
        let mut bytes = 0;
        let newest = self.kept.iter().rev().take(limits.retain_messages.min(uncleared));
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
            // The id of another epoch, or of no message yet: any message may have been missed.
            Start::After(_) => (oldest, true),
        }
    }
}

#[cfg(test)]
mod tests;
