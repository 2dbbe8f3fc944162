//! Filters: random walks of clients that subscribe to several topics, against an observer that remembers every
//! message. Each message that a client is owed comes exactly once and in order, or the client is told that it
//! lagged.

use std::collections::{BTreeMap, BTreeSet};

use crate::hub::log::Replayed;

use super::*;

/// A message that was ever published, or the notice of a deletion.
struct Remembered {
    number: u64,
    topic: TopicName,
    text: String,
    is_cleared: bool,
    is_withdrawn: bool,
}

/// A user of the server, who connects, is cut and comes back.
struct User {
    list: &'static str,
    filters: Vec<Filter>,
    /// Where the user began, and how it begins if it is cut before it has got an id.
    begin: Start,
    client: Option<Rc<Client>>,
    /// The number that was the newest when the client joined.
    joined_at: u64,
    /// The user is owed all messages after this number.
    owed_after: u64,
    /// The numbers of the retained messages that a replay of the newest ones contains.
    replay: BTreeSet<u64>,
    got: BTreeSet<u64>,
    /// The user was told that messages up to this number may be missing.
    told: u64,
    /// True if the user must be told that it lagged before anything else.
    is_foreign: bool,
    /// The id that the user resumes from.
    id: Option<EventId>,
    /// The number of the message that came last.
    last: u64,
}

impl User {
    fn new(list: &'static str, begin: Start) -> Self {
        Self {
            list,
            filters: Filter::parse_list(list).unwrap(),
            begin,
            client: None,
            joined_at: 0,
            owed_after: 0,
            replay: BTreeSet::new(),
            got: BTreeSet::new(),
            told: 0,
            is_foreign: false,
            id: None,
            last: 0,
        }
    }

    fn matches(&self, topic: &TopicName) -> bool {
        self.filters.iter().any(|filter| filter.matches(topic))
    }

    fn is_owed(&self, message: &Remembered) -> bool {
        message.number > self.owed_after.max(self.told)
            && !message.is_withdrawn
            && !self.got.contains(&message.number)
            && self.matches(&message.topic)
    }
}

/// The number of times that each event happened.
type EventCounts = BTreeMap<&'static str, usize>;

struct Walk {
    random: fastrand::Rng,
    hub: Hub,
    limits: Topics,
    history: Vec<Remembered>,
    users: Vec<User>,
    events: EventCounts,
}

const TOPICS: [&str; 6] = ["a", "a/x", "a/y", "b", "b/x", "broadcast"];
const LISTS: [&str; 10] =
    ["", "a/", "+/x", "+", "a,b/", "a/x,a/y", "+/x,a/", "#,broadcast", "a", "b,+/x,a/y"];

impl Walk {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let limits = Topics {
            count: random.usize(3..=6),
            filters: random.usize(1..=8),
            retain_messages: random.usize(0..=3),
            retain_bytes: random.usize(100..600),
            log_messages: random.choice([1, 2, 4, 8, 64, 100]).unwrap(),
            log_bytes: random.usize(100..3000),
            total_bytes: random.choice([1000, 5000, 20_000, 1_000_000]).unwrap(),
            ..Topics::default()
        };
        Self {
            hub: hub_with(limits.clone()),
            random,
            limits,
            history: Vec::new(),
            users: Vec::new(),
            events: EventCounts::new(),
        }
    }

    fn happened(&mut self, event: &'static str) {
        *self.events.entry(event).or_default() += 1;
    }

    fn step(&mut self, context: &str) {
        match self.random.u8(0..24) {
            0 if self.users.len() < 6 => {
                let list = self.random.choice(LISTS).unwrap();
                let begin = self.some_start();
                self.users.push(User::new(list, begin));
                self.connect(self.users.len() - 1, context);
            }
            0 | 1 => {
                let Some(index) = self.random.choice(0..self.users.len()) else { return };
                self.cut(index);
                self.users.swap_remove(index);
            }
            2 => {
                let Some(index) = self.random.choice(0..self.users.len()) else { return };
                self.cut(index);
            }
            3..6 => {
                let Some(index) = self.random.choice(0..self.users.len()) else { return };
                self.connect(index, context);
            }
            6 => {
                let topic = name(self.random.choice(TOPICS).unwrap());
                self.clear(&topic);
            }
            7 if self.random.u8(0..8) == 0 => self.rest(context),
            7..16 => self.publish(context),
            _ => {
                let Some(index) = self.random.choice(0..self.users.len()) else { return };
                let count = self.random.usize(1..6);
                self.read(index, count, context);
            }
        }
    }

    fn some_start(&mut self) -> Start {
        let newest = self.hub.newest();
        match self.random.u8(0..8) {
            0 | 1 => Start::Live,
            2 | 3 => Start::Last(self.random.usize(0..4)),
            4 => Start::After(None),
            _ => {
                let oldest = newest.number.saturating_sub(20);
                let number = self.random.u64(oldest..newest.number + 2);
                Start::After(Some(EventId { number, ..newest }))
            }
        }
    }

    fn publish(&mut self, context: &str) {
        for _ in 0..self.random.choice([1, 1, 1, 1, 5, 100]).unwrap() {
            let topic = name(self.random.choice(TOPICS).unwrap());
            let size = self.random.choice([1, 10, 100, 400]).unwrap();
            let text = format!("{context} {}", "x".repeat(size));
            let Ok(published) = self.hub.publish(&topic, draft(&text)) else { continue };
            assert_eq!(self.hub.ring(&topic, 0, usize::MAX), None);
            let subscribers = self.users.iter().filter(|user| user.client.is_some());
            let matching = |user: &User| user.filters.iter().filter(|f| f.matches(&topic)).count();
            assert_eq!(
                published.subscribers,
                subscribers.map(matching).sum::<usize>(),
                "{context}"
            );
            let number = published.id.number;
            self.history.push(Remembered {
                number,
                topic,
                text,
                is_cleared: false,
                is_withdrawn: false,
            });
        }
    }

    fn clear(&mut self, topic: &TopicName) {
        let before = self.hub.newest();
        self.hub.clear(topic);
        let newest = self.hub.newest();
        if newest == before {
            // Nothing has a message of the topic.
            return;
        }
        let of_topic = self.history.iter_mut().filter(|message| message.topic == *topic);
        of_topic.for_each(|message| message.is_withdrawn = true);
        self.history.push(Remembered {
            number: newest.number,
            topic: topic.clone(),
            text: topic.to_string(),
            is_cleared: true,
            is_withdrawn: false,
        });
    }

    /// Connects a user again: from its last id, or else as at first.
    fn connect(&mut self, index: usize, context: &str) {
        let user = &mut self.users[index];
        if user.client.is_some() {
            return;
        }
        let start = user.id.map_or(user.begin, |id| Start::After(Some(id)));
        let subscription = subscription(user.list, start);
        let newest = self.hub.newest();
        let joined = self.hub.join(new_client("test"), subscription, Instant::now());
        let (client, before) = match joined {
            Ok(joined) => joined,
            Err(SubscribeError::Topics(_)) => return self.happened("too many topics"),
            Err(SubscribeError::Filters { .. }) => return self.happened("too many filters"),
        };
        (user.told, user.is_foreign) = (0, false);
        user.got.clear();
        user.replay.clear();
        user.joined_at = newest.number;
        user.owed_after = match start {
            Start::Live => newest.number,
            Start::Last(count) => {
                for topic in self.hub.topics.all() {
                    if !user.matches(topic.name()) {
                        continue;
                    }
                    let retained = Replayed::Retained(count);
                    let entries = topic.log.entries();
                    let retained = entries.replayed(retained, 0, newest.number, &self.limits);
                    user.replay.extend(retained.map(|publication| publication.number()));
                }
                newest.number
            }
            Start::After(Some(id)) if id.number <= newest.number => id.number,
            Start::After(_) => {
                user.is_foreign = true;
                0
            }
        };
        user.last = 0;
        if matches!(start, Start::Live | Start::Last(_)) {
            assert!(user.replay.range(..=before.number).next().is_none(), "{context}: {before:?}");
            user.id = Some(before);
        }
        user.client = Some(client);
        assert_consistent(&self.hub, context);
    }

    fn cut(&mut self, index: usize) {
        if let Some(client) = self.users[index].client.take() {
            leave(&mut self.hub, client);
        }
    }

    /// Reads up to `count` deliveries. Returns false if there are no more.
    fn read(&mut self, index: usize, count: usize, context: &str) -> bool {
        for _ in 0..count {
            let Some(client) = self.users[index].client.clone() else { return false };
            let context = format!("{context}, `{}`", self.users[index].list);
            client.bell.clear();
            match client.next_delivery() {
                Some(Delivery::Published(publication)) => {
                    self.receive(index, &publication, &context)
                }
                Some(Delivery::Cleared(cleared)) => {
                    self.happened("cleared");
                    self.receive(index, &cleared, &context);
                }
                Some(Delivery::Gap) => {
                    let until = self.users[index].joined_at;
                    self.lag(index, "gap", until);
                }
                Some(Delivery::Lagged(_)) => {
                    let until = self.hub.newest().number;
                    self.lag(index, "lagged", until);
                }
                Some(Delivery::Mail(_)) => panic!("{context}: mail"),
                None => {
                    assert_eq!(client.caught_up(), Some(self.hub.newest()), "{context}");
                    self.users[index].id = client.caught_up();
                    return false;
                }
            }
        }
        true
    }

    fn receive(&mut self, index: usize, publication: &Publication, context: &str) {
        self.happened("message");
        let (user, number) = (&mut self.users[index], publication.number());
        let message = self.history.iter().find(|message| message.number == number).unwrap();
        let context = format!("{context}: {number} {} after {}", message.topic, user.last);
        assert_eq!(text(publication.frame()), message.text, "{context}");
        assert_eq!(publication.is_cleared(), message.is_cleared, "{context}");
        assert!(user.matches(&message.topic), "{context}");
        assert!(!message.is_withdrawn, "{context}: withdrawn");
        assert!(number > user.last, "{context}: order");
        assert!(
            number > user.owed_after || user.replay.contains(&number),
            "{context}: not asked for"
        );
        assert!(!user.is_foreign, "{context}: no notice of a gap");
        let lost = self.history.iter().find(|other| other.number < number && user.is_owed(other));
        assert!(lost.is_none(), "{context}: silent loss of {}", lost.unwrap().number);
        assert!(user.got.insert(number), "{context}: twice");
        user.last = number;
        user.id = publication.id();
    }

    /// Notes that a user was told that it lagged.
    fn lag(&mut self, index: usize, event: &'static str, until: u64) {
        self.happened(event);
        let user = &self.users[index];
        let is_kept = |message: &Remembered| {
            let topic = self.hub.topics.get(&message.topic);
            let is_in = |entries: &log::Entries| {
                entries.kept().iter().any(|kept| kept.number() == message.number)
            };
            topic.is_some_and(|topic| is_in(&topic.log.entries()))
        };
        let mut owed = self.history.iter().filter(|message| user.is_owed(message));
        if !user.is_foreign && owed.all(|message| message.number > until || is_kept(message)) {
            self.happened("needless");
        }
        let user = &mut self.users[index];
        user.told = user.told.max(until);
        user.is_foreign = false;
    }

    /// Lets all users read everything, and checks that they have everything.
    fn rest(&mut self, context: &str) {
        self.happened("rest");
        for index in 0..self.users.len() {
            self.connect(index, context);
            while self.read(index, 100, context) {}
            let user = &self.users[index];
            if user.client.is_none() {
                continue;
            }
            let lost = self.history.iter().find(|message| user.is_owed(message));
            let context = format!("{context}, `{}`", user.list);
            assert!(lost.is_none(), "{context}: silent loss of {} at rest", lost.unwrap().number);
            for topic in self.hub.topics().iter().filter(|topic| user.matches(&topic.name)) {
                let Some(newest) = self.hub.last(&topic.name) else { continue };
                let number = newest.number();
                let is_due = number > user.owed_after || user.replay.contains(&number);
                assert!(
                    !is_due || user.got.contains(&number),
                    "{context}: no newest value {number}"
                );
            }
        }
    }
}

#[test]
fn every_message_of_a_filter_comes_once_and_in_order_or_the_client_is_told() {
    let mut events = EventCounts::new();
    for seed in 0..300 {
        let mut walk = Walk::new(seed);
        for step in 0..300 {
            walk.step(&format!("seed {seed}, step {step}"));
        }
        walk.rest(&format!("seed {seed}, end"));
        while !walk.users.is_empty() {
            walk.cut(0);
            walk.users.swap_remove(0);
        }
        assert_eq!(walk.hub.topics.feeds().len(), 0);
        for (event, count) in walk.events {
            *events.entry(event).or_default() += count;
        }
    }
    assert_eq!(events.len(), 8, "{events:?}");
    assert!(events.values().all(|count| *count >= 100), "{events:?}");
    let told = events["gap"] + events["lagged"];
    assert!(events["needless"] * 5 < told, "{events:?}");
}

#[test]
fn a_filter_gets_the_messages_of_all_topics_that_it_matches_once_each() {
    let mut hub = hub();
    let garden = subscribe(&mut hub, "garden/");
    let both = subscribe(&mut hub, "+/t,garden/");
    for topic in ["garden", "garden/t", "house/t", "house", "broadcast"] {
        publish(&mut hub, topic, topic).unwrap();
    }
    assert_eq!(deliveries(&garden), ["1 garden", "2 garden/t"]);
    assert_eq!(deliveries(&both), ["1 garden", "2 garden/t", "3 house/t"]);
    assert_eq!(numbers(hub.publish(&name("garden/t"), draft("x"))), (6, 3), "subscriptions");
    assert_eq!(hub.subscribers(&name("garden/never")), 2);
}

#[test]
fn clients_of_the_same_filter_share_a_feed_that_is_closed_with_the_last_one() {
    let mut hub = hub();
    let clients = ["#", "", "#"].map(|filter| subscribe(&mut hub, filter));
    assert_eq!(hub.topics.feeds().len(), 1);
    publish(&mut hub, "a", "x").unwrap();
    for client in clients {
        assert_eq!(deliveries(&client), ["1 x"]);
        leave(&mut hub, client);
    }
    assert_eq!(hub.topics.feeds().len(), 0);
    assert_consistent(&hub, "left");
}

#[test]
fn a_slow_client_of_a_filter_ends_with_the_newest_message_of_every_topic() {
    let mut hub = hub_with(Topics { log_messages: 4, ..Topics::default() });
    let client = subscribe(&mut hub, "#");
    for topic in ["a", "b", "c"] {
        publish(&mut hub, topic, "old").unwrap();
    }
    for _ in 0..10 {
        publish(&mut hub, "busy", "x").unwrap();
    }
    assert_eq!(deliveries(&client), ["lagged", "1 old", "2 old", "3 old", "13 x"]);
    publish(&mut hub, "a", "new").unwrap();
    assert_eq!(deliveries(&client), ["14 new"]);
}

#[test]
fn a_resume_of_a_filter_gets_what_the_logs_of_the_topics_keep() {
    let mut hub = hub_with(Topics { log_messages: 200, ..Topics::default() });
    for number in 1..=150 {
        publish(&mut hub, ["a", "b", "c"][number % 3], "x").unwrap();
    }
    let start = Start::After(Some(EventId { number: 10, ..hub.newest() }));
    let client = subscribe_from(&mut hub, "a,+", start).unwrap();
    let expected: Vec<_> = (11..=150).map(|number| format!("{number} x")).collect();
    assert_eq!(deliveries(&client), expected);
}

#[test]
fn a_deletion_is_told_even_if_only_a_feed_has_messages_of_the_topic() {
    let mut hub = hub_with(Topics { retain_messages: 0, ..Topics::default() });
    let client = subscribe(&mut hub, "#");
    publish(&mut hub, "a", "x").unwrap();
    publish(&mut hub, "b", "y").unwrap();
    assert_eq!(topics(&hub), ["broadcast"]);
    client.bell.clear();
    hub.clear(&name("never"));
    assert!(!client.bell.is_rung());
    hub.clear(&name("a"));
    assert!(client.bell.is_rung());
    assert_eq!(deliveries(&client), ["2 y", "3 cleared"]);
    let start = Start::After(Some(EventId { number: 0, ..hub.newest() }));
    assert_eq!(deliveries(&subscribe_from(&mut hub, "a", start).unwrap()), ["gap"]);
}

#[test]
fn a_filter_above_the_limit_is_refused_and_leaves_no_subscription_behind() {
    let mut hub = hub_with(Topics { filters: 1, ..Topics::default() });
    let _first = subscribe(&mut hub, "a/");
    let same = subscribe(&mut hub, "a/#");
    let refused = subscribe_from(&mut hub, "t,b/", Start::Live);
    assert_eq!(refused.err(), Some(SubscribeError::Filters { limit: 1 }));
    assert_eq!(topics(&hub), ["broadcast"]);
    leave(&mut hub, same);
    assert_eq!(hub.client_counts().clients, 1);
    assert_consistent(&hub, "refused");
}

#[test]
fn feeds_do_not_hold_more_memory_than_the_limit_of_all_topics() {
    let mut hub = hub_with(Topics { total_bytes: 3 * cost("x"), ..Topics::default() });
    let client = subscribe(&mut hub, "#");
    for topic in ["a", "b", "c", "d", "e"] {
        publish(&mut hub, topic, "x").unwrap();
        assert!(held(&hub) <= 3 * cost("x"), "{topic}");
    }
    assert_eq!(deliveries(&client).first().map(String::as_str), Some("lagged"));
}

#[test]
fn a_client_of_several_topics_gets_their_messages_in_the_order_of_their_numbers() {
    let mut hub = hub_with(Topics { retain_messages: 9, log_messages: 9, ..Topics::default() });
    for topic in ["a", "b", "b", "a", "c"] {
        publish(&mut hub, topic, topic).unwrap();
    }
    let subscription =
        subscription("d,b,a", Start::After(Some(EventId { number: 0, ..hub.newest() })));
    let (client, before) = hub.join(new_client("test"), subscription, Instant::now()).unwrap();
    assert_eq!(before.number, 0);
    assert_eq!(deliveries(&client), ["1 a", "2 b", "3 b", "4 a"]);
    for topic in ["c", "a", "d", "b"] {
        publish(&mut hub, topic, topic).unwrap();
    }
    assert_eq!(client.behind(), 3);
    assert_eq!(deliveries(&client), ["7 a", "8 d", "9 b"]);
    assert_consistent(&hub, "joined");
    leave(&mut hub, client);
    assert_consistent(&hub, "left");
    assert!(hub.topics().iter().all(|topic| topic.subscribers == 0));
}

#[test]
fn a_client_of_several_topics_is_first_notified_that_it_lagged() {
    let mut hub = hub_with(Topics { log_messages: 1, ..Topics::default() });
    let client = subscribe(&mut hub, "a,b");
    for topic in ["a", "b", "b"] {
        publish(&mut hub, topic, topic).unwrap();
    }
    assert_eq!(deliveries(&client), ["lagged", "1 a", "3 b"]);
}
