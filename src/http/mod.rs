//! HTTP requests and responses as bytes.
//!
//! This module reads no clock and does no I/O, except that `files` opens files.

pub(crate) mod accept;
mod asset;
pub(crate) mod date;
pub(crate) mod files;
pub(crate) mod head;
pub(crate) mod response;

pub use asset::Asset;
pub use head::{HeadError, RequestHead};
pub use response::Response;
