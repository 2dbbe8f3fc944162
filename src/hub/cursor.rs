//! The cursor of a client in the log of the topic that it subscribes to.
//!
//! There is no queue per client: a session sends the messages from its cursor to the end of the log. A
//! client has *lagged* if the log has dropped the message at its cursor.

use std::cell::Cell;
use std::rc::Rc;

use super::log::{Log, Read};
use super::publication::Publication;
use super::topic_name::TopicName;

/// A position in the log of one topic.
pub(super) struct Cursor {
    log: Log,
    position: Cell<u64>,
}

/// The next thing that a cursor delivers.
pub(super) enum Step {
    Message(Rc<Publication>),
    /// Messages were dropped before they were sent: this number of them, if it is known. The next message is
    /// the oldest one that is left.
    Lagged(Option<u64>),
    /// An unknown number of messages after the id that the client resumed from are no longer kept.
    Gap,
}

impl Cursor {
    /// Creates a cursor at `position`.
    pub(super) fn new(log: Log, position: u64) -> Self {
        Self { log, position: Cell::new(position) }
    }

    /// Returns the name of the topic.
    pub(super) fn topic(&self) -> &TopicName {
        self.log.topic()
    }

    /// Returns the position of the next message.
    fn position(&self) -> u64 {
        self.position.get().max(self.log.cleared_at())
    }

    /// Returns the number of messages that are still to be sent, see [`Client::behind`](super::Client::behind).
    pub(super) fn behind(&self) -> u64 {
        self.log.end().saturating_sub(self.position())
    }

    /// Returns the number of the next message; `None` if the message is not kept or not published yet.
    pub(super) fn next_number(&self) -> Option<u64> {
        self.log.number_at(self.position())
    }

    /// Takes the next step. Returns `None` at the end of the log.
    pub(super) fn next(&self) -> Option<Step> {
        let position = self.position();
        match self.log.read(position) {
            Read::Message(publication) => {
                self.position.set(position + 1);
                Some(Step::Message(publication))
            }
            Read::FellBehind { oldest } => {
                self.position.set(oldest);
                Some(Step::Lagged(Some(oldest - position)))
            }
            Read::End => None,
        }
    }
}
