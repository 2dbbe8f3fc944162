//! Random commands to the hub and to a model of it, which does the same the slow and obvious way.

use std::collections::BTreeMap;
use std::collections::{HashMap, VecDeque};

use super::*;

/// A topic that forgets nothing and works out what it would have.
#[derive(Default)]
struct ModelTopic {
    /// Every message since the topic began; the number of the first is 1.
    all: Vec<Publication>,
    /// The number of the last message that was lost to the total of all topics.
    lost_to_total: usize,
    /// The number of the last message when the topic was cleared.
    cleared: usize,
}

impl ModelTopic {
    /// How many messages are kept: the newest whatever its size, and as many as either pair of limits
    /// lets, less what was lost to the total.
    fn kept(&self, limits: &Topics) -> usize {
        let for_slow = newest_within(&self.all, limits.log_messages, limits.log_bytes);
        let for_late = newest_within(&self.all, limits.retain_messages, limits.retain_bytes);
        for_slow.max(for_late).max(1).min(self.all.len() - self.lost_to_total)
    }

    /// How many messages are retained: of those kept and not cleared the newest whatever its size, and
    /// as many as the limits let.
    fn retained(&self, limits: &Topics) -> usize {
        let within = newest_within(&self.all, limits.retain_messages, limits.retain_bytes);
        let wanted = within.max(limits.retain_messages.min(1));
        wanted.min(self.kept(limits)).min(self.all.len() - self.cleared)
    }

    /// The number of the oldest message kept; that of the next, if none is.
    fn oldest(&self, limits: &Topics) -> u64 {
        (self.all.len() - self.kept(limits)) as u64 + 1
    }

    fn bytes(&self, limits: &Topics) -> usize {
        let kept = self.all.iter().rev().take(self.kept(limits));
        kept.map(|publication| publication.frame.len() + size_of::<Publication>()).sum()
    }

    /// The number of the first message for a subscriber that begins with `start`.
    fn begin(&self, start: Start, limits: &Topics) -> u64 {
        let last = self.all.len() as u64;
        let uncleared = self.cleared as u64 + 1;
        match start {
            Start::Live => last + 1,
            Start::Last(count) => last + 1 - self.retained(limits).min(count) as u64,
            Start::After(number) if number <= last => uncleared.max(number + 1),
            Start::After(_) => uncleared.max(self.oldest(limits)),
        }
    }
}

/// How many of the newest messages fit into both limits.
fn newest_within(all: &[Publication], messages: usize, bytes: usize) -> usize {
    let mut left = bytes;
    let fits = |publication: &&Publication| {
        let cost = publication.frame.len() + size_of::<Publication>();
        let fits = cost <= left;
        left = left.saturating_sub(cost);
        fits
    };
    all.iter().rev().take(messages).take_while(fits).count()
}

struct ModelClient {
    /// What it is subscribed to, and the number of the message it reads next.
    cursor: Option<(TopicName, u64)>,
    mail: VecDeque<Frame>,
    rung: bool,
    evicted: bool,
}

/// How often what happened, so that it is known that it did.
type Counters = BTreeMap<&'static str, usize>;

struct Model {
    limits: Topics,
    topics: BTreeMap<TopicName, ModelTopic>,
    clients: HashMap<ClientId, ModelClient>,
    counters: Counters,
}

impl Model {
    fn new(limits: Topics) -> Self {
        let topics = BTreeMap::from([(TopicName::broadcast(), ModelTopic::default())]);
        Self { limits, topics, clients: HashMap::new(), counters: Counters::default() }
    }

    fn topic(&mut self, name: &TopicName) -> Result<&mut ModelTopic, TooManyTopics> {
        if !self.topics.contains_key(name) && self.topics.len() >= self.limits.count {
            *self.counters.entry("refused").or_default() += 1;
            return Err(TooManyTopics { limit: self.limits.count });
        }
        Ok(self.topics.entry(name.clone()).or_default())
    }

    fn join(&mut self, id: ClientId, subscribed: Option<(TopicName, Start)>) {
        let limits = &self.limits;
        let rung = subscribed.as_ref().is_some_and(|(_, start)| *start != Start::Live);
        let cursor = subscribed.map(|(name, start)| {
            let topic = self.topics.entry(name.clone()).or_default();
            let next = topic.begin(start, limits);
            let what = match start {
                Start::Live => "live",
                _ if next > topic.all.len() as u64 => "nothing to replay",
                Start::Last(_) => "replayed last",
                Start::After(number) if number > topic.all.len() as u64 => "replayed all there is",
                Start::After(_) if next < topic.oldest(limits) => "replayed after lost",
                Start::After(number) if next > number + 1 => "replayed after cleared",
                Start::After(_) => "replayed after",
            };
            *self.counters.entry(what).or_default() += 1;
            (name, next)
        });
        let client = ModelClient { cursor, mail: VecDeque::new(), rung, evicted: false };
        self.clients.insert(id, client);
    }

    fn publish(
        &mut self,
        name: &TopicName,
        publication: Publication,
    ) -> Result<Published, TooManyTopics> {
        let topic = self.topic(name)?;
        topic.all.push(publication);
        let sequence = topic.all.len() as u64;
        for client in self.clients.values_mut() {
            client.rung |= client.cursor.as_ref().is_some_and(|(subscribed, _)| subscribed == name);
        }
        self.forget_the_unheard();
        while self.bytes() > self.limits.total_bytes && self.lose_one_to_total(name) {
            self.forget_the_unheard();
        }
        Ok(Published { sequence, subscribers: self.subscribers(name) })
    }

    /// The topic that holds most loses its oldest message, but not the one just published to `newest`.
    /// Of several that hold as much, it is the one whose name comes last.
    fn lose_one_to_total(&mut self, newest: &TopicName) -> bool {
        let mut most = None;
        for (name, topic) in &mut self.topics {
            let bytes = topic.bytes(&self.limits);
            let has_spare = topic.kept(&self.limits) > usize::from(name == newest);
            if has_spare && most.as_ref().is_none_or(|(held, _)| bytes >= *held) {
                most = Some((bytes, topic));
            }
        }
        let Some((_, topic)) = most else { return false };
        topic.lost_to_total = topic.oldest(&self.limits) as usize;
        *self.counters.entry("lost to total").or_default() += 1;
        *self.counters.entry("emptied for total").or_default() +=
            usize::from(topic.lost_to_total == topic.all.len());
        true
    }

    fn forget_the_unheard(&mut self) {
        let (limits, clients, before) = (&self.limits, &self.clients, self.topics.len());
        let heard = |name: &TopicName| {
            let mut cursors = clients.values().flat_map(|client| &client.cursor);
            cursors.any(|(subscribed, _)| subscribed == name)
        };
        self.topics.retain(|name, topic| {
            topic.retained(limits) > 0 || heard(name) || name.as_str() == "broadcast"
        });
        *self.counters.entry("vanished").or_default() += before - self.topics.len();
    }

    fn clear(&mut self, name: &TopicName) {
        if let Some(topic) = self.topics.get_mut(name) {
            topic.cleared = topic.all.len();
        }
        self.forget_the_unheard();
    }

    fn leave(&mut self, id: ClientId) {
        self.clients.remove(&id).unwrap();
        self.forget_the_unheard();
    }

    fn client(&mut self, id: ClientId) -> &mut ModelClient {
        self.clients.get_mut(&id).unwrap()
    }

    fn send_to(&mut self, id: ClientId, frame: Frame) -> bool {
        let client = self.client(id);
        let room = client.mail.len() < 16;
        if room {
            client.mail.push_back(frame);
            client.rung = true;
        }
        *self.counters.entry("mailbox full").or_default() += usize::from(!room);
        room
    }

    fn evict(&mut self, id: ClientId) {
        let client = self.client(id);
        client.rung |= !client.evicted;
        client.evicted = true;
    }

    fn read(&mut self, id: ClientId) -> Option<Delivery> {
        let client = self.clients.get_mut(&id)?;
        if let Some(frame) = client.mail.pop_front() {
            return Some(Delivery::Mail(frame));
        }
        let (name, next) = client.cursor.as_mut()?;
        let topic = &self.topics[name];
        let oldest = topic.oldest(&self.limits);
        if *next < oldest {
            *self.counters.entry("lagged").or_default() += 1;
            return Some(Delivery::Lagged(oldest - std::mem::replace(next, oldest)));
        }
        let publication = topic.all.get(*next as usize - 1)?;
        *next += 1;
        Some(Delivery::Published(*next - 1, publication.frame.clone()))
    }

    fn subscribers(&self, name: &TopicName) -> usize {
        let cursors = self.clients.values().flat_map(|client| &client.cursor);
        cursors.filter(|(subscribed, _)| subscribed == name).count()
    }

    fn bytes(&self) -> usize {
        self.topics.values().map(|topic| topic.bytes(&self.limits)).sum()
    }

    fn last(&self, name: &TopicName) -> Option<(u64, Publication)> {
        let topic = self.topics.get(name).filter(|topic| topic.retained(&self.limits) > 0)?;
        Some((topic.all.len() as u64, topic.all.last()?.clone()))
    }
}

/// The hub and its model, and who is there.
struct Walk {
    random: fastrand::Rng,
    hub: Hub,
    model: Model,
    there: Vec<Subscription>,
    /// Who went without a word since the last sweep.
    missing: Vec<ClientId>,
    gone: Vec<ClientId>,
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
            total_bytes: random.usize(200..2500),
            ..Topics::default()
        };
        Self {
            random,
            hub: hub_with(limits.clone()),
            model: Model::new(limits),
            there: Vec::new(),
            missing: Vec::new(),
            gone: Vec::new(),
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
                    self.gone.push(id);
                }
            }
            6..12 => self.publish(context),
            12 => {
                let name = self.some_topic();
                self.hub.clear(&name);
                self.model.clear(&name);
            }
            13 | 14 => self.address_one(context),
            15 if !self.gone.is_empty() => {
                let id = *self.random.choice(&self.gone).unwrap();
                let reached = self.hub.send_to(id, frame("stale")) || self.hub.evict(id, REASON);
                assert!(!reached, "{context}");
                self.hub.leave(id);
            }
            16 => {
                for index in 0..self.there.len() {
                    self.read(index, usize::MAX, context);
                }
            }
            _ if !self.there.is_empty() => {
                let index = self.random.usize(0..self.there.len());
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
        let topic = (self.random.u8(0..6) > 0).then(|| {
            let name = self.some_topic();
            let last = self.model.topics.get(&name).map_or(0, |topic| topic.all.len() as u64);
            let start = match self.random.u8(0..3) {
                0 => Start::Live,
                1 => Start::Last(self.random.usize(0..7)),
                _ => Start::After(self.random.u64(last.saturating_sub(10)..last + 3)),
            };
            (name, start)
        });
        let room = topic.as_ref().map_or(Ok(()), |(name, _)| self.model.topic(name).map(drop));
        let joined = self.hub.join(newcomer("test"), topic.clone(), self.now);
        assert_eq!(joined.as_ref().map(drop).map_err(|error| *error), room, "{context}");
        if let Ok(client) = joined {
            self.model.join(client.client.id(), topic);
            self.there.push(client);
        }
    }

    fn leave(&mut self) {
        let Some(index) = self.random.choice(0..self.there.len()) else { return };
        let id = self.there.swap_remove(index).client.id();
        if self.random.bool() {
            self.hub.leave(id);
            self.model.leave(id);
            self.gone.push(id);
        } else {
            self.missing.push(id);
        }
    }

    fn publish(&mut self, context: &str) {
        let name = self.some_topic();
        let size =
            [0..10, 10..100, 100..1500][self.random.choice([0, 0, 1, 1, 1, 2]).unwrap()].clone();
        let payload = "x".repeat(self.random.usize(size));
        let mut publication = publication(&format!("{context} {payload}"));
        publication.published += Duration::from_secs(self.random.u64(0..1_000_000));
        let published = self.hub.publish(&name, publication.clone());
        let bells = self.random.usize(1..4);
        let mut from = 0;
        while let Some(next) = self.hub.ring(&name, from, bells) {
            assert!(next > from, "{context}");
            from = next;
        }
        assert_eq!(published, self.model.publish(&name, publication), "{context}");
    }

    fn address_one(&mut self, context: &str) {
        let Some(index) = self.random.choice(0..self.there.len()) else { return };
        let id = self.there[index].client.id();
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

    /// Reads up to so many deliveries, as a session does: it clears its bell and looks.
    fn read(&mut self, index: usize, count: usize, context: &str) {
        let client = &mut self.there[index];
        let id = client.client.id();
        client.client.bell.hush();
        self.model.client(id).rung = false;
        for _ in 0..count {
            let delivery = client.next();
            assert_eq!(delivery, self.model.read(id), "{context}");
            if delivery.is_none() {
                return;
            }
        }
    }

    fn check(&self, context: &str) {
        let Self { hub, model, .. } = self;
        assert_consistent(hub, context);
        assert_eq!(hub.bytes, model.bytes(), "{context}");
        assert_eq!(hub.census().clients, model.clients.len(), "{context}");
        let census = |(name, topic): (&TopicName, &ModelTopic)| TopicInfo {
            name: name.clone(),
            subscribers: model.subscribers(name),
            sequence: topic.all.len() as u64,
        };
        let expected: Vec<_> = model.topics.iter().map(census).collect();
        assert_eq!(hub.topics(), expected, "{context}");
        for topic in TOPICS.map(name) {
            assert_eq!(hub.last(&topic), model.last(&topic), "{context}, {topic}");
        }
        for (name, topic) in &model.topics {
            let log = &hub.topic(name).unwrap().log;
            assert_eq!(log.len(), topic.kept(&model.limits), "{context}, {name}");
        }
        for client in &self.there {
            let expected = &model.clients[&client.client.id()];
            assert_eq!(client.client.bell.is_rung(), expected.rung, "{context}");
            assert_eq!(client.client.eviction().is_some(), expected.evicted, "{context}");
        }
    }
}

#[test]
fn random_commands_do_what_the_naive_model_does() {
    let mut counters = Counters::new();
    for seed in 0..200 {
        let mut walk = Walk::new(seed);
        for step in 0..300 {
            let context = format!("seed {seed}, step {step}");
            walk.step(&context);
            walk.check(&context);
        }
        for (what, count) in walk.model.counters {
            *counters.entry(what).or_default() += count;
        }
    }
    assert_eq!(counters.len(), 13, "{counters:?}");
    assert!(counters.values().all(|count| *count >= 100), "{counters:?}");
}
