//! The commands in the hub's inbox.

use crate::counters::Source;

use super::notify::Reply;
use super::publication::Draft;
use super::topic_name::TopicName;
use super::topics::TooManyTopics;
use super::{ClientId, Hub, Published};

/// A command for the hub.
pub(super) enum Command {
    Leave(ClientId),
    Publish(Publish),
    AwaitClients(AwaitClients),
    /// Any action of the hub that does not wait. A closure instead of one variant per action, so that actions
    /// that a build never uses are not compiled in.
    Do(Box<dyn FnOnce(&mut Hub)>),
}

/// A message to publish.
pub(super) struct Publish {
    pub(super) topic: TopicName,
    pub(super) draft: Draft,
    pub(super) source: Source,
    /// Receives the result; `None` if the publisher does not wait for it.
    pub(super) reply: Option<Reply<Result<Published, TooManyTopics>>>,
}

/// A caller that waits until there is a client, or until there is none.
pub(super) struct AwaitClients {
    /// The topic whose subscribers count; `None` counts all clients.
    pub(super) topic: Option<TopicName>,
    /// True to wait until there is a client, false to wait until there is none.
    pub(super) wants_any: bool,
    /// Receives the answer when the condition holds.
    pub(super) reply: Reply<()>,
}

impl AwaitClients {
    /// Returns true if the condition holds, or if the caller has stopped waiting.
    pub(super) fn is_done(&self, hub: &Hub) -> bool {
        let all = || hub.client_counts().clients;
        let count = self.topic.as_ref().map_or_else(all, |topic| hub.subscribers(topic));
        self.wants_any == (count > 0) || self.reply.is_abandoned()
    }
}
