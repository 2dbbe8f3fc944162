//! Tests of the running program, over sockets. One crate, a file per capability.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    unreachable_pub,
    reason = "the tests' helpers are tests too, and nobody outside reaches any of them"
)]

mod cli;
mod conformance;
mod handshake;
mod properties;
mod rig;
