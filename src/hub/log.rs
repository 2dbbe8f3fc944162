//! A bounded log of the newest messages of a topic.

use std::cell::{Cell, Ref, RefCell};
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

/// A bounded sequence of the newest messages of a topic or of a filter.
#[derive(Default)]
pub(super) struct Entries {
    kept: VecDeque<Rc<Publication>>,
    /// The position of the oldest message kept.
    first: u64,
    /// Entries before this position are not for later subscribers.
    retained_from: u64,
    /// The highest number of a message that was dropped or withdrawn.
    gone: u64,
    /// The highest number of a message that was dropped since the last deletion.
    dropped: u64,
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

/// The messages of a topic that a replay contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replayed {
    /// All that are kept, with the notice of a deletion.
    All,
    /// All that are kept for later subscribers.
    Kept,
    /// At most this number of the retained ones.
    Retained(usize),
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
        let entries = RefCell::new(Entries::new(gone));
        Self(Rc::new(Shared { topic, cleared_at: Cell::new(0), entries }))
    }

    /// Returns true if both are clones of the same log.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// Returns the name of the topic.
    pub(super) fn topic(&self) -> &TopicName {
        &self.0.topic
    }

    /// Appends a message. Then drops the oldest messages, while the messages kept exceed both the limits for
    /// slow subscribers and those for later subscribers. The new message is always kept.
    pub(super) fn append(&self, publication: Rc<Publication>, limits: &Topics) {
        self.0.entries.borrow_mut().append(publication, limits);
    }

    /// Drops the oldest message.
    pub(super) fn drop_oldest(&self) {
        self.0.entries.borrow_mut().drop_oldest();
    }

    /// Withdraws all messages, and appends `cleared`, which only the current subscribers get.
    pub(super) fn clear(&self, cleared: Rc<Publication>) {
        let mut entries = self.0.entries.borrow_mut();
        entries.kept.iter().for_each(|publication| publication.withdraw());
        entries.dropped = 0;
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
        self.0.entries.borrow().memory_bytes()
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

    /// Returns the messages, to read them by their numbers.
    pub(super) fn entries(&self) -> Ref<'_, Entries> {
        self.0.entries.borrow()
    }

    /// Returns the number of the message at a position; `None` if no message is kept there.
    pub(super) fn number_at(&self, position: u64) -> Option<u64> {
        let entries = self.0.entries.borrow();
        let index = position.checked_sub(entries.first)?;
        entries.kept.get(index as usize).map(|publication| publication.number())
    }
}

impl Entries {
    /// Creates a sequence without messages. Messages up to the number `gone` may be missing.
    pub(super) fn new(gone: u64) -> Self {
        Self { gone, ..Self::default() }
    }

    /// Appends a message, and drops the oldest ones, see [`Log::append`].
    pub(super) fn append(&mut self, publication: Rc<Publication>, limits: &Topics) {
        self.payload_bytes += publication.payload_bytes();
        self.last = publication.id();
        self.kept.push_back(publication);
        while self.kept.len() > 1 && !self.fits(limits) {
            self.drop_oldest();
        }
    }

    /// Returns the messages kept, the oldest one first.
    pub(super) fn kept(&self) -> &VecDeque<Rc<Publication>> {
        &self.kept
    }

    /// Returns the highest number of a message that is missing, or that may be.
    pub(super) fn gone(&self) -> u64 {
        self.gone
    }

    /// Returns the highest number of a message that was dropped since the last deletion.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Returns the messages kept whose numbers are higher than `number`.
    pub(super) fn after(&self, number: u64) -> impl Iterator<Item = &Rc<Publication>> {
        // Most readers are near the end.
        let begin = match self.kept.back() {
            Some(newest) if newest.number() > number => self.index_after(number),
            _ => self.kept.len(),
        };
        self.kept.range(begin..)
    }

    /// Returns the messages of a replay whose numbers are higher than `after` and at most `until`.
    pub(super) fn replayed(
        &self,
        replayed: Replayed,
        after: u64,
        until: u64,
        limits: &Topics,
    ) -> impl Iterator<Item = &Rc<Publication>> {
        let end = self.index_after(until);
        let begin = match replayed {
            Replayed::All => 0,
            Replayed::Kept => self.retained_from.saturating_sub(self.first) as usize,
            Replayed::Retained(count) => end - self.retained_before(end, limits).min(count),
        };
        self.kept.range(begin.max(self.index_after(after)).min(end)..end)
    }

    /// Returns the index of the first message whose number is higher than `number`.
    fn index_after(&self, number: u64) -> usize {
        self.kept.partition_point(|kept| kept.number() <= number)
    }

    /// Returns the size of the payloads and records of the messages kept, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.payload_bytes + self.kept.len() * RECORD_BYTES
    }

    fn end(&self) -> u64 {
        self.first + self.kept.len() as u64
    }

    /// Returns the highest number that a message has had, kept or not.
    pub(super) fn highest(&self) -> u64 {
        self.kept.back().map_or(self.gone, |newest| newest.number().max(self.gone))
    }

    /// Returns true if the messages kept are within the limits for slow subscribers, or within those for
    /// later subscribers.
    fn fits(&self, limits: &Topics) -> bool {
        let within = |messages, bytes| self.kept.len() <= messages && self.payload_bytes <= bytes;
        within(limits.log_messages, limits.log_bytes)
            || within(limits.retain_messages, limits.retain_bytes)
    }

    /// Drops the oldest message.
    pub(super) fn drop_oldest(&mut self) {
        let Some(oldest) = self.kept.pop_front() else { return };
        self.payload_bytes -= oldest.payload_bytes();
        self.dropped = oldest.number();
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

    /// Returns the number of messages before the index `end` that are retained for later subscribers: the newest
    /// ones within the limits of number and size. The newest one is retained whatever its size.
    fn retained_before(&self, end: usize, limits: &Topics) -> usize {
        let withdrawn = self.retained_from.saturating_sub(self.first) as usize;
        let not_withdrawn = end.saturating_sub(withdrawn);
        let mut bytes = 0;
        let newest = self.kept.range(..end).rev().take(limits.retain_messages.min(not_withdrawn));
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
            Start::Last(count) => {
                let retained = self.retained_before(self.kept.len(), limits);
                (self.end() - retained.min(count) as u64, false)
            }
            Start::After(Some(id)) if id.is_assigned(counter) => {
                let seen = self.index_after(id.number) as u64;
                ((self.first + seen).max(oldest), id.number < self.gone)
            }
            // An id that cannot be parsed, belongs to another epoch or has not been assigned yet: the
            // subscriber may have missed any message.
            Start::After(_) => (oldest, true),
        }
    }
}

#[cfg(test)]
mod tests;
