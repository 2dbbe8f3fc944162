//! Tests of the running program, over sockets. One crate, a file per capability.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    unreachable_pub,
    reason = "all of this crate is tests, not only the functions marked so"
)]

mod access;
mod admin;
mod browser;
mod browser_admin;
mod browser_rig;
mod browser_tls;
mod cli;
mod client;
mod client_tokens;
mod client_topics;
mod confine;
mod conformance;
mod crowd;
mod embedded;
mod failfast;
mod files;
mod floods;
mod guarantees;
mod handshake;
mod history;
mod http;
mod pipelining;
mod printed;
mod properties;
mod pulled_plug;
mod rig;
mod stdin;
mod systemd;
mod tls;
mod tls_absent;
mod tls_access;
mod topics;
mod untold;
