//! The cursors of a client in the logs of the topics that it subscribes to.
//!
//! There is no queue per client: a session sends the messages from its cursors to the ends of the logs. A
//! client has *lagged* if the log has dropped the message at its cursor.

use std::cell::Cell;
use std::rc::Rc;

use super::log::{Log, Read};
use super::publication::Publication;
use super::topic_name::TopicName;

/// The cursors of one client. Most clients subscribe to one topic; their cursor needs no allocation.
pub(super) enum Cursors {
    None,
    One(Cursor),
    Many(Box<[Cursor]>),
}

/// A position in the log of one topic.
pub(super) struct Cursor {
    log: Log,
    position: Cell<u64>,
}

/// The next thing that a cursor delivers.
pub(super) enum Step {
    Message(Rc<Publication>),
    /// This number of messages were dropped from the log before they were sent. The next message is the
    /// oldest one that the log keeps.
    Lagged(u64),
}

impl Cursors {
    /// Returns the cursors as a slice.
    pub(super) fn as_slice(&self) -> &[Cursor] {
        match self {
            Self::None => &[],
            Self::One(cursor) => std::slice::from_ref(cursor),
            Self::Many(cursors) => cursors,
        }
    }

    /// Takes the next step: a notice that messages were missed, or else the waiting message with the lowest
    /// number.
    pub(super) fn next(&self) -> Option<Step> {
        match self {
            Self::None => None,
            Self::One(cursor) => cursor.next(),
            Self::Many(cursors) => {
                let waiting = cursors.iter().filter(|cursor| !cursor.is_at_end());
                // `None` sorts before all numbers: the message at that cursor was dropped from its log.
                waiting.min_by_key(|cursor| cursor.next_number())?.next()
            }
        }
    }

    /// Returns the number of messages that are still to be sent, including those that were dropped from a
    /// log, without those that were withdrawn.
    pub(super) fn behind(&self) -> u64 {
        let behind = |cursor: &Cursor| cursor.log.end().saturating_sub(cursor.position());
        self.as_slice().iter().map(behind).sum()
    }
}

impl FromIterator<Cursor> for Cursors {
    fn from_iter<I: IntoIterator<Item = Cursor>>(cursors: I) -> Self {
        let mut cursors: Vec<Cursor> = cursors.into_iter().collect();
        match cursors.len() {
            0 => Self::None,
            1 => cursors.pop().map_or(Self::None, Self::One),
            _ => Self::Many(cursors.into()),
        }
    }
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

    /// Returns true if there is nothing to send.
    fn is_at_end(&self) -> bool {
        self.position() == self.log.end()
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
                Some(Step::Lagged(oldest - position))
            }
            Read::End => None,
        }
    }
}
