//! Answers requests for the list of topics and for the newest message of a topic, and requests that clear a
//! topic.

use std::rc::Rc;

use crate::access::Refused;
use crate::http::accept::asks_for;
use crate::http::date::http_date;
use crate::http::entity_tag::is_listed;
use crate::http::response::{JSON, PLAIN_TEXT};
use crate::http::{RequestHead, Response};
use crate::hub::{EventId, Publication, TopicInfo, TopicName};
use crate::resource::{Answering, Question, Requester};
use crate::ws::SessionShared;

use super::error::TopicError;

/// A request for the list of topics.
pub(crate) struct List {
    as_text: bool,
    shared: Rc<SessionShared>,
}

impl List {
    /// Reads the head of a request for the list.
    ///
    /// # Errors
    /// [`Refused`], if the method is neither GET nor HEAD.
    pub(crate) fn of(head: &RequestHead<'_>, shared: &Rc<SessionShared>) -> Result<Self, Refused> {
        match head.method() {
            "GET" | "HEAD" => {
                Ok(Self { as_text: asks_for(head, "text/plain"), shared: shared.clone() })
            }
            method => Err(Response::other_method(method, "GET, HEAD").into()),
        }
    }
}

impl Question for List {
    fn answer<'a>(self: Box<Self>, _: &'a [u8], _: Requester<'a>) -> Answering<'a> {
        Box::pin(async move {
            let (topics, newest) = self.shared.hub.topics_and_newest().await?;
            Ok(list(&topics, self.as_text).with_header(RESUME_FROM, newest.to_string()))
        })
    }
}

/// A request for the newest message of a topic.
pub(crate) struct Read {
    topic: TopicName,
    /// The entity tags of the messages that the client has, separated by commas.
    known: String,
    shared: Rc<SessionShared>,
}

impl Read {
    /// Reads the head of a request for the newest message of `topic`.
    pub(crate) fn of(head: &RequestHead<'_>, topic: TopicName, shared: &Rc<SessionShared>) -> Self {
        let known = head.values("if-none-match").map(String::from_utf8_lossy);
        let known = known.collect::<Vec<_>>().join(",");
        Self { topic, known, shared: shared.clone() }
    }

    /// Reads the head of a request for the newest message of the topic `name`.
    ///
    /// # Errors
    /// [`Refused`], if `name` is not the name of a topic.
    pub(crate) fn named(
        head: &RequestHead<'_>,
        name: &str,
        shared: &Rc<SessionShared>,
    ) -> Result<Self, Refused> {
        Ok(Self::of(head, TopicName::new(name).map_err(TopicError::Name)?, shared))
    }
}

impl Question for Read {
    fn answer<'a>(self: Box<Self>, _: &'a [u8], _: Requester<'a>) -> Answering<'a> {
        Box::pin(async move {
            let (last, newest) = self.shared.hub.last(&self.topic).await?;
            Ok(match last {
                Some(last) => message(&last, &self.known),
                None => Response::text(404, "this topic retains no message\n"),
            }
            .with_header(RESUME_FROM, newest.to_string())
            .depending_on_accept())
        })
    }
}

/// A request to clear a topic: later subscribers do not get the messages that it retains now.
pub(super) struct Clear {
    pub(super) topic: TopicName,
    pub(super) shared: Rc<SessionShared>,
}

impl Question for Clear {
    fn answer<'a>(self: Box<Self>, _: &'a [u8], _: Requester<'a>) -> Answering<'a> {
        Box::pin(async move {
            self.shared.hub.clear(&self.topic).await?;
            Ok(Response::without_body(204))
        })
    }
}

/// Returns the response with the list of topics.
fn list(topics: &[TopicInfo], as_text: bool) -> Response {
    let line = |TopicInfo { name, subscribers, last }: &TopicInfo| match (as_text, last) {
        (true, Some(id)) => format!("{name} {subscribers} {id}\n"),
        (true, None) => format!("{name} {subscribers} -\n"),
        (false, last) => entry(name, *last, *subscribers),
    };
    let lines = topics.iter().map(line).collect::<Vec<_>>();
    let response = match as_text {
        true => Response::text(200, lines.concat()),
        false => Response::new(200, JSON, format!("[{}]\n", lines.join(",\n ")).into_bytes()),
    };
    response.with_header("Cache-Control", "no-cache").depending_on_accept()
}

/// Encodes the properties of a topic as JSON. Names and ids need no escapes.
pub(super) fn entry(topic: &TopicName, id: Option<EventId>, subscribers: usize) -> String {
    let id = id.map_or("null".to_owned(), |id| format!("\"{id}\""));
    format!(r#"{{"topic":"{topic}","id":{id},"subscribers":{subscribers}}}"#)
}

/// Returns the response with a message, or with status 304 if the client has the message.
fn message(publication: &Publication, known: &str) -> Response {
    let id = publication.id().map_or_else(String::new, |id| id.to_string());
    let tag = format!("\"{id}\"");
    let response = if is_listed(&tag, known) {
        Response::without_body(304)
    } else {
        let frame = publication.frame();
        let kind = if frame.is_text() { PLAIN_TEXT } else { "application/octet-stream" };
        let media_type = publication.media_type().unwrap_or(kind);
        Response::new(200, media_type, frame.payload().to_vec())
            .with_header("Content-Security-Policy", "default-src 'none'; sandbox")
    };
    response
        .with_header("ETag", tag)
        .with_header("X-Message-Id", id)
        .with_header("Last-Modified", http_date(publication.published()))
        .with_header("Cache-Control", "no-cache")
}

/// The header with the id from which a client resumes to get all messages that were published after the response
/// was made.
const RESUME_FROM: &str = "Last-Event-ID";
