//! Who is connected, and what is said to them.
//!
//! The [`Hub`] is pure: no executor, no clock, no sockets. The hub task in [`inbox`] applies commands
//! to it; sessions read what their [`Subscription`] shows.

mod client;
mod inbox;
mod log;
mod reply;
mod topic;

use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use slab::Slab;

use crate::config::Topics;
use crate::ws::frame::{CloseReason, Frame};

pub(crate) use client::{Bell, Client, ClientKind, Eviction, Newcomer};
pub use client::{ClientId, CorrelationId};
pub use inbox::{HubGone, HubHandle, PublishError};
pub(crate) use inbox::{Membership, open};
use log::Log;
pub(crate) use log::{Delivery, Publication, Start, Subscription};
use topic::Topic;
pub use topic::{TopicInfo, TopicName, TopicNameError};

/// Everybody connected, and the topics.
pub(crate) struct Hub {
    clients: Slab<Rc<Client>>,
    joins: u64,
    /// In the order of their names.
    topics: Vec<Topic>,
    /// What the messages of all topics cost.
    bytes: usize,
    limits: Topics,
    handle: HubHandle,
    draining: Option<(CloseReason, Whom)>,
    /// How many clients there are of each [`ClientKind`].
    kinds: [usize; 3],
}

/// Whom a drain evicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whom {
    /// Everybody but the administrator, who watches.
    Public,
    Everybody,
}

impl Whom {
    fn includes(self, client: &Client) -> bool {
        self == Self::Everybody || client.kind != ClientKind::Admin
    }
}

/// What the administrator is told of the hub.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HubStats {
    /// WebSocket clients.
    pub(crate) websocket: usize,
    /// Clients that listen to server-sent events.
    pub(crate) events: usize,
    pub(crate) topics: usize,
    /// What the messages of all topics cost.
    pub(crate) log_bytes: usize,
}

/// How many connected clients there are and were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientCounts {
    /// Clients connected now.
    pub clients: usize,
    /// Clients that ever joined.
    pub joins: u64,
}

/// What became of a published message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its number in the topic, counted from 1.
    pub sequence: u64,
    /// How many clients are subscribed.
    pub subscribers: usize,
}

/// There is no room for one more topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyTopics {
    /// How many there may be.
    pub limit: usize,
}

impl fmt::Display for TooManyTopics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there are {} topics already, the limit", self.limit)
    }
}

impl Hub {
    /// A hub with nobody in it and the topic `broadcast`. `handle` is the way to it, which its clients
    /// get; its alarm tells when the next sweep is due.
    pub(crate) fn new(handle: HubHandle, limits: Topics) -> Self {
        Self {
            clients: Slab::new(),
            joins: 0,
            topics: vec![Topic::new(TopicName::broadcast())],
            bytes: 0,
            limits,
            handle,
            draining: None,
            kinds: [0; 3],
        }
    }

    /// Takes a new client in, subscribed to a topic or to nothing. While draining it is evicted at once.
    ///
    /// # Errors
    /// [`TooManyTopics`], if there is no room for one that does not exist yet.
    pub(crate) fn join(
        &mut self,
        newcomer: Newcomer,
        topic: Option<(TopicName, Start)>,
        now: Instant,
    ) -> Result<Subscription, TooManyTopics> {
        let slot = self.clients.vacant_key() as u32;
        let (mut place, mut log) = (0, None);
        if let Some((name, _)) = &topic {
            let topic = self.topic_or_new(name)?;
            place = topic.subscribers.len() as u32;
            topic.subscribers.push(slot);
            log = Some(topic.log.clone());
        }
        self.joins += 1;
        let id = ClientId { slot, generation: self.joins };
        self.kinds[newcomer.kind as usize] += 1;
        let client = Rc::new(Client::new(id, newcomer, log, now, self.handle.clone()));
        client.place.set(place);
        self.clients.insert(client.clone());
        if let Some((reason, whom)) = self.draining
            && whom.includes(&client)
        {
            client.evict(reason);
        }
        if let Some(due) = client.due() {
            self.handle.alarm().set_at_latest(due);
        }
        let start = topic.map_or(Start::Live, |(_, start)| start);
        Ok(Subscription::new(client, start, &self.limits))
    }

    /// Forgets a client; a stale id is nobody's.
    pub(crate) fn leave(&mut self, id: ClientId) {
        if self.client(id).is_some() {
            let client = self.clients.remove(id.slot as usize);
            self.kinds[client.kind as usize] -= 1;
            self.unsubscribe(&client);
        }
        self.rest_if_empty();
    }

    /// Appends a message to a topic's log. Who reads it must be told with [`Self::ring`].
    ///
    /// # Errors
    /// [`TooManyTopics`], if there is no room for one that does not exist yet.
    pub(crate) fn publish(
        &mut self,
        name: &TopicName,
        publication: Publication,
    ) -> Result<Published, TooManyTopics> {
        let limits = self.limits.clone();
        let topic = self.topic_or_new(name)?;
        let before = topic.log.bytes();
        let sequence = topic.log.append(publication, &limits);
        let subscribers = topic.subscribers.len();
        let after = topic.log.bytes();
        self.bytes = self.bytes - before + after;
        // First this: what is forgotten at once takes nobody's room.
        self.vanish_if_empty(name);
        self.keep_to_total(name);
        Ok(Published { sequence, subscribers })
    }

    /// Rings up to `count` subscribers of a topic from place `from` on; returns where to go on, if there
    /// are more.
    pub(crate) fn ring(&self, name: &TopicName, from: usize, count: usize) -> Option<usize> {
        let subscribers = &self.topic(name)?.subscribers;
        let end = from.saturating_add(count).min(subscribers.len());
        for slot in &subscribers[from..end] {
            self.clients[*slot as usize].bell.ring();
        }
        (end < subscribers.len()).then_some(end)
    }

    /// The last message of a topic and its number, if it is retained.
    pub(crate) fn last(&self, name: &TopicName) -> Option<(u64, Publication)> {
        self.topic(name)?.log.retained_last(&self.limits)
    }

    /// Forgets what a topic retains.
    pub(crate) fn clear(&mut self, name: &TopicName) {
        if let Some(topic) = self.topic(name) {
            topic.log.clear();
            self.vanish_if_empty(name);
        }
    }

    /// Every topic, in the order of their names.
    pub(crate) fn topics(&self) -> Vec<TopicInfo> {
        let census = |topic: &Topic| TopicInfo {
            name: topic.name().clone(),
            subscribers: topic.subscribers.len(),
            sequence: topic.log.last(),
        };
        let public = self.topics.iter().filter(|topic| !topic.name().is_internal());
        public.map(census).collect()
    }

    /// Every client, in no order.
    pub(crate) fn clients(&self) -> Vec<Rc<Client>> {
        self.clients.iter().map(|(_, client)| client.clone()).collect()
    }

    /// The client whose id is displayed as `number`.
    pub(crate) fn find(&self, number: u64) -> Option<ClientId> {
        let mut ids = self.clients.iter().map(|(_, client)| client.id());
        ids.find(|id| id.generation == number)
    }

    /// What the administrator is told.
    pub(crate) fn stats(&self) -> HubStats {
        HubStats {
            websocket: self.kinds[ClientKind::WebSocket as usize],
            events: self.kinds[ClientKind::Events as usize],
            topics: self.topics.len() - self.internal_topics(),
            log_bytes: self.bytes,
        }
    }

    /// How many clients are subscribed to a topic.
    pub(crate) fn subscribers(&self, name: &TopicName) -> usize {
        self.topic(name).map_or(0, |topic| topic.subscribers.len())
    }

    /// Puts a frame into one client's mailbox; false if the client is gone or its mailbox full.
    pub(crate) fn send_to(&self, id: ClientId, frame: Frame) -> bool {
        self.client(id).is_some_and(|client| client.deliver(frame))
    }

    /// Has one client's session closed with `reason`; false if the client is gone.
    pub(crate) fn evict(&self, id: ClientId, reason: CloseReason) -> bool {
        self.client(id).map(|client| client.evict(reason)).is_some()
    }

    /// The clients that came with a correlation id.
    pub(crate) fn correlated(&self, id: &CorrelationId) -> Vec<ClientId> {
        let theirs = self.clients.iter().filter(|(_, client)| client.correlation == *id);
        theirs.map(|(_, client)| client.id()).collect()
    }

    /// Looks at the deadlines of every client: pings the silent, evicts the dead, forgets who left
    /// without a word. Sets the alarm for the next sweep.
    ///
    /// A sweep long overdue means that this process stood still; then nobody else is to blame, and
    /// everybody starts afresh.
    pub(crate) fn sweep(&mut self, now: Instant) {
        let overdue = self.handle.alarm().due().map(|due| now.saturating_duration_since(due));
        let stood_still = overdue.is_some_and(|overdue| overdue > LATE);
        let left = self.clients.iter().filter(|(_, client)| Rc::strong_count(client) == 1);
        for id in left.map(|(_, client)| client.id()).collect::<Vec<_>>() {
            self.leave(id);
        }
        let mut next = None;
        for (_, client) in &self.clients {
            if stood_still {
                client.refresh(now);
            }
            if let Some(reason) = client.expired(now) {
                client.give_up(reason);
            } else if client.is_silent(now) {
                client.ping(now);
            }
            next = [next, client.due()].into_iter().flatten().min();
        }
        match next {
            // Not more often than this, however the deadlines are spread.
            Some(next) => self.handle.alarm().set(next.max(now + SWEEP_EVERY)),
            None => self.handle.alarm().clear(),
        }
    }

    /// Evicts all of them, and all of them who still join.
    pub(crate) fn drain(&mut self, whom: Whom, reason: CloseReason) {
        self.draining = Some((reason, whom));
        for (_, client) in self.clients.iter().filter(|(_, client)| whom.includes(client)) {
            client.evict(reason);
        }
    }

    /// Counts.
    pub(crate) fn census(&self) -> ClientCounts {
        ClientCounts { clients: self.clients.len(), joins: self.joins }
    }

    /// Where a topic is among all; or where it would be.
    fn index_of(&self, name: &TopicName) -> Result<usize, usize> {
        self.topics.binary_search_by(|topic| topic.name().cmp(name))
    }

    fn topic(&self, name: &TopicName) -> Option<&Topic> {
        self.index_of(name).ok().map(|index| &self.topics[index])
    }

    /// Finds a topic or makes it.
    fn topic_or_new(&mut self, name: &TopicName) -> Result<&mut Topic, TooManyTopics> {
        let index = match self.index_of(name) {
            Ok(index) => index,
            Err(index) => {
                let limit = self.limits.count;
                if !name.is_internal() && self.topics.len() - self.internal_topics() >= limit {
                    return Err(TooManyTopics { limit });
                }
                self.topics.insert(index, Topic::new(name.clone()));
                index
            }
        };
        Ok(&mut self.topics[index])
    }

    /// How many topics are the server's own.
    fn internal_topics(&self) -> usize {
        self.topics.iter().take_while(|topic| topic.name().is_internal()).count()
    }

    fn unsubscribe(&mut self, client: &Client) {
        let Some(name) = client.log.as_ref().map(Log::topic) else { return };
        let Ok(index) = self.index_of(name) else { return };
        let topic = &mut self.topics[index];
        let place = client.place.get() as usize;
        topic.subscribers.swap_remove(place);
        if let Some(moved) = topic.subscribers.get(place) {
            self.clients[*moved as usize].place.set(place as u32);
        }
        if topic.subscribers.is_empty() {
            topic.subscribers = Vec::new();
        }
        self.vanish_if_empty(name);
    }

    /// Keeps all logs together to their limit: what holds most loses its oldest. `newest` was just
    /// published to, and keeps that.
    fn keep_to_total(&mut self, newest: &TopicName) {
        while self.bytes > self.limits.total_bytes {
            let spare = |topic: &Topic| topic.log.len() > usize::from(topic.name() == newest);
            let spare = self.topics.iter().filter(|topic| spare(topic));
            let Some(largest) = spare.max_by_key(|topic| topic.log.bytes()) else { return };
            let (name, before) = (largest.name().clone(), largest.log.bytes());
            largest.log.drop_oldest();
            self.bytes -= before - largest.log.bytes();
            self.vanish_if_empty(&name);
        }
    }

    /// Forgets a topic that nobody hears and that has nothing for who comes later.
    fn vanish_if_empty(&mut self, name: &TopicName) {
        let Ok(index) = self.index_of(name) else { return };
        let topic = &self.topics[index];
        let is_empty = topic.subscribers.is_empty() && !topic.log.is_retaining(&self.limits);
        if is_empty && !name.is_broadcast() {
            self.bytes -= topic.log.bytes();
            self.topics.remove(index);
            if self.topics.len() < self.topics.capacity() / 8 {
                // Gives the memory of many topics back.
                self.topics.shrink_to(2 * self.topics.len());
            }
        }
    }

    /// With nobody there, gives the memory of a crowd back, and nothing is due.
    fn rest_if_empty(&mut self) {
        if self.clients.is_empty() {
            self.clients = Slab::new();
            self.handle.alarm().clear();
        }
    }

    fn client(&self, id: ClientId) -> Option<&Rc<Client>> {
        self.clients.get(id.slot as usize).filter(|client| client.id() == id)
    }
}

/// How far apart sweeps are at least.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How late a sweep must be to tell that the whole process stood still, as after SIGSTOP.
const LATE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
