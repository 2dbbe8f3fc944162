//! Tests of the running program, over sockets. One crate, a file per capability.

mod client;
mod conformance;
mod rig;
