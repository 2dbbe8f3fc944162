//! Publishes the body of a request as a message.

use std::rc::Rc;
use std::time::Duration;

use futures_lite::future::yield_now;

use crate::access::{Action, Gatekeeper, PublishRate, Refused};
use crate::config::Limits;
use crate::counters::{Counters, Refusal, Source};
use crate::frame::Frame;
use crate::http::body::Framing;
use crate::http::response::JSON;
use crate::http::{RequestHead, Response};
use crate::hub::{Draft, Published, TopicName};
use crate::resource::{Answering, Question, Requester};
use crate::ws::SessionShared;

use super::error::TopicError;
use super::once::{Once, Publishing};
use super::read::entry;

/// A request to publish its body to a topic.
pub(crate) struct Publish {
    topic: TopicName,
    content: Content,
    source: Source,
    shared: Rc<SessionShared>,
    limit: Option<Rc<PublishLimit>>,
    /// Set if the message has a key, so that it is published only once.
    once: Option<Once>,
}

/// The limit on messages published over HTTP.
pub(crate) struct PublishLimit {
    pub(crate) rate: PublishRate,
    /// Counts the refused messages.
    pub(crate) counters: Rc<Counters>,
}

/// The properties of a message in the head of the request that publishes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    /// True if the message is a text message in case the body is UTF-8.
    may_be_text: bool,
    /// The media type, if it is one of [`KEPT_TYPES`].
    media_type: Option<&'static str>,
    expects_continue: bool,
    body_limit: u64,
}

impl Publish {
    /// Reads the head of a request that publishes.
    ///
    /// # Errors
    /// The response to a request whose body must not be read.
    pub(crate) fn of(
        head: &RequestHead<'_>,
        topic: TopicName,
        source: Source,
        shared: &Rc<SessionShared>,
        limit: &Option<Rc<PublishLimit>>,
    ) -> Result<Self, Response> {
        let content = Content::of(head, &shared.config.limits)?;
        let (shared, limit) = (shared.clone(), limit.clone());
        Ok(Self { topic, content, source, shared, limit, once: None })
    }

    /// Publishes the message only once, if it has a key.
    pub(super) fn once(self, once: Option<Once>) -> Self {
        Self { once, ..self }
    }

    /// Returns the topic.
    pub(super) fn topic(&self) -> &TopicName {
        &self.topic
    }

    /// Publishes `body`, if the limit admits one more message.
    async fn publish(&self, body: &[u8], requester: Requester<'_>) -> Publishing {
        if let Some(limit) = &self.limit
            && let Err(wait) = limit.rate.admit(requester.peer, requester.rate_state, requester.now)
        {
            limit.counters.refuse(Refusal::Rate);
            return Ok(Err(too_fast(wait)));
        }
        let draft = Draft {
            media_type: self.content.media_type,
            ..Draft::new(self.content.frame(body).await)
        };
        let published = self.shared.hub.publish_draft(&self.topic, draft, self.source).await?;
        Ok(published.map_err(|error| Response::text(503, format!("{error}\n"))))
    }
}

impl Question for Publish {
    fn body_limit(&self) -> u64 {
        self.content.body_limit()
    }

    fn expects_continue(&self) -> bool {
        self.content.expects_continue
    }

    fn answer<'a>(self: Box<Self>, body: &'a [u8], requester: Requester<'a>) -> Answering<'a> {
        Box::pin(async move {
            let now = requester.now;
            let publishing = self.publish(body, requester);
            let published = match &self.once {
                // The key comes before the limit on messages, because a repeat publishes nothing.
                Some(once) => once.publish(body, now, publishing).await?,
                None => publishing.await?,
            };
            Ok(match published {
                Ok(Published { id, subscribers }) => {
                    let body = entry(&self.topic, Some(id), subscribers) + "\n";
                    Response::new(202, JSON, body.into_bytes())
                }
                Err(refusal) => refusal,
            })
        })
    }
}

/// Checks that the sender of a request may publish to a topic, or clear it.
pub(super) fn may_publish(topic: &TopicName, gatekeeper: &Gatekeeper<'_>) -> Result<(), Refused> {
    gatekeeper.may(Action::Publish(topic.as_str()))?;
    match topic.is_reserved() {
        true => Err(TopicError::Reserved(topic.clone()).into()),
        false => Ok(()),
    }
}

/// Returns the response to a client that must wait before it publishes again.
fn too_fast(wait: Duration) -> Response {
    let seconds = wait.as_millis().div_ceil(1000).max(1).to_string();
    Response::text(429, "too many messages a second\n").with_header("Retry-After", seconds)
}

impl Content {
    /// Reads the head of a request whose body is a message.
    ///
    /// # Errors
    /// The response to a request whose body must not be read.
    pub(crate) fn of(head: &RequestHead<'_>, limits: &Limits) -> Result<Self, Response> {
        check_length(head, limits)?;
        let expects_continue = expects_continue(head)?;
        let body_limit = limits.message_bytes as u64;
        let mut lines = head.values("content-type");
        let Some(declared) = lines.next() else {
            return Ok(Self { may_be_text: true, media_type: None, expects_continue, body_limit });
        };
        let declared = String::from_utf8_lossy(declared).to_ascii_lowercase();
        let declared = declared.split(';').next().unwrap_or_default().trim();
        let may_be_text = declared.starts_with("text/")
            || declared == "application/x-www-form-urlencoded"
            || declared == JSON
            || declared.ends_with("+json");
        let media_type = KEPT_TYPES.iter().copied().find(|kept| *kept == declared);
        Ok(Self { may_be_text, media_type, expects_continue, body_limit })
    }

    /// Returns true if the client waits for `100 Continue` before it sends the body.
    pub(crate) fn expects_continue(self) -> bool {
        self.expects_continue
    }

    /// Returns the length of the longest body that a message may have, in bytes.
    pub(crate) fn body_limit(self) -> u64 {
        self.body_limit
    }

    /// Returns the body as an encoded message.
    pub(crate) async fn frame(self, body: &[u8]) -> Frame {
        Frame::data_in_turns(self.may_be_text && is_utf8(body).await, body).await
    }
}

/// Returns true if `bytes` are UTF-8. Checks a large text in pieces, between which other tasks run.
async fn is_utf8(mut bytes: &[u8]) -> bool {
    while let Some(piece) = bytes.get(..CHECKED_BYTES) {
        let whole = match str::from_utf8(piece) {
            Ok(_) => piece.len(),
            // The piece ends within a character.
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => return false,
        };
        bytes = &bytes[whole..];
        yield_now().await;
    }
    str::from_utf8(bytes).is_ok()
}

/// Checks that the request has a body, whose length is within the limit of a message or is not known yet.
fn check_length(head: &RequestHead<'_>, limits: &Limits) -> Result<(), TopicError> {
    let limit = limits.message_bytes;
    match head.body() {
        Framing::None => Err(TopicError::NoLength),
        Framing::Length(bytes) if bytes > limit as u64 => {
            Err(TopicError::TooLarge { bytes, limit })
        }
        Framing::Length(_) | Framing::Chunked => Ok(()),
    }
}

/// Returns true if the client waits for `100 Continue` (RFC 9110 §10.1.1).
///
/// # Errors
/// [`TopicError::Expectation`], if the Expect header has another value.
fn expects_continue(head: &RequestHead<'_>) -> Result<bool, TopicError> {
    let mut expected = head.values("expect").peekable();
    let waits = expected.peek().is_some() && head.is_http_1_1();
    match expected.all(|expected| expected.eq_ignore_ascii_case(b"100-continue")) {
        true => Ok(waits),
        false => Err(TopicError::Expectation),
    }
}

/// The number of bytes of a text that are checked before other tasks run. Up to 64 tasks run in a turn of the
/// reactor.
const CHECKED_BYTES: usize = 32 * 1024;
/// The media types that a topic keeps and sends with its messages. A browser executes none of them.
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

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use futures_lite::future::block_on;

    use super::*;

    #[test]
    fn a_text_is_checked_in_pieces_as_at_once() {
        for filler in CHECKED_BYTES - 4..=CHECKED_BYTES + 1 {
            for end in ["", "ä", "☂", "\u{1f600}", "\u{1f600}ä"] {
                let text = "x".repeat(filler) + end + &"☂".repeat(CHECKED_BYTES / 3);
                let checked = is_utf8(text.as_bytes());
                assert!(block_on(checked), "{filler} {end:?}");
                for cut in 1..3 {
                    let cut = &text.as_bytes()[..text.len() - cut];
                    assert!(!block_on(is_utf8(cut)), "{filler} {end:?}: ends within a character");
                }
                for broken in [filler, CHECKED_BYTES - 1, CHECKED_BYTES] {
                    let mut bytes = text.clone().into_bytes();
                    bytes[broken] = 0xff;
                    assert!(!block_on(is_utf8(&bytes)), "{filler} {end:?}: {broken}");
                }
            }
        }
    }

    #[test]
    fn other_tasks_run_while_a_large_text_is_checked() {
        let text = vec![b'x'; 10 * CHECKED_BYTES];
        let mut checking = pin!(is_utf8(&text));
        let mut cx = Context::from_waker(Waker::noop());
        let polls = (0..100).take_while(|_| checking.as_mut().poll(&mut cx).is_pending()).count();
        assert_eq!(polls, 10);
    }
}
