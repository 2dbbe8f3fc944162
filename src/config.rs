//! What can be set, as plain data: every field says its unit and its default.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

/// All settings of a [`Server`](crate::Server).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// How long a peer may take over things.
    pub timeouts: Timeouts,
    /// How much a peer may send, and how many peers there may be.
    pub limits: Limits,
    /// What topics keep, and for whom.
    pub topics: Topics,
    /// What a well-formed request that is refused gets. Default [`Reject::Respond`].
    pub reject: Reject,
    /// What `https://` listen URLs need.
    pub tls: Tls,
}

/// How long a peer may take. `None` switches a deadline off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// How long a peer may take over its request head, counted from the accept. Default 5 s; then
    /// the connection is dropped.
    pub head: Option<Duration>,
    /// How long a TLS peer may take over its handshake and its first request head together, counted
    /// from the accept. Default 10 s; then the connection is dropped.
    pub tls_head: Option<Duration>,
    /// How long a connection may rest between two requests. Default 75 s; `None` is one request a
    /// connection.
    pub keep_alive: Option<Duration>,
    /// How long a client may be silent before it is sent a Ping. Default 30 s.
    pub ping_every: Option<Duration>,
    /// How long a client may be silent before it is dropped. Default 75 s: two pings and a half.
    pub idle: Option<Duration>,
    /// How long the rest of one frame may wait for a peer to make room, however steadily it reads.
    /// Default 10 s; then the client is given up with 1008.
    pub write: Option<Duration>,
    /// How long a message or a request's body may stay unfinished. Default 30 s.
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
            tls_head: Some(Duration::from_secs(10)),
            keep_alive: Some(Duration::from_secs(75)),
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
    /// closed with 1009, a request answered with 413.
    pub message_bytes: usize,
    /// The largest request head accepted, in bytes. Default 8 KiB; beyond it the answer is 431.
    pub head_bytes: usize,
    /// The longest request target accepted, in bytes. Default 2 KiB; beyond it the answer is 414.
    pub target_bytes: usize,
    /// How many connections may be open at once. Default 10,000; never more than the limit of open
    /// files less 32.
    pub connections: usize,
    /// How many of them one address may hold that is neither this host nor a trusted proxy. Default an
    /// eighth of them, which `None` is; beyond it the answer is 503.
    pub per_address: Option<NonZeroUsize>,
    /// How many messages a second one address may publish over HTTP, or one connection of this host; and
    /// as many at once after a second of rest. Default `None`: no limit; beyond it the answer is 429.
    pub publish_rate: Option<NonZeroU32>,
    /// How many messages a second one WebSocket client may send, and as many at once after a second of
    /// rest; what it sends faster is read later. Default `None`: any number.
    pub message_rate: Option<NonZeroU32>,
    /// How many requests one connection may bring; the answer to the last one says so. Default 1,000.
    pub requests: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 64 * 1024,
            head_bytes: 8 * 1024,
            target_bytes: 2 * 1024,
            connections: 10_000,
            per_address: None,
            publish_rate: None,
            message_rate: None,
            requests: 1_000,
        }
    }
}

/// What topics keep: the newest messages of each, for those who come later and those who read slowly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    /// How many topics there may be. Default 1,024; one more is refused with 503.
    pub count: usize,
    /// How many messages a topic retains for who comes later. Default 1: the state of things, as a
    /// sensor's last value. With 0 nothing is retained.
    pub retain_messages: usize,
    /// How many bytes the retained messages of a topic may have together. Default 64 KiB; the newest is
    /// retained whatever its size.
    pub retain_bytes: usize,
    /// How many messages a subscriber may be behind. Default 64: a burst, not a history.
    pub log_messages: usize,
    /// How many bytes a subscriber may be behind. Default 256 KiB: four of the largest messages.
    pub log_bytes: usize,
    /// How many bytes the messages of all topics may have together. Default 8 MiB, a small part of a
    /// small host; beyond it the topic that holds most loses its oldest.
    pub total_bytes: usize,
    /// What happens to a subscriber whose next message is no longer kept. Default
    /// [`SlowConsumer::Skip`].
    pub slow_consumer: SlowConsumer,
}

impl Default for Topics {
    fn default() -> Self {
        Self {
            count: 1024,
            retain_messages: 1,
            retain_bytes: 64 * 1024,
            log_messages: 64,
            log_bytes: 256 * 1024,
            total_bytes: 8 * 1024 * 1024,
            slow_consumer: SlowConsumer::default(),
        }
    }
}

/// What happens to a subscriber that reads more slowly than is published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowConsumer {
    /// It goes on with the oldest message kept, and what it lost is counted.
    #[default]
    Skip,
    /// It is closed with 1008.
    Close,
}

/// What `https://` listen URLs need. A build without the feature `tls` can't listen there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Where the certificate comes from. Default none: then there can be no `https://` listen URL.
    pub certificate: Option<Certificate>,
    /// How often the files of the certificate are looked at, when a client comes: a renewed one is used
    /// from then on. Default 60 s.
    pub look_every: Duration,
}

impl Default for Tls {
    fn default() -> Self {
        Self { certificate: None, look_every: Duration::from_secs(60) }
    }
}

/// Where a server's certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// From files in PEM.
    Files {
        /// The certificate, and after it those of who signed it.
        chain: PathBuf,
        /// Its private key, as PKCS#8, PKCS#1 or SEC1.
        key: PathBuf,
    },
    /// The server signs one for itself, with localhost, the host's name and its addresses. Its
    /// fingerprint is logged.
    SelfSigned {
        /// The directory it is kept in, as `tls-cert.pem` and `tls-key.pem`. Without one, there is a new
        /// certificate at each start.
        state_dir: Option<PathBuf>,
    },
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
