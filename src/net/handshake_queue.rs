//! The queue of TLS handshakes, which limits their work in one turn of the event loop.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

/// Admits at most [`STEPS_PER_TURN`] steps of TLS handshakes in each turn. Further steps wait for a later
/// turn, in the order in which they asked.
///
/// A step is what a server does with the bytes of one read. Only one step of a handshake is expensive: the
/// one that signs. Every step counts, because which one it is depends on the bytes, which the peer chooses.
#[derive(Default)]
pub(super) struct HandshakeQueue {
    /// The number of steps admitted in this turn.
    admitted: Cell<usize>,
    /// The sources whose steps wait, each as the data of its events.
    waiting: RefCell<VecDeque<u64>>,
}

impl HandshakeQueue {
    /// Admits a step in this turn and returns true, or returns false and puts `source` into the queue.
    pub(super) fn admit_or_wait(&self, source: u64) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        let is_admitted = waiting.is_empty() && self.admitted.get() < STEPS_PER_TURN;
        match is_admitted {
            true => self.count(),
            false => waiting.push_back(source),
        }
        is_admitted
    }

    /// Begins a turn, in which no step is admitted yet.
    pub(super) fn begin_turn(&self) {
        self.admitted.set(0);
    }

    /// Removes the source that has waited longest from the queue, if another step may be admitted in this
    /// turn. The caller admits the step of that source and [counts](Self::count) it.
    pub(super) fn next(&self) -> Option<u64> {
        if self.admitted.get() >= STEPS_PER_TURN {
            return None;
        }
        let mut waiting = self.waiting.borrow_mut();
        let source = waiting.pop_front()?;
        if waiting.is_empty() {
            // Frees the memory that many handshakes may have needed.
            *waiting = VecDeque::new();
        }
        Some(source)
    }

    /// Counts a step that is admitted in this turn.
    pub(super) fn count(&self) {
        self.admitted.set(self.admitted.get() + 1);
    }

    /// Returns true if no step waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.borrow().is_empty()
    }
}

/// The maximum number of steps in one turn. A signature with RSA-4096 takes some milliseconds, on small hosts
/// some dozens, for which all other clients wait.
const STEPS_PER_TURN: usize = 2;
