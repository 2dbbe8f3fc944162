//! Notifications from one task to another: a bell, which can ring many times, and a reply, which is sent
//! once.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// A notification for one task: a flag, which says that the task may have something to do, and the waker of
/// the task.
#[derive(Default)]
pub(crate) struct Bell {
    rung: Cell<bool>,
    listener: Cell<Option<Waker>>,
}

impl Bell {
    /// Sets the flag and wakes the task that listens.
    pub(crate) fn ring(&self) {
        self.rung.set(true);
        if let Some(listener) = self.listener.take() {
            listener.wake();
        }
    }

    /// Returns true if the bell has rung since the flag was cleared.
    pub(crate) fn is_rung(&self) -> bool {
        self.rung.get()
    }

    /// Clears the flag. The task calls this when it has nothing more to do.
    pub(crate) fn clear(&self) {
        self.rung.set(false);
    }

    /// Waits for a ring and clears the flag.
    ///
    /// # Cancel safety
    /// If the future is dropped early, no ring is lost.
    pub(crate) async fn ringing(&self) {
        poll_fn(|cx| {
            self.listen(cx);
            if self.rung.take() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Registers the task of `cx`, which the next ring wakes. Replaces an earlier task.
    pub(crate) fn listen(&self, cx: &mut Context<'_>) {
        let listener = match self.listener.take() {
            Some(listener) if listener.will_wake(cx.waker()) => listener,
            _ => cx.waker().clone(),
        };
        self.listener.set(Some(listener));
    }
}

/// The hub's end of a reply. If it is dropped without an answer, the caller is notified that there will be no
/// answer.
pub(super) struct Reply<T>(Rc<Slot<T>>);

/// The caller's end of a reply.
pub(super) struct AwaitedReply<T>(Rc<Slot<T>>);

/// The state that both ends share.
struct Slot<T> {
    answer: Cell<Option<T>>,
    /// Rings when there is an answer, and when there will be none.
    bell: Bell,
}

/// Creates both ends of a reply.
pub(super) fn reply<T>() -> (Reply<T>, AwaitedReply<T>) {
    let slot = Rc::new(Slot { answer: Cell::new(None), bell: Bell::default() });
    (Reply(slot.clone()), AwaitedReply(slot))
}

impl<T> Reply<T> {
    /// Sends the answer. If the caller has stopped waiting, the answer is dropped.
    pub(super) fn send(self, answer: T) {
        self.0.answer.set(Some(answer));
    }

    /// Returns true if the caller has stopped waiting.
    pub(super) fn is_abandoned(&self) -> bool {
        Rc::strong_count(&self.0) == 1
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        self.0.bell.ring();
    }
}

impl<T: 'static> AwaitedReply<T> {
    /// Returns the part of the reply that does not depend on the type of the answer.
    pub(super) fn arrival(&self) -> Rc<dyn Arrival> {
        self.0.clone()
    }

    /// Takes the answer. Returns `None` if there is none.
    pub(super) fn take(&self) -> Option<T> {
        self.0.answer.take()
    }
}

/// The arrival of an answer of any type.
pub(super) trait Arrival {
    /// Rings when there is an answer, and when there will be none.
    fn bell(&self) -> &Bell;
}

impl<T> Arrival for Slot<T> {
    fn bell(&self) -> &Bell {
        &self.bell
    }
}
