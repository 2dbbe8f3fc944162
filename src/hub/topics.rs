//! All topics of a hub: their logs, their subscribers, the feeds of the filters that match them, and the limits
//! that they share.

use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;

use crate::config::Topics;
use crate::features::Feature;

use super::feed::Feed;
use super::filter::{Filter, Pattern};
use super::ids::EventId;
use super::log::Log;
use super::merge::Source;
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
    /// One for each pattern that has a subscriber, sorted by the patterns.
    feeds: Vec<Rc<Feed>>,
    limits: Rc<Topics>,
    /// The memory that all messages take.
    held: HeldBytes,
}

/// One topic: its log and its subscribers.
pub(super) struct Topic {
    pub(super) log: Log,
    /// The slots of the subscribers, in no particular order.
    pub(super) subscribers: Vec<u32>,
    /// The feeds whose patterns match, in no particular order.
    feeds: Vec<Rc<Feed>>,
}

/// The properties of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// The name.
    pub name: TopicName,
    /// The number of subscriptions to the topic. A client subscribes once for each of its filters that match.
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

/// The reason why a client cannot subscribe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SubscribeError {
    /// The topic does not exist, and the limit of topics is reached.
    Topics(TooManyTopics),
    /// The filter has no subscriber, and the limit of filters is reached.
    Filters { limit: usize },
}

impl From<TooManyTopics> for SubscribeError {
    fn from(error: TooManyTopics) -> Self {
        Self::Topics(error)
    }
}

impl fmt::Display for SubscribeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topics(error) => error.fmt(f),
            Self::Filters { limit } => {
                write!(f, "too many different topic filters: the limit is {limit}")
            }
        }
    }
}

impl TopicTable {
    /// Creates a table that contains the topic `broadcast`.
    pub(super) fn new(limits: Topics) -> Self {
        let mut table = Self {
            topics: Vec::new(),
            removed: VecDeque::new(),
            floor: 0,
            feeds: Vec::new(),
            limits: Rc::new(limits),
            held: HeldBytes::default(),
        };
        table.insert(0, &TopicName::broadcast());
        table
    }

    /// Returns the limits of topics.
    pub(super) fn limits(&self) -> &Rc<Topics> {
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

    /// Returns all feeds.
    #[cfg(test)]
    pub(super) fn feeds(&self) -> &[Rc<Feed>] {
        &self.feeds
    }

    /// Returns a topic, if it exists.
    pub(super) fn get(&self, name: &TopicName) -> Option<&Topic> {
        self.index_of(name).ok().map(|index| &self.topics[index])
    }

    /// Adds the client in `slot` to the subscribers of a filter. `newest` is the number of the message that was
    /// published last.
    ///
    /// # Errors
    /// [`SubscribeError`], if a limit is reached.
    pub(super) fn subscribe(
        &mut self,
        filter: &Filter,
        slot: u32,
        newest: u64,
    ) -> Result<Source, SubscribeError> {
        match filter {
            Filter::Topic(name) => {
                let topic = self.get_or_insert(name)?;
                topic.subscribers.push(slot);
                Ok(Source::Topic(topic.log.clone()))
            }
            Filter::Pattern(pattern) if Feature::Full.is_built_in() => {
                let feed = self.open_feed(pattern, newest)?;
                feed.subscribers_mut().push(slot);
                Ok(Source::Feed(feed))
            }
            Filter::Pattern(_) => Err(SubscribeError::Filters { limit: 0 }),
        }
    }

    /// Removes the client in `slot` from the subscribers of a filter.
    pub(super) fn unsubscribe(&mut self, filter: &Filter, slot: u32) {
        match filter {
            Filter::Topic(name) => {
                if let Ok(index) = self.index_of(name) {
                    remove(&mut self.topics[index].subscribers, slot);
                    self.remove_if_unused(name);
                }
            }
            Filter::Pattern(pattern) if Feature::Full.is_built_in() => {
                if let Ok(index) = self.index_of_feed(pattern) {
                    remove(&mut self.feeds[index].subscribers_mut(), slot);
                    self.close_if_unused(index);
                }
            }
            Filter::Pattern(_) => {}
        }
    }

    /// Calls `visit` with the subscribers of a topic, and with those of each pattern that matches the topic.
    pub(super) fn visit_subscribers(&self, name: &TopicName, visit: &mut dyn FnMut(&[u32])) {
        let topic = self.get(name);
        if let Some(topic) = topic {
            visit(&topic.subscribers);
        }
        if Feature::Full.is_built_in() {
            match topic {
                Some(topic) => topic.feeds.iter().for_each(|feed| visit(&feed.subscribers())),
                None => self.feeds_of(name).for_each(|feed| visit(&feed.subscribers())),
            }
        }
    }

    /// Returns true if a topic exists, or if a feed has a message of it.
    pub(super) fn holds(&self, name: &TopicName) -> bool {
        self.get(name).is_some() || self.feeds_of(name).any(|feed| feed.has(name))
    }

    /// Withdraws the messages of a topic wherever they are, and appends `cleared`, the notice of that.
    pub(super) fn clear(&mut self, name: &TopicName, cleared: &Rc<Publication>) {
        let index = match self.index_of(name) {
            Ok(index) => index,
            Err(index) => {
                // Only feeds have messages of the topic. It exists until the highest number is remembered.
                self.insert(index, name);
                index
            }
        };
        let topic = &self.topics[index];
        topic.log.clear(cleared.clone());
        for feed in &topic.feeds {
            feed.withdraw(name);
            feed.append(cleared.clone(), &self.limits);
        }
        self.remove_if_unused(name);
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

    /// Appends a message to a topic that exists, and to the feeds of the patterns that match it. Then limits the
    /// memory of all messages: while it exceeds the limit, the topic whose payloads and records are largest loses
    /// its oldest message; when no topic can lose one, the feeds do, which hold few messages that no topic holds.
    /// The new message is not dropped for this.
    pub(super) fn append(&mut self, name: &TopicName, publication: Rc<Publication>) {
        let number = publication.number();
        if let Some(topic) = self.get(name) {
            if Feature::Full.is_built_in() {
                for feed in &topic.feeds {
                    feed.append(publication.clone(), &self.limits);
                }
            }
            topic.log.append(publication, &self.limits);
        }
        // Before the limit is applied, so that a message that is dropped at once displaces no other message.
        self.remove_if_unused(name);
        while self.held.get() > self.limits.total_bytes {
            let can_lose_one = |topic: &&Topic| topic.log.len() > usize::from(topic.name() == name);
            let losing = self.topics.iter().filter(can_lose_one);
            let Some(largest) = losing.max_by_key(|topic| topic.log.memory_bytes()) else {
                if Feature::Full.is_built_in() && self.shrink_feeds(number) {
                    continue;
                }
                return;
            };
            let largest = largest.log.clone();
            largest.drop_oldest();
            self.remove_if_unused(largest.topic());
        }
    }

    /// Drops the oldest message of each feed, but not the message `newest`. Returns false if there is none to drop.
    fn shrink_feeds(&self, newest: u64) -> bool {
        let can_lose_one = |feed: &&Rc<Feed>| {
            feed.entries().kept().front().is_some_and(|oldest| oldest.number() != newest)
        };
        let losing = self.feeds.iter().filter(can_lose_one);
        losing.map(|feed| feed.drop_oldest()).count() > 0
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
        if Feature::Full.is_built_in() {
            topic.feeds.iter().for_each(|feed| feed.remove(&topic.log));
        }
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
        let mut feeds = Vec::new();
        if Feature::Full.is_built_in() {
            feeds.extend(self.feeds_of(name).cloned());
            feeds.iter().for_each(|feed: &Rc<Feed>| feed.add(log.clone()));
        }
        self.topics.insert(index, Topic { log, subscribers: Vec::new(), feeds });
    }

    /// Returns the feeds of the patterns that match a topic, which need not exist.
    fn feeds_of(&self, name: &TopicName) -> impl Iterator<Item = &Rc<Feed>> {
        self.feeds.iter().filter(|feed| feed.pattern().matches(name))
    }

    /// Returns the feed of a pattern, and creates it first if it does not exist.
    fn open_feed(&mut self, pattern: &Pattern, newest: u64) -> Result<Rc<Feed>, SubscribeError> {
        let index = match self.index_of_feed(pattern) {
            Ok(index) => return Ok(self.feeds[index].clone()),
            Err(index) => index,
        };
        let limit = self.limits.filters;
        if self.feeds.len() >= limit {
            return Err(SubscribeError::Filters { limit });
        }
        let removed = self.removed.iter().filter(|(name, _)| pattern.matches(name));
        let removed = removed.map(|(_, highest)| *highest).fold(self.floor, u64::max);
        let matching = self.topics.iter().filter(|topic| pattern.matches(topic.name()));
        let logs = matching.map(|topic| topic.log.clone()).collect();
        let feed = Rc::new(Feed::new(pattern.clone(), logs, removed, newest));
        for topic in self.topics.iter_mut().filter(|topic| pattern.matches(topic.name())) {
            topic.feeds.push(feed.clone());
        }
        self.feeds.insert(index, feed.clone());
        Ok(feed)
    }

    /// Removes the feed at `index` if it has no subscriber.
    fn close_if_unused(&mut self, index: usize) {
        if !self.feeds[index].subscribers().is_empty() {
            return;
        }
        let feed = self.feeds.remove(index);
        for topic in &mut self.topics {
            topic.feeds.retain(|other| !Rc::ptr_eq(other, &feed));
        }
    }

    /// Returns the index of the feed of a pattern; if there is none, the index at which it would be inserted.
    fn index_of_feed(&self, pattern: &Pattern) -> Result<usize, usize> {
        self.feeds.binary_search_by(|feed| feed.pattern().cmp(pattern))
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

    /// Returns the number of subscriptions, including those of patterns that match.
    pub(super) fn subscriptions(&self) -> usize {
        let mut count = self.subscribers.len();
        if Feature::Full.is_built_in() {
            count += self.feeds.iter().map(|feed| feed.subscribers().len()).sum::<usize>();
        }
        count
    }

    /// Returns the properties that are shown to clients.
    pub(super) fn info(&self) -> TopicInfo {
        TopicInfo {
            name: self.name().clone(),
            subscribers: self.subscriptions(),
            last: self.log.last(),
        }
    }
}

/// Removes the client in `slot` from a list of subscribers.
fn remove(subscribers: &mut Vec<u32>, slot: u32) {
    // The search begins at the end, with the clients that joined last, because many of them leave soon.
    if let Some(index) = subscribers.iter().rposition(|subscriber| *subscriber == slot) {
        subscribers.swap_remove(index);
    }
    if subscribers.is_empty() {
        *subscribers = Vec::new();
    }
}

/// The number of names of removed topics that are remembered. When the list is full, the oldest name is
/// forgotten and its number raises the floor. A client that resumes an unknown topic from an id below the
/// floor is notified of a gap.
const REMOVED_NAMES: usize = 1024;
