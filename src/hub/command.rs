//! The commands that the hub task executes.

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
    AwaitAudience(AwaitAudience),
    /// Everything that the hub does at once. A closure instead of one variant per query, so that
    /// queries which a build never makes are not compiled in.
    Do(Box<dyn FnOnce(&mut Hub)>),
}

/// A message to publish.
pub(super) struct Publish {
    pub(super) topic: TopicName,
    pub(super) draft: Draft,
    pub(super) source: Source,
    /// Where the result goes; `None` if the publisher does not wait for it.
    pub(super) reply: Option<Reply<Result<Published, TooManyTopics>>>,
}

/// A caller that waits until clients are there, or until none is.
pub(super) struct AwaitAudience {
    /// The topic whose subscribers count; `None` counts all clients.
    pub(super) topic: Option<TopicName>,
    /// Whether there shall be clients, or none.
    pub(super) wants_any: bool,
    pub(super) reply: Reply<()>,
}

impl AwaitAudience {
    /// Returns true if the hub is as awaited, or if the caller has stopped waiting.
    pub(super) fn is_over(&self, hub: &Hub) -> bool {
        let all = || hub.client_counts().clients;
        let audience = self.topic.as_ref().map_or_else(all, |topic| hub.subscribers(topic));
        self.wants_any == (audience > 0) || self.reply.is_abandoned()
    }
}
