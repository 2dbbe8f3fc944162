//! All topics of a hub: their logs, their subscribers, and the limits that they share.

use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;

use crate::config::Topics;

use super::ids::EventId;
use super::log::Log;
use super::publication::{HeldBytes, Publication};
use super::topic_name::TopicName;

/// All topics, and the highest numbers of removed topics.
pub(super) struct TopicTable {
    /// Sorted by name.
    topics: Vec<Topic>,
    /// The names of the topics that were removed last, with the highest number that a message of each has
    /// had. The last one removed is at the end.
    removed: VecDeque<(TopicName, u64)>,
    /// The highest number of all topics that were removed before those in `removed`.
    floor: u64,
    limits: Topics,
    /// The memory that all messages take.
    held: HeldBytes,
}

/// One topic: its log and its subscribers.
pub(super) struct Topic {
    pub(super) log: Log,
    /// The slots of the subscribers, in no particular order.
    pub(super) subscribers: Vec<u32>,
}

/// The properties of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// The name.
    pub name: TopicName,
    /// The number of clients that subscribe to the topic.
    pub subscribers: usize,
    /// The id of the newest message, even if the message is not kept; `None` before the first message.
    pub last: Option<EventId>,
}

/// The error that another topic would exceed the limit of topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyTopics {
    /// The largest number of topics.
    pub limit: usize,
}

impl fmt::Display for TooManyTopics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "too many topics: the limit is {}", self.limit)
    }
}

impl TopicTable {
    /// Creates a table that contains the topic `broadcast`.
    pub(super) fn new(limits: Topics) -> Self {
        let mut table = Self {
            topics: Vec::new(),
            removed: VecDeque::new(),
            floor: 0,
            limits,
            held: HeldBytes::default(),
        };
        table.insert(0, &TopicName::broadcast());
        table
    }

    /// Returns the limits of topics.
    pub(super) fn limits(&self) -> &Topics {
        &self.limits
    }

    /// Returns the memory that all messages take.
    pub(super) fn held(&self) -> &HeldBytes {
        &self.held
    }

    /// Returns all topics, sorted by name.
    #[cfg(test)]
    pub(super) fn all(&self) -> &[Topic] {
        &self.topics
    }

    /// Returns a topic, if it exists.
    pub(super) fn get(&self, name: &TopicName) -> Option<&Topic> {
        self.index_of(name).ok().map(|index| &self.topics[index])
    }

    /// Returns a topic, if it exists.
    pub(super) fn get_mut(&mut self, name: &TopicName) -> Option<&mut Topic> {
        self.index_of(name).ok().map(|index| &mut self.topics[index])
    }

    /// Returns a topic, and creates it first if it does not exist.
    ///
    /// # Errors
    /// [`TooManyTopics`], if the topic does not exist and the limit of topics is reached.
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

    /// Returns all topics but the server's own, sorted by name.
    pub(super) fn public(&self) -> impl ExactSizeIterator<Item = &Topic> {
        let internal = self.topics.partition_point(|topic| topic.name().is_internal());
        self.topics[internal..].iter()
    }

    /// Appends a message to a topic that exists. Then limits the memory of all topics: while it exceeds the
    /// limit, the topic whose payloads and records are largest loses its oldest message. The new message is not
    /// dropped for this.
    pub(super) fn append(&mut self, name: &TopicName, publication: Rc<Publication>) {
        if let Some(topic) = self.get(name) {
            topic.log.append(publication, &self.limits);
        }
        // Before the limit is applied, so that a message that is dropped at once displaces no other message.
        self.remove_if_unused(name);
        while self.held.get() > self.limits.total_bytes {
            let can_lose_one = |topic: &&Topic| topic.log.len() > usize::from(topic.name() == name);
            let losing = self.topics.iter().filter(can_lose_one);
            let Some(largest) = losing.max_by_key(|topic| topic.log.memory_bytes()) else {
                return;
            };
            let largest = largest.log.clone();
            largest.drop_oldest();
            self.remove_if_unused(largest.topic());
        }
    }

    /// Removes a topic if it has no subscriber and retains no message. `broadcast` is never removed, and the
    /// server's own topics retain nothing.
    pub(super) fn remove_if_unused(&mut self, name: &TopicName) {
        let Ok(index) = self.index_of(name) else { return };
        let topic = &self.topics[index];
        let is_retaining = !name.is_internal() && topic.log.is_retaining(&self.limits);
        let is_unused = topic.subscribers.is_empty() && !is_retaining;
        if !is_unused || name.is_broadcast() {
            return;
        }
        let topic = self.topics.remove(index);
        self.remember(topic.log.topic(), topic.log.highest());
        if self.topics.len() < self.topics.capacity() / 8 {
            // Frees the memory that many topics may have needed.
            self.topics.shrink_to(2 * self.topics.len());
        }
    }

    /// Returns the index of a topic; if it does not exist, the index at which it would be inserted.
    fn index_of(&self, name: &TopicName) -> Result<usize, usize> {
        self.topics.binary_search_by(|topic| topic.name().cmp(name))
    }

    /// Inserts a topic at `index`. The topic takes over the highest number of a removed topic with its name.
    fn insert(&mut self, index: usize, name: &TopicName) {
        let known = self.removed.iter().position(|(removed, _)| removed == name);
        let known = known.and_then(|known| self.removed.remove(known));
        let gone = known.map_or(self.floor, |(_, highest)| highest);
        let log = Log::new(name.clone(), gone);
        self.topics.insert(index, Topic { log, subscribers: Vec::new() });
    }

    /// Remembers the highest number that a message of a removed topic has had.
    fn remember(&mut self, name: &TopicName, highest: u64) {
        if highest <= self.floor {
            return;
        }
        if self.removed.len() == REMOVED_NAMES
            && let Some((_, oldest)) = self.removed.pop_front()
        {
            self.floor = self.floor.max(oldest);
        }
        self.removed.push_back((name.clone(), highest));
    }
}

impl Topic {
    /// Returns the name.
    pub(super) fn name(&self) -> &TopicName {
        self.log.topic()
    }

    /// Returns the properties that are shown to clients.
    pub(super) fn info(&self) -> TopicInfo {
        TopicInfo {
            name: self.name().clone(),
            subscribers: self.subscribers.len(),
            last: self.log.last(),
        }
    }
}

/// The number of names of removed topics that are remembered. When the list is full, the oldest name is
/// forgotten and its number raises the floor. A client that resumes an unknown topic from an id below the
/// floor is notified of a gap.
const REMOVED_NAMES: usize = 1024;
