//! What follows a request that wants more than a response.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use crate::config::Reject;
use crate::endpoints::AnyEndpoint;
use crate::endpoints::events::{self, EventStream};
use crate::endpoints::topic;
use crate::http::Response;
use crate::http::response::Envelope;
use crate::hub::{
    ClientId, CorrelationId, Membership, PublishError, Start, Subscription, TopicName,
};
use crate::net::Transport;
use crate::ws::handshake::{self, Acceptance};
use crate::ws::{Session, SessionEnd};

use super::reader::Reader;
use super::request::Request;
use super::{Context, refuse, write_all};

/// What a request opens, and what the client will hear.
pub(super) struct Opening {
    hears: Option<(TopicName, Start)>,
    protocol: Protocol,
}

enum Protocol {
    /// WebSocket, after a response that accepts it.
    WebSocket { accept: Acceptance, partner: Partner },
    /// Server-sent events.
    Events,
}

/// Whom a WebSocket client talks with.
enum Partner {
    Endpoint(Rc<dyn AnyEndpoint>),
    Topic { topic: TopicName, may_publish: bool },
}

/// What takes a connection over.
pub(super) enum Takeover {
    /// A session with an endpoint.
    Endpoint(Session, Rc<dyn AnyEndpoint>),
    /// What is with a topic.
    Topic(Pin<Box<dyn Future<Output = SessionEnd>>>),
}

/// What the log calls a client, also when it is gone.
pub(super) struct Name {
    pub(super) client: ClientId,
    pub(super) correlation: CorrelationId,
}

impl Opening {
    /// Opens a session with an endpoint.
    pub(super) fn of_endpoint(accept: Acceptance, endpoint: Rc<dyn AnyEndpoint>) -> Self {
        let partner = Partner::Endpoint(endpoint);
        let hears = Some((TopicName::broadcast(), Start::Live));
        Self { hears, protocol: Protocol::WebSocket { accept, partner } }
    }

    /// Opens a session with a topic; without `start` the client hears nothing.
    pub(super) fn of_topic(
        accept: Acceptance,
        topic: TopicName,
        start: Option<Start>,
        may_publish: bool,
    ) -> Self {
        let hears = start.map(|start| (topic.clone(), start));
        let partner = Partner::Topic { topic, may_publish };
        Self { hears, protocol: Protocol::WebSocket { accept, partner } }
    }

    /// Opens a stream of a topic's messages.
    pub(super) fn of_events(topic: TopicName, start: Start) -> Self {
        Self { hears: Some((topic, start)), protocol: Protocol::Events }
    }

    /// Makes a client of whoever sent the request, whose head ends at `head_end`, and says so; `None`
    /// if that can't be.
    pub(super) async fn open(
        self,
        reader: Reader,
        head_end: usize,
        request: &Request,
        context: &Context,
    ) -> Option<(Name, Takeover)> {
        let correlation = request.correlation.clone();
        let correlation = correlation.unwrap_or_else(|| context.correlations.client_id());
        let now = reader.transport().timer().now();
        // First, so that nothing is missed that is published once the client knows it is heard.
        let joined = match context.hub.join(correlation.clone(), self.hears, now).await {
            Ok(joined) => joined,
            Err(PublishError::HubGone) => return None,
            Err(PublishError::TooManyTopics(error)) => {
                let response = Response::text(503, format!("{error}\n"));
                let drops = context.config.reject == Reject::Drop;
                request.log(response.status(), if drops { "dropped" } else { "answered" });
                let envelope = Envelope { close: true, ..request.envelope() };
                refuse(&reader, &response, &envelope, context).await;
                return None;
            }
        };
        let name = Name { client: joined.0.client.id, correlation };
        let response = self.protocol.response(&name.correlation, joined.0.sequence(), request);
        if !write_all(reader.transport(), &response, &context.config).await {
            return None;
        }
        log::info!(
            target: "falconet::client",
            client:% = name.client, address:% = request.peer, path = &*request.path,
            correlation:% = name.correlation, request = &*request.id;
            "new connection"
        );
        let (transport, early) = reader.into_parts(head_end);
        let takeover = self.protocol.begin(transport, early, joined, request, context);
        Some((name, takeover))
    }
}

impl Protocol {
    /// What tells the client that it begins.
    fn response(&self, correlation: &CorrelationId, sequence: u64, request: &Request) -> Vec<u8> {
        match self {
            Self::WebSocket { accept, .. } => {
                handshake::response(accept, correlation.as_str(), &request.id).into_bytes()
            }
            Self::Events => events::response(correlation, sequence).encode(&request.envelope()),
        }
    }

    fn begin(
        self,
        transport: Transport,
        early: Vec<u8>,
        joined: (Subscription, Membership),
        request: &Request,
        context: &Context,
    ) -> Takeover {
        let config = context.config.clone();
        match self {
            Self::Events => {
                let encoder = context.encoder.clone();
                let stream = EventStream::new(transport, joined, encoder, config);
                Takeover::Topic(Box::pin(stream.run()))
            }
            Self::WebSocket { partner, .. } => {
                let hub = context.hub.clone();
                let session = Session::begin(transport, early, request.peer, joined, hub, config);
                match partner {
                    Partner::Endpoint(endpoint) => Takeover::Endpoint(session, endpoint),
                    Partner::Topic { topic, may_publish } => {
                        Takeover::Topic(Box::pin(topic::converse(session, topic, may_publish)))
                    }
                }
            }
        }
    }
}
