//! Tests whose result depends on how busy the machine is: they have upper bounds for
//! times, processor time or wake-ups, or put so much load on the machine that they would disturb other tests.
//!
//! These tests run alone. Cargo runs test targets one after another, so no other test runs beside this
//! target. Within it, every test begins with `let _guard = serial();`, which lets one run at a time, whatever
//! `--test-threads` says.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    unreachable_pub,
    reason = "all of this crate is tests, not only the functions with #[test]"
)]
#![cfg_attr(
    not(all(feature = "full", feature = "tls")),
    allow(dead_code, unused_imports, reason = "a smaller build needs fewer of the helpers")
)]

#[cfg(feature = "full")]
mod admin;
mod client;
mod conformance;
mod crowd;
mod embedded;
mod floods;
mod guarantees;
mod http;
mod measure;
mod pulled_plug;
#[cfg(feature = "full")]
mod slow_readers;
#[cfg(feature = "full")]
mod stdin;
#[allow(dead_code, unused_imports, reason = "the integration tests need more of it")]
#[path = "../it/support/mod.rs"]
mod support;
#[cfg(feature = "full")]
mod systemd;
mod tls;
#[cfg(feature = "full")]
mod topics;
