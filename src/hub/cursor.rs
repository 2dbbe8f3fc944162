//! The cursors of a client in the logs of the topics that it subscribes to.
//!
//! No queue is kept for a client: a session sends from its cursors to the ends of the logs. A client
//! whose cursor falls off the beginning of a log has *lagged*.

use std::cell::Cell;
use std::rc::Rc;

use super::log::{Log, Read};
use super::publication::Publication;
use super::topic_name::TopicName;

/// The cursors of one client. A client of one topic, which most clients are, needs no allocation for it.
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

/// What a cursor delivers next.
pub(super) enum Step {
    Message(Rc<Publication>),
    /// So many messages fell off the log before they were sent; the next one is the oldest kept.
    Lagged(u64),
}

impl Cursors {
    /// The cursors as a slice.
    pub(super) fn as_slice(&self) -> &[Cursor] {
        match self {
            Self::None => &[],
            Self::One(cursor) => std::slice::from_ref(cursor),
            Self::Many(cursors) => cursors,
        }
    }

    /// Takes the next step: the message of the lowest number, unless a log has lost one.
    pub(super) fn next(&self) -> Option<Step> {
        match self {
            Self::None => None,
            Self::One(cursor) => cursor.next(),
            Self::Many(cursors) => {
                let waiting = cursors.iter().filter(|cursor| !cursor.is_at_end());
                // `None` comes first: the message of that cursor has fallen off its log.
                waiting.min_by_key(|cursor| cursor.next_number())?.next()
            }
        }
    }

    /// The number of messages that are still to be sent.
    pub(super) fn behind(&self) -> u64 {
        let behind = |cursor: &Cursor| cursor.log.end().saturating_sub(cursor.position.get());
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
    /// A cursor at `position`.
    pub(super) fn new(log: Log, position: u64) -> Self {
        Self { log, position: Cell::new(position) }
    }

    /// The topic whose messages it reads.
    pub(super) fn topic(&self) -> &TopicName {
        self.log.topic()
    }

    /// Returns true if nothing is to be sent.
    fn is_at_end(&self) -> bool {
        self.position.get() == self.log.end()
    }

    /// The number of the next message; `None` if it is not kept, or not published yet.
    pub(super) fn next_number(&self) -> Option<u64> {
        self.log.number_at(self.position.get())
    }

    pub(super) fn next(&self) -> Option<Step> {
        let position = self.position.get();
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
