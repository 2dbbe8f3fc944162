//! The subscriptions of a client, and its place in each of them.

use std::rc::Rc;

use crate::config::Topics;
use crate::features::Feature;

use super::cursor::{Cursor, Step};
use super::filter::Filter;
use super::ids::EventId;
use super::log::Start;
use super::merge::{Merge, Source};
use super::topic_name::TopicName;

/// The topics that a client subscribes to, and where it begins in all of them.
#[derive(Clone, Debug)]
pub(crate) struct Subscription {
    /// Different filters.
    pub(crate) filters: Vec<Filter>,
    pub(crate) start: Start,
}

impl Subscription {
    /// Returns the subscription of a client without topics.
    pub(crate) fn none() -> Self {
        Self { filters: Vec::new(), start: Start::Live }
    }

    /// Returns the subscription to one topic.
    pub(crate) fn to(topic: TopicName, start: Start) -> Self {
        Self { filters: vec![topic.into()], start }
    }

    /// Returns the topic, if the subscription is to one topic.
    pub(crate) fn topic(&self) -> Option<&TopicName> {
        match &self.filters[..] {
            [Filter::Topic(topic)] => Some(topic),
            _ => None,
        }
    }
}

/// The cursors of one client. Most clients subscribe to one topic; their cursor needs no allocation.
pub(super) enum Cursors {
    None,
    One(Cursor),
    Many(Box<Merge>),
}

impl Cursors {
    /// Creates the cursors of a client that begins at `start`. Also returns true if messages that the client
    /// requests are no longer kept. `newest` is the id of the message that was published last.
    pub(super) fn new(
        mut sources: Vec<Source>,
        start: Start,
        newest: EventId,
        limits: &Rc<Topics>,
    ) -> (Self, bool) {
        match sources.pop() {
            Some(Source::Topic(log)) if sources.is_empty() => {
                let (position, has_gap) = log.start(start, newest, limits);
                (Self::One(Cursor::new(log, position)), has_gap)
            }
            Some(source) if Feature::Full.is_built_in() => {
                sources.push(source);
                let (merge, has_gap) = Merge::new(sources, start, newest, limits.clone());
                (Self::Many(Box::new(merge)), has_gap)
            }
            _ => (Self::None, false),
        }
    }

    /// Returns the filters of the subscriptions.
    pub(super) fn filters(&self) -> impl Iterator<Item = Filter> {
        let (one, many) = match self {
            Self::None => (None, None),
            Self::One(cursor) => (Some(cursor.topic().clone().into()), None),
            Self::Many(merge) => (None, merge.if_built_in()),
        };
        one.into_iter().chain(many.into_iter().flat_map(Merge::filters))
    }

    /// Takes the next step: a notice that messages were missed, or else the waiting message with the lowest
    /// number.
    pub(super) fn next(&self) -> Option<Step> {
        match self {
            Self::None => None,
            Self::One(cursor) => cursor.next(),
            Self::Many(merge) => merge.if_built_in()?.next(),
        }
    }

    /// Returns the number of the next message; `None` if the message is not kept or not published yet.
    pub(super) fn next_number(&self) -> Option<u64> {
        match self {
            Self::None => None,
            Self::One(cursor) => cursor.next_number(),
            Self::Many(merge) => merge.if_built_in()?.next_number(),
        }
    }

    /// Returns true if nothing is to be sent.
    pub(super) fn is_at_end(&self) -> bool {
        match self {
            Self::None => true,
            Self::One(cursor) => cursor.behind() == 0,
            Self::Many(merge) => merge.if_built_in().is_none_or(Merge::is_at_end),
        }
    }

    /// Returns the number of messages that are still to be sent, including those that were dropped from a
    /// log, without those that were withdrawn.
    pub(super) fn behind(&self) -> u64 {
        match self {
            Self::None => 0,
            Self::One(cursor) => cursor.behind(),
            Self::Many(merge) => merge.if_built_in().map_or(0, Merge::behind),
        }
    }
}
