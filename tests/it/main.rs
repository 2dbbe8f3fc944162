//! Tests of the running program, over sockets. One crate, a file per capability.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    unreachable_pub,
    reason = "all of this crate is tests, not only the functions marked so"
)]
// Of what tests share, a build that lacks a feature needs less.
#![cfg_attr(
    not(all(
        feature = "access",
        feature = "admin",
        feature = "system",
        feature = "tls",
        feature = "topics"
    )),
    allow(dead_code, unused_imports, unused_macros)
)]

mod absent;
mod access;
#[cfg(feature = "admin")]
mod admin;
mod browser;
#[cfg(feature = "admin")]
mod browser_admin;
mod browser_rig;
mod browser_tls;
mod cli;
mod client;
mod client_tokens;
mod client_topics;
#[cfg(feature = "system")]
mod confine;
mod conformance;
mod crowd;
mod embedded;
mod failfast;
#[cfg(feature = "topics")]
mod files;
mod floods;
mod guarantees;
mod handshake;
#[cfg(feature = "admin")]
mod history;
mod http;
mod limits;
mod pipelining;
#[cfg(feature = "system")]
mod printed;
mod properties;
mod pulled_plug;
mod rig;
#[cfg(feature = "topics")]
mod stdin;
#[cfg(feature = "system")]
mod systemd;
mod tls;
mod tls_access;
#[cfg(feature = "topics")]
mod topics;
mod untold;
