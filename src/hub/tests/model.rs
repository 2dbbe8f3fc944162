//! Random commands to the hub and to a naive model of it, which must agree.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::hub::ids::Epoch;

use super::*;

/// A message and its number.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ModelMessage {
    number: u64,
    text: String,
    /// True for the notice that the messages before it were deleted.
    is_cleared: bool,
}

impl ModelMessage {
    /// Returns the memory that the message takes.
    fn cost(&self) -> usize {
        cost(&self.text)
    }
}

/// A topic that keeps all messages, and computes which of them the real topic keeps.
#[derive(Default)]
struct ModelTopic {
    /// All messages since the topic was created.
    all: Vec<ModelMessage>,
    /// The number of the oldest messages that were dropped to limit the memory of all topics.
    displaced: usize,
    /// The number of the oldest messages that were cleared, and the notice of that.
    cleared: usize,
    /// The highest number of an earlier topic with this name.
    inherited: u64,
}

impl ModelTopic {
    /// Returns the number of messages kept: the newest one whatever its size, and as many as either pair of
    /// limits allows, without the displaced ones.
    fn kept(&self, limits: &Topics) -> usize {
        let for_slow = newest_within(&self.all, limits.log_messages, limits.log_bytes);
        let for_late = newest_within(&self.all, limits.retain_messages, limits.retain_bytes);
        for_slow.max(for_late).max(1).min(self.all.len() - self.displaced)
    }

    /// Returns the number of messages retained, of those that are kept and not cleared: the newest one
    /// whatever its size, and as many as the limits allow.
    fn retained(&self, limits: &Topics) -> usize {
        let within = newest_within(&self.all, limits.retain_messages, limits.retain_bytes);
        let wanted = within.max(limits.retain_messages.min(1));
        wanted.min(self.kept(limits)).min(self.all.len() - self.cleared)
    }

    /// Returns the index of the oldest message kept.
    fn oldest(&self, limits: &Topics) -> usize {
        self.all.len() - self.kept(limits)
    }

    /// Returns the memory of the payloads and records kept.
    fn memory_bytes(&self, limits: &Topics) -> usize {
        let kept = &self.all[self.oldest(limits)..];
        kept.iter().map(|message| RECORD_BYTES + message.text.len()).sum()
    }

    fn cost(&self, limits: &Topics) -> usize {
        self.all[self.oldest(limits)..].iter().map(ModelMessage::cost).sum()
    }

    /// Returns the newest message that was published.
    fn last_message(&self) -> Option<&ModelMessage> {
        self.all.iter().rfind(|message| !message.is_cleared)
    }

    /// Returns the highest number of this topic, or of an earlier one with its name.
    fn highest(&self) -> u64 {
        self.all.last().map_or(self.inherited, |last| last.number)
    }

    /// Returns the index of the first message for a new subscriber, and true if a message that the subscriber
    /// requests is not kept.
    fn begin(&self, start: Start, counter: EventId, limits: &Topics) -> (usize, bool) {
        let first = self.oldest(limits).max(self.cleared);
        match start {
            Start::Live => (self.all.len(), false),
            Start::Last(count) => (self.all.len() - self.retained(limits).min(count), false),
            Start::After(Some(id)) if id.epoch == counter.epoch && id.number <= counter.number => {
                let is_missed = |message: &ModelMessage| message.number > id.number;
                let unseen = self.all.iter().position(is_missed).unwrap_or(self.all.len());
                (unseen.max(first), unseen < first || id.number < self.inherited)
            }
            Start::After(_) => (first, true),
        }
    }
}

/// Returns the number of the newest messages that are within both limits.
fn newest_within(all: &[ModelMessage], messages: usize, bytes: usize) -> usize {
    let mut left = bytes;
    let fits = |message: &&ModelMessage| {
        let fits = message.text.len() <= left;
        left = left.saturating_sub(message.text.len());
        fits
    };
    all.iter().rev().take(messages).take_while(fits).count()
}

/// A delivery of the model.
#[derive(Debug, PartialEq, Eq)]
enum ModelDelivery {
    Mail(Frame),
    Published(ModelMessage),
    Lagged(Option<u64>),
    Gap,
}

impl From<Delivery> for ModelDelivery {
    fn from(delivery: Delivery) -> Self {
        match delivery {
            Delivery::Mail(frame) => Self::Mail(frame),
            Delivery::Published(publication) => Self::Published(ModelMessage {
                number: publication.number(),
                text: text(publication.frame()),
                is_cleared: false,
            }),
            Delivery::Cleared(cleared) => Self::Published(ModelMessage {
                number: cleared.number(),
                text: text(cleared.frame()),
                is_cleared: true,
            }),
            Delivery::Lagged(lost) => Self::Lagged(lost),
            Delivery::Gap => Self::Gap,
        }
    }
}

/// A subscription to one topic: the topic, and the index of the next message.
struct ModelCursor {
    topic: TopicName,
    next: usize,
}

struct ModelClient {
    /// True if messages that the client requested are no longer kept, until the client is notified.
    has_gap: bool,
    cursor: Option<ModelCursor>,
    mail: VecDeque<Frame>,
    rung: bool,
    evicted: bool,
}

impl ModelClient {
    fn subscribes(&self, name: &TopicName) -> bool {
        self.cursor.as_ref().is_some_and(|cursor| cursor.topic == *name)
    }
}

/// The number of times that each event happened. It shows that the random commands cause all events.
type EventCounts = BTreeMap<&'static str, usize>;

struct Model {
    limits: Topics,
    topics: BTreeMap<TopicName, ModelTopic>,
    /// The highest number of each topic that was ever removed.
    removed: BTreeMap<TopicName, u64>,
    clients: HashMap<ClientId, ModelClient>,
    counter: EventId,
    events: EventCounts,
}

impl Model {
    fn new(limits: Topics, counter: EventId) -> Self {
        let topics = BTreeMap::from([(TopicName::broadcast(), ModelTopic::default())]);
        Self {
            limits,
            topics,
            removed: BTreeMap::new(),
            clients: HashMap::new(),
            counter,
            events: EventCounts::default(),
        }
    }

    fn happened(&mut self, event: &'static str) {
        *self.events.entry(event).or_default() += 1;
    }

    fn topic(&mut self, name: &TopicName) -> Result<&mut ModelTopic, TooManyTopics> {
        if !self.topics.contains_key(name) && self.topics.len() >= self.limits.count {
            self.happened("refused");
            return Err(TooManyTopics { limit: self.limits.count });
        }
        let inherited = self.removed.get(name).copied().unwrap_or(0);
        let new = || ModelTopic { inherited, ..ModelTopic::default() };
        Ok(self.topics.entry(name.clone()).or_insert_with(new))
    }

    fn join(&mut self, id: ClientId, topic: Option<TopicName>, start: Start) {
        let (mut cursor, mut has_gap) = (None, false);
        if let Some(name) = topic {
            let topic = &self.topics[&name];
            let next;
            (next, has_gap) = topic.begin(start, self.counter, &self.limits);
            let event = match start {
                Start::Live => "live",
                Start::Last(_) if next < topic.all.len() => "replayed last",
                Start::After(_) if has_gap && next < topic.all.len() => "resumed after a gap",
                Start::After(_) if has_gap => "resumed after a gap to nothing",
                Start::After(_) if next < topic.all.len() => "resumed",
                _ => "nothing to replay",
            };
            self.happened(event);
            cursor = Some(ModelCursor { topic: name, next });
        }
        let (mail, rung) = (VecDeque::new(), start != Start::Live);
        self.clients.insert(id, ModelClient { has_gap, cursor, mail, rung, evicted: false });
    }

    fn publish(&mut self, name: &TopicName, text: String) -> Result<(u64, usize), TooManyTopics> {
        let number = self.counter.number + 1;
        self.topic(name)?.all.push(ModelMessage { number, text, is_cleared: false });
        self.counter.number = number;
        self.ring(name);
        self.remove_unused();
        while self.held() > self.limits.total_bytes && self.displace_one(name) {
            self.remove_unused();
        }
        Ok((number, self.subscribers(name)))
    }

    /// Drops the oldest message of the topic whose payloads and records take most, but not the message just
    /// published to `newest`. If several topics are equally large, the last one by name loses its message.
    /// Returns false if no topic can lose a message.
    fn displace_one(&mut self, newest: &TopicName) -> bool {
        let mut largest = None;
        for (name, topic) in &mut self.topics {
            let bytes = topic.memory_bytes(&self.limits);
            let can_lose_one = topic.kept(&self.limits) > usize::from(name == newest);
            if can_lose_one && largest.as_ref().is_none_or(|(held, _)| bytes >= *held) {
                largest = Some((bytes, topic));
            }
        }
        let Some((_, topic)) = largest else { return false };
        topic.displaced = topic.oldest(&self.limits) + 1;
        let is_empty = topic.displaced == topic.all.len();
        self.happened(if is_empty { "emptied for the total" } else { "displaced" });
        true
    }

    fn remove_unused(&mut self) {
        let unused = |(name, topic): &(&TopicName, &ModelTopic)| {
            topic.retained(&self.limits) == 0
                && self.subscribers(name) == 0
                && name.as_str() != "broadcast"
        };
        let unused = self.topics.iter().filter(unused).map(|(name, _)| name.clone());
        for name in unused.collect::<Vec<_>>() {
            let topic = self.topics.remove(&name).unwrap();
            self.removed.insert(name, topic.highest());
            self.happened("removed");
        }
    }

    fn clear(&mut self, name: &TopicName) {
        let Some(topic) = self.topics.get_mut(name) else { return };
        self.counter.number += 1;
        topic.displaced = topic.all.len();
        let (number, text) = (self.counter.number, name.to_string());
        topic.all.push(ModelMessage { number, text, is_cleared: true });
        topic.cleared = topic.all.len();
        self.ring(name);
        self.remove_unused();
    }

    fn ring(&mut self, name: &TopicName) {
        for client in self.clients.values_mut() {
            client.rung |= client.subscribes(name);
        }
    }

    fn leave(&mut self, id: ClientId) {
        self.clients.remove(&id).unwrap();
        self.remove_unused();
    }

    fn client(&mut self, id: ClientId) -> &mut ModelClient {
        self.clients.get_mut(&id).unwrap()
    }

    fn send_to(&mut self, id: ClientId, frame: Frame) -> bool {
        let client = self.client(id);
        let has_room = client.mail.len() < 16;
        if has_room {
            client.mail.push_back(frame);
            client.rung = true;
        } else {
            self.happened("mailbox full");
        }
        has_room
    }

    fn evict(&mut self, id: ClientId) {
        let client = self.client(id);
        client.rung |= !client.evicted;
        client.evicted = true;
    }

    fn read(&mut self, id: ClientId) -> Option<ModelDelivery> {
        let client = self.clients.get_mut(&id)?;
        if let Some(frame) = client.mail.pop_front() {
            return Some(ModelDelivery::Mail(frame));
        }
        if std::mem::take(&mut client.has_gap) {
            return Some(ModelDelivery::Gap);
        }
        let cursor = client.cursor.as_mut()?;
        let topic = &self.topics[&cursor.topic];
        let oldest = topic.oldest(&self.limits);
        cursor.next = cursor.next.max(topic.cleared.saturating_sub(1));
        if cursor.next < oldest {
            let lost = oldest - std::mem::replace(&mut cursor.next, oldest);
            self.happened("lagged");
            return Some(ModelDelivery::Lagged(Some(lost as u64)));
        }
        let message = topic.all.get(cursor.next).cloned()?;
        cursor.next += 1;
        if message.is_cleared {
            self.happened("cleared");
        }
        Some(ModelDelivery::Published(message))
    }

    /// Returns true if a client has been sent all messages of its topics.
    fn is_caught_up(&self, id: ClientId) -> bool {
        let client = &self.clients[&id];
        let is_at_end = |cursor: &ModelCursor| cursor.next == self.topics[&cursor.topic].all.len();
        !client.has_gap && client.cursor.as_ref().is_none_or(is_at_end)
    }

    fn subscribers(&self, name: &TopicName) -> usize {
        self.clients.values().filter(|client| client.subscribes(name)).count()
    }

    fn held(&self) -> usize {
        self.topics.values().map(|topic| topic.cost(&self.limits)).sum()
    }

    fn last(&self, name: &TopicName) -> Option<(u64, String)> {
        let topic = self.topics.get(name).filter(|topic| topic.retained(&self.limits) > 0)?;
        topic.all.last().map(|last| (last.number, last.text.clone()))
    }
}

/// The hub, its model, and their clients.
struct Walk {
    random: fastrand::Rng,
    hub: Hub,
    model: Model,
    clients: Vec<Rc<Client>>,
    /// Clients that left without a command to the hub since the last sweep.
    missing: Vec<ClientId>,
    left: Vec<ClientId>,
    now: Instant,
}

const TOPICS: [&str; 5] = ["broadcast", "a", "a/b", "c", "d"];

impl Walk {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let limits = Topics {
            count: random.usize(2..=6),
            retain_messages: random.usize(0..=5),
            retain_bytes: random.usize(0..600),
            log_messages: random.usize(1..=8),
            log_bytes: random.usize(0..1000),
            total_bytes: random.usize(500..5000),
            ..Topics::default()
        };
        let hub = hub_with(limits.clone());
        Self {
            random,
            model: Model::new(limits, hub.newest()),
            hub,
            clients: Vec::new(),
            missing: Vec::new(),
            left: Vec::new(),
            now: Instant::now(),
        }
    }

    fn step(&mut self, context: &str) {
        match self.random.u8(0..20) {
            0..3 => self.join(context),
            3 | 4 => self.leave(),
            5 => {
                self.hub.sweep(self.now);
                for id in self.missing.drain(..) {
                    self.model.leave(id);
                    self.left.push(id);
                }
            }
            6..12 => self.publish(context),
            12 => {
                let name = self.some_topic();
                self.hub.clear(&name);
                self.model.clear(&name);
            }
            13 | 14 => self.address_one(context),
            15 if !self.left.is_empty() => {
                let id = *self.random.choice(&self.left).unwrap();
                let reached = self.hub.send_to(id, frame("stale")) || self.hub.evict(id, REASON);
                assert!(!reached, "{context}");
                self.hub.leave(id);
            }
            16 => {
                for index in 0..self.clients.len() {
                    self.read(index, usize::MAX, context);
                }
            }
            _ if !self.clients.is_empty() => {
                let index = self.random.usize(0..self.clients.len());
                let count = self.random.usize(1..4);
                self.read(index, count, context);
            }
            _ => {}
        }
    }

    fn some_topic(&mut self) -> TopicName {
        name(self.random.choice(TOPICS).unwrap())
    }

    fn join(&mut self, context: &str) {
        let topic = (self.random.u8(0..6) > 0).then(|| self.some_topic());
        let start = if topic.is_some() { self.some_start() } else { Start::Live };
        let created = topic.as_ref().map_or(Ok(()), |name| self.model.topic(name).map(drop));
        let subscribed = topic.clone().map(|topic| Subscription::to(topic, start));
        let subscription = subscribed.unwrap_or_else(Subscription::none);
        let joined = self.hub.join(new_client("test"), subscription, self.now);
        let expected = created.map_err(SubscribeError::from);
        assert_eq!(joined.as_ref().map(drop).map_err(|error| *error), expected, "{context}");
        if let Ok((client, _)) = joined {
            self.model.join(client.id(), topic, start);
            self.clients.push(client);
        }
    }

    fn some_start(&mut self) -> Start {
        let counter = self.hub.newest();
        match self.random.u8(0..8) {
            0 | 1 => Start::Live,
            2 | 3 => Start::Last(self.random.usize(0..7)),
            4 => Start::After(None),
            5 => Start::After(Some(EventId { epoch: Epoch::random(), ..counter })),
            _ => {
                let oldest = counter.number.saturating_sub(20);
                let number = self.random.u64(oldest..counter.number + 3);
                Start::After(Some(EventId { number, ..counter }))
            }
        }
    }

    fn leave(&mut self) {
        let Some(index) = self.random.choice(0..self.clients.len()) else { return };
        let id = self.clients.swap_remove(index).id();
        if self.random.bool() {
            self.hub.leave(id);
            self.model.leave(id);
            self.left.push(id);
        } else {
            self.missing.push(id);
        }
    }

    fn publish(&mut self, context: &str) {
        let name = self.some_topic();
        let size =
            [0..10, 10..100, 100..1500][self.random.choice([0, 0, 1, 1, 1, 2]).unwrap()].clone();
        let payload = "x".repeat(self.random.usize(size));
        let text = format!("{context} {payload}");
        let published = self.hub.publish(&name, draft(&text));
        self.ring(&name, context);
        let published = published.map(|published| numbers(Ok(published)));
        assert_eq!(published, self.model.publish(&name, text), "{context}");
    }

    fn ring(&mut self, name: &TopicName, context: &str) {
        let bells = self.random.usize(1..4);
        let mut from = 0;
        while let Some(next) = self.hub.ring(name, from, bells) {
            assert!(next > from, "{context}");
            from = next;
        }
    }

    fn address_one(&mut self, context: &str) {
        let Some(index) = self.random.choice(0..self.clients.len()) else { return };
        let id = self.clients[index].id();
        if self.random.u8(0..8) == 0 {
            assert!(self.hub.evict(id, REASON), "{context}");
            self.model.evict(id);
        } else {
            for _ in 0..self.random.usize(1..20) {
                let frame = frame(context);
                let sent = self.hub.send_to(id, frame.clone());
                assert_eq!(sent, self.model.send_to(id, frame), "{context}");
            }
        }
    }

    /// Reads up to `count` deliveries. Clears the flag of the bell first, as a session does.
    fn read(&mut self, index: usize, count: usize, context: &str) {
        let client = &self.clients[index];
        let id = client.id();
        client.bell.clear();
        self.model.client(id).rung = false;
        for _ in 0..count {
            let delivery = client.next_delivery().map(ModelDelivery::from);
            assert_eq!(delivery, self.model.read(id), "{context}");
            let caught_up = self.model.is_caught_up(id).then(|| self.hub.newest());
            assert_eq!(client.caught_up(), caught_up, "{context}");
            if delivery.is_none() {
                return;
            }
        }
    }

    fn check(&self, context: &str) {
        let Self { hub, model, .. } = self;
        assert_consistent(hub, context);
        assert_eq!(held(hub), model.held(), "{context}");
        assert_eq!(hub.client_counts().clients, model.clients.len(), "{context}");
        let info = |(name, topic): (&TopicName, &ModelTopic)| TopicInfo {
            name: name.clone(),
            subscribers: model.subscribers(name),
            last: topic.last_message().map(|last| EventId { number: last.number, ..hub.newest() }),
        };
        let expected: Vec<_> = model.topics.iter().map(info).collect();
        assert_eq!(hub.topics(), expected, "{context}");
        for topic in TOPICS {
            assert_eq!(last(hub, topic), model.last(&name(topic)), "{context}, {topic}");
        }
        for (name, topic) in &model.topics {
            let log = &hub.topics.get(name).unwrap().log;
            assert_eq!(log.len(), topic.kept(&model.limits), "{context}, {name}");
        }
        for client in &self.clients {
            let expected = &model.clients[&client.id()];
            assert_eq!(client.bell.is_rung(), expected.rung, "{context}");
            assert_eq!(client.eviction().is_some(), expected.evicted, "{context}");
        }
    }
}

#[test]
fn random_commands_do_what_the_naive_model_does() {
    let mut events = EventCounts::new();
    for seed in 0..300 {
        let mut walk = Walk::new(seed);
        for step in 0..300 {
            let context = format!("seed {seed}, step {step}");
            walk.step(&context);
            walk.check(&context);
        }
        for (event, count) in walk.model.events {
            *events.entry(event).or_default() += count;
        }
    }
    assert_eq!(events.len(), 13, "{events:?}");
    assert!(events.values().all(|count| *count >= 100), "{events:?}");
}
