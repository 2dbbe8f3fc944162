//! Every message back to its sender (article).

use crate::endpoints::Endpoint;
use crate::ws::{CloseReason, Session, SessionEnd};

/// Sends every message back to its sender, whole and as the type it came.
#[derive(Clone, Copy, Debug, Default)]
pub struct Echo;

impl Endpoint for Echo {
    async fn serve(&self, mut session: Session) -> SessionEnd {
        while let Some(message) = session.next().await {
            session.send(message).await;
        }
        session.close(CloseReason::NORMAL).await
    }
}
