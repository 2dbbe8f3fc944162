//! What runs beside the connections.

mod stdin;
mod supervision;
mod sweep;
mod timestamp;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use crate::hub::HubHandle;
use crate::net::Timer;
use async_channel::{Receiver, Sender};
use pin_project_lite::pin_project;

pub use stdin::Stdin;
pub use supervision::Supervision;
pub(crate) use sweep::Sweep;
pub use timestamp::{LocalClock, Timestamp};

/// Runs beside the connections from the server's start to its stop, and talks to them over the hub
/// (article: a hosted service).
///
/// A service that panics or returns ends; the server goes on.
#[allow(async_fn_in_trait, reason = "everything runs on one thread; no future needs to be Send")]
pub trait Service {
    /// Runs until its work is done or `stop` is requested. What still runs after the drain is dropped.
    async fn run(self: Box<Self>, hub: HubHandle, stop: Stop);
}

/// [`Service`], boxed, so that services of all types can stand in one list.
pub(crate) trait AnyService {
    fn run_boxed(self: Box<Self>, hub: HubHandle, stop: Stop) -> Pin<Box<dyn Future<Output = ()>>>;
}

impl<S: Service + 'static> AnyService for S {
    fn run_boxed(self: Box<Self>, hub: HubHandle, stop: Stop) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(self.run(hub, stop))
    }
}

/// Tells when the server stops, and the time until then.
#[derive(Clone)]
pub struct Stop {
    timer: Timer,
    /// Nothing is ever sent; its closing is the request.
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

    /// Whether the server stops.
    pub(crate) fn is_requested(&self) -> bool {
        self.requested.is_closed()
    }

    /// Completes once the server stops.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn requested(&self) {
        let _ = self.requested.recv().await;
    }

    /// Runs `future`, or gives it up when the server stops.
    ///
    /// # Cancel safety
    /// As cancel safe as `future`.
    // No `async fn`, whose future would have room for the other twice.
    pub fn unless_requested<F: Future>(
        &self,
        future: F,
    ) -> impl Future<Output = Option<F::Output>> + use<'_, F> {
        // Boxed, so that its code is there once and not with each kind of future.
        Unless { future, requested: Box::pin(self.requested()) }
    }

    /// Sleeps until `deadline`; says false if the server stops before.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn sleep_until(&self, deadline: Instant) -> bool {
        self.unless_requested(self.timer.sleep_until(deadline)).await.is_some()
    }

    /// The server's timer.
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

/// Stops a server, from any thread.
#[derive(Clone, Debug)]
pub struct Stopper {
    stop: Sender<()>,
}

impl Stopper {
    /// A stopper, and what receives its request.
    pub(crate) fn new() -> (Self, Receiver<()>) {
        let (stop, stop_requested) = async_channel::bounded(1);
        (Self { stop }, stop_requested)
    }

    /// Requests the stop; a second request changes nothing.
    pub fn stop(&self) {
        let _ = self.stop.try_send(());
    }
}
