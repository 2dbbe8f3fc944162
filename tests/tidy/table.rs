//! The order of the rooms and of the files in each room.

use crate::order::Order;

/// The root files of the crates in `src/`.
pub(crate) const ROOTS: &[&str] =
    &["src/build.rs", "src/lib.rs", "src/main.rs", "src/bin/falconet-client/main.rs"];

/// The rooms in their order, each with its files in their order. A room is a top-level module
/// or a program. A room imports only from the rooms above it, and a file only from the files before it. A
/// room without a list is one file.
///
/// The name of a room is its path in `src/`, and the name of a file is its path in the room, without `.rs`.
/// The file `mod.rs` of a room is called `mod`. A file may declare and re-export its own modules: that is not
/// an import. Test files are not listed: they may import from every file of their room.
#[rustfmt::skip]
pub(crate) const ORDER: Order = Order(&[
    ("escaped", &[]),
    ("features", &[]),
    ("config", &[]),
    ("rate", &[]),
    ("counters", &[]),
    ("frame", &[]),
    ("systemd", &[]),
    ("reload", &[]),
    ("net", &[
        "address_prefix", "address", "deadlines", "failed", "handshake_queue", "meter", "pending", "reactor", "socket",
        "tls", "tls/setup", "tls/session", "tls/der", "tls/pem", "tls/host_names", "tls/authority", "tls/self_signed",
        "tls/acceptor", "tls/connector", "tls/certified_names", "tls/absent", "own_names", "transport", "listener",
        "watched", "mod",
    ]),
    ("signals", &[]),
    ("privileges", &["account", "sandbox", "mod"]),
    ("http", &[
        "chunk", "date", "entity_tag", "range", "response", "asset", "body", "percent", "head", "accept", "json", "mod",
    ]),
    ("hub", &[
        "ids", "topic_name", "filter", "event", "publication", "log", "feed", "cursor", "merge", "cursors",
        "notify", "liveness", "client", "topics", "mod", "command", "handle", "task",
    ]),
    ("access", &[
        "address_place", "authorize", "tokens", "origin", "proxy_protocol", "proxies",
        "prefix_rates", "publish_rate", "publish_keys", "handshake_rate", "cors", "gatekeeper", "mod",
    ]),
    ("ws", &[
        "sha1", "handshake", "decode", "gate", "end", "shared", "outlet", "socket", "session", "mod",
    ]),
    ("resource", &[]),
    ("endpoints", &[
        "endpoint", "echo", "websocket", "page", "files/directory", "files", "events",
        "topic/error", "topic/once", "topic/read", "topic/publish", "topic/subscribe", "topic", "mod",
    ]),
    ("services", &["stop", "service", "stdin", "supervision", "sweep", "timestamp", "mod"]),
    ("admin", &[
        "process", "seconds", "history", "state", "dashboard", "metrics", "api", "stats", "mod",
    ]),
    ("connection", &[
        "request", "access_log", "reader", "context", "plan", "answer", "question", "handshake", "turn_away",
        "proxy", "upgrade", "mod",
    ]),
    ("server", &["cgroup", "connections", "error", "mod", "builder"]),
    ("log", &[]),
    ("cli", &["options", "values", "table", "manual", "text", "sources", "check", "mod"]),
    ("build", &[]),
    ("lib", &[]),
    ("main", &[]),
    ("bin/falconet-client", &[
        "backoff", "token", "url", "screen", "message", "options", "response", "http", "handshake",
        "connection", "terminal", "input", "interrupts", "client", "chunks", "sse", "follower",
        "publisher", "main",
    ]),
]);
