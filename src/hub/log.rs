//! A bounded log of frames, and cursors into it.
//!
//! Nothing is queued for a client: a session sends from its cursor to the end. Whose cursor falls off
//! the log's beginning has lagged.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use crate::ws::frame::Frame;

use super::client::Client;

/// The newest frames, numbered in the order they came.
#[derive(Default)]
pub(super) struct Log {
    entries: Rc<RefCell<Entries>>,
}

#[derive(Default)]
struct Entries {
    frames: VecDeque<Frame>,
    /// The number of the oldest frame kept.
    first: u64,
    bytes: usize,
}

impl Log {
    /// Appends a frame; the oldest fall off to keep to the log's capacity.
    pub(super) fn append(&self, frame: Frame) {
        let mut entries = self.entries.borrow_mut();
        entries.bytes += frame.len();
        entries.frames.push_back(frame);
        while entries.frames.len() > 1
            && (entries.frames.len() > LOG_FRAMES || entries.bytes > LOG_BYTES)
        {
            entries.bytes -= entries.frames.pop_front().map_or(0, |frame| frame.len());
            entries.first += 1;
        }
    }
}

impl Entries {
    fn end(&self) -> u64 {
        self.first + self.frames.len() as u64
    }
}

/// What a session has of the hub: its record, and a cursor in the log.
pub(crate) struct Subscription {
    pub(crate) client: Rc<Client>,
    entries: Rc<RefCell<Entries>>,
    cursor: u64,
}

/// The next thing to send.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// A frame.
    Frame(Frame),
    /// That many frames fell off the log before they were sent; the next is the oldest kept.
    Lagged(u64),
}

impl Subscription {
    /// A cursor at the end of `log`.
    pub(super) fn new(log: &Log, client: Rc<Client>) -> Self {
        let cursor = log.entries.borrow().end();
        Self { client, entries: log.entries.clone(), cursor }
    }

    /// Takes what is next for this client: its mail first, then the log.
    pub(crate) fn next(&mut self) -> Option<Delivery> {
        if let Some(frame) = self.client.take_mail() {
            return Some(Delivery::Frame(frame));
        }
        let entries = self.entries.borrow();
        if self.cursor < entries.first {
            let lost = entries.first - self.cursor;
            self.cursor = entries.first;
            return Some(Delivery::Lagged(lost));
        }
        let frame = entries.frames.get((self.cursor - entries.first) as usize)?;
        self.cursor += 1;
        Some(Delivery::Frame(frame.clone()))
    }
}

/// How many frames the log keeps for those who read slowly: a burst, not a history.
const LOG_FRAMES: usize = 64;
/// How many bytes they may have together; the newest frame is kept whatever its size.
const LOG_BYTES: usize = 256 * 1024;
