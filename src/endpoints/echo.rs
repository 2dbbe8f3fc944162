//! An endpoint that echoes messages.

use crate::frame::CloseReason;
use crate::ws::{Session, SessionEnd};

use super::endpoint::Endpoint;

/// An endpoint that sends every message back to its sender, as one message of the same type.
#[derive(Clone, Copy, Debug, Default)]
pub struct Echo;

impl Endpoint for Echo {
    #[allow(
        clippy::manual_async_fn,
        reason = "an async fn would reserve space for the session twice"
    )]
    fn serve(&self, mut session: Session) -> impl Future<Output = SessionEnd> {
        async move {
            loop {
                // Not `while let`, which would reserve space for the message twice.
                let Some(message) = session.next().await else { break };
                session.send(message).await;
            }
            session.close(CloseReason::NORMAL).await
        }
    }
}
