//! What follows a request that wants more than a response.

use std::rc::Rc;

use crate::access::{AddressPermit, AddressPlace};
use crate::endpoints::events::{self, Encoder, EventStream};
use crate::endpoints::topic;
use crate::endpoints::{AnyEndpoint, Stage};
use crate::http::Response;
use crate::hub::{ClientKind, CorrelationId, Membership, Newcomer, PublishError, Start, TopicName};
use crate::net::Transport;
use crate::ws::handshake::{self, Acceptance};
use crate::ws::{Session, SessionEnd, SessionShared};

use super::reader::Reader;
use super::request::Request;
use super::{Context, answer, write_all};

/// What a request opens, and what the client will hear.
pub(super) struct Opening {
    subscribes: Option<(TopicName, Start)>,
    kind: ClientKind,
    /// The path, if it is not that of the topic it subscribes.
    path: Option<Rc<String>>,
    protocol: Protocol,
}

enum Protocol {
    /// WebSocket, after a response that accepts it, with whoever begins the session.
    WebSocket { accept: Acceptance, begin: Box<dyn FnOnce(Session) -> Stage> },
    /// Server-sent events. Pointers, so that a build that opens no such stream has no code for it.
    Events {
        past: String,
        accept: fn(&CorrelationId, u64, &Request) -> Vec<u8>,
        begin:
            fn(Transport, Option<AddressPermit>, Membership, Encoder, Rc<SessionShared>) -> Stage,
    },
}

impl Opening {
    /// Opens a session with an endpoint.
    pub(super) fn of_endpoint(
        accept: Acceptance,
        path: Rc<String>,
        endpoint: Rc<dyn AnyEndpoint>,
    ) -> Self {
        let subscribes = Some((TopicName::broadcast(), Start::Live));
        let begin = Box::new(|session| endpoint.begin(session));
        let protocol = Protocol::WebSocket { accept, begin };
        Self { subscribes, kind: ClientKind::WebSocket, path: Some(path), protocol }
    }

    /// Opens a session with a topic; without `start` the client subscribes nothing.
    pub(super) fn of_topic(
        accept: Acceptance,
        topic: TopicName,
        start: Option<Start>,
        may_publish: bool,
    ) -> Self {
        let subscribes = start.map(|start| (topic.clone(), start));
        let path = start.is_none().then(|| Rc::new(topic.path()));
        let begin = Box::new(move |session| topic::converse(session, topic, may_publish));
        let protocol = Protocol::WebSocket { accept, begin };
        Self { subscribes, kind: ClientKind::WebSocket, path, protocol }
    }

    /// Opens a stream of a topic's messages.
    pub(super) fn of_events(topic: TopicName, start: Start) -> Self {
        let (subscribes, kind) = (Some((topic, start)), ClientKind::Events);
        Self { subscribes, kind, path: None, protocol: Protocol::events(String::new()) }
    }

    /// Opens a stream of the administrator's events, which begins with what is past.
    pub(super) fn of_stats(path: &str, past: String) -> Self {
        let subscribes = Some((TopicName::stats(), Start::Live));
        let path = Some(Rc::new(path.to_owned()));
        Self { subscribes, kind: ClientKind::Admin, path, protocol: Protocol::events(past) }
    }

    /// Makes a client of whoever sent the request, whose head ends at `head_end`, and says so; `None`
    /// if that can't be.
    pub(super) async fn open(
        self,
        mut reader: Reader,
        head_end: usize,
        mut request: Request,
        address_place: AddressPlace,
        context: &Context,
    ) -> Option<Stage> {
        let correlation = request.correlation.clone();
        let correlation = correlation.unwrap_or_else(|| context.correlations.fresh());
        let (kind, path) = (self.kind, self.path);
        let newcomer = Newcomer { correlation, peer: request.peer, kind, path };
        let now = reader.transport().timer().now();
        // First, so that nothing is missed that is published once the client knows it is heard.
        let membership = match context.hub.join(newcomer, self.subscribes, now).await {
            Ok(membership) => membership,
            Err(PublishError::HubGone) => return None,
            Err(PublishError::TooManyTopics(error)) => {
                let response = Response::text(503, format!("{error}\n"));
                request.close = true;
                Box::pin(answer(&mut reader, &response, None, request, context)).await;
                return None;
            }
        };
        let (client, sequence) = (membership.client(), membership.subscription.sequence());
        let response = self.protocol.response(&client.correlation, sequence, &request);
        if !write_all(&reader, &response, &context.config).await {
            SessionEnd::TransportLost.tell(client, reader.transport().timer().now());
            return None;
        }
        context.count_answer(self.protocol.status());
        log::info!(
            target: "falconet::client",
            client = client.id().to_string(), address = request.peer.to_string(),
            path = &*request.path, correlation = client.correlation.to_string(),
            request = &*request.id;
            "new connection"
        );
        let (transport, early) = reader.into_parts(head_end);
        Some(self.protocol.begin(
            transport,
            early,
            membership,
            address_place.into_permit(),
            context,
        ))
    }
}

impl Protocol {
    fn events(past: String) -> Self {
        Self::Events {
            past,
            accept: |correlation, sequence, request| {
                events::response(correlation, sequence).encode(&request.envelope())
            },
            begin: |transport, permit, membership, encoder, shared| {
                EventStream::new(transport, permit, membership, encoder, shared).begin()
            },
        }
    }

    /// The status of what tells the client that it begins.
    fn status(&self) -> u16 {
        match self {
            Self::WebSocket { .. } => 101,
            Self::Events { .. } => 200,
        }
    }

    /// What tells the client that it begins.
    fn response(&self, correlation: &CorrelationId, sequence: u64, request: &Request) -> Vec<u8> {
        match self {
            Self::WebSocket { accept, .. } => {
                handshake::response(accept, correlation, &request.id).into_bytes()
            }
            Self::Events { past, accept, .. } => {
                let mut response = accept(correlation, sequence, request);
                response.extend_from_slice(past.as_bytes());
                response
            }
        }
    }

    fn begin(
        self,
        transport: Transport,
        early: Vec<u8>,
        membership: Membership,
        permit: Option<AddressPermit>,
        context: &Context,
    ) -> Stage {
        let shared = context.shared.clone();
        match self {
            Self::Events { begin, .. } => {
                begin(transport, permit, membership, context.encoder.clone(), shared)
            }
            Self::WebSocket { begin, .. } => {
                begin(Session::begin(transport, early, permit, membership, shared))
            }
        }
    }
}
