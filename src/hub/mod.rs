//! The hub: the connected clients, the topics, and the messages that are sent from publishers to
//! subscribers.
//!
//! The [`Hub`] is a plain data structure: it has no executor, no clock and no sockets. Only the hub task
//! changes it, to execute commands from [`HubHandle`]s. A session reads messages through the cursors of its
//! [`Client`].

mod client;
mod command;
mod cursor;
mod cursors;
mod event;
mod feed;
mod filter;
mod handle;
mod ids;
mod liveness;
mod log;
mod merge;
mod notify;
mod publication;
mod task;
mod topic_name;
mod topics;

use std::rc::Rc;
use std::time::{Duration, Instant};

use slab::Slab;

use crate::config::Topics;
use crate::frame::{CloseReason, Frame};

pub(crate) use client::{Client, ClientKind, Delivery, NewClient};
use cursors::Cursors;
pub(crate) use cursors::Subscription;
pub(crate) use event::encode as encode_event;
pub(crate) use filter::{Filter, FilterError};
pub(crate) use handle::Membership;
pub use handle::{HubGone, HubHandle, PublishError};
pub use ids::{ClientId, CorrelationId, EventId};
use liveness::Watch;
pub(crate) use log::Start;
use merge::Source;
pub(crate) use notify::Bell;
pub(crate) use publication::{Draft, Publication};
pub(crate) use task::open;
pub(crate) use topic_name::TOPICS_PATH;
pub use topic_name::{TopicName, TopicNameError};
pub(crate) use topics::SubscribeError;
pub use topics::{TooManyTopics, TopicInfo};
use topics::{Topic, TopicTable};

/// All connected clients and all topics.
pub(crate) struct Hub {
    clients: Slab<Rc<Client>>,
    /// The number of clients that ever joined.
    joins: u64,
    topics: TopicTable,
    watch: Rc<Watch>,
    /// The drain in progress, if there is one.
    draining: Option<(CloseReason, DrainScope)>,
    /// The number of clients of each [`ClientKind`].
    kinds: [usize; 3],
}

/// The clients that a drain evicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DrainScope {
    /// All clients except the administrator's dashboards, which show the drain.
    Public,
    /// All clients.
    All,
}

impl DrainScope {
    fn includes(self, client: &Client) -> bool {
        self == Self::All || client.kind != ClientKind::Admin
    }
}

/// The counts for the metrics and the dashboard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HubStats {
    /// Clients with a WebSocket session.
    pub(crate) websocket: usize,
    /// Clients with a stream of server-sent events.
    pub(crate) events: usize,
    pub(crate) topics: usize,
    /// The memory of the messages of all topics, in bytes.
    pub(crate) log_bytes: usize,
}

/// The number of clients now, and of all clients so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientCounts {
    /// Clients connected now.
    pub clients: usize,
    /// Clients that ever joined, including those that have left.
    pub joins: u64,
}

/// The result of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The id of the message.
    pub id: EventId,
    /// The number of subscriptions to the topic. A client subscribes once for each of its filters that match.
    pub subscribers: usize,
}

/// A topic and its newest message, if the message is retained.
pub(crate) type NewestOfTopic = (TopicInfo, Option<Rc<Publication>>);

impl Hub {
    /// Creates a hub without clients and with the topic `broadcast`. The alarm of `watch` has the time of the
    /// next sweep.
    pub(crate) fn new(watch: Rc<Watch>, limits: Topics) -> Self {
        Self {
            clients: Slab::new(),
            joins: 0,
            topics: TopicTable::new(limits),
            watch,
            draining: None,
            kinds: [0; 3],
        }
    }

    /// Adds a client with its subscription. During a drain, the client is evicted at once. Returns the client, and the id from which the client would resume to get the same
    /// messages: the one that it resumes from if it misses nothing, and otherwise the one before its first
    /// message.
    ///
    /// # Errors
    /// [`SubscribeError`], if a topic or a filter would exceed a limit.
    pub(crate) fn join(
        &mut self,
        new_client: NewClient,
        subscription: Subscription,
        now: Instant,
    ) -> Result<(Rc<Client>, EventId), SubscribeError> {
        let slot = self.clients.vacant_key() as u32;
        let has_replay = subscription.start != Start::Live;
        let resumed = subscription.start.id().map(|id| id.number);
        let (cursors, has_gap) = self.subscribe(slot, subscription)?;
        self.joins += 1;
        let id = ClientId { slot, generation: self.joins };
        self.kinds[new_client.kind as usize] += 1;
        let cursors = (cursors, has_gap);
        let client = Rc::new(Client::new(id, new_client, cursors, now, self.watch.clone()));
        if has_replay {
            client.bell.ring();
        }
        self.clients.insert(client.clone());
        if let Some((reason, scope)) = self.draining
            && scope.includes(&client)
        {
            client.evict(reason);
        }
        if let Some(due) = client.due() {
            self.watch.alarm().set_at_latest(due);
        }
        let newest = self.newest();
        let first = client.cursors.next_number();
        let before = first.map_or(newest.number, |first| first.saturating_sub(1));
        let before = resumed.filter(|_| !has_gap).map_or(before, |resumed| resumed.min(before));
        Ok((client, EventId { number: before, ..newest }))
    }

    /// Removes a client. A stale id refers to no client.
    pub(crate) fn leave(&mut self, id: ClientId) {
        if self.client(id).is_some() {
            let client = self.clients.remove(id.slot as usize);
            self.kinds[client.kind as usize] -= 1;
            for filter in client.filters() {
                self.topics.unsubscribe(&filter, id.slot);
            }
        }
        self.shrink_if_empty();
    }

    /// Appends a message to a topic's log. Call [`Self::ring`] to notify the subscribers.
    ///
    /// # Errors
    /// [`TooManyTopics`], if the topic does not exist and the limit of topics is reached.
    pub(crate) fn publish(
        &mut self,
        name: &TopicName,
        draft: Draft,
    ) -> Result<Published, TooManyTopics> {
        let subscribers = self.topics.get_or_insert(name)?.subscriptions();
        let is_numbered = !name.is_internal();
        let id = is_numbered.then(|| self.next_id());
        let publication = Publication::new(id, name, draft, self.topics.held().clone());
        self.topics.append(name, publication);
        Ok(Published { id: self.newest(), subscribers })
    }

    /// Rings the bells of up to `count` subscribers of a topic and of the filters that match it, beginning with
    /// the one at the index `from`. Returns the index of the next subscriber, if there are more.
    pub(crate) fn ring(&self, name: &TopicName, from: usize, count: usize) -> Option<usize> {
        let (end, mut total) = (from.saturating_add(count), 0);
        self.topics.visit_subscribers(name, &mut |subscribers| {
            let index = |of_all: usize| of_all.saturating_sub(total).min(subscribers.len());
            for slot in &subscribers[index(from)..index(end)] {
                self.clients[*slot as usize].bell.ring();
            }
            total += subscribers.len();
        });
        (end < total).then_some(end)
    }

    /// Returns the id of the message that was published last, in any topic.
    pub(crate) fn newest(&self) -> EventId {
        self.watch.newest.get()
    }

    /// Returns the id of the next message.
    fn next_id(&self) -> EventId {
        let newest = self.newest();
        let next = EventId { number: newest.number + 1, ..newest };
        self.watch.newest.set(next);
        next
    }

    /// Returns the newest message of a topic, if the message is retained.
    pub(crate) fn last(&self, name: &TopicName) -> Option<Rc<Publication>> {
        self.topics.get(name)?.log.retained_last(self.topics.limits())
    }

    /// Returns the topics that any of the filters matches, sorted by name, each with its newest message, if the
    /// message is retained.
    pub(crate) fn newest_of(&self, filters: &[Filter]) -> Vec<NewestOfTopic> {
        let matches = |topic: &&Topic| filters.iter().any(|filter| filter.matches(topic.name()));
        let newest = |topic: &Topic| (topic.info(), topic.log.retained_last(self.topics.limits()));
        self.topics.public().filter(matches).map(newest).collect()
    }

    /// Withdraws the messages of a topic: nobody is sent one of them afterwards. Subscribers are sent a notice in
    /// place of those that they have not been sent yet.
    pub(crate) fn clear(&mut self, name: &TopicName) {
        if !self.topics.holds(name) {
            return;
        }
        let (id, held) = (self.next_id(), self.topics.held().clone());
        self.topics.clear(name, &Publication::new(Some(id), name, Draft::cleared(name), held));
        self.ring(name, 0, usize::MAX);
    }

    /// Returns all topics but the server's own, sorted by name.
    pub(crate) fn topics(&self) -> Vec<TopicInfo> {
        self.topics.public().map(|topic| topic.info()).collect()
    }

    /// Returns all clients, in no particular order.
    pub(crate) fn clients(&self) -> Vec<Rc<Client>> {
        self.clients.iter().map(|(_, client)| client.clone()).collect()
    }

    /// Returns the client whose id is displayed as `number`.
    pub(crate) fn find(&self, number: u64) -> Option<ClientId> {
        let mut ids = self.clients.iter().map(|(_, client)| client.id());
        ids.find(|id| id.generation == number)
    }

    /// Returns the counts for the metrics and the dashboard.
    pub(crate) fn stats(&self) -> HubStats {
        HubStats {
            websocket: self.kinds[ClientKind::WebSocket as usize],
            events: self.kinds[ClientKind::Events as usize],
            topics: self.topics.public().len(),
            log_bytes: self.topics.held().get(),
        }
    }

    /// Returns the number of subscriptions to a topic, including those of filters that match it.
    pub(crate) fn subscribers(&self, name: &TopicName) -> usize {
        let mut count = 0;
        self.topics.visit_subscribers(name, &mut |subscribers| count += subscribers.len());
        count
    }

    /// Puts a frame into one client's mailbox. Returns false if the client has left or its mailbox is
    /// full.
    pub(crate) fn send_to(&self, id: ClientId, frame: Frame) -> bool {
        self.client(id).is_some_and(|client| client.deliver(frame))
    }

    /// Asks one client's session to close for `reason`. Returns false if the client has left.
    pub(crate) fn evict(&self, id: ClientId, reason: CloseReason) -> bool {
        self.client(id).map(|client| client.evict(reason)).is_some()
    }

    /// Returns the clients with a correlation id.
    pub(crate) fn correlated(&self, id: &CorrelationId) -> Vec<ClientId> {
        let correlated = self.clients.iter().filter(|(_, client)| client.correlation == *id);
        correlated.map(|(_, client)| client.id()).collect()
    }

    /// Checks the deadlines of all clients: sends a Ping to silent clients, evicts clients with an expired
    /// deadline, and removes clients whose session ended without a command to the hub. Sets the alarm for the
    /// next sweep.
    ///
    /// If the sweep is long overdue, the process was suspended. Then all deadlines start again, because the
    /// clients did not cause the delay.
    pub(crate) fn sweep(&mut self, now: Instant) {
        let overdue = self.watch.alarm().due().map(|due| now.saturating_duration_since(due));
        let was_suspended = overdue.is_some_and(|overdue| overdue > LATE);
        let abandoned = self.clients.iter().filter(|(_, client)| Rc::strong_count(client) == 1);
        for id in abandoned.map(|(_, client)| client.id()).collect::<Vec<_>>() {
            self.leave(id);
        }
        let mut next = None;
        for (_, client) in &self.clients {
            client.sweep(now, was_suspended);
            next = [next, client.due()].into_iter().flatten().min();
        }
        match next {
            // Many clients with different deadlines must not cause many sweeps.
            Some(next) => self.watch.alarm().set(next.max(now + SWEEP_EVERY)),
            None => self.watch.alarm().clear(),
        }
    }

    /// Evicts the clients that `scope` includes, now and when they join later.
    pub(crate) fn drain(&mut self, scope: DrainScope, reason: CloseReason) {
        self.draining = Some((reason, scope));
        for (_, client) in self.clients.iter().filter(|(_, client)| scope.includes(client)) {
            client.evict(reason);
        }
    }

    /// Returns the number of clients now, and of all clients so far.
    pub(crate) fn client_counts(&self) -> ClientCounts {
        ClientCounts { clients: self.clients.len(), joins: self.joins }
    }

    /// Adds the client in `slot` to the subscribers of each filter. Returns the client's cursors, and true if
    /// messages that the client requests are no longer kept.
    fn subscribe(
        &mut self,
        slot: u32,
        Subscription { filters, start }: Subscription,
    ) -> Result<(Cursors, bool), SubscribeError> {
        let newest = self.newest();
        let mut sources: Vec<Source> = Vec::with_capacity(filters.len());
        for filter in filters {
            match self.topics.subscribe(&filter, slot, newest.number) {
                Ok(source) => sources.push(source),
                Err(error) => {
                    for source in sources {
                        self.topics.unsubscribe(&source.filter(), slot);
                    }
                    return Err(error);
                }
            }
        }
        Ok(Cursors::new(sources, start, newest, self.topics.limits()))
    }

    /// Frees the memory that many clients may have needed and clears the alarm, if there is no client.
    fn shrink_if_empty(&mut self) {
        if self.clients.is_empty() {
            self.clients = Slab::new();
            self.watch.alarm().clear();
        }
    }

    /// Returns the client with this id, if it has not left.
    fn client(&self, id: ClientId) -> Option<&Rc<Client>> {
        self.clients.get(id.slot as usize).filter(|client| client.id() == id)
    }
}

/// The shortest time between two sweeps.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// A sweep that is later than this shows that the process was suspended, for example by SIGSTOP.
const LATE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
