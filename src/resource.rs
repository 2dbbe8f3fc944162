//! The interface between connections and the resources at URLs.
//!
//! A resource decides from the head of a request which of three outcomes the request has: an answer, a
//! question, or an upgrade. `connection` runs the outcome, and depends on no particular resource.

use std::fs::File;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use pin_project_lite::pin_project;

use crate::access::{AddressPermit, FilePermit, Gatekeeper, Refused};
use crate::http::response::Envelope;
use crate::http::{RequestHead, Response};
use crate::hub::{ClientKind, CorrelationId, EventId, HubGone, Membership, Subscription};
use crate::net::{Peer, Transport};
use crate::rate::RateState;

/// The resource at one or more URLs, such as a file or the topics.
pub(crate) trait Resource {
    /// Decides the outcome of a request from its head alone, and checks with the gatekeeper that the sender
    /// may do what the request asks for. Returns `None` if the path does not belong to this resource. Then
    /// the next resource is asked.
    ///
    /// # Errors
    /// [`Refused`], whose response is sent.
    fn plan(
        &self,
        head: &RequestHead<'_>,
        gatekeeper: &Gatekeeper<'_>,
    ) -> Result<Option<Plan>, Refused>;
}

/// The outcome of a request.
pub(crate) enum Plan {
    /// A response that is known from the head.
    Answer(Answer),
    /// A response that needs the request's body or the hub.
    Ask(Box<dyn Question>),
    /// A WebSocket session or an event stream.
    Upgrade(Box<dyn Upgrade>),
}

/// A response, and the file that is its body, if the body is a file.
pub(crate) struct Answer {
    pub(crate) response: Response,
    pub(crate) file: Option<BodyFile>,
}

/// The file that is the body of a response, at the position of the first byte to send.
pub(crate) struct BodyFile {
    pub(crate) file: File,
    /// Dropped together with the file, which holds a descriptor.
    pub(crate) permit: FilePermit,
}

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        Self { response, file: None }
    }
}

/// A request whose response needs the request's body or the hub.
pub(crate) trait Question {
    /// Returns the length of the longest body that the question takes, in bytes. Default: 0, no body. A
    /// longer body is not read, and the connection is closed after the response. The response to a chunked
    /// body that turns out to be longer is 413.
    fn body_limit(&self) -> u64 {
        0
    }

    /// Returns true if the client waits for `100 Continue` before it sends the body (RFC 9110 §10.1.1).
    fn expects_continue(&self) -> bool {
        false
    }

    /// Returns the response. `body` is empty if the [limit](Self::body_limit) is 0.
    fn answer<'a>(self: Box<Self>, body: &'a [u8], requester: Requester<'a>) -> Answering<'a>;
}

/// The future of a response. It fails if the server has ended.
pub(crate) type Answering<'a> = Pin<Box<dyn Future<Output = Result<Response, HubGone>> + 'a>>;

/// The sender of a [`Question`].
pub(crate) struct Requester<'a> {
    pub(crate) peer: Peer,
    /// The state of the connection's publish rate.
    pub(crate) rate_state: &'a mut RateState,
    pub(crate) now: Instant,
}

/// A request that turns the HTTP connection into a WebSocket session or an event stream.
pub(crate) trait Upgrade {
    /// Returns the client that the upgrade adds to the hub.
    fn joining(&self) -> Joining;

    /// Returns the status of the response that accepts the upgrade.
    fn status(&self) -> u16;

    /// Returns the bytes of the response that accepts the upgrade, and those that follow it at once.
    fn response(&self, welcome: &Welcome<'_>) -> Vec<u8>;

    /// Takes over the connection and returns its next stage.
    fn begin(self: Box<Self>, connection: Upgraded) -> Stage;
}

/// A client that is about to join the hub.
pub(crate) struct Joining {
    pub(crate) kind: ClientKind,
    /// The requested path. `None` stands for the path of the client's only filter.
    pub(crate) path: Option<Rc<String>>,
    pub(crate) subscription: Subscription,
}

/// The values that the response to an upgrade contains.
pub(crate) struct Welcome<'a> {
    pub(crate) correlation: &'a CorrelationId,
    pub(crate) request_id: &'a str,
    /// The id before that of the first message that the client will be sent. A client that resumes from this
    /// id gets the same messages, but is not notified again of messages that are no longer kept.
    pub(crate) before: EventId,
    pub(crate) envelope: &'a Envelope,
}

/// A connection that has been upgraded.
pub(crate) struct Upgraded {
    pub(crate) transport: Transport,
    /// The bytes that the client sent after its request.
    pub(crate) early: Vec<u8>,
    pub(crate) membership: Membership,
    pub(crate) permit: Option<AddressPermit>,
}

/// A stage in the life of a connection, as a future: its HTTP requests, or the session that follows them.
/// The memory of a stage is freed before the next stage begins.
pub(crate) struct Stage(Pin<Box<dyn Future<Output = Option<Stage>>>>);

impl Stage {
    /// Creates a stage from a future that returns the next stage, if there is one.
    pub(crate) fn new(stage: impl Future<Output = Option<Self>> + 'static) -> Self {
        Self(Box::pin(stage))
    }

    /// Creates the last stage of a connection.
    pub(crate) fn last(stage: impl Future<Output = ()> + 'static) -> Self {
        Self::new(Last { stage })
    }

    /// Returns the size of the future in bytes.
    #[cfg(test)]
    pub(crate) fn size(&self) -> usize {
        size_of_val(&*self.0)
    }
}

pin_project! {
    /// The future of a last stage. An `async` block would reserve space for `stage` twice.
    struct Last<S> {
        #[pin]
        stage: S,
    }
}

impl<S: Future<Output = ()>> Future for Last<S> {
    type Output = Option<Stage>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Stage>> {
        self.project().stage.poll(cx).map(|()| None)
    }
}

impl Future for Stage {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(next) = ready!(self.0.as_mut().poll(cx)) {
            *self = next;
        }
        Poll::Ready(())
    }
}
