//! The ways in which a session ends.

use std::fmt;
use std::io;
use std::time::Instant;

use crate::frame::{CloseCode, CloseReason};
use crate::hub::Client;

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// The client sent a Close with this code; 1005 stands for a Close without a code. The server
    /// answered with the same code (RFC 6455 §5.5.1).
    ClosedByPeer(CloseCode),
    /// The server sent a Close: the endpoint was done, the client broke a rule or a limit, or the server
    /// stops.
    Evicted(CloseReason),
    /// The connection broke without a Close.
    TransportLost,
}

impl fmt::Display for SessionEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClosedByPeer(code) => write!(f, "closed by the peer with {}", u16::from(*code)),
            Self::Evicted(reason) => write!(f, "closed by us with {reason}"),
            Self::TransportLost => f.write_str("lost"),
        }
    }
}

impl SessionEnd {
    /// Logs and counts the end of a client's connection.
    pub(crate) fn record(&self, client: &Client, now: Instant) {
        client.end(self, self.code(), now);
    }

    /// The close code; 1006 stands for none (RFC 6455 §7.1.5).
    fn code(&self) -> CloseCode {
        match self {
            Self::ClosedByPeer(code) => *code,
            Self::Evicted(reason) => reason.code,
            Self::TransportLost => CloseCode::Abnormal,
        }
    }
}

/// Why a session ends, and how much is done to end it well.
#[derive(Debug)]
pub(super) enum Ending {
    /// The client sent a Close, which has been answered.
    ClosedByPeer(CloseCode),
    /// The server ends the session: it sends a Close and waits for the answer.
    Evicted(CloseReason),
    /// The client broke a rule: it is sent a Close, and nothing more is read.
    Refused(CloseReason),
    /// The client broke a limit or is dead: it is sent a Close if that takes no waiting.
    GivenUp(CloseReason),
    /// The connection broke.
    Lost,
}

impl Ending {
    /// The ending for a client that was evicted from the hub, if it was.
    pub(super) fn of_eviction(client: &Client) -> Option<Self> {
        let reason = client.eviction()?;
        Some(if client.is_given_up() { Self::GivenUp(reason) } else { Self::Evicted(reason) })
    }

    /// The ending for a client that broke the protocol: a mistake is answered, a flood of frames is not.
    #[inline(never)] // Cold path: it would be in the way of every message.
    pub(super) fn of_violation(reason: CloseReason) -> Self {
        match reason.code {
            CloseCode::Policy => Self::GivenUp(reason),
            _ => Self::Refused(reason),
        }
    }

    pub(super) fn session_end(&self) -> SessionEnd {
        match *self {
            Self::ClosedByPeer(code) => SessionEnd::ClosedByPeer(code),
            Self::Evicted(reason) | Self::Refused(reason) | Self::GivenUp(reason) => {
                SessionEnd::Evicted(reason)
            }
            Self::Lost => SessionEnd::TransportLost,
        }
    }
}

impl From<io::Error> for Ending {
    fn from(_: io::Error) -> Self {
        Self::Lost
    }
}
