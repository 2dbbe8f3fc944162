//! falconet: a WebSocket server for small hosts.
//!
//! The server runs on one thread with one epoll instance, in about a megabyte of memory. The program
//! `falconet` serves a page, an echo endpoint, a periodic timestamp and topics. With this library, a program
//! puts its own [`Endpoint`]s at paths and runs its own [`Service`]s beside them. The documentation of
//! [`Server`] shows the smallest program.
//!
//! # Rooms
//!
//! Each top-level module is a room, and a room imports only from the rooms before it. First come plain data
//! (`escaped`, `features`, `config`, `rate`, `counters`, `frame`) and the interfaces of the host (`systemd`,
//! `reload` for files that are read again, `net` with the reactor, sockets and TLS, `signals`, `privileges`).
//! `http` parses request heads and encodes responses. `hub` has the clients, the topics and their logs.
//! `access` decides what the sender of a request may do. `ws` runs WebSocket sessions. `resource` is the
//! interface between connections and the resources at URLs: a resource sees the head of a request, and plans an
//! answer, a question or an upgrade. `endpoints` contains the resources for clients, `services` the tasks that
//! run beside the connections, and `admin` the resource for the administrator. `connection` reads requests and
//! runs what a resource has planned. `server` binds, accepts, spawns and drains. `log` and `cli` serve the
//! program, whose `main.rs` puts the parts together. A message that a request publishes passes `connection`,
//! `endpoints`, `hub` and then the sessions in `ws`.
//!
//! # Invariants
//!
//! 1. The hub task awaits only its inbox, and yields to other tasks in between.
//! 2. Every queue and log is bounded.
//! 3. Every await on a peer has a deadline, unless the configuration disables the deadline.
//! 4. `http`, `frame`, `ws::handshake` and the `Hub` do no I/O, read no clock and spawn nothing. Creating a
//!    `Hub` is the exception: it reads the time and takes a random number.
//! 5. No room imports a later room, and no files import each other in a circle.
//! 6. Only `server` spawns tasks. Only `main.rs`, `cli` and the client print; `log` writes the log lines.
//! 7. No byte from the network can panic the process, and a panic in one client's task ends only that
//!    client's connection.
//! 8. A cargo feature changes nothing until it is configured.
//! 9. The server always reads from a live session, except while the client does not read what it is sent or
//!    exceeds its message rate, or while the endpoint does not wait for the next message.
//! 10. There is no `unsafe` code.
//! 11. A client with an event stream that missed messages of its topics is notified that it lagged, and no
//!     client is sent a message twice. A WebSocket frame has no room for such a notice.
//! 12. A published message is encoded at most once per form: once as a WebSocket frame, once as a server-sent
//!     event, and once as an event in JSON for the streams of several topics.
//!
//! `tests/tidy` checks 5 and 6 in the source.

#![forbid(unsafe_code)]

mod access;
mod admin;
pub mod cli;
pub mod config;
mod connection;
mod counters;
mod endpoints;
mod escaped;
mod features;
mod frame;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod http;
mod hub;
pub mod log;
pub mod net;
pub mod privileges;
mod rate;
mod reload;
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
pub use frame::{ApplicationCode, CloseCode, CloseReason, Message};
pub use http::{Asset, HeadError, RequestHead, Response};
pub use hub::{
    ClientCounts, ClientId, CorrelationId, EventId, HubGone, HubHandle, PublishError, Published,
    TooManyTopics, TopicInfo, TopicName, TopicNameError,
};
pub use server::{Server, ServerBuilder, StartError};
pub use services::{LocalClock, Service, Stdin, Stop, Stopper, Supervision, Timestamp};
pub use ws::{Session, SessionEnd, accept_value};

/// The README, whose examples are compiled as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
