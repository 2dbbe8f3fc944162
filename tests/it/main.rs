//! Tests of the running program, over sockets. One crate, a file per capability.

mod cli;
mod conformance;
mod handshake;
mod properties;
mod rig;
