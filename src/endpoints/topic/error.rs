//! The errors of requests to topics.

use std::fmt;

use crate::access::Refused;
use crate::escaped::Escaped;
use crate::http::Response;
use crate::hub::{FilterError, TopicName};
use crate::ws::handshake::HandshakeError;

/// The reason why a topic refuses a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TopicError {
    /// The path is not a list of topic filters.
    Filter(FilterError),
    /// The path stands for several topics, and the request is to one.
    Several(String),
    /// A client that only publishes names more than one topic.
    PublishToMany,
    /// Clients may not publish to the topic.
    Reserved(TopicName),
    /// The opening handshake is wrong.
    Handshake(HandshakeError),
    /// `?mode=` is neither `in` nor `out`.
    Mode(String),
    /// `?last=` is not a number.
    Last(String),
    /// There is neither a Content-Length nor a Transfer-Encoding.
    NoLength,
    /// The body is longer than a message may be.
    TooLarge { bytes: u64, limit: usize },
    /// The Expect header is not `100-continue`.
    Expectation,
    /// There are several idempotency keys.
    RepeatedKey,
    /// The idempotency key is too long, empty, or has other characters than visible ASCII.
    InvalidKey,
    /// A message with other content was accepted with the same idempotency key.
    UsedKey,
}

impl TopicError {
    /// Returns the response.
    pub(super) fn response(self) -> Response {
        let text = format!("{self}\n");
        match self {
            Self::Handshake(error) => error.response(),
            Self::Filter(FilterError::TooMany { .. })
            | Self::Mode(_)
            | Self::Last(_)
            | Self::PublishToMany
            | Self::RepeatedKey
            | Self::InvalidKey => Response::text(400, text),
            Self::Filter(_) | Self::Several(_) => Response::text(404, text),
            // The name is valid, but no token helps.
            Self::Reserved(_) => Response::text(403, text),
            Self::NoLength => Response::text(411, text),
            Self::TooLarge { .. } => Response::text(413, text),
            Self::Expectation => Response::text(417, text),
            Self::UsedKey => Response::text(422, text),
        }
    }
}

impl fmt::Display for TopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filter(error) => error.fmt(f),
            Self::Several(path) => write!(
                f,
                "`{path}` is not one topic: expected the name of one, with `%2C` for a comma in it"
            ),
            Self::PublishToMany => f.write_str(
                "mode is `in`: expected the name of one topic, with `%2C` for a comma in it",
            ),
            Self::Reserved(topic) => write!(
                f,
                "`{}` begins with `$`: clients can subscribe to such a topic, but not publish to it",
                Escaped(topic.as_str())
            ),
            Self::Handshake(error) => error.fmt(f),
            Self::Mode(mode) => write!(f, "mode is `{mode}`: expected `in` or `out`"),
            Self::Last(last) => write!(f, "last is `{last}`: expected a number of messages"),
            Self::NoLength => f.write_str("a message to publish needs a Content-Length or chunks"),
            Self::TooLarge { bytes, limit } => write!(f, "message is {bytes} bytes, limit {limit}"),
            Self::Expectation => f.write_str("the only supported Expect is 100-continue"),
            Self::RepeatedKey => f.write_str("Idempotency-Key is given twice: expected one key"),
            Self::InvalidKey => {
                write!(f, "Idempotency-Key: expected 1 to {MAX_KEY_BYTES} visible ASCII characters")
            }
            Self::UsedKey => f.write_str(
                "Idempotency-Key was used for another message: expected a new key for each message",
            ),
        }
    }
}

impl std::error::Error for TopicError {}

/// The maximum length of an idempotency key.
pub(super) const MAX_KEY_BYTES: usize = 64;

impl From<TopicError> for Response {
    fn from(error: TopicError) -> Self {
        error.response()
    }
}

impl From<TopicError> for Refused {
    fn from(error: TopicError) -> Self {
        error.response().into()
    }
}
