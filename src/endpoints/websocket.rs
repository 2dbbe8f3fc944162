//! The upgrade of a request to a WebSocket session.

use std::rc::Rc;

use crate::features::Feature;
use crate::hub::{ClientKind, Subscription};
use crate::resource::{Joining, Stage, Upgrade, Upgraded, Welcome};
use crate::ws::handshake::{self, Acceptance};
use crate::ws::{Session, SessionShared};

/// An upgrade to a WebSocket session.
pub(super) struct WebSocketUpgrade {
    pub(super) accept: Acceptance,
    /// The requested path; `None` stands for the path of the only filter.
    pub(super) path: Option<Rc<String>>,
    /// `None` for a client that only publishes.
    pub(super) subscription: Option<Subscription>,
    pub(super) shared: Rc<SessionShared>,
    /// Returns the stage that serves the session.
    pub(super) begin: Box<dyn FnOnce(Session) -> Stage>,
}

impl Upgrade for WebSocketUpgrade {
    fn joining(&self) -> Joining {
        let subscription = self.subscription.clone().unwrap_or_else(Subscription::none);
        Joining { kind: ClientKind::WebSocket, path: self.path.clone(), subscription }
    }

    fn status(&self) -> u16 {
        101
    }

    fn response(&self, welcome: &Welcome<'_>) -> Vec<u8> {
        let Welcome { correlation, request_id, before, .. } = *welcome;
        let before = (Feature::Full.is_built_in() && self.subscription.is_some()).then_some(before);
        handshake::response(&self.accept, correlation, request_id, before).into_bytes()
    }

    fn begin(self: Box<Self>, connection: Upgraded) -> Stage {
        let Upgraded { transport, early, membership, permit } = connection;
        (self.begin)(Session::begin(transport, early, permit, membership, self.shared))
    }
}
