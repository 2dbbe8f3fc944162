//! What can be set, as plain data: every field says its unit and its default.

use std::time::Duration;

/// All settings of a [`Server`](crate::Server).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// How long a peer may take over things.
    pub timeouts: Timeouts,
    /// How much a peer may send, and how many peers there may be.
    pub limits: Limits,
    /// What a well-formed request that is refused gets. Default [`Reject::Respond`].
    pub reject: Reject,
}

/// How long a peer may take. `None` switches a deadline off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// How long a peer may take over its request head, counted from the accept. Default 5 s; then
    /// the connection is dropped.
    pub head: Option<Duration>,
    /// How long a client may be silent before it is sent a Ping. Default 30 s.
    pub ping_every: Option<Duration>,
    /// How long a client may be silent before it is dropped. Default 75 s: two pings and a half.
    pub idle: Option<Duration>,
    /// How long the rest of one frame may wait for a peer to make room, however steadily it reads.
    /// Default 10 s; then the client is given up with 1008.
    pub write: Option<Duration>,
    /// How long a message may stay unfinished after its first byte. Default 30 s.
    pub message: Option<Duration>,
    /// How long a peer may take to answer our Close. Default 2 s.
    pub close_handshake: Duration,
    /// How long the server waits for everyone when it stops. Default 2.5 s (article); then what is
    /// left is aborted.
    pub drain: Duration,
    /// How long a closed connection is read on, so that a reset does not overtake our last words.
    /// Default 500 ms.
    pub linger: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            head: Some(Duration::from_secs(5)),
            ping_every: Some(Duration::from_secs(30)),
            idle: Some(Duration::from_secs(75)),
            write: Some(Duration::from_secs(10)),
            message: Some(Duration::from_secs(30)),
            close_handshake: Duration::from_secs(2),
            drain: Duration::from_millis(2500),
            linger: Duration::from_millis(500),
        }
    }
}

/// How much a peer may send, and how many peers there may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest message accepted, in bytes of payload. Default 64 KiB; beyond it the session is
    /// closed with 1009.
    pub message_bytes: usize,
    /// The largest request head accepted, in bytes. Default 8 KiB; beyond it the answer is 431.
    pub head_bytes: usize,
    /// The longest request target accepted, in bytes. Default 2 KiB; beyond it the answer is 414.
    pub target_bytes: usize,
    /// How many connections may be open at once. Default 10,000; never more than the limit of open
    /// files less 32. One address that is not this host may hold an eighth of them.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 64 * 1024,
            head_bytes: 8 * 1024,
            target_bytes: 2 * 1024,
            connections: 10_000,
        }
    }
}

/// What a well-formed request that is refused gets. Bytes that are no request never get an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reject {
    /// A short 4xx or 5xx response.
    #[default]
    Respond,
    /// Nothing: the connection is dropped (article: "drop and log").
    Drop,
}
