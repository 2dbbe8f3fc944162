//! Every message back to its sender (article).

use crate::endpoints::Endpoint;
use crate::ws::{CloseReason, Session, SessionEnd};

/// Sends every message back to its sender, whole and as the type it came.
#[derive(Clone, Copy, Debug, Default)]
pub struct Echo;

impl Endpoint for Echo {
    // No `async fn` and no `while let`, which would have room for the session and the message twice.
    fn serve(&self, mut session: Session) -> impl Future<Output = SessionEnd> {
        async move {
            loop {
                let Some(message) = session.next().await else { break };
                session.send(message).await;
            }
            session.close(CloseReason::NORMAL).await
        }
    }
}
