//! Tests of the running program and of the library over sockets, one file per capability. The tests that judge
//! times are in `tests/timing`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    unreachable_pub,
    reason = "all of this crate is tests, not only the functions with #[test]"
)]
// A smaller build needs fewer of the helpers.
#![cfg_attr(
    not(all(feature = "full", feature = "tls")),
    allow(dead_code, unused_imports, unused_macros)
)]

mod absent;
mod access;
#[cfg(feature = "full")]
mod admin;
#[cfg(feature = "full")]
mod bodies;
mod browser;
#[cfg(feature = "full")]
mod browser_admin;
#[cfg(feature = "full")]
mod browser_cors;
mod browser_tls;
#[cfg(feature = "full")]
mod caches;
mod cli;
mod client;
mod client_tokens;
mod client_topics;
mod conformance;
#[cfg(feature = "full")]
mod cors;
mod embedded;
#[cfg(feature = "full")]
mod event_streams;
mod failfast;
#[cfg(feature = "full")]
mod files;
#[cfg(feature = "full")]
mod filters;
#[cfg(feature = "full")]
mod full_server;
mod guarantees;
mod handshake;
#[cfg(feature = "full")]
mod health_checks;
#[cfg(feature = "full")]
mod history;
mod http;
mod large_messages;
mod limits;
#[cfg(feature = "full")]
mod pending;
mod pipelining;
#[cfg(feature = "full")]
mod printed;
#[cfg(feature = "full")]
mod privileges;
mod properties;
#[cfg(feature = "full")]
mod proxies;
#[cfg(feature = "full")]
mod publish_once;
#[cfg(feature = "full")]
mod rebinding;
mod refusals;
mod reload;
#[cfg(feature = "full")]
mod resume;
#[cfg(feature = "full")]
mod stdin;
mod support;
#[cfg(feature = "full")]
mod systemd;
mod tls;
mod tls_access;
mod tls_authority;
mod token_leaks;
#[cfg(feature = "full")]
mod topic_names;
#[cfg(feature = "full")]
mod topics;
