//! The feed of a topic filter: the newest messages of all topics that a pattern matches.

use std::cell::{Cell, Ref, RefCell, RefMut};
use std::rc::Rc;

use crate::config::Topics;

use super::filter::Pattern;
use super::log::{Entries, Log, Replayed};
use super::publication::Publication;
use super::topic_name::TopicName;

/// The messages of all topics that one pattern matches. All subscribers of the pattern share the feed, which
/// exists as long as there are any.
///
/// The feed keeps as many messages as the log of one topic, beginning with those that are published after its
/// creation. It also knows the logs of the topics, from which older messages are replayed.
pub(super) struct Feed {
    pattern: Pattern,
    /// The slots of the subscribers, in no particular order.
    subscribers: RefCell<Vec<u32>>,
    /// The logs of the topics that exist and match, in no particular order.
    logs: RefCell<Vec<Log>>,
    /// The highest number of the matching topics that were removed.
    removed: Cell<u64>,
    entries: RefCell<Entries>,
}

impl Feed {
    /// Creates a feed without messages. `removed` is the highest number of the matching topics that were
    /// removed, and `newest` the number of the message that was published last.
    pub(super) fn new(pattern: Pattern, logs: Vec<Log>, removed: u64, newest: u64) -> Self {
        Self {
            pattern,
            subscribers: RefCell::default(),
            logs: RefCell::new(logs),
            removed: Cell::new(removed),
            entries: RefCell::new(Entries::new(newest)),
        }
    }

    /// Returns the pattern.
    pub(super) fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    /// Returns the slots of the subscribers.
    pub(super) fn subscribers(&self) -> Ref<'_, Vec<u32>> {
        self.subscribers.borrow()
    }

    /// Returns the slots of the subscribers, to change them.
    pub(super) fn subscribers_mut(&self) -> RefMut<'_, Vec<u32>> {
        self.subscribers.borrow_mut()
    }

    /// Returns the messages that the feed keeps.
    pub(super) fn entries(&self) -> Ref<'_, Entries> {
        self.entries.borrow()
    }

    /// Appends a message, and drops the oldest ones above the limits of a topic's log.
    pub(super) fn append(&self, publication: Rc<Publication>, limits: &Topics) {
        self.entries.borrow_mut().append(publication, limits);
    }

    /// Drops the oldest message.
    pub(super) fn drop_oldest(&self) {
        self.entries.borrow_mut().drop_oldest();
    }

    /// Withdraws the messages of a topic.
    pub(super) fn withdraw(&self, topic: &TopicName) {
        let entries = self.entries();
        let withdrawn = entries.kept().iter().filter(|publication| publication.topic() == topic);
        withdrawn.for_each(|publication| publication.withdraw());
    }

    /// Returns true if the feed has a message of a topic that was not withdrawn.
    pub(super) fn has(&self, topic: &TopicName) -> bool {
        let entries = self.entries();
        let mut kept =
            entries.kept().iter().filter(|kept| !kept.is_withdrawn() && !kept.is_cleared());
        kept.any(|publication| publication.topic() == topic)
    }

    /// Adds the log of a new topic that matches.
    pub(super) fn add(&self, log: Log) {
        self.logs.borrow_mut().push(log);
    }

    /// Removes the log of a topic that is removed.
    pub(super) fn remove(&self, log: &Log) {
        let mut logs = self.logs.borrow_mut();
        if let Some(index) = logs.iter().position(|other| other.is_same(log)) {
            logs.swap_remove(index);
            self.removed.set(self.removed.get().max(log.highest()));
        }
    }

    /// Returns the highest number of a message that is missing for a reader who has all messages up to the
    /// number `at`.
    pub(super) fn gone_after(&self, at: u64) -> u64 {
        let gone = self.entries().gone();
        if at >= gone {
            return 0;
        }
        let logs = self.logs.borrow();
        let highest = logs.iter().map(|log| log.entries().gone()).max();
        // Newer ones are in the feed.
        self.removed.get().max(highest.unwrap_or(0)).min(gone)
    }

    /// Calls `offer` with the messages of a replay from the topics' logs, whose numbers are higher than `after`
    /// and at most `until`. Those of one log come in the order of their numbers; when `offer` returns false, the
    /// next log follows.
    pub(super) fn replay(
        &self,
        replayed: Replayed,
        after: u64,
        until: u64,
        limits: &Topics,
        offer: &mut dyn FnMut(&Rc<Publication>) -> bool,
    ) {
        for log in self.logs.borrow().iter() {
            let entries = log.entries();
            if entries.highest() > after {
                entries.replayed(replayed, after, until, limits).all(&mut *offer);
            }
        }
    }
}
