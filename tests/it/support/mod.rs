//! Helpers that the integration tests and the timing tests share.
//!
//! A module here imports only from modules before it in this list: `wait`, `folder`, `installed`, `terminal`,
//! `time`, `wire`, `websocket`, `http`, `events`, `process`, `load`, `command`, `access`, `admin`, `operator`,
//! `stdin`, `systemd`, `tls`, `client`, `peer`, `proxy`, `browser`.

pub mod access;
#[cfg(feature = "full")]
pub mod admin;
pub mod browser;
pub mod client;
pub mod command;
pub mod events;
pub mod folder;
pub mod http;
pub mod installed;
pub mod load;
pub mod operator;
pub mod peer;
pub mod process;
pub mod proxy;
#[cfg(feature = "full")]
pub mod stdin;
#[cfg(feature = "full")]
pub mod systemd;
pub mod terminal;
pub mod time;
#[cfg(feature = "tls")]
pub mod tls;
pub mod wait;
pub mod websocket;
pub mod wire;

pub use events::*;
pub use http::*;
pub use load::*;
pub use process::*;
pub use wait::*;
pub use websocket::*;
pub use wire::*;
