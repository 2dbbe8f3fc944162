//! How one task notifies another: a bell that can ring again and again, and a reply that comes once.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Notifies one task: a flag that says there is something to look at, and the waker of the task that
/// listens.
#[derive(Default)]
pub(crate) struct Bell {
    rung: Cell<bool>,
    listener: Cell<Option<Waker>>,
}

impl Bell {
    /// Sets the flag and wakes the listener.
    pub(crate) fn ring(&self) {
        self.rung.set(true);
        if let Some(listener) = self.listener.take() {
            listener.wake();
        }
    }

    /// Returns true if the bell rang since the last [`Self::hush`].
    pub(crate) fn is_rung(&self) -> bool {
        self.rung.get()
    }

    /// Clears the flag, once there is nothing more to look at.
    pub(crate) fn hush(&self) {
        self.rung.set(false);
    }

    /// Waits for a ring and clears the flag.
    ///
    /// # Cancel safety
    /// A ring that was not waited for is not lost.
    pub(crate) async fn ringing(&self) {
        poll_fn(|cx| {
            self.listen(cx);
            if self.rung.take() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Has the next ring wake `cx`.
    pub(crate) fn listen(&self, cx: &mut Context<'_>) {
        let listener = match self.listener.take() {
            Some(listener) if listener.will_wake(cx.waker()) => listener,
            _ => cx.waker().clone(),
        };
        self.listener.set(Some(listener));
    }
}

/// The end of a reply that the hub answers through. Dropping it without an answer tells the asker that
/// there will be none.
pub(super) struct Reply<T>(Rc<Slot<T>>);

/// The end of a reply that the asker waits on.
pub(super) struct AwaitedReply<T>(Rc<Slot<T>>);

struct Slot<T> {
    answer: Cell<Option<T>>,
    /// Rings when there is an answer, and when there will be none.
    bell: Bell,
}

/// Makes both ends of one reply.
pub(super) fn reply<T>() -> (Reply<T>, AwaitedReply<T>) {
    let slot = Rc::new(Slot { answer: Cell::new(None), bell: Bell::default() });
    (Reply(slot.clone()), AwaitedReply(slot))
}

impl<T> Reply<T> {
    /// Sends the answer. If the asker has been dropped, the answer is dropped, too.
    pub(super) fn send(self, answer: T) {
        self.0.answer.set(Some(answer));
    }

    /// Returns true if the asker has been dropped.
    pub(super) fn is_abandoned(&self) -> bool {
        Rc::strong_count(&self.0) == 1
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        self.0.bell.ring();
    }
}

impl<T> AwaitedReply<T> {
    /// Waits for the answer. Returns `None` if there will be none.
    pub(super) async fn receive(self) -> Option<T> {
        self.0.bell.ringing().await;
        self.0.answer.take()
    }
}
