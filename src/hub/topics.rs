//! All topics of a hub: their logs, their subscribers, and the limits that they share.

use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;

use crate::config::Topics;

use super::ids::EventId;
use super::log::Log;
use super::publication::{HeldBytes, Publication};
use super::topic_name::TopicName;

/// All topics, and the highest numbers of those that vanished.
pub(super) struct TopicTable {
    /// Sorted by name.
    topics: Vec<Topic>,
    /// The topics that vanished last, the newest at the end, with the highest number that each had.
    vanished: VecDeque<(TopicName, u64)>,
    /// The highest number of the topics that vanished before those.
    floor: u64,
    limits: Topics,
    held: HeldBytes,
}

/// One topic: its log and its subscribers.
pub(super) struct Topic {
    pub(super) log: Log,
    /// The slots of the subscribers, in no order.
    pub(super) subscribers: Vec<u32>,
}

/// A topic as others may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// The name.
    pub name: TopicName,
    /// The number of clients that subscribe to it.
    pub subscribers: usize,
    /// The id of the newest message; `None` before the first.
    pub last: Option<EventId>,
}

/// The error that one more topic would exceed the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyTopics {
    /// The largest number of topics.
    pub limit: usize,
}

impl fmt::Display for TooManyTopics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there are {} topics already, the limit", self.limit)
    }
}

impl TopicTable {
    /// A table with the topic `broadcast` in it.
    pub(super) fn new(limits: Topics) -> Self {
        let mut table = Self {
            topics: Vec::new(),
            vanished: VecDeque::new(),
            floor: 0,
            limits,
            held: HeldBytes::default(),
        };
        table.insert(0, &TopicName::broadcast());
        table
    }

    pub(super) fn limits(&self) -> &Topics {
        &self.limits
    }

    /// The memory that all messages take.
    pub(super) fn held(&self) -> &HeldBytes {
        &self.held
    }

    /// Every topic, sorted by name.
    #[cfg(test)]
    pub(super) fn all(&self) -> &[Topic] {
        &self.topics
    }

    pub(super) fn get(&self, name: &TopicName) -> Option<&Topic> {
        self.index_of(name).ok().map(|index| &self.topics[index])
    }

    pub(super) fn get_mut(&mut self, name: &TopicName) -> Option<&mut Topic> {
        self.index_of(name).ok().map(|index| &mut self.topics[index])
    }

    /// Finds a topic, or makes it.
    ///
    /// # Errors
    /// [`TooManyTopics`], if there is no room for one more.
    pub(super) fn get_or_insert(&mut self, name: &TopicName) -> Result<&mut Topic, TooManyTopics> {
        let index = match self.index_of(name) {
            Ok(index) => index,
            Err(index) => {
                let limit = self.limits.count;
                if !name.is_internal() && self.public().count() >= limit {
                    return Err(TooManyTopics { limit });
                }
                self.insert(index, name);
                index
            }
        };
        Ok(&mut self.topics[index])
    }

    /// The topics that others may see, sorted by name.
    pub(super) fn public(&self) -> impl ExactSizeIterator<Item = &Topic> {
        let internal = self.topics.partition_point(|topic| topic.name().is_internal());
        self.topics[internal..].iter()
    }

    /// Appends a message to a topic that exists. Then limits the memory of all topics: while they take
    /// too much, the one whose payloads are largest loses its oldest message. The new message stays.
    pub(super) fn append(&mut self, name: &TopicName, publication: Rc<Publication>) {
        if let Some(topic) = self.get(name) {
            topic.log.append(publication, &self.limits);
        }
        // First, so that a message that is dropped at once takes no other message's memory.
        self.remove_if_unused(name);
        while self.held.get() > self.limits.total_bytes {
            let has_spare = |topic: &&Topic| topic.log.len() > usize::from(topic.name() == name);
            let spare = self.topics.iter().filter(has_spare);
            let Some(largest) = spare.max_by_key(|topic| topic.log.payload_bytes()) else { return };
            let largest = largest.log.clone();
            largest.drop_oldest();
            self.remove_if_unused(largest.topic());
        }
    }

    /// Removes a topic that has no subscriber and retains nothing. `broadcast` stays.
    pub(super) fn remove_if_unused(&mut self, name: &TopicName) {
        let Ok(index) = self.index_of(name) else { return };
        let topic = &self.topics[index];
        let is_unused = topic.subscribers.is_empty() && !topic.log.is_retaining(&self.limits);
        if !is_unused || name.is_broadcast() {
            return;
        }
        let topic = self.topics.remove(index);
        self.remember(topic.log.topic(), topic.log.highest());
        if self.topics.len() < self.topics.capacity() / 8 {
            // Frees the memory of many topics.
            self.topics.shrink_to(2 * self.topics.len());
        }
    }

    fn index_of(&self, name: &TopicName) -> Result<usize, usize> {
        self.topics.binary_search_by(|topic| topic.name().cmp(name))
    }

    fn insert(&mut self, index: usize, name: &TopicName) {
        let known = self.vanished.iter().position(|(vanished, _)| vanished == name);
        let known = known.and_then(|known| self.vanished.remove(known));
        let gone = known.map_or(self.floor, |(_, highest)| highest);
        let log = Log::new(name.clone(), gone);
        self.topics.insert(index, Topic { log, subscribers: Vec::new() });
    }

    /// Remembers the highest number that a topic had before it vanished.
    fn remember(&mut self, name: &TopicName, highest: u64) {
        if highest <= self.floor {
            return;
        }
        if self.vanished.len() == VANISHED_NAMES
            && let Some((_, oldest)) = self.vanished.pop_front()
        {
            self.floor = self.floor.max(oldest);
        }
        self.vanished.push_back((name.clone(), highest));
    }
}

impl Topic {
    pub(super) fn name(&self) -> &TopicName {
        self.log.topic()
    }

    pub(super) fn info(&self) -> TopicInfo {
        TopicInfo {
            name: self.name().clone(),
            subscribers: self.subscribers.len(),
            last: self.log.last(),
        }
    }
}

/// The number of names of vanished topics that are remembered. When the list is full, the oldest name
/// raises the floor, and a resume of an unknown topic from below it is told that it lagged.
const VANISHED_NAMES: usize = 1024;
