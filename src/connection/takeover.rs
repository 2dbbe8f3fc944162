//! What follows a request that wants more than a response.

use std::rc::Rc;

use crate::access::Seat;
use crate::config::Reject;
use crate::endpoints::events::{self, EventStream};
use crate::endpoints::topic;
use crate::endpoints::{AnyEndpoint, Stage};
use crate::http::Response;
use crate::http::response::Envelope;
use crate::hub::{CorrelationId, Membership, PublishError, Start, TopicName};
use crate::net::Transport;
use crate::ws::Session;
use crate::ws::handshake::{self, Acceptance};

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
        seat: Seat,
        context: &Context,
    ) -> Option<Stage> {
        let correlation = request.correlation.clone();
        let correlation = correlation.unwrap_or_else(|| context.correlations.fresh());
        let now = reader.transport().timer().now();
        // First, so that nothing is missed that is published once the client knows it is heard.
        let membership = match context.hub.join(correlation, self.hears, now).await {
            Ok(membership) => membership,
            Err(PublishError::HubGone) => return None,
            Err(PublishError::TooManyTopics(error)) => {
                let response = Response::text(503, format!("{error}\n"));
                let drops = context.config.reject == Reject::Drop;
                request.log(response.status(), if drops { "dropped" } else { "answered" });
                let envelope = Envelope { close: true, ..request.envelope() };
                Box::pin(refuse(&reader, &response, &envelope, context)).await;
                return None;
            }
        };
        let (client, sequence) = (membership.client(), membership.subscription.sequence());
        let response = self.protocol.response(&client.correlation, sequence, request);
        if !write_all(reader.transport(), &response, &context.config).await {
            return None;
        }
        log::info!(
            target: "falconet::client",
            client:% = client.id(), address:% = request.peer, path = &*request.path,
            correlation:% = client.correlation, request = &*request.id;
            "new connection"
        );
        let (transport, early) = reader.into_parts(head_end);
        Some(self.protocol.begin(transport, early, membership, seat, context))
    }
}

impl Protocol {
    /// What tells the client that it begins.
    fn response(&self, correlation: &CorrelationId, sequence: u64, request: &Request) -> Vec<u8> {
        match self {
            Self::WebSocket { accept, .. } => {
                handshake::response(accept, correlation, &request.id).into_bytes()
            }
            Self::Events => events::response(correlation, sequence).encode(&request.envelope()),
        }
    }

    fn begin(
        self,
        transport: Transport,
        early: Vec<u8>,
        membership: Membership,
        seat: Seat,
        context: &Context,
    ) -> Stage {
        let commons = context.commons.clone();
        match self {
            Self::Events => {
                let encoder = context.encoder.clone();
                EventStream::new(transport, seat, membership, encoder, commons).begin()
            }
            Self::WebSocket { partner, .. } => {
                let session = Session::begin(transport, early, seat, membership, commons);
                match partner {
                    Partner::Endpoint(endpoint) => endpoint.begin(session),
                    Partner::Topic { topic, may_publish } => {
                        topic::converse(session, topic, may_publish)
                    }
                }
            }
        }
    }
}
