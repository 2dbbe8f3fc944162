//! falconet: a WebSocket server for small hosts.
//!
//! One thread, one epoll, about a megabyte of memory. The binary serves a page, an echo, a timestamp
//! and topics; with this library you put your own [`Endpoint`]s at paths and your own [`Service`]s
//! beside them. [`Server`] shows the smallest program.
//!
//! # Invariants
//!
//! 1. The hub awaits only its inbox, and yields to others between.
//! 2. Every queue and log is bounded.
//! 3. Every await on a peer has a deadline.
//! 4. `http`, the `Hub`, `ws::handshake` and `ws::frame` do no I/O, read no clock and spawn nothing;
//!    only `http::files` opens files, and the time is read once when the hub is opened.
//! 5. No room imports a later room; `tests/tidy.rs` knows their order.
//! 6. Only `server.rs` spawns; only `main.rs`, `cli` and the client print.
//! 7. No byte from the network can panic the process, and a panic in one client's task leaves the
//!    others whole.
//! 8. A cargo feature changes nothing until it is configured.
//! 9. A live session is always being read, except while it does not take what it is sent or is faster
//!    than it may be.
//! 10. There is no `unsafe`.

#![forbid(unsafe_code)]

mod access;
mod admin;
pub mod cli;

pub mod config;
mod connection;
mod endpoints;
mod escaped;
mod features;
mod frame;
mod http;
mod hub;
pub mod privileges;

mod counters;
pub mod log;
pub mod net;
mod rate;
mod resource;
mod server;
mod services;
pub mod signals;
pub mod systemd;
mod ws;

pub use access::{
    Action, AllowAll, Authorize, Denied, OriginError, Origins, TokenFile, TokenFileError,
    TrustedProxies, TrustedProxy, TrustedProxyError,
};
pub use config::Config;
pub use counters::ProcessErrors;
pub use endpoints::{Echo, Endpoint};
pub use features::{Feature, NotBuiltIn};
pub use frame::{CloseCode, CloseReason, Message};
pub use http::{Asset, HeadError, RequestHead, Response};
pub use hub::{
    ClientCounts, ClientId, CorrelationId, EventId, HubGone, HubHandle, PublishError, Published,
    TooManyTopics, TopicInfo, TopicName, TopicNameError,
};
pub use server::{Server, ServerBuilder, StartError};
pub use services::{LocalClock, Service, Stdin, Stop, Stopper, Supervision, Timestamp};
pub use ws::{Session, SessionEnd, accept_value};

/// Compiles the examples in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
