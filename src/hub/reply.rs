//! The answer to one question, on the way from the hub to who asked.

use std::cell::Cell;
use std::rc::Rc;

use super::client::Bell;

/// Where the hub puts its answer. Dropped without one, it tells that there will be none.
pub(super) struct Reply<T>(Rc<Slot<T>>);

/// Where the answer comes.
pub(super) struct Awaited<T>(Rc<Slot<T>>);

struct Slot<T> {
    answer: Cell<Option<T>>,
    /// Rings when there is an answer, or will be none.
    bell: Bell,
}

/// Both ends for one answer.
pub(super) fn reply<T>() -> (Reply<T>, Awaited<T>) {
    let slot = Rc::new(Slot { answer: Cell::new(None), bell: Bell::default() });
    (Reply(slot.clone()), Awaited(slot))
}

impl<T> Reply<T> {
    /// Answers; whoever asked and went away misses nothing.
    pub(super) fn send(self, answer: T) {
        self.0.answer.set(Some(answer));
    }

    /// Whether nobody waits for the answer any more.
    pub(super) fn is_forgotten(&self) -> bool {
        Rc::strong_count(&self.0) == 1
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        self.0.bell.ring();
    }
}

impl<T> Awaited<T> {
    /// Waits for the answer; `None` if there will be none.
    pub(super) async fn receive(self) -> Option<T> {
        self.0.bell.ringing().await;
        self.0.answer.take()
    }
}
