//! The stop of a server: handles to request it and to wait for it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use async_channel::{Receiver, Sender};
use pin_project_lite::pin_project;

use crate::net::Timer;

/// A handle that notifies a service when the server stops, and gives access to the server's timer.
#[derive(Clone)]
pub struct Stop {
    timer: Timer,
    /// No value is ever sent. The channel is closed when the server begins to stop.
    requested: Receiver<()>,
    stopper: Stopper,
}

impl Stop {
    pub(crate) fn new(timer: Timer, requested: Receiver<()>, stopper: Stopper) -> Self {
        Self { timer, requested, stopper }
    }

    /// Requests the stop of the server.
    pub fn request(&self) {
        self.stopper.stop();
    }

    /// Returns true if the server is stopping.
    pub(crate) fn is_requested(&self) -> bool {
        self.requested.is_closed()
    }

    /// Waits until the server begins to stop.
    ///
    /// # Cancel safety
    /// This method is cancel safe: dropping its future loses nothing.
    pub async fn requested(&self) {
        let _ = self.requested.recv().await;
    }

    /// Runs `future` to its end, or drops it and returns `None` when the server begins to stop.
    ///
    /// # Cancel safety
    /// As cancel safe as `future`.
    // Not an `async fn`, whose future would reserve space for `future` twice.
    pub fn unless_requested<F: Future>(
        &self,
        future: F,
    ) -> impl Future<Output = Option<F::Output>> + use<'_, F> {
        // Boxed, so that its code is not compiled again for each type of `future`.
        Unless { future, requested: Box::pin(self.requested()) }
    }

    /// Sleeps until `deadline`. Returns false if the server begins to stop before that.
    ///
    /// # Cancel safety
    /// This method is cancel safe: dropping its future loses nothing.
    pub async fn sleep_until(&self, deadline: Instant) -> bool {
        self.unless_requested(self.timer.sleep_until(deadline)).await.is_some()
    }

    /// Returns the server's timer.
    pub fn timer(&self) -> &Timer {
        &self.timer
    }
}

pin_project! {
    struct Unless<'s, F> {
        #[pin]
        future: F,
        requested: Pin<Box<dyn Future<Output = ()> + 's>>,
    }
}

impl<F: Future> Future for Unless<'_, F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.requested.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => this.future.poll(cx).map(Some),
        }
    }
}

/// A handle that stops a server. It can be used on any thread.
#[derive(Clone, Debug)]
pub struct Stopper {
    stop: Sender<()>,
}

impl Stopper {
    /// Returns a stopper and the receiver of its request.
    pub(crate) fn new() -> (Self, Receiver<()>) {
        let (stop, stop_requested) = async_channel::bounded(1);
        (Self { stop }, stop_requested)
    }

    /// Requests the stop of the server. Further requests have no effect.
    pub fn stop(&self) {
        let _ = self.stop.try_send(());
    }
}
