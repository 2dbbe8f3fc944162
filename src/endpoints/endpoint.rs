//! The trait of WebSocket endpoints.

use std::rc::Rc;

use crate::resource::Stage;
use crate::ws::{Session, SessionEnd};

/// A handler of the WebSocket sessions at a path, each from its handshake to its end.
///
/// An endpoint runs on the server's only thread. It must not block, and it must not await a future that
/// needs another runtime. If it panics, only the session that it serves is closed.
///
/// A closure can be an endpoint, as [`Server`](crate::Server) shows.
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
    /// Serves one session. Returns the way in which the session ended, as [`Session::close`] does.
    async fn serve(&self, session: Session) -> SessionEnd;
}

impl<F: AsyncFn(Session) -> SessionEnd> Endpoint for F {
    async fn serve(&self, session: Session) -> SessionEnd {
        self(session).await
    }
}

/// An [`Endpoint`] behind a pointer, so that endpoints of different types fit into one list.
pub(crate) trait AnyEndpoint {
    /// Returns the last stage of a connection, which serves `session`.
    fn begin(self: Rc<Self>, session: Session) -> Stage;
}

impl<E: Endpoint + 'static> AnyEndpoint for E {
    fn begin(self: Rc<Self>, session: Session) -> Stage {
        Stage::last(session.served_by(move |session| async move { self.serve(session).await }))
    }
}
