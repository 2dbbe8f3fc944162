//! What stands at a path.

mod echo;
pub(crate) mod events;
pub(crate) mod topic;

use std::future::Future;
use std::pin::Pin;

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
    fn serve_boxed(&self, session: Session) -> Pin<Box<dyn Future<Output = SessionEnd> + '_>>;
}

impl<E: Endpoint> AnyEndpoint for E {
    fn serve_boxed(&self, session: Session) -> Pin<Box<dyn Future<Output = SessionEnd> + '_>> {
        Box::pin(self.serve(session))
    }
}
