//! The configuration, as plain data. Every field documents its unit and its default.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

/// The configuration of a [`Server`](crate::Server).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Deadlines for peers.
    pub timeouts: Timeouts,
    /// Limits on sizes, rates and numbers of connections.
    pub limits: Limits,
    /// Limits of topics, and the policy for slow subscribers.
    pub topics: Topics,
    /// The reaction to a request that is refused. Default: [`Reject::Respond`].
    pub reject: Reject,
    /// The settings of `https://` listeners.
    pub tls: Tls,
}

/// Deadlines for peers. `None` disables a deadline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Longest time for a request head; for the first one, counted from the accept or the end of a PROXY
    /// header, which has the same limit. Default: 5 s. After this time, the connection is dropped.
    pub head: Option<Duration>,
    /// Longest time for a TLS handshake and the first request head together, counted from the accept or the
    /// end of a PROXY header. Default: 10 s. After this time, the connection is dropped.
    pub tls_head: Option<Duration>,
    /// Longest time between two requests on a connection. Default: 75 s. With `None` a connection serves one
    /// request.
    pub keep_alive: Option<Duration>,
    /// Time without received bytes after which a client is sent a Ping. Default: 30 s.
    pub ping_every: Option<Duration>,
    /// Time without received bytes after which a client is dropped. Default: 75 s, which is two and a half
    /// times `ping_every`.
    pub idle: Option<Duration>,
    /// Longest time for which a peer may block a write by not reading. Each byte that the peer reads renews the
    /// deadline at the rate [`min_rate`](Self::min_rate): a peer that reads faster than this is never cut off, however
    /// long a frame or a response takes. Default: 10 s. After this time, a client is closed with 1008, and a
    /// connection that is sent a response is closed.
    pub write: Option<Duration>,
    /// Bytes per second that a peer must read to renew the deadline [`write`](Self::write). For each of these
    /// bytes the deadline moves by the same part of a second, to at most the full time from now. Default:
    /// 8 KiB. With 0 any progress renews the deadline in full. The kernels report what a program reads only in
    /// pieces, of 40 to 200 KB; a program that reads so slowly that its pieces are further apart than `write`
    /// is cut off, too. In a build without the feature `full` nothing renews the deadline.
    pub min_rate: usize,
    /// Longest time for receiving a message or a request body. Default: 30 s.
    pub message: Option<Duration>,
    /// Longest time for a peer to answer the server's Close. Default: 2 s.
    pub close_handshake: Duration,
    /// Longest time that a stopping server waits for its clients. Default: 2.5 s. After this time, the
    /// remaining connections are aborted.
    pub drain: Duration,
    /// Longest time that the server reads and discards what a peer sends after the last response or Close,
    /// because a reset could discard that response or Close before the peer reads it. Default: 5 s. It ends
    /// earlier if the peer closes the connection or is silent for 2 s, and after about 500 ms while the server
    /// stops. At most 64 connections are kept for this; further ones are closed at once.
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
            min_rate: 8 * 1024,
            message: Some(Duration::from_secs(30)),
            close_handshake: Duration::from_secs(2),
            drain: Duration::from_millis(2500),
            linger: Duration::from_secs(5),
        }
    }
}

impl Timeouts {
    /// Returns the time by which a peer renews the deadline [`write`](Self::write) when it reads `bytes`.
    pub(crate) fn renewal(&self, bytes: usize) -> Duration {
        let nanoseconds = (bytes as u64).saturating_mul(1_000_000_000);
        nanoseconds.checked_div(self.min_rate as u64).map_or(Duration::MAX, Duration::from_nanos)
    }
}

/// Limits on sizes, rates and numbers of connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest message accepted, in bytes of payload. Default: 64 KiB. A larger message closes its session
    /// with 1009, or is answered with 413 if it was sent by HTTP.
    pub message_bytes: usize,
    /// Largest request head accepted, in bytes. Default: 16 KiB. A larger head is answered with 431.
    pub head_bytes: usize,
    /// Longest request target accepted, in bytes. Default: 2 KiB. A longer target is answered with 414.
    pub target_bytes: usize,
    /// Largest number of open connections. Default: 10,000, but at most the process's limit on open files
    /// minus 48 (more with many listen URLs), and minus another 16 with a listener for the administrator. Up to
    /// 16 connections of peers on this host (Unix sockets and loopback addresses) are not counted; where fewer
    /// than 128 files are left for connections, one eighth of these. A proxy's connection is counted once it
    /// has named its client (`X-Forwarded-For`, `Forwarded` or the PROXY protocol). Each file of a
    /// [directory](crate::ServerBuilder::files) that is being sent counts against the limit on open files, too;
    /// if they would take more than a fourth of it, further requests for files are answered with 503.
    pub connections: usize,
    /// Largest number of connections that one remote address may hold. With IPv6, a network of 64 bits counts as
    /// one address; all addresses in a network of 56 bits may hold twice as many connections, and in one of 48
    /// bits four times as many. Addresses of this host and trusted proxies are exempt. Default: `None`, which is
    /// one eighth of `connections`. Further connections are answered with 503, requests for event streams with
    /// `retry:`.
    pub per_address: Option<NonZeroUsize>,
    /// TLS handshakes per second of one remote address. After a second without handshakes, this number may begin
    /// at once; further ones wait. A connection whose handshake would wait longer than three quarters of
    /// [`Timeouts::tls_head`] is dropped. Addresses of this host and trusted proxies are exempt; a client that
    /// the PROXY protocol names is not. `None` disables the limit. Default: 20. A browser needs up to 8 for a
    /// page; behind one address, 170 clients that reconnect at the same time have all connected after 7.5 s.
    pub handshake_rate: Option<NonZeroU32>,
    /// Messages per second that one remote address may publish over HTTP, or one connection from this host. IPv6
    /// addresses are counted as for `per_address`. After a second without messages, this number of messages may
    /// arrive at once. Default: `None`, no limit. Further messages are answered with 429.
    pub publish_rate: Option<NonZeroU32>,
    /// Number of idempotency keys that are remembered for each publisher over HTTP, for 5 minutes. A publisher is
    /// a token, or without one a remote address, or this host. Default: 1,024. A message whose key is remembered
    /// is not published again. All publishers together have 8,192 keys; beyond these, the one with the most
    /// loses its oldest. With 0 keys are ignored.
    pub publish_keys: usize,
    /// Messages per second that are read from one WebSocket client. After a second without messages, this
    /// number of messages are read at once; further ones are read later. Default: `None`, no limit.
    pub message_rate: Option<NonZeroU32>,
    /// Memory of everything that is unfinished on all connections, in bytes: received parts of heads, bodies,
    /// messages and TLS records, and output that peers have not read. Default: `None`, which is 8 MiB, or a
    /// quarter of the memory limit of the process's control group if that is less; at least four times
    /// `message_bytes`. At the limit, connections that hold more than 4 KiB of it are not read. If this lasts
    /// 1 s, or twice the limit is reached, the largest holders of the address that holds most are closed, with
    /// 1013 or status 503. A build without the feature `full` has no such limit.
    pub pending_bytes: Option<usize>,
    /// Largest number of requests on one connection; the response to the last one announces the close.
    /// Default: 1,000.
    pub requests: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 64 * 1024,
            head_bytes: 16 * 1024,
            target_bytes: 2 * 1024,
            connections: 10_000,
            per_address: None,
            handshake_rate: NonZeroU32::new(20),
            publish_rate: None,
            publish_keys: 1024,
            message_rate: None,
            pending_bytes: None,
            requests: 1_000,
        }
    }
}

/// Limits of topics. A topic keeps its newest messages, for later subscribers and for slow ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    /// Largest number of topics. Default: 1,024. A request that would create one more is answered with 503,
    /// or for an event stream with `retry:`.
    pub count: usize,
    /// Largest number of different topic filters with a wildcard that have subscribers. Default: 1,024. A request
    /// that would be one more is answered with 503, or for an event stream with `retry:`.
    pub filters: usize,
    /// Number of messages that a topic retains for later subscribers. Default: 1, the current state, such as
    /// the last value of a sensor. With 0 nothing is retained.
    pub retain_messages: usize,
    /// Total size of the messages that a topic retains, in bytes. Default: 64 KiB. The newest message is
    /// retained at any size.
    pub retain_bytes: usize,
    /// Number of messages that a subscriber may fall behind. Default: 64, enough for a burst.
    pub log_messages: usize,
    /// Number of payload bytes that a subscriber may fall behind. Default: 256 KiB, four messages of the
    /// largest size.
    pub log_bytes: usize,
    /// Memory of the messages of all topics, with all their encodings, in bytes. Default: 8 MiB, a small part
    /// of the memory of a small host. Beyond it, the topic that takes most drops its oldest messages.
    pub total_bytes: usize,
    /// The policy for a subscriber whose next message is no longer kept. Default: [`SlowConsumer::Skip`].
    pub slow_consumer: SlowConsumer,
}

impl Default for Topics {
    fn default() -> Self {
        Self {
            count: 1024,
            filters: 1024,
            retain_messages: 1,
            retain_bytes: 64 * 1024,
            log_messages: 64,
            log_bytes: 256 * 1024,
            total_bytes: 8 * 1024 * 1024,
            slow_consumer: SlowConsumer::default(),
        }
    }
}

/// The policy for a subscriber that reads more slowly than messages are published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowConsumer {
    /// The subscriber continues with the oldest message kept. The messages that it missed are counted.
    #[default]
    Skip,
    /// The subscriber is closed with 1008.
    Close,
}

/// The settings of `https://` listeners. A build without the feature `tls` can't open such listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The source of the certificate. Default: none; then `https://` listen URLs are refused.
    pub certificate: Option<Certificate>,
    /// Shortest time between two checks for a renewed certificate, or for new names and addresses of this
    /// host. A check is made when a client connects. Default: 60 s.
    pub check_every: Duration,
}

impl Default for Tls {
    fn default() -> Self {
        Self { certificate: None, check_every: Duration::from_secs(60) }
    }
}

/// The source of a server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// Files in PEM.
    Files {
        /// The file with the certificate, followed by the certificates of its issuers.
        chain: PathBuf,
        /// The file with the private key, as PKCS#8, PKCS#1 or SEC1.
        key: PathBuf,
    },
    /// A certificate for localhost, the host's name and its addresses, signed by a certificate authority (CA)
    /// of the server's own. It is valid for 397 days, and signed anew when a month is left, when the host's
    /// name or addresses have changed, or when the clock was set. This is checked when a client connects. The
    /// CA may sign only for localhost, the host's name, names that end in `.local`, and private and loopback
    /// addresses. The fingerprints of the CA and of each certificate are logged.
    SelfSigned {
        /// The directory that keeps the CA, as `ca.pem`, which clients trust, and `ca-key.pem`. It is valid
        /// for ten years; a start in the last 397 days renews `ca.pem`. With `None` each start creates a new
        /// CA in memory.
        state_dir: Option<PathBuf>,
    },
}

/// The reaction to a request that is refused. Bytes that are not an HTTP request are never answered. A connection
/// above a limit may be answered before its request has arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reject {
    /// A short 4xx or 5xx response.
    #[default]
    Respond,
    /// No response: the connection is dropped, and the refusal is logged.
    Drop,
}
