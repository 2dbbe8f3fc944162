//! The seam between connections and what stands at a URL.
//!
//! Each resource decides from a request head which of three outcomes the request has: an answer, a
//! question, or an upgrade. `connection` runs the outcome and knows no resource.

use std::fs::File;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use pin_project_lite::pin_project;

use crate::access::{AddressPermit, Gatekeeper, Refused};
use crate::http::response::Envelope;
use crate::http::{RequestHead, Response};
use crate::hub::{ClientKind, CorrelationId, EventId, HubGone, Membership, Start, TopicName};
use crate::net::{Peer, Transport};
use crate::rate::Pace;

/// Something that stands at a URL, or at several.
pub(crate) trait Resource {
    /// Decides on a request, from its head alone. Asks the gatekeeper for each action that the request is
    /// about. Returns `None` if nothing of this resource stands at the path: then the next one is asked.
    ///
    /// # Errors
    /// [`Refused`], which becomes the response.
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

/// A response, and the file that is its body, if it has one.
pub(crate) struct Answer {
    pub(crate) response: Response,
    pub(crate) file: Option<File>,
}

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        Self { response, file: None }
    }
}

/// A request that needs its body or the hub.
pub(crate) trait Question {
    /// Returns true if the request's body belongs to the question. The body is at most as long as a
    /// message may be.
    fn takes_body(&self) -> bool {
        false
    }

    /// Returns true if the client waits for `100 Continue` before it sends the body (RFC 9110 §10.1.1).
    fn expects_continue(&self) -> bool {
        false
    }

    /// Answers the question. `body` is empty unless the question takes one.
    fn answer<'a>(self: Box<Self>, body: &'a [u8], requester: Requester<'a>) -> Answering<'a>;
}

/// A response on its way. It fails when the server has ended.
pub(crate) type Answering<'a> = Pin<Box<dyn Future<Output = Result<Response, HubGone>> + 'a>>;

/// The sender of a question.
pub(crate) struct Requester<'a> {
    pub(crate) peer: Peer,
    /// The rate at which its connection publishes.
    pub(crate) pace: &'a mut Pace,
    pub(crate) now: Instant,
}

/// A request after which the connection is no HTTP connection any more.
pub(crate) trait Upgrade {
    /// The client that the upgrade adds to the hub.
    fn joining(&self) -> Joining;

    /// The status of the response that accepts the upgrade.
    fn status(&self) -> u16;

    /// The bytes that tell the client that the upgrade is done.
    fn response(&self, welcome: &Welcome<'_>) -> Vec<u8>;

    /// Takes the connection over.
    fn begin(self: Box<Self>, connection: Upgraded) -> Stage;
}

/// A client that is about to join the hub.
pub(crate) struct Joining {
    pub(crate) kind: ClientKind,
    /// The path, unless it is the path of its only topic.
    pub(crate) path: Option<Rc<String>>,
    pub(crate) topics: Vec<(TopicName, Start)>,
}

/// The facts that the response to an upgrade tells.
pub(crate) struct Welcome<'a> {
    pub(crate) correlation: &'a CorrelationId,
    pub(crate) request_id: &'a str,
    /// The id before the first message that the client will be sent.
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

/// A connection from here on: its HTTP requests, or the session that follows them. The memory of one
/// stage has been freed when the next one begins.
pub(crate) struct Stage(Pin<Box<dyn Future<Output = Option<Stage>>>>);

impl Stage {
    /// A stage that returns the next one, if there is one.
    pub(crate) fn new(stage: impl Future<Output = Option<Self>> + 'static) -> Self {
        Self(Box::pin(stage))
    }

    /// The last stage of a connection.
    pub(crate) fn last(stage: impl Future<Output = ()> + 'static) -> Self {
        Self::new(Last { stage })
    }

    #[cfg(test)]
    pub(crate) fn size(&self) -> usize {
        size_of_val(&*self.0)
    }
}

pin_project! {
    /// The last stage of a connection. An `async` block would have room for the stage twice.
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
