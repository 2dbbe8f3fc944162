//! The hub task and the way to it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Instant, SystemTime};

use async_channel::{Receiver, Sender};
use futures_lite::future;

use crate::config::{Timeouts, Topics};
use crate::counters::{Counters, Source};
use crate::ws::frame::{CloseCode, CloseReason, Frame, Message};

use super::client::{Alarm, Client, ClientId, CorrelationId, Newcomer, Watch};
use super::log::{Publication, Start, Subscription};
use super::reply::{Reply, reply};
use super::topic::{TopicInfo, TopicName};
use super::{ClientCounts, Hub, HubStats, Published, TooManyTopics, Whom};

/// The way to the hub: the only means to change who is connected and what they are told.
///
/// Its calls wait while the hub's inbox is full, which is backpressure for whoever calls.
#[derive(Clone)]
pub struct HubHandle(Rc<Way>);

/// One for all handles, since every client has one.
struct Way {
    inbox: Sender<Command>,
    watch: Watch,
}

/// What the hub can be told and asked. A `Reply` is where the answer goes.
enum Command {
    Leave(ClientId),
    Publish(TopicName, Publication, Source, Option<Reply<Result<Published, TooManyTopics>>>),
    /// Without a topic, that of the hub: who is connected.
    AwaitAudience(Option<TopicName>, bool, Reply<()>),
    /// All that takes no waiting. No variant for each, whose code a build would have that never asks.
    Do(Box<dyn FnOnce(&mut Hub)>),
}

/// Opens a hub's inbox; [`run`] serves it. What happens is counted in `counters`.
pub(crate) fn open(
    timeouts: Timeouts,
    limits: Topics,
    counters: Rc<Counters>,
) -> (HubHandle, HubTask) {
    let (inbox, commands) = async_channel::bounded(INBOX_COMMANDS);
    // Whoever is behind no further than this has lost nothing.
    let publishes_per_turn = (limits.log_messages / 2).clamp(1, PUBLISHES_PER_TURN);
    let handle = HubHandle(Rc::new(Way { inbox, watch: Watch::new(timeouts, counters) }));
    let hub = Hub::new(handle.clone(), limits);
    let task = HubTask { hub, commands, waiting: Vec::new(), publishes_per_turn };
    (handle, task)
}

/// The hub and its inbox.
pub(crate) struct HubTask {
    hub: Hub,
    commands: Receiver<Command>,
    /// Who waits for a topic to have subscribers, or to have none; or for anybody to be connected.
    waiting: Vec<(Option<TopicName>, bool, Reply<()>)>,
    publishes_per_turn: usize,
}

impl HubTask {
    /// Applies commands one after another, for ever.
    pub(crate) async fn run(mut self) {
        let mut published = 0;
        while let Ok(command) = self.commands.recv().await {
            published += usize::from(matches!(command, Command::Publish(..)));
            self.apply(command).await;
            self.tell_waiting();
            if published == self.publishes_per_turn {
                // The subscribers read before the log has moved on under them.
                published = 0;
                future::yield_now().await;
            }
        }
    }

    async fn apply(&mut self, command: Command) {
        let hub = &mut self.hub;
        match command {
            Command::Leave(id) => hub.leave(id),
            Command::Publish(name, publication, source, reply) => {
                let published = publish(hub, &name, publication).await.inspect_err(warn);
                if published.is_ok() && !name.is_internal() {
                    hub.handle.watch().counters.publish(source);
                }
                if let Some(reply) = reply {
                    reply.send(published);
                }
            }
            Command::AwaitAudience(name, wanted, reply) => {
                self.waiting.push((name, wanted, reply));
            }
            Command::Do(action) => action(hub),
        }
    }

    fn tell_waiting(&mut self) {
        let hub = &self.hub;
        let is_over = |(name, wanted, reply): &mut (Option<TopicName>, bool, Reply<()>)| {
            let audience = name.as_ref().map_or(hub.census().clients, |name| hub.subscribers(name));
            *wanted == (audience > 0) || reply.is_forgotten()
        };
        for (_, _, reply) in self.waiting.extract_if(.., is_over) {
            reply.send(());
        }
    }
}

impl Drop for HubTask {
    /// Drops what is left in the inbox, which lives as long as any handle: so whoever asked is told that
    /// the server has ended.
    fn drop(&mut self) {
        self.commands.close();
        while self.commands.try_recv().is_ok() {}
    }
}

/// Publishes to a topic's subscribers, and lets others run after every so many bells.
async fn publish(
    hub: &mut Hub,
    name: &TopicName,
    publication: Publication,
) -> Result<Published, TooManyTopics> {
    let published = hub.publish(name, publication)?;
    let mut from = 0;
    while let Some(next) = hub.ring(name, from, BELLS_PER_TURN) {
        from = next;
        future::yield_now().await;
    }
    Ok(published)
}

/// A message that is published now.
fn publication(frame: Frame, media_type: Option<&'static str>) -> Publication {
    Publication { frame, media_type, published: SystemTime::now() }
}

fn warn(error: &TooManyTopics) {
    log::warn!(target: "falconet::limit", "topic refused: {error}");
}

impl HubHandle {
    /// Publishes a message to a topic, which need not exist before; it is encoded once.
    ///
    /// # Errors
    /// [`PublishError`].
    ///
    /// # Cancel safety
    /// Dropped early, the message may be published all the same.
    pub async fn publish(
        &self,
        topic: &TopicName,
        message: impl Into<Message>,
    ) -> Result<Published, PublishError> {
        self.publish_from(topic, message.into(), Source::Service).await
    }

    /// The same, of a message from `source`.
    pub(crate) async fn publish_from(
        &self,
        topic: &TopicName,
        message: Message,
        source: Source,
    ) -> Result<Published, PublishError> {
        self.publish_frame(topic, Frame::message(&message), None, source).await
    }

    /// The same, of an encoded message from `source`, whose payload's media type may be known.
    pub(crate) async fn publish_frame(
        &self,
        topic: &TopicName,
        frame: Frame,
        media_type: Option<&'static str>,
        source: Source,
    ) -> Result<Published, PublishError> {
        let (name, publication) = (topic.clone(), publication(frame, media_type));
        let (reply, published) = reply();
        self.tell(Command::Publish(name, publication, source, Some(reply))).await?;
        Ok(published.receive().await.ok_or(HubGone)??)
    }

    /// Publishes a message to the topic `broadcast`, which the clients of every endpoint hear.
    ///
    /// # Errors
    /// [`HubGone`], when the server has ended.
    ///
    /// # Cancel safety
    /// Dropped early, nothing is sent.
    pub async fn broadcast(&self, message: impl Into<Message>) -> Result<(), HubGone> {
        let publication = publication(Frame::message(&message.into()), None);
        let source = Source::Service;
        self.tell(Command::Publish(TopicName::broadcast(), publication, source, None)).await
    }

    /// Sends a message to one client. Says false if the client is gone, or does not read and has 16
    /// messages waiting already.
    ///
    /// # Errors
    /// [`HubGone`], when the server has ended.
    ///
    /// # Cancel safety
    /// Dropped early, the message may be sent all the same.
    pub async fn send_to(
        &self,
        id: ClientId,
        message: impl Into<Message>,
    ) -> Result<bool, HubGone> {
        self.send_frame(id, Frame::message(&message.into())).await
    }

    /// The same, of an encoded message.
    pub(crate) async fn send_frame(&self, id: ClientId, frame: Frame) -> Result<bool, HubGone> {
        self.ask(move |hub| hub.send_to(id, frame)).await
    }

    /// Closes one client's session. Says false if the client is gone.
    ///
    /// # Errors
    /// [`HubGone`], when the server has ended.
    ///
    /// # Cancel safety
    /// Dropped early, the client may be evicted all the same.
    pub async fn evict(&self, id: ClientId, reason: CloseReason) -> Result<bool, HubGone> {
        self.ask(move |hub| hub.evict(id, reason)).await
    }

    /// Sends a message to every client that came with a correlation id. Says how many it is sent to.
    ///
    /// # Errors
    /// [`HubGone`], when the server has ended.
    ///
    /// # Cancel safety
    /// Dropped early, the message may be sent all the same.
    pub async fn send_to_all(
        &self,
        id: &CorrelationId,
        message: impl Into<Message>,
    ) -> Result<usize, HubGone> {
        let (id, frame) = (id.clone(), Frame::message(&message.into()));
        self.ask(move |hub| {
            let sent = |client: &ClientId| hub.send_to(*client, frame.clone());
            hub.correlated(&id).into_iter().filter(sent).count()
        })
        .await
    }

    /// Closes the sessions of every client that came with a correlation id. Says how many.
    ///
    /// # Errors
    /// [`HubGone`], when the server has ended.
    ///
    /// # Cancel safety
    /// Dropped early, the clients may be evicted all the same.
    pub async fn evict_all(
        &self,
        id: &CorrelationId,
        reason: CloseReason,
    ) -> Result<usize, HubGone> {
        let id = id.clone();
        self.ask(move |hub| {
            let evicted = |client: &ClientId| hub.evict(*client, reason);
            hub.correlated(&id).into_iter().filter(evicted).count()
        })
        .await
    }

    /// Every topic, in the order of their names.
    ///
    /// # Errors
    /// [`HubGone`], when the server has ended.
    ///
    /// # Cancel safety
    /// Dropped early, nothing has changed.
    pub async fn topics(&self) -> Result<Vec<TopicInfo>, HubGone> {
        self.ask(|hub| hub.topics()).await
    }

    /// Forgets what a topic retains.
    ///
    /// # Errors
    /// [`HubGone`], when the server has ended.
    ///
    /// # Cancel safety
    /// Dropped early, it may be forgotten all the same.
    pub async fn clear(&self, topic: &TopicName) -> Result<(), HubGone> {
        let name = topic.clone();
        self.ask(move |hub| hub.clear(&name)).await
    }

    /// The last message of a topic and its number, if it is retained.
    pub(crate) async fn last(
        &self,
        topic: &TopicName,
    ) -> Result<Option<(u64, Publication)>, HubGone> {
        let name = topic.clone();
        self.ask(move |hub| hub.last(&name)).await
    }

    /// Counts the clients.
    ///
    /// # Errors
    /// [`HubGone`], when the server has ended.
    ///
    /// # Cancel safety
    /// Dropped early, nothing has changed.
    pub async fn census(&self) -> Result<ClientCounts, HubGone> {
        self.ask(|hub| hub.census()).await
    }

    /// Every client, in no order.
    pub(crate) async fn clients(&self) -> Result<Vec<Rc<Client>>, HubGone> {
        self.ask(|hub| hub.clients()).await
    }

    /// The client whose id is displayed as `number`.
    pub(crate) async fn find(&self, number: u64) -> Result<Option<ClientId>, HubGone> {
        self.ask(move |hub| hub.find(number)).await
    }

    /// What the administrator is told.
    pub(crate) async fn stats(&self) -> Result<HubStats, HubGone> {
        self.ask(|hub| hub.stats()).await
    }

    /// Waits until a topic has a subscriber.
    ///
    /// # Errors
    /// [`HubGone`], when the server has ended.
    ///
    /// # Cancel safety
    /// Dropped early, nothing has changed.
    pub async fn until_subscribed(&self, topic: &TopicName) -> Result<(), HubGone> {
        self.until_audience(Some(topic), true).await
    }

    /// Waits until a topic has no subscriber.
    ///
    /// # Errors
    /// [`HubGone`], when the server has ended.
    ///
    /// # Cancel safety
    /// Dropped early, nothing has changed.
    pub async fn until_unsubscribed(&self, topic: &TopicName) -> Result<(), HubGone> {
        self.until_audience(Some(topic), false).await
    }

    /// Waits until somebody is connected, or until nobody is.
    pub(crate) async fn until_any_client(&self, wanted: bool) -> Result<(), HubGone> {
        self.until_audience(None, wanted).await
    }

    /// When the next sweep is due.
    pub(crate) fn alarm(&self) -> &Alarm {
        &self.0.watch.alarm
    }

    /// What the sweep goes by.
    pub(super) fn watch(&self) -> &Watch {
        &self.0.watch
    }

    /// Takes a client in; it is a member until its [`Membership`] is dropped.
    pub(crate) async fn join(
        &self,
        newcomer: Newcomer,
        topic: Option<(TopicName, Start)>,
        now: Instant,
    ) -> Result<Membership, PublishError> {
        let joined = self.ask(move |hub| hub.join(newcomer, topic, now).inspect_err(warn));
        let subscription = joined.await??;
        Ok(Membership { subscription })
    }

    pub(crate) async fn sweep(&self, now: Instant) -> Result<(), HubGone> {
        self.ask(move |hub| hub.sweep(now)).await
    }

    pub(crate) async fn drain(&self, whom: Whom, reason: CloseReason) -> Result<(), HubGone> {
        self.tell(Command::Do(Box::new(move |hub| hub.drain(whom, reason)))).await
    }

    /// Boxed, so that its code is there once and not with each kind of question.
    fn tell(&self, command: Command) -> Pin<Box<dyn Future<Output = Result<(), HubGone>> + '_>> {
        Box::pin(async move { self.0.inbox.send(command).await.map_err(|_| HubGone) })
    }

    /// Waits until a topic has a subscriber or none; without a topic, until somebody is connected or nobody.
    async fn until_audience(&self, topic: Option<&TopicName>, wanted: bool) -> Result<(), HubGone> {
        let (reply, awaited) = reply();
        self.tell(Command::AwaitAudience(topic.cloned(), wanted, reply)).await?;
        awaited.receive().await.ok_or(HubGone)
    }

    /// Has the hub do something, and waits for what comes of it.
    async fn ask<T: 'static>(
        &self,
        question: impl FnOnce(&mut Hub) -> T + 'static,
    ) -> Result<T, HubGone> {
        let (reply, awaited) = reply();
        self.tell(Command::Do(Box::new(|hub| reply.send(question(hub))))).await?;
        awaited.receive().await.ok_or(HubGone)
    }
}

/// That a client is in the hub; dropping it, however the session ends, takes the client out.
pub(crate) struct Membership {
    pub(crate) subscription: Subscription,
}

impl Membership {
    /// The hub's record of the client.
    pub(crate) fn client(&self) -> &Client {
        &self.subscription.client
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        // Unless it was known how: its task was given up, as at the end of a drain.
        self.client().end(&"aborted", CloseCode::Abnormal, Instant::now());
        let (hub, id) = (&self.client().hub, self.client().id());
        if hub.0.inbox.try_send(Command::Leave(id)).is_err() {
            // The inbox is full: a sweep finds that nobody shares the client's record any more.
            hub.alarm().set_at_latest(Instant::now());
        }
    }
}

/// The hub has ended, and the server with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HubGone;

impl fmt::Display for HubGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the server has ended")
    }
}

impl std::error::Error for HubGone {}

/// Why nothing can be published to a topic, or heard of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishError {
    /// The server has ended.
    HubGone,
    /// The topic does not exist, and there is no room for one more.
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

/// How many commands may wait; then their senders wait.
const INBOX_COMMANDS: usize = 64;
/// How many messages are published before their subscribers run.
const PUBLISHES_PER_TURN: usize = 16;
/// How many clients are woken before others run.
const BELLS_PER_TURN: usize = 256;
