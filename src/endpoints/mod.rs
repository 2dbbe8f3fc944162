//! What stands at a path.

mod echo;
pub(crate) mod events;
pub(crate) mod topic;

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use crate::ws::{Session, SessionEnd};

pub use echo::Echo;

/// Serves the WebSocket sessions at a path, each from its handshake to its end.
///
/// An endpoint runs on the server's one thread: it must not block, and what it awaits must not be
/// something only another runtime can wake for. A panic ends its own session and no other.
///
/// A closure is an endpoint too, as [`Server`](crate::Server) shows.
///
/// ```
/// use falconet::{CloseReason, Endpoint, Server, Session, SessionEnd};
///
/// struct Count;
///
/// impl Endpoint for Count {
///     async fn serve(&self, mut session: Session) -> SessionEnd {
///         for count in 1.. {
///             let Some(_) = session.next().await else { break };
///             session.send(format!("{count} so far")).await;
///         }
///         session.close(CloseReason::NORMAL).await
///     }
/// }
///
/// let server = Server::builder().endpoint("/count", Count);
/// # drop(server);
/// ```
#[allow(async_fn_in_trait, reason = "everything runs on one thread; no future needs to be Send")]
pub trait Endpoint {
    /// Serves one session and says how it ended, as [`Session::close`] does.
    async fn serve(&self, session: Session) -> SessionEnd;
}

impl<F: AsyncFn(Session) -> SessionEnd> Endpoint for F {
    async fn serve(&self, session: Session) -> SessionEnd {
        self(session).await
    }
}

/// [`Endpoint`], boxed, so that endpoints of all types can stand in one table.
pub(crate) trait AnyEndpoint {
    fn begin(self: Rc<Self>, session: Session) -> Stage;
}

impl<E: Endpoint + 'static> AnyEndpoint for E {
    fn begin(self: Rc<Self>, session: Session) -> Stage {
        Stage::last(session.served_by(move |session| async move { self.serve(session).await }))
    }
}

/// A connection from here on: its opening, or what it does then. What one stage needed is gone when the
/// next begins.
pub(crate) struct Stage(Pin<Box<dyn Future<Output = Option<Stage>>>>);

impl Stage {
    /// A stage that says what comes next.
    pub(crate) fn new(stage: impl Future<Output = Option<Self>> + 'static) -> Self {
        Self(Box::pin(stage))
    }

    /// A stage after which all is done.
    pub(crate) fn last(stage: impl Future<Output = ()> + 'static) -> Self {
        Self::new(Last { stage })
    }
}

pin_project! {
    /// A stage after which all is done. No `async` block, which would have room for the stage twice.
    struct Last<S> {
        #[pin]
        stage: S,
    }
}

impl<S: Future<Output = ()>> Future for Last<S> {
    type Output = Option<Stage>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Stage>> {
        self.project().stage.poll(cx).map(|()| None)
    }
}

impl Future for Stage {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(next) = ready!(self.0.as_mut().poll(cx)) {
            *self = next;
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests;
