//! The end of a session: its public outcome, and the steps that lead to it.

use std::fmt;
use std::io;
use std::time::Instant;

use crate::frame::{CloseCode, CloseReason, NO_CLOSE, NO_CODE};
use crate::hub::Client;
use crate::net::is_eviction;

/// The outcome of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// The client sent a Close with this code, or without one, and the server answered it (RFC 6455
    /// §5.5.1).
    ClosedByPeer(Option<CloseCode>),
    /// The server ended the session for this reason: the endpoint closed the session, the client violated
    /// the protocol or a limit, an administrator disconnected the client, or the server is stopping.
    Evicted(CloseReason),
    /// The connection broke without a Close.
    TransportLost,
}

impl fmt::Display for SessionEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClosedByPeer(_) => write!(f, "closed by the peer with {}", self.code()),
            Self::Evicted(reason) => write!(f, "closed by us with {reason}"),
            Self::TransportLost => f.write_str("lost"),
        }
    }
}

impl SessionEnd {
    /// Logs and counts the end of the client's connection.
    pub(crate) fn record(&self, client: &Client, now: Instant) {
        client.end(self, self.code(), now);
    }

    /// Returns the close code for the log and the metrics.
    fn code(&self) -> u16 {
        match self {
            Self::ClosedByPeer(code) => code.map_or(NO_CODE, u16::from),
            Self::Evicted(reason) => reason.code.into(),
            Self::TransportLost => NO_CLOSE,
        }
    }
}

/// The cause for the end of a session. It determines the steps that end the session: see `State::finish`.
#[derive(Debug)]
pub(super) enum Ending {
    /// The client sent a Close. The answer, if one is due, has been passed to the outlet.
    ClosedByPeer(Option<CloseCode>),
    /// The server ends the session. It sends the pending deliveries and a Close, and waits for the
    /// client's Close.
    Evicted(CloseReason),
    /// The client violated the protocol or a limit, or reads too slowly. The server sends a Close and decodes
    /// nothing more.
    Refused(CloseReason),
    /// The client has missed a deadline, or its memory is needed. The server sends a Close only if it can do so
    /// without waiting.
    Aborted(CloseReason),
    /// The connection broke without a Close.
    Lost,
}

impl Ending {
    /// Returns the ending for a client that the hub has evicted; `None` if the client is not evicted.
    pub(super) fn of_eviction(client: &Client) -> Option<Self> {
        let reason = client.eviction()?;
        Some(if client.is_aborted() { Self::Aborted(reason) } else { Self::Evicted(reason) })
    }

    /// Returns the public outcome of this ending.
    pub(super) fn session_end(&self) -> SessionEnd {
        match *self {
            Self::ClosedByPeer(code) => SessionEnd::ClosedByPeer(code),
            Self::Evicted(reason) | Self::Refused(reason) | Self::Aborted(reason) => {
                SessionEnd::Evicted(reason)
            }
            Self::Lost => SessionEnd::TransportLost,
        }
    }
}

impl From<io::Error> for Ending {
    fn from(error: io::Error) -> Self {
        if is_eviction(&error) { Self::Aborted(CloseReason::OVERLOADED) } else { Self::Lost }
    }
}
