//! The endpoints that serve WebSocket sessions.

use std::rc::Rc;

use crate::resource::Stage;
use crate::ws::{Session, SessionEnd};

/// Serves the WebSocket sessions at a path, each from its handshake to its end.
///
/// An endpoint runs on the server's one thread: it must not block, and it must not await anything that
/// only another runtime wakes. A panic ends its own session and no other.
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
    /// Serves one session and returns how it ended, as [`Session::close`] does.
    async fn serve(&self, session: Session) -> SessionEnd;
}

impl<F: AsyncFn(Session) -> SessionEnd> Endpoint for F {
    async fn serve(&self, session: Session) -> SessionEnd {
        self(session).await
    }
}

/// An [`Endpoint`] of any type.
pub(crate) trait AnyEndpoint {
    fn begin(self: Rc<Self>, session: Session) -> Stage;
}

impl<E: Endpoint + 'static> AnyEndpoint for E {
    fn begin(self: Rc<Self>, session: Session) -> Stage {
        Stage::last(session.served_by(move |session| async move { self.serve(session).await }))
    }
}
