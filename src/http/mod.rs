//! Requests and responses as bytes: no I/O, no clock; only `files` opens files.

pub(crate) mod accept;
mod asset;
pub(crate) mod date;
pub(crate) mod files;
pub(crate) mod head;
pub(crate) mod response;

pub use asset::Asset;
pub use head::{HeadError, RequestHead};
pub use response::Response;
