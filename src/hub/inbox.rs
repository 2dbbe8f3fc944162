//! The hub task and the way to it.

use std::fmt;
use std::rc::Rc;
use std::time::Instant;

use async_channel::{Receiver, Sender};
use futures_lite::future;

use crate::config::Timeouts;
use crate::ws::frame::{CloseReason, Frame, Message};

use super::client::{Alarm, ClientId};
use super::log::Subscription;
use super::{Census, Hub};

/// The way to the hub: the only means to change who is connected and what they are told.
///
/// Its calls wait while the hub's inbox is full, which is backpressure for whoever calls.
#[derive(Clone)]
pub struct HubHandle {
    inbox: Sender<Command>,
    alarm: Rc<Alarm>,
}

/// What the hub can be told and asked. `Sender`s are where the answer goes.
pub(crate) enum Command {
    Join(Instant, Sender<Subscription>),
    Leave(ClientId),
    Broadcast(Frame),
    SendTo(ClientId, Frame, Sender<bool>),
    Evict(ClientId, CloseReason, Sender<bool>),
    Sweep(Instant, Sender<()>),
    Drain(CloseReason),
    Census(Sender<Census>),
    AwaitOccupancy(bool, Sender<()>),
}

/// Opens a hub's inbox; [`run`] serves it.
pub(crate) fn open(timeouts: Timeouts) -> (HubHandle, Hub, Receiver<Command>) {
    let (inbox, commands) = async_channel::bounded(INBOX_COMMANDS);
    let alarm = Rc::new(Alarm::default());
    let hub = Hub::new(timeouts, alarm.clone());
    (HubHandle { inbox, alarm }, hub, commands)
}

/// The hub task: applies commands one after another until no handle is left.
pub(crate) async fn run(mut hub: Hub, commands: Receiver<Command>) {
    let mut waiting: Vec<(bool, Sender<()>)> = Vec::new();
    while let Ok(command) = commands.recv().await {
        // Whoever asked and went away misses nothing: failures to answer are ignored.
        match command {
            Command::Join(now, answer) => drop(answer.try_send(hub.join(now))),
            Command::Leave(id) => hub.leave(id),
            Command::Broadcast(frame) => broadcast(&mut hub, frame).await,
            Command::SendTo(id, frame, answer) => drop(answer.try_send(hub.send_to(id, frame))),
            Command::Evict(id, reason, answer) => drop(answer.try_send(hub.evict(id, reason))),
            Command::Sweep(now, answer) => {
                hub.sweep(now);
                _ = answer.try_send(());
            }
            Command::Drain(reason) => hub.drain(reason),
            Command::Census(answer) => drop(answer.try_send(hub.census())),
            Command::AwaitOccupancy(occupied, answer) => waiting.push((occupied, answer)),
        }
        let occupied = hub.census().clients > 0;
        waiting.retain(|(wanted, answer)| {
            let met = *wanted == occupied;
            if met {
                _ = answer.try_send(());
            }
            !met && !answer.is_closed()
        });
    }
}

/// Publishes to everybody, and lets others run after every so many bells.
async fn broadcast(hub: &mut Hub, frame: Frame) {
    hub.broadcast(frame);
    let mut from = 0;
    while let Some(next) = hub.ring(from, BELLS_PER_TURN) {
        from = next;
        future::yield_now().await;
    }
}

impl HubHandle {
    /// Sends a message to everybody connected; it is encoded once.
    ///
    /// # Errors
    /// [`HubGone`], when the server has ended.
    ///
    /// # Cancel safety
    /// Dropped early, nothing is sent.
    pub async fn broadcast(&self, message: impl Into<Message>) -> Result<(), HubGone> {
        self.tell(Command::Broadcast(Frame::message(&message.into()))).await
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
        let frame = Frame::message(&message.into());
        self.ask(|answer| Command::SendTo(id, frame, answer)).await
    }

    /// Closes one client's session. Says false if the client is gone.
    ///
    /// # Errors
    /// [`HubGone`], when the server has ended.
    ///
    /// # Cancel safety
    /// Dropped early, the client may be evicted all the same.
    pub async fn evict(&self, id: ClientId, reason: CloseReason) -> Result<bool, HubGone> {
        self.ask(|answer| Command::Evict(id, reason, answer)).await
    }

    /// Counts the clients.
    ///
    /// # Errors
    /// [`HubGone`], when the server has ended.
    ///
    /// # Cancel safety
    /// Dropped early, nothing has changed.
    pub async fn census(&self) -> Result<Census, HubGone> {
        self.ask(Command::Census).await
    }

    /// Waits until somebody is connected.
    ///
    /// # Errors
    /// [`HubGone`], when the server has ended.
    ///
    /// # Cancel safety
    /// Dropped early, nothing has changed.
    pub async fn until_occupied(&self) -> Result<(), HubGone> {
        self.ask(|answer| Command::AwaitOccupancy(true, answer)).await
    }

    /// Waits until nobody is connected.
    ///
    /// # Errors
    /// [`HubGone`], when the server has ended.
    ///
    /// # Cancel safety
    /// Dropped early, nothing has changed.
    pub async fn until_vacant(&self) -> Result<(), HubGone> {
        self.ask(|answer| Command::AwaitOccupancy(false, answer)).await
    }

    /// When the next sweep is due.
    pub(crate) fn alarm(&self) -> &Alarm {
        &self.alarm
    }

    pub(crate) async fn join(&self, now: Instant) -> Result<(Subscription, Membership), HubGone> {
        let subscription = self.ask(|answer| Command::Join(now, answer)).await?;
        let membership = Membership { hub: self.clone(), id: subscription.client.id };
        Ok((subscription, membership))
    }

    pub(crate) async fn sweep(&self, now: Instant) -> Result<(), HubGone> {
        self.ask(|answer| Command::Sweep(now, answer)).await
    }

    pub(crate) async fn drain(&self, reason: CloseReason) -> Result<(), HubGone> {
        self.tell(Command::Drain(reason)).await
    }

    async fn tell(&self, command: Command) -> Result<(), HubGone> {
        self.inbox.send(command).await.map_err(|_| HubGone)
    }

    async fn ask<T>(&self, question: impl FnOnce(Sender<T>) -> Command) -> Result<T, HubGone> {
        let (answer, answered) = async_channel::bounded(1);
        self.tell(question(answer)).await?;
        answered.recv().await.map_err(|_| HubGone)
    }
}

/// That a client is in the hub; dropping it, however the session ends, takes the client out.
pub(crate) struct Membership {
    hub: HubHandle,
    id: ClientId,
}

impl Drop for Membership {
    fn drop(&mut self) {
        if self.hub.inbox.try_send(Command::Leave(self.id)).is_err() {
            // The inbox is full: a sweep finds that nobody shares the client's record any more.
            self.hub.alarm.set_at_latest(Instant::now());
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

/// How many commands may wait; then their senders wait.
const INBOX_COMMANDS: usize = 256;
/// How many clients are woken before others run.
const BELLS_PER_TURN: usize = 256;
