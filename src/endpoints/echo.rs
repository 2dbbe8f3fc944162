//! Every message back to its sender (article).

use crate::frame::CloseReason;
use crate::ws::{Session, SessionEnd};

use super::endpoint::Endpoint;

/// Sends every message back to its sender, whole and as the type it came.
#[derive(Clone, Copy, Debug, Default)]
pub struct Echo;

impl Endpoint for Echo {
    #[allow(clippy::manual_async_fn, reason = "it would have room for the session twice")]
    fn serve(&self, mut session: Session) -> impl Future<Output = SessionEnd> {
        async move {
            loop {
                // No `while let`, which would have room for the message twice.
                let Some(message) = session.next().await else { break };
                session.send(message).await;
            }
            session.close(CloseReason::NORMAL).await
        }
    }
}
