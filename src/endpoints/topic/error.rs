//! The errors of requests to topics.

use std::fmt;

use crate::access::Refused;
use crate::http::Response;
use crate::hub::TopicNameError;
use crate::ws::handshake::HandshakeError;

/// The reason why a topic refuses a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TopicError {
    /// The path does not name a topic.
    Name(TopicNameError),
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
}

impl TopicError {
    /// Returns the response.
    pub(super) fn response(self) -> Response {
        let text = format!("{self}\n");
        match self {
            Self::Handshake(error) => error.response(),
            Self::Name(_) => Response::text(404, text),
            Self::Mode(_) | Self::Last(_) => Response::text(400, text),
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
            Self::Mode(mode) => write!(f, "mode is `{mode}`: expected `in` or `out`"),
            Self::Last(last) => write!(f, "last is `{last}`: expected a number of messages"),
            Self::NoLength => f.write_str("a message to publish needs a Content-Length or chunks"),
            Self::TooLarge { bytes, limit } => write!(f, "message is {bytes} bytes, limit {limit}"),
            Self::Expectation => f.write_str("the only supported Expect is 100-continue"),
        }
    }
}

impl std::error::Error for TopicError {}

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
