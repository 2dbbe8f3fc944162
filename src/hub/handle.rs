//! The handle through which all other tasks send commands to the hub.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use async_channel::Sender;

use crate::counters::Source;
use crate::frame::{CloseReason, Frame, Message, NO_CLOSE};

use super::client::{Client, NewClient};
use super::command::{AwaitClients, Command, Publish};
use super::ids::{ClientId, CorrelationId, EventId};
use super::liveness::{Alarm, Watch};
use super::log::Start;
use super::notify::{Arrival, AwaitedReply, reply};
use super::publication::{Draft, Publication};
use super::topic_name::TopicName;
use super::topics::{TooManyTopics, TopicInfo};
use super::{ClientCounts, DrainScope, Hub, HubStats, Published};

/// A handle that sends commands to the hub. Clients, topics and messages can only be changed through it.
///
/// Each call waits while the hub's inbox is full.
#[derive(Clone)]
pub struct HubHandle {
    inbox: Sender<Command>,
    watch: Rc<Watch>,
}

impl HubHandle {
    /// Creates a handle.
    pub(super) fn new(inbox: Sender<Command>, watch: Rc<Watch>) -> Self {
        Self { inbox, watch }
    }

    /// Publishes a message to a topic. A topic that does not exist is created.
    ///
    /// # Errors
    /// [`PublishError`], if the server has ended or the topic cannot be created.
    ///
    /// # Cancel safety
    /// If the future is dropped early, the message may be published all the same.
    pub async fn publish(
        &self,
        topic: &TopicName,
        message: impl Into<Message>,
    ) -> Result<Published, PublishError> {
        let draft = Draft::new(Frame::message(&message.into()));
        Ok(self.publish_draft(topic, draft, Source::Service).await??)
    }

    /// Publishes an encoded message, which is counted under `source`.
    pub(crate) fn publish_draft(
        &self,
        topic: &TopicName,
        draft: Draft,
        source: Source,
    ) -> impl Future<Output = Result<Result<Published, TooManyTopics>, HubGone>> + use<'_> {
        let topic = topic.clone();
        let (reply, published) = reply();
        let publish = Publish { topic, draft, source, reply: Some(reply) };
        self.answer(Command::Publish(publish), published)
    }

    /// Publishes a message to the topic `broadcast`, which the clients of all endpoints subscribe to. Does
    /// not wait until the hub has published it.
    ///
    /// # Errors
    /// [`HubGone`], when the server has ended.
    ///
    /// # Cancel safety
    /// If the future is dropped early, the message is not published.
    pub async fn broadcast(&self, message: impl Into<Message>) -> Result<(), HubGone> {
        let (topic, source) = (TopicName::broadcast(), Source::Service);
        let draft = Draft::new(Frame::message(&message.into()));
        self.send(Command::Publish(Publish { topic, draft, source, reply: None })).await
    }

    /// Sends a message to one client. Returns false if the client has left, or if 16 messages are already
    /// waiting for a client that does not read.
    ///
    /// # Errors
    /// [`HubGone`], when the server has ended.
    ///
    /// # Cancel safety
    /// If the future is dropped early, the message may be sent all the same.
    pub fn send_to(
        &self,
        id: ClientId,
        message: impl Into<Message>,
    ) -> impl Future<Output = Result<bool, HubGone>> {
        let frame = Frame::message(&message.into());
        self.ask(move |hub| hub.send_to(id, frame))
    }

    /// Closes the session of one client. Returns false if the client has left.
    ///
    /// # Errors
    /// [`HubGone`], when the server has ended.
    ///
    /// # Cancel safety
    /// If the future is dropped early, the client may be evicted all the same.
    pub fn evict(
        &self,
        id: ClientId,
        reason: CloseReason,
    ) -> impl Future<Output = Result<bool, HubGone>> {
        self.ask(move |hub| hub.evict(id, reason))
    }

    /// Sends a message to all clients with a correlation id. Returns the number of these clients, without
    /// those for which 16 messages are already waiting. The id authenticates nobody: a client that has sent
    /// the id of another receives the message, too.
    ///
    /// # Errors
    /// [`HubGone`], when the server has ended.
    ///
    /// # Cancel safety
    /// If the future is dropped early, the message may be sent all the same.
    pub fn send_to_all(
        &self,
        id: &CorrelationId,
        message: impl Into<Message>,
    ) -> impl Future<Output = Result<usize, HubGone>> {
        let (id, frame) = (id.clone(), Frame::message(&message.into()));
        self.ask(move |hub| {
            let sent = |client: &ClientId| hub.send_to(*client, frame.clone());
            hub.correlated(&id).into_iter().filter(sent).count()
        })
    }

    /// Closes the sessions of all clients with a correlation id. Returns the number of these clients.
    ///
    /// # Errors
    /// [`HubGone`], when the server has ended.
    ///
    /// # Cancel safety
    /// If the future is dropped early, the clients may be evicted all the same.
    pub fn evict_all(
        &self,
        id: &CorrelationId,
        reason: CloseReason,
    ) -> impl Future<Output = Result<usize, HubGone>> {
        let id = id.clone();
        self.ask(move |hub| {
            let evicted = |client: &ClientId| hub.evict(*client, reason);
            hub.correlated(&id).into_iter().filter(evicted).count()
        })
    }

    /// Returns all topics, sorted by name.
    ///
    /// # Errors
    /// [`HubGone`], when the server has ended.
    ///
    /// # Cancel safety
    /// If the future is dropped early, nothing has changed.
    pub fn topics(&self) -> impl Future<Output = Result<Vec<TopicInfo>, HubGone>> {
        self.ask(|hub| hub.topics())
    }

    /// Withdraws the messages of a topic: nobody is sent one of them afterwards. Event streams of the topic are
    /// sent an event `cleared` in place of those that they have not been sent yet.
    ///
    /// # Errors
    /// [`HubGone`], when the server has ended.
    ///
    /// # Cancel safety
    /// If the future is dropped early, the messages may be withdrawn all the same.
    pub fn clear(&self, topic: &TopicName) -> impl Future<Output = Result<(), HubGone>> {
        let name = topic.clone();
        self.ask(move |hub| hub.clear(&name))
    }

    /// Returns the newest message of a topic, if the message is retained, and the id from which a client would
    /// resume to get all later messages.
    pub(crate) fn last(
        &self,
        topic: &TopicName,
    ) -> impl Future<Output = Result<(Option<Rc<Publication>>, EventId), HubGone>> {
        let name = topic.clone();
        self.ask(move |hub| (hub.last(&name), hub.newest()))
    }

    /// Returns all topics, sorted by name, and the id from which a client would resume to get all later messages.
    pub(crate) fn topics_and_newest(
        &self,
    ) -> impl Future<Output = Result<(Vec<TopicInfo>, EventId), HubGone>> {
        self.ask(|hub| (hub.topics(), hub.newest()))
    }

    /// Returns the number of clients now, and of all clients so far.
    ///
    /// # Errors
    /// [`HubGone`], when the server has ended.
    ///
    /// # Cancel safety
    /// If the future is dropped early, nothing has changed.
    pub fn client_counts(&self) -> impl Future<Output = Result<ClientCounts, HubGone>> {
        self.ask(|hub| hub.client_counts())
    }

    /// Returns all clients, in no particular order.
    pub(crate) fn clients(&self) -> impl Future<Output = Result<Vec<Rc<Client>>, HubGone>> {
        self.ask(|hub| hub.clients())
    }

    /// Closes the session of the client whose id is displayed as `number`. Returns false if there is no such
    /// client.
    pub(crate) fn evict_number(
        &self,
        number: u64,
        reason: CloseReason,
    ) -> impl Future<Output = Result<bool, HubGone>> {
        self.ask(move |hub| hub.find(number).is_some_and(|id| hub.evict(id, reason)))
    }

    /// Sends an encoded message to the client whose id is displayed as `number`. Returns `None` if there is
    /// no such client, and false if 16 messages are already waiting for a client that does not read.
    pub(crate) fn send_to_number(
        &self,
        number: u64,
        frame: Frame,
    ) -> impl Future<Output = Result<Option<bool>, HubGone>> {
        self.ask(move |hub| hub.find(number).map(|id| hub.send_to(id, frame)))
    }

    /// Returns the counts for the metrics and the dashboard.
    pub(crate) fn stats(&self) -> impl Future<Output = Result<HubStats, HubGone>> {
        self.ask(|hub| hub.stats())
    }

    /// Waits until a topic has a subscriber.
    ///
    /// # Errors
    /// [`HubGone`], when the server has ended.
    ///
    /// # Cancel safety
    /// If the future is dropped early, nothing has changed.
    pub fn until_subscribed(&self, topic: &TopicName) -> impl Future<Output = Result<(), HubGone>> {
        self.until_clients(Some(topic), true)
    }

    /// Waits until a topic has no subscriber.
    ///
    /// # Errors
    /// [`HubGone`], when the server has ended.
    ///
    /// # Cancel safety
    /// If the future is dropped early, nothing has changed.
    pub fn until_unsubscribed(
        &self,
        topic: &TopicName,
    ) -> impl Future<Output = Result<(), HubGone>> {
        self.until_clients(Some(topic), false)
    }

    /// Waits until any client is connected.
    pub(crate) fn until_any_client(&self) -> impl Future<Output = Result<(), HubGone>> {
        self.until_clients(None, true)
    }

    /// Waits until no client is connected.
    pub(crate) fn until_no_client(&self) -> impl Future<Output = Result<(), HubGone>> {
        self.until_clients(None, false)
    }

    /// Returns the alarm, which has the time of the next sweep.
    pub(crate) fn alarm(&self) -> &Alarm {
        self.watch.alarm()
    }

    /// Adds a client that subscribes to `topics`. The client stays in the hub until the [`Membership`] is
    /// dropped.
    ///
    /// # Errors
    /// [`PublishError`], if the server has ended or a topic cannot be created.
    ///
    /// # Cancel safety
    /// If the future is dropped early, the next sweep removes the client if it was added.
    pub(crate) async fn join(
        &self,
        new_client: NewClient,
        topics: Vec<(TopicName, Start)>,
        now: Instant,
    ) -> Result<Membership, PublishError> {
        let joined =
            self.ask(move |hub| hub.join(new_client, topics, now).inspect_err(log_refusal));
        let (client, before) = joined.await??;
        Ok(Membership { client: Some(client), before, hub: self.clone() })
    }

    /// Removes a client after the end of its session.
    pub(crate) fn remove(&self, client: &Client) {
        // Has no effect if the session has recorded its end. A session whose task was dropped has not
        // recorded it.
        client.end(&"aborted", NO_CLOSE, Instant::now());
        if self.inbox.try_send(Command::Leave(client.id())).is_err() {
            // The inbox is full. A sweep finds the client, because no session shares its record any more.
            self.alarm().set_at_latest(Instant::now());
        }
    }

    /// Checks the deadlines of all clients.
    pub(crate) fn sweep(&self, now: Instant) -> impl Future<Output = Result<(), HubGone>> {
        self.ask(move |hub| hub.sweep(now))
    }

    /// Evicts the clients that `scope` includes, now and when they join later.
    pub(crate) async fn drain(
        &self,
        scope: DrainScope,
        reason: CloseReason,
    ) -> Result<(), HubGone> {
        self.send(Command::Do(Box::new(move |hub| hub.drain(scope, reason)))).await
    }

    /// Sends a command. The future is boxed, so that its code is not compiled again for each type of
    /// question.
    fn send(&self, command: Command) -> Pin<Box<dyn Future<Output = Result<(), HubGone>> + '_>> {
        Box::pin(async move { self.inbox.send(command).await.map_err(|_| HubGone) })
    }

    /// Sends a command and waits until its reply has arrived, or until there will be none. Boxed, as
    /// [`Self::send`] is.
    fn execute(
        &self,
        command: Command,
        reply: Rc<dyn Arrival>,
    ) -> Pin<Box<dyn Future<Output = Result<(), HubGone>> + '_>> {
        Box::pin(async move {
            self.inbox.send(command).await.map_err(|_| HubGone)?;
            reply.bell().ringing().await;
            Ok(())
        })
    }

    /// Waits until a topic has a subscriber if `wants_any` is true, or until it has none. Without a topic,
    /// all clients count.
    fn until_clients(
        &self,
        topic: Option<&TopicName>,
        wants_any: bool,
    ) -> impl Future<Output = Result<(), HubGone>> + use<'_> {
        let (reply, awaited) = reply();
        let waiting = AwaitClients { topic: topic.cloned(), wants_any, reply };
        self.answer(Command::AwaitClients(waiting), awaited)
    }

    /// Runs `question` in the hub task, and waits for the answer.
    fn ask<T: 'static>(&self, question: impl FnOnce(&mut Hub) -> T + 'static) -> Answer<'_, T> {
        let (reply, awaited) = reply();
        self.answer(Command::Do(Box::new(|hub| reply.send(question(hub)))), awaited)
    }

    /// Returns the answer to a command.
    fn answer<T: 'static>(&self, command: Command, reply: AwaitedReply<T>) -> Answer<'_, T> {
        Answer { executing: self.execute(command, reply.arrival()), reply }
    }
}

/// The hub's answer to a command. A type of its own, because the future of an `async fn` would be compiled
/// again for each question.
struct Answer<'h, T> {
    executing: Pin<Box<dyn Future<Output = Result<(), HubGone>> + 'h>>,
    reply: AwaitedReply<T>,
}

impl<T: 'static> Future for Answer<'_, T> {
    type Output = Result<T, HubGone>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        ready!(self.executing.as_mut().poll(cx))?;
        Poll::Ready(self.reply.take().ok_or(HubGone))
    }
}

/// Logs that a topic was refused.
pub(super) fn log_refusal(error: &TooManyTopics) {
    log::warn!(target: "falconet::limit", "topic refused: {error}");
}

/// The membership of a client in the hub. Dropping it removes the client.
pub(crate) struct Membership {
    /// `None` after [`into_client`](Self::into_client).
    client: Option<Rc<Client>>,
    before: EventId,
    hub: HubHandle,
}

impl Membership {
    /// Returns the client. The caller must remove it with [`HubHandle::remove`].
    // A session already has a handle, which it shares. The one in a membership would take more memory.
    pub(crate) fn into_client(mut self) -> Rc<Client> {
        self.client.take().expect("a membership has its client until it is consumed")
    }

    /// Returns the id before that of the first message that the client will be sent.
    pub(crate) fn before(&self) -> EventId {
        self.before
    }

    /// Returns the hub's record of the client.
    pub(crate) fn client(&self) -> &Client {
        self.client.as_ref().expect("a membership has its client until it is consumed")
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            self.hub.remove(&client);
        }
    }
}

/// The error that the hub has ended, and the server with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HubGone;

impl fmt::Display for HubGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the server has ended")
    }
}

impl std::error::Error for HubGone {}

/// The reason why a message cannot be published, or why a client cannot subscribe to a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishError {
    /// The server has ended.
    HubGone,
    /// The topic does not exist, and the limit of topics is reached.
    TooManyTopics(TooManyTopics),
}

impl From<HubGone> for PublishError {
    fn from(_: HubGone) -> Self {
        Self::HubGone
    }
}

impl From<TooManyTopics> for PublishError {
    fn from(error: TooManyTopics) -> Self {
        Self::TooManyTopics(error)
    }
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HubGone => HubGone.fmt(f),
            Self::TooManyTopics(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for PublishError {}
