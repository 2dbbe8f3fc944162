//! Topics: a URL to publish to from anywhere, and to subscribe to from anything.

use std::fmt;
use std::time::SystemTime;

use crate::config::Limits;
use crate::counters::Source;
use crate::escaped::Escaped;
use crate::http::date::http_date;
use crate::http::response::PLAIN_TEXT;
use crate::http::route::asks_for;
use crate::http::{RequestHead, Response};
use crate::hub::{
    HubGone, HubHandle, PublishError, Published, Start, TopicInfo, TopicName, TopicNameError,
};
use crate::ws::Session;
use crate::ws::frame::{CloseCode, CloseReason, Frame};
use crate::ws::handshake::{self, Acceptance, HandshakeError};

use super::Stage;

/// What a request wants of a topic.
#[derive(Debug)]
pub(crate) enum TopicRequest {
    /// To talk WebSocket, after a response that accepts it.
    Converse { accept: Acceptance, topic: TopicName, mode: Mode, start: Start },
    /// To hear what is published, as server-sent events.
    Listen { topic: TopicName, start: Start },
    /// One exchange.
    Exchange(Exchange),
}

/// What can be had or done in one exchange.
#[derive(Debug)]
pub(crate) enum Exchange {
    /// The list of topics.
    List { as_text: bool },
    /// The last message, unless it is the one of these tags.
    Read { topic: TopicName, known: String },
    /// To publish the request's body.
    Publish { topic: TopicName, content: Content, expects_continue: bool },
    /// To forget what is retained.
    Clear { topic: TopicName },
}

/// Which ways messages go between a WebSocket client and the topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mode {
    pub(crate) subscribes: bool,
    pub(crate) publishes: bool,
}

/// What a publisher says its body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    /// Whether it is text, if it is UTF-8.
    may_be_text: bool,
    media_type: Option<&'static str>,
}

impl TopicRequest {
    /// Reads what a request wants of the topic called `name`; of all of them, if that is empty.
    ///
    /// # Errors
    /// [`TopicError`], whose response says what would be right.
    pub(crate) fn read(
        head: &RequestHead<'_>,
        name: &str,
        limits: &Limits,
    ) -> Result<Self, TopicError> {
        let reads = matches!(head.method(), "GET" | "HEAD");
        if name.is_empty() {
            let as_text = asks_for(head, "text/plain");
            let list = Self::Exchange(Exchange::List { as_text });
            return if reads { Ok(list) } else { Err(TopicError::NotOnTheList) };
        }
        let topic = TopicName::new(name).map_err(TopicError::Name)?;
        if head.wants_websocket() {
            let accept = handshake::accept(head).map_err(TopicError::Handshake)?;
            let (mode, start) = (read_mode(head)?, read_start(head)?);
            return Ok(Self::Converse { accept, topic, mode, start });
        }
        if head.method() == "GET" && asks_for(head, EVENT_STREAM) {
            return Ok(Self::Listen { topic, start: read_event_start(head)? });
        }
        Ok(Self::Exchange(match head.method() {
            "GET" | "HEAD" => {
                let known = head.values("if-none-match").map(String::from_utf8_lossy);
                Exchange::Read { topic, known: known.collect::<Vec<_>>().join(",") }
            }
            "POST" | "PUT" => {
                let (content, expects_continue) = Content::read(head, limits)?;
                Exchange::Publish { topic, content, expects_continue }
            }
            "DELETE" => Exchange::Clear { topic },
            _ => return Err(TopicError::Method),
        }))
    }
}

impl Exchange {
    /// Whether the request's body is for it.
    pub(crate) fn takes_body(&self) -> bool {
        matches!(self, Self::Publish { .. })
    }

    /// Whether the client waits for a word before it sends the body.
    pub(crate) fn expects_continue(&self) -> bool {
        matches!(self, Self::Publish { expects_continue: true, .. })
    }

    /// Does it. `body` is the request's, if it has one; `source` is who published it.
    ///
    /// # Errors
    /// [`HubGone`], when the server has ended.
    pub(crate) async fn perform(
        self,
        body: &[u8],
        source: Source,
        hub: &HubHandle,
    ) -> Result<Response, HubGone> {
        Ok(match self {
            Self::List { as_text } => list(&hub.topics().await?, as_text),
            Self::Read { topic, known } => match hub.last(&topic).await? {
                Some((sequence, last)) => {
                    read(sequence, &last.frame, last.media_type, last.published, &known)
                }
                None => Response::text(404, "nothing is retained here\n"),
            },
            Self::Publish { topic, content, .. } => {
                let frame = content.frame(body);
                match hub.publish_frame(&topic, frame, content.media_type, source).await {
                    Ok(published) => accepted(&topic, published),
                    Err(PublishError::HubGone) => return Err(HubGone),
                    Err(error @ PublishError::TooManyTopics(_)) => {
                        Response::text(503, format!("{error}\n"))
                    }
                }
            }
            Self::Clear { topic } => {
                hub.clear(&topic).await?;
                Response::without_body(204)
            }
        })
    }
}

/// Publishes what a client says, while it subscribes what is published.
pub(crate) fn converse(session: Session, topic: TopicName, may_publish: bool) -> Stage {
    // A block, which has room for the session once.
    let publish_all = move |mut session: Session| async move {
        let reason = loop {
            let Some(message) = session.next().await else { break CloseReason::NORMAL };
            if !may_publish {
                break NO_PUBLISHING;
            }
            let (hub, source) = (session.hub(), Source::WebSocket);
            // Boxed, so that who only listens holds no room for it.
            match Box::pin(hub.publish_from(&topic, message, source)).await {
                Ok(_) => {}
                Err(PublishError::HubGone) => break CloseReason::STOPPING,
                Err(PublishError::TooManyTopics(_)) => break TOO_MANY_TOPICS,
            }
        };
        session.close(reason).await
    };
    Stage::last(session.served_by(publish_all))
}

fn list(topics: &[TopicInfo], as_text: bool) -> Response {
    let line = |TopicInfo { name, subscribers, sequence }: &TopicInfo| match as_text {
        true => format!("{name} {subscribers} {sequence}\n"),
        false => entry(name, *subscribers, *sequence),
    };
    let lines = topics.iter().map(line).collect::<Vec<_>>();
    let response = match as_text {
        true => Response::text(200, lines.concat()),
        false => Response::new(200, JSON, format!("[{}]\n", lines.join(",\n ")).into_bytes()),
    };
    response.with_header("Cache-Control", "no-cache")
}

fn accepted(topic: &TopicName, published: Published) -> Response {
    let body = entry(topic, published.subscribers, published.sequence) + "\n";
    Response::new(202, JSON, body.into_bytes())
}

/// A topic as JSON: names need no escapes.
fn entry(topic: &TopicName, subscribers: usize, sequence: u64) -> String {
    format!(r#"{{"topic":"{topic}","sequence":{sequence},"subscribers":{subscribers}}}"#)
}

fn read(
    sequence: u64,
    frame: &Frame,
    media_type: Option<&'static str>,
    published: SystemTime,
    known: &str,
) -> Response {
    // The time too: numbers begin again with the server, and with a topic that had vanished.
    let since = published.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let tag = format!("\"{sequence}-{:x}\"", since.as_nanos());
    let is_known = |known: &str| {
        let known = known.trim();
        known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag
    };
    let response = if known.split(',').any(is_known) {
        Response::without_body(304)
    } else {
        let kind = if frame.is_text() { PLAIN_TEXT } else { "application/octet-stream" };
        Response::new(200, media_type.unwrap_or(kind), frame.payload().to_vec())
            .with_header("Content-Security-Policy", "default-src 'none'; sandbox")
    };
    response
        .with_header("ETag", tag)
        .with_header("X-Sequence", sequence.to_string())
        .with_header("Last-Modified", http_date(published))
        .with_header("Cache-Control", "no-cache")
}

impl Content {
    /// What the body of a request is that brings a message, and whether the client waits for a word
    /// before it sends it.
    ///
    /// # Errors
    /// [`TopicError`], if it is not to be sent at all.
    pub(crate) fn read(
        head: &RequestHead<'_>,
        limits: &Limits,
    ) -> Result<(Self, bool), TopicError> {
        check_body(head, limits)?;
        Ok((Self::of(head), read_expectation(head)?))
    }

    /// The message that the body is.
    pub(crate) fn frame(self, body: &[u8]) -> Frame {
        Frame::data(self.is_text(body), body)
    }

    fn of(head: &RequestHead<'_>) -> Self {
        let mut lines = head.values("content-type");
        let Some(said) = lines.next() else { return Self { may_be_text: true, media_type: None } };
        let said = String::from_utf8_lossy(said).to_ascii_lowercase();
        let said = said.split(';').next().unwrap_or_default().trim();
        let may_be_text = said.starts_with("text/")
            || said == "application/x-www-form-urlencoded"
            || said == JSON
            || said.ends_with("+json");
        Self { may_be_text, media_type: KEPT_TYPES.iter().copied().find(|kept| *kept == said) }
    }

    fn is_text(self, body: &[u8]) -> bool {
        self.may_be_text && str::from_utf8(body).is_ok()
    }
}

fn read_mode(head: &RequestHead<'_>) -> Result<Mode, TopicError> {
    match head.query_value("mode") {
        None => Ok(Mode { subscribes: true, publishes: true }),
        Some("in") => Ok(Mode { subscribes: false, publishes: true }),
        Some("out") => Ok(Mode { subscribes: true, publishes: false }),
        Some(mode) => Err(TopicError::Mode(mode.to_owned())),
    }
}

fn read_start(head: &RequestHead<'_>) -> Result<Start, TopicError> {
    let Some(last) = head.query_value("last") else { return Ok(Start::Live) };
    last.parse().map(Start::Last).map_err(|_| TopicError::Last(last.to_owned()))
}

/// A client that comes back says where it was; one that comes first may ask for what is retained.
fn read_event_start(head: &RequestHead<'_>) -> Result<Start, TopicError> {
    let id = head.single("last-event-id").filter(|id| !id.is_empty());
    let Some(id) = id else { return read_start(head) };
    let id = String::from_utf8_lossy(id);
    id.parse().map(Start::After).map_err(|_| TopicError::LastEventId(id.into_owned()))
}

fn check_body(head: &RequestHead<'_>, limits: &Limits) -> Result<(), TopicError> {
    let bytes = head.content_length().ok_or(TopicError::NoLength)?;
    let limit = limits.message_bytes;
    if bytes > limit as u64 { Err(TopicError::TooLarge { bytes, limit }) } else { Ok(()) }
}

/// Whether the client waits for a word before it sends the body (RFC 9110 §10.1.1).
fn read_expectation(head: &RequestHead<'_>) -> Result<bool, TopicError> {
    let mut expected = head.values("expect").peekable();
    let waits = expected.peek().is_some() && head.is_http_1_1();
    match expected.all(|expected| expected.eq_ignore_ascii_case(b"100-continue")) {
        true => Ok(waits),
        false => Err(TopicError::Expectation),
    }
}

/// Why a request can't be made of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TopicError {
    /// The path is no topic's.
    Name(TopicNameError),
    /// The opening handshake is wrong.
    Handshake(HandshakeError),
    /// Nothing of the sort can be done to a topic.
    Method,
    /// The list can only be read.
    NotOnTheList,
    /// `?mode=` is neither `in` nor `out`.
    Mode(String),
    /// `?last=` is no number.
    Last(String),
    /// The Last-Event-ID is no number of ours.
    LastEventId(String),
    /// A body without Content-Length.
    NoLength,
    /// A body too long for a message.
    TooLarge { bytes: u64, limit: usize },
    /// An Expect other than 100-continue.
    Expectation,
}

impl TopicError {
    /// What the peer gets.
    pub(crate) fn response(self) -> Response {
        let text = format!("{self}\n");
        match self {
            Self::Handshake(error) => error.response(),
            Self::Name(_) => Response::text(404, text),
            Self::Method => {
                Response::text(405, text).with_header("Allow", "GET, HEAD, POST, PUT, DELETE")
            }
            Self::NotOnTheList => Response::text(405, text).with_header("Allow", "GET, HEAD"),
            Self::Mode(_) | Self::Last(_) | Self::LastEventId(_) => Response::text(400, text),
            Self::NoLength => Response::text(411, text),
            Self::TooLarge { .. } => Response::text(413, text),
            Self::Expectation => Response::text(417, text),
        }
    }
}

impl fmt::Display for TopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(error) => error.fmt(f),
            Self::Handshake(error) => error.fmt(f),
            Self::Method => f.write_str("a topic takes GET, HEAD, POST, PUT and DELETE"),
            Self::NotOnTheList => f.write_str("the list of topics can only be read"),
            Self::Mode(mode) => write!(f, "mode is `{mode}`: expected `in` or `out`"),
            Self::Last(last) => write!(f, "last is `{last}`: expected a number of messages"),
            Self::LastEventId(id) => {
                write!(f, "Last-Event-ID is `{}`: expected a sequence number", Escaped(id))
            }
            Self::NoLength => f.write_str("a message to publish needs a Content-Length"),
            Self::TooLarge { bytes, limit } => write!(f, "message is {bytes} bytes, limit {limit}"),
            Self::Expectation => f.write_str("the only expectation understood is 100-continue"),
        }
    }
}

impl std::error::Error for TopicError {}

/// The media type of server-sent events.
pub(crate) const EVENT_STREAM: &str = "text/event-stream";
/// The media type of JSON.
pub(crate) const JSON: &str = "application/json";
/// Media types a topic keeps for who reads it: none that a browser would run.
const KEPT_TYPES: &[&str] = &[
    JSON,
    "text/csv",
    "image/png",
    "image/jpeg",
    "image/gif",
    "image/webp",
    "audio/mpeg",
    "audio/wav",
    "video/mp4",
];
const NO_PUBLISHING: CloseReason = CloseReason::new(CloseCode::Policy, "publishing is not allowed");
const TOO_MANY_TOPICS: CloseReason = CloseReason::new(CloseCode::Again, "too many topics");
