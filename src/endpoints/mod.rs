//! The resources of the public listeners: embedded files, files of a directory, WebSocket endpoints, topics
//! and event streams.

mod echo;
mod endpoint;
pub(crate) mod events;
mod files;
mod page;
pub(crate) mod topic;
mod websocket;

pub use echo::Echo;
pub use endpoint::Endpoint;
pub(crate) use files::{Files, StaticFiles};
pub(crate) use page::Page;

#[cfg(test)]
mod tests;
