//! The idempotency keys of accepted messages, so that a message that is sent again is not published again.

use std::collections::VecDeque;
use std::hash::{BuildHasher, DefaultHasher, RandomState};
use std::time::{Duration, Instant};

use crate::hub::{Published, TopicName};
use crate::net::AddressPrefix;

/// A publisher. The keys of different publishers are independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Publisher<'a> {
    /// An identity with a name, such as a token.
    Named(&'a [u8]),
    /// All clients at an address that have no name.
    At(AddressPrefix),
}

/// A key of a publisher for a topic. Only hashes with a random seed are kept, which reveal neither tokens nor
/// keys. Of 1,024 keys, two have the same hash with a probability of 3 in 10^14.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PublishKey {
    publisher: u64,
    topic_and_key: u64,
}

/// An accepted message that had a key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Accepted {
    topic_and_key: u64,
    /// The hash of the message.
    pub(crate) content: u64,
    pub(crate) published: Published,
    /// The time from which the key expires.
    since: Instant,
}

/// The keys of accepted messages. Each publisher has a list of its newest keys. While the table is empty, it
/// holds no allocation.
pub(crate) struct PublishKeys {
    /// The maximum number of keys of one publisher.
    per_publisher: usize,
    hashes: RandomState,
    lists: Vec<KeyList>,
}

/// The keys of one publisher, the oldest first.
struct KeyList {
    publisher: u64,
    keys: VecDeque<Accepted>,
}

impl PublishKeys {
    pub(crate) fn new(per_publisher: usize) -> Self {
        Self { per_publisher, hashes: RandomState::new(), lists: Vec::new() }
    }

    /// Returns the key that a publisher uses for a topic.
    pub(crate) fn key(
        &self,
        publisher: Publisher<'_>,
        topic: &TopicName,
        key: &[u8],
    ) -> PublishKey {
        PublishKey {
            publisher: self.hashes.hash_one(publisher),
            topic_and_key: self.hashes.hash_one((topic, key)),
        }
    }

    /// Returns a hasher for the content of a message.
    pub(crate) fn hasher(&self) -> DefaultHasher {
        self.hashes.build_hasher()
    }

    /// Returns the accepted message that had a key, if the key is remembered and has not expired.
    pub(crate) fn find(&self, key: PublishKey, now: Instant) -> Option<Accepted> {
        let list = self.lists.iter().find(|list| list.publisher == key.publisher)?;
        let is_same = |accepted: &&Accepted| accepted.topic_and_key == key.topic_and_key;
        list.keys.iter().rfind(is_same).filter(|accepted| !accepted.is_expired(now)).copied()
    }

    /// Remembers the key of an accepted message, with the hash of its content. A publisher with as many keys as
    /// it may have loses its oldest one. At [`MAX_PUBLISH_KEYS`], the publisher with the most keys does.
    pub(crate) fn remember(
        &mut self,
        key: PublishKey,
        content: u64,
        published: Published,
        now: Instant,
    ) {
        self.forget_expired(now);
        let count: usize = self.lists.iter().map(|list| list.keys.len()).sum();
        if count >= MAX_PUBLISH_KEYS
            && let Some(longest) = self.lists.iter_mut().max_by_key(|list| list.keys.len())
        {
            longest.keys.pop_front();
        }
        let (limit, topic_and_key) = (self.per_publisher, key.topic_and_key);
        let keys = self.list(key.publisher);
        if keys.len() >= limit {
            keys.pop_front();
        }
        keys.push_back(Accepted { topic_and_key, content, published, since: now });
    }

    /// Returns the keys of a publisher, and creates the list first if there is none.
    fn list(&mut self, publisher: u64) -> &mut VecDeque<Accepted> {
        let index = self.lists.iter().position(|list| list.publisher == publisher);
        let index = index.unwrap_or_else(|| {
            self.lists.push(KeyList { publisher, keys: VecDeque::new() });
            self.lists.len() - 1
        });
        &mut self.lists[index].keys
    }

    /// Removes the expired keys, and frees unused memory.
    fn forget_expired(&mut self, now: Instant) {
        self.lists.retain_mut(|list| {
            while list.keys.front().is_some_and(|accepted| accepted.is_expired(now)) {
                list.keys.pop_front();
            }
            list.keys.shrink_to(2 * list.keys.len());
            !list.keys.is_empty()
        });
        self.lists.shrink_to(2 * self.lists.len());
    }
}

impl Accepted {
    fn is_expired(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= LIFETIME
    }
}

/// The time for which a key is remembered.
const LIFETIME: Duration = Duration::from_secs(5 * 60);
/// The maximum number of keys of all publishers. They take half a megabyte, or at most one with the unused memory
/// of their lists.
pub(crate) const MAX_PUBLISH_KEYS: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::hub::EventId;

    fn published(number: usize) -> Published {
        let id = EventId::parse(&format!("k3f9x2ab:{number}")).unwrap();
        Published { id, subscribers: 0 }
    }

    fn at(number: u32) -> Publisher<'static> {
        Publisher::At(AddressPrefix::of(Ipv4Addr::from_bits(number).into()))
    }

    /// Returns the key of the topic `a` with this number.
    fn key(keys: &PublishKeys, publisher: Publisher<'_>, number: usize) -> PublishKey {
        keys.key(publisher, &TopicName::new("a").unwrap(), number.to_string().as_bytes())
    }

    /// Remembers the numbers as keys of a publisher, each with the message of the same number.
    fn remember(
        keys: &mut PublishKeys,
        publisher: Publisher<'_>,
        numbers: impl IntoIterator<Item = usize>,
        now: Instant,
    ) {
        for number in numbers {
            let key = key(keys, publisher, number);
            keys.remember(key, number as u64, published(number), now);
        }
    }

    /// Returns which of the numbers are remembered as keys of a publisher.
    fn remembered(
        keys: &PublishKeys,
        publisher: Publisher<'_>,
        numbers: impl IntoIterator<Item = usize>,
        now: Instant,
    ) -> Vec<usize> {
        let is_remembered = |number: &usize| {
            let accepted = keys.find(key(keys, publisher, *number), now);
            accepted.inspect(|accepted| {
                let message = (accepted.content, accepted.published);
                assert_eq!(message, (*number as u64, published(*number)));
            });
            accepted.is_some()
        };
        numbers.into_iter().filter(is_remembered).collect()
    }

    #[test]
    fn a_key_belongs_to_one_publisher_and_one_topic() {
        let now = Instant::now();
        let mut keys = PublishKeys::new(10);
        let [a, b] = ["a", "b"].map(|name| TopicName::new(name).unwrap());
        let token = Publisher::Named(b"token");
        let first = keys.key(token, &a, b"key");
        keys.remember(first, 5, published(1), now);
        let found = keys.find(keys.key(token, &a, b"key"), now).unwrap();
        assert_eq!((found.content, found.published), (5, published(1)));
        for (publisher, topic, key) in [
            (Publisher::Named(b"token2"), &a, &b"key"[..]),
            (at(1), &a, b"key"),
            (token, &b, b"key"),
            (token, &a, b"Key"),
            (token, &a, b"key2"),
        ] {
            let key = keys.key(publisher, topic, key);
            assert!(keys.find(key, now).is_none(), "{publisher:?} {topic} {key:?}");
        }
        // The end of the topic is not the beginning of the key.
        assert_ne!(
            keys.key(token, &a, b"bc"),
            keys.key(token, &TopicName::new("ab").unwrap(), b"c")
        );
    }

    #[test]
    fn hashes_differ_from_table_to_table() {
        let [one, other] = [(); 2].map(|()| key(&PublishKeys::new(1), at(1), 1));
        assert_ne!(one, other);
    }

    #[test]
    fn a_key_expires_after_five_minutes_and_then_takes_no_memory() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut keys = PublishKeys::new(10);
        remember(&mut keys, at(1), 0..3, start);
        remember(&mut keys, at(2), 0..3, after(1));
        assert_eq!(remembered(&keys, at(1), 0..4, after(299)), [0, 1, 2]);
        assert_eq!(remembered(&keys, at(1), 0..4, after(300)), []);
        assert_eq!(remembered(&keys, at(2), 0..4, after(300)), [0, 1, 2]);
        remember(&mut keys, at(3), [0], after(300));
        assert_eq!(keys.lists.len(), 2);
        remember(&mut keys, at(3), [1], after(600));
        assert_eq!(keys.lists.len(), 1);
        assert_eq!(remembered(&keys, at(3), 0..4, after(600)), [1]);
    }

    #[test]
    fn a_key_that_is_used_again_after_it_expired_has_the_newer_message() {
        let start = Instant::now();
        let later = start + LIFETIME;
        let mut keys = PublishKeys::new(10);
        let again = key(&keys, at(1), 1);
        keys.remember(again, 1, published(1), start);
        keys.remember(again, 2, published(2), later);
        assert_eq!(keys.find(again, later).unwrap().published, published(2));
    }

    #[test]
    fn each_publisher_has_its_own_newest_keys() {
        let now = Instant::now();
        let mut keys = PublishKeys::new(4);
        remember(&mut keys, at(1), 0..3, now);
        remember(&mut keys, at(2), 0..10, now);
        assert_eq!(remembered(&keys, at(1), 0..10, now), [0, 1, 2]);
        assert_eq!(remembered(&keys, at(2), 0..10, now), [6, 7, 8, 9]);
    }

    #[test]
    fn a_full_table_forgets_the_oldest_key_of_the_publisher_with_the_most() {
        let now = Instant::now();
        let mut keys = PublishKeys::new(MAX_PUBLISH_KEYS);
        remember(&mut keys, at(1), 0..3, now);
        remember(&mut keys, at(2), 0..MAX_PUBLISH_KEYS - 3, now);
        remember(&mut keys, at(1), 3..5, now);
        remember(&mut keys, at(3), [0], now);
        assert_eq!(remembered(&keys, at(1), 0..10, now), [0, 1, 2, 3, 4]);
        assert_eq!(remembered(&keys, at(2), 0..6, now), [3, 4, 5]);
        assert_eq!(remembered(&keys, at(3), 0..2, now), [0]);
    }

    #[test]
    fn the_memory_of_the_table_is_bounded_and_freed() {
        let start = Instant::now();
        let mut keys = PublishKeys::new(MAX_PUBLISH_KEYS / 2);
        let space = |keys: &PublishKeys| {
            let lists = keys.lists.iter().map(|list| list.keys.capacity()).sum::<usize>();
            (keys.lists.capacity(), lists)
        };
        // Each publisher takes all it can get from those before it.
        for publisher in 0..40 {
            remember(&mut keys, at(publisher), 0..MAX_PUBLISH_KEYS / 2, start);
            let count: usize = keys.lists.iter().map(|list| list.keys.len()).sum();
            assert!(count <= MAX_PUBLISH_KEYS, "{count}");
            assert!(space(&keys).1 <= 2 * MAX_PUBLISH_KEYS + 8, "{:?}", space(&keys));
        }
        remember(&mut keys, at(0), [0], start + LIFETIME);
        assert!(space(&keys).0 <= 4 && space(&keys).1 <= 4, "{:?}", space(&keys));
    }
}
