//! Answers requests for the newest messages of topics and for the list of topics, and requests that clear a topic.

use std::fmt::Write;
use std::rc::Rc;

use futures_lite::future::yield_now;

use crate::access::Refused;
use crate::escaped::JsonString;
use crate::http::accept::asks_for;
use crate::http::date::http_date;
use crate::http::entity_tag::is_listed;
use crate::http::response::{JSON, PLAIN_TEXT};
use crate::http::{RequestHead, Response};
use crate::hub::{
    EventId, Filter, FilterError, NewestOfTopic, Publication, TOPICS_PATH, TopicInfo, TopicName,
};
use crate::resource::{Answering, Question, Requester};
use crate::ws::SessionShared;

use super::error::TopicError;

/// A request for the topics that filters match, with the newest message of each.
pub(super) struct Newest {
    filters: Vec<Filter>,
    as_text: bool,
    shared: Rc<SessionShared>,
}

impl Newest {
    /// Reads the head of a request for the topics that `filters` match.
    pub(super) fn of(
        head: &RequestHead<'_>,
        filters: Vec<Filter>,
        shared: &Rc<SessionShared>,
    ) -> Self {
        Self { filters, as_text: asks_for(head, "text/plain"), shared: shared.clone() }
    }
}

impl Question for Newest {
    fn answer<'a>(self: Box<Self>, _: &'a [u8], _: Requester<'a>) -> Answering<'a> {
        Box::pin(async move {
            let (topics, newest) = self.shared.hub.newest_of(self.filters).await?;
            let response = match self.as_text {
                true => list(topics.iter().map(|(info, _)| info), true),
                false => listed(JSON, array(&topics).await),
            };
            Ok(response.with_header(RESUME_FROM, newest.to_string()))
        })
    }
}

/// A request for the list of all topics, without their messages.
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
            let (topics, newest) = self.shared.hub.topics_until().await?;
            Ok(list(topics.iter(), self.as_text).with_header(RESUME_FROM, newest.to_string()))
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

    /// Reads the head of a request for the newest message of the topic [`named`] in its path.
    ///
    /// # Errors
    /// [`Refused`], if the path does not name one topic.
    pub(crate) fn named(
        head: &RequestHead<'_>,
        shared: &Rc<SessionShared>,
    ) -> Result<Self, Refused> {
        Ok(Self::of(head, named(head)?, shared))
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

/// Returns the topic that a path names.
///
/// # Errors
/// [`TopicError`], if the path does not name one topic.
fn named(head: &RequestHead<'_>) -> Result<TopicName, TopicError> {
    match &filters_of(head)?[..] {
        [Filter::Topic(topic)] => Ok(topic.clone()),
        _ => Err(TopicError::Several(head.encoded_path().to_owned())),
    }
}

/// Returns the topic filters that a path below `/topics/` names. Only the encoded path distinguishes a comma between
/// two filters from `%2C`, a comma of a name.
///
/// # Errors
/// [`TopicError::Filter`], if the path can't be decoded or is not a list of filters.
pub(super) fn filters_of(head: &RequestHead<'_>) -> Result<Vec<Filter>, TopicError> {
    let path = head.encoded_path();
    let filters = match head.is_decoded() {
        true => Filter::parse_list(after_root(path)),
        false => Err(FilterError::Encoding(path.to_owned())),
    };
    filters.map_err(TopicError::Filter)
}

/// Returns the part of an encoded path after `/topics/`, which may be encoded as well.
fn after_root(path: &str) -> &str {
    TOPICS_PATH.bytes().fold(path, |rest, _| {
        let encoded_bytes = if rest.starts_with('%') { "%2F".len() } else { 1 };
        rest.get(encoded_bytes..).unwrap_or_default()
    })
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

/// Returns the response with a list of topics.
fn list<'t>(topics: impl Iterator<Item = &'t TopicInfo>, as_text: bool) -> Response {
    let line = |TopicInfo { name, subscribers, last }: &TopicInfo| match (as_text, last) {
        (true, Some(id)) => format!("{} {subscribers} {id}\n", name.encoded()),
        (true, None) => format!("{} {subscribers} -\n", name.encoded()),
        (false, last) => entry(name, *last, *subscribers),
    };
    let lines = topics.map(line).collect::<Vec<_>>();
    match as_text {
        true => listed(PLAIN_TEXT, lines.concat()),
        false => listed(JSON, format!("[{}]\n", lines.join(",\n "))),
    }
}

/// Returns the response with a list in a media type that the request accepts.
fn listed(media_type: &'static str, list: String) -> Response {
    let response = Response::new(200, media_type, list.into_bytes());
    response.with_header("Cache-Control", "no-cache").depending_on_accept()
}

/// Encodes topics as a JSON array, in which each has the fields of its newest message and the number of its
/// subscribers. Other tasks run between the messages.
async fn array(topics: &[NewestOfTopic]) -> String {
    let (mut array, mut encoded) = ("[".to_owned(), 0);
    for (index, (TopicInfo { name, subscribers, .. }, newest)) in topics.iter().enumerate() {
        if index > 0 {
            array.push_str(",\n ");
        }
        match newest {
            Some(newest) => array.push_str(without_end(&newest.json())),
            None => _ = write!(array, "{{\"topic\":{}", JsonString(name.as_str())),
        }
        // Writing to a string never fails.
        let _ = write!(array, ",\"subscribers\":{subscribers}}}");
        if array.len() - encoded > BYTES_PER_TURN {
            encoded = array.len();
            yield_now().await;
        }
    }
    array + "]\n"
}

/// Returns a JSON object without the brace at its end.
fn without_end(object: &str) -> &str {
    object.strip_suffix('}').unwrap_or(object)
}

/// Encodes the properties of a topic as JSON. Ids need no escapes.
pub(super) fn entry(topic: &TopicName, id: Option<EventId>, subscribers: usize) -> String {
    let id = id.map_or("null".to_owned(), |id| format!("\"{id}\""));
    let name = JsonString(topic.as_str());
    format!(r#"{{"topic":{name},"id":{id},"subscribers":{subscribers}}}"#)
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
/// The number of bytes of a list that are encoded before other tasks run.
const BYTES_PER_TURN: usize = 64 * 1024;
