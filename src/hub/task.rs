//! The hub task, which executes commands one after another.

use std::rc::Rc;

use async_channel::Receiver;
use futures_lite::future;

use crate::config::{Timeouts, Topics};
use crate::counters::Counters;

use super::Hub;
use super::command::{AwaitClients, Command, Publish};
use super::handle::{HubHandle, log_refusal};
use super::liveness::Watch;
use super::topic_name::TopicName;

/// Creates a hub, its inbox and its task. [`HubTask::run`] executes the commands in the inbox. Messages are
/// counted in `counters`.
pub(crate) fn open(
    timeouts: Timeouts,
    limits: Topics,
    counters: Rc<Counters>,
) -> (HubHandle, HubTask) {
    let (inbox, commands) = async_channel::bounded(INBOX_COMMANDS);
    // One turn fills about half of a log, so a subscriber that is one turn behind misses nothing.
    let publishes_per_turn = (limits.log_messages / 2).clamp(1, PUBLISHES_PER_TURN);
    let bytes_per_turn = limits.log_bytes / 2;
    let watch = Rc::new(Watch::new(timeouts, counters));
    let hub = Hub::new(watch.clone(), limits);
    let task = HubTask { hub, commands, waiting: Vec::new(), publishes_per_turn, bytes_per_turn };
    (HubHandle::new(inbox, watch), task)
}

/// The hub and its inbox.
pub(crate) struct HubTask {
    hub: Hub,
    commands: Receiver<Command>,
    /// The callers that wait until there are clients, or none.
    waiting: Vec<AwaitClients>,
    publishes_per_turn: usize,
    bytes_per_turn: usize,
}

impl HubTask {
    /// Executes commands one after another. Runs until the future is dropped.
    pub(crate) async fn run(mut self) {
        let (mut published, mut bytes) = (0, 0);
        while let Ok(command) = self.commands.recv().await {
            if let Command::Publish(publish) = &command {
                published += 1;
                bytes += publish.draft.frame.payload().len();
            }
            self.execute(command).await;
            self.answer_waiting();
            if published >= self.publishes_per_turn || bytes >= self.bytes_per_turn {
                // Subscribers read now, before further messages displace these from the log.
                (published, bytes) = (0, 0);
                future::yield_now().await;
            }
        }
    }

    async fn execute(&mut self, command: Command) {
        match command {
            Command::Leave(id) => self.hub.leave(id),
            Command::Publish(Publish { topic, draft, source, reply }) => {
                let published =
                    self.hub.publish(&topic, draft).inspect_err(|error| log_refusal(error));
                ring_all(&self.hub, &topic).await;
                if published.is_ok() && !topic.is_internal() {
                    self.hub.watch.counters.publish(source);
                }
                if let Some(reply) = reply {
                    reply.send(published);
                }
            }
            Command::AwaitClients(waiting) => self.waiting.push(waiting),
            Command::Do(action) => action(&mut self.hub),
        }
    }

    /// Answers the callers whose condition holds.
    fn answer_waiting(&mut self) {
        let hub = &self.hub;
        for waiting in self.waiting.extract_if(.., |waiting| waiting.is_done(hub)) {
            waiting.reply.send(());
        }
    }
}

impl Drop for HubTask {
    /// Drops the commands in the inbox, so that their senders are notified that the server has ended. The
    /// inbox itself exists as long as any handle.
    fn drop(&mut self) {
        self.commands.close();
        while self.commands.try_recv().is_ok() {}
    }
}

/// Wakes the subscribers of a topic. Yields to other tasks after each [`BELLS_PER_TURN`] of them.
async fn ring_all(hub: &Hub, topic: &TopicName) {
    let mut from = 0;
    while let Some(next) = hub.ring(topic, from, BELLS_PER_TURN) {
        from = next;
        future::yield_now().await;
    }
}

/// The number of commands in the inbox. When it is full, senders wait.
const INBOX_COMMANDS: usize = 64;
/// The number of messages published before their subscribers run.
const PUBLISHES_PER_TURN: usize = 16;
/// The number of clients woken before other tasks run.
const BELLS_PER_TURN: usize = 256;
