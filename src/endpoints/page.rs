//! The resource at one path: an embedded file, a WebSocket endpoint, or both.

use std::rc::Rc;

use crate::access::{Action, Gatekeeper, Refused};
use crate::http::accept::accepts;
use crate::http::{Asset, RequestHead, Response};
use crate::hub::{Start, Subscription, TopicName};
use crate::resource::{Plan, Resource};
use crate::ws::SessionShared;
use crate::ws::handshake::{self, HandshakeError};

use super::endpoint::AnyEndpoint;
use super::websocket::WebSocketUpgrade;

/// An embedded file, a WebSocket endpoint, or both, at one path. It becomes a resource when the server
/// starts.
pub(crate) struct Page {
    pub(crate) path: Rc<String>,
    pub(crate) asset: Option<Asset>,
    pub(crate) endpoint: Option<Rc<dyn AnyEndpoint>>,
}

/// A [`Page`] of a running server.
pub(crate) struct ServedPage {
    page: Page,
    shared: Rc<SessionShared>,
}

impl Page {
    /// Converts the page into a resource.
    pub(crate) fn served(self, shared: Rc<SessionShared>) -> ServedPage {
        ServedPage { page: self, shared }
    }
}

impl Resource for ServedPage {
    fn plan(
        &self,
        head: &RequestHead<'_>,
        gatekeeper: &Gatekeeper<'_>,
    ) -> Result<Option<Plan>, Refused> {
        let Page { path, asset, endpoint } = &self.page;
        if **path != head.path() {
            return Ok(None);
        }
        match head.wants_websocket() {
            true => gatekeeper.may(Action::Connect(path))?,
            false => gatekeeper.may_load(path)?,
        }
        if head.method() != "GET" && !(head.method() == "HEAD" && asset.is_some()) {
            let methods = if asset.is_some() { "GET, HEAD" } else { "GET" };
            return Err(Response::other_method(head.method(), methods).into());
        }
        match (endpoint, asset) {
            (Some(endpoint), _) if head.wants_websocket() => self.connect(head, endpoint).map(Some),
            (_, Some(asset)) if accepts(head, asset.content_type) => {
                Ok(Some(Plan::Answer(asset.response().depending_on_accept().into())))
            }
            (_, Some(_)) => Err(Response::not_found().into()),
            (_, None) => Err(upgrade_required().into()),
        }
    }
}

impl ServedPage {
    /// Plans a session with the endpoint. The client subscribes to the topic `broadcast`.
    fn connect(
        &self,
        head: &RequestHead<'_>,
        endpoint: &Rc<dyn AnyEndpoint>,
    ) -> Result<Plan, Refused> {
        let accept = handshake::accept(head).map_err(HandshakeError::response)?;
        let endpoint = endpoint.clone();
        Ok(Plan::Upgrade(Box::new(WebSocketUpgrade {
            accept,
            path: Some(self.page.path.clone()),
            subscription: Some(Subscription::to(TopicName::broadcast(), Start::Live)),
            shared: self.shared.clone(),
            begin: Box::new(|session| endpoint.begin(session)),
        })))
    }
}

/// Returns the response to a plain request for a WebSocket endpoint (RFC 9110 §15.5.22).
fn upgrade_required() -> Response {
    Response::text(426, "this is a WebSocket endpoint\n")
        .with_header("Upgrade", "websocket")
        .with_header("Connection", "Upgrade")
}
