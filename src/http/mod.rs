//! HTTP requests and responses as bytes.
//!
//! This module reads no clock and does no I/O, except that `files` opens files.

mod asset;
pub(crate) mod date;
pub(crate) mod files;
pub(crate) mod head;
pub(crate) mod response;
pub(crate) mod route;

pub use asset::Asset;
pub use head::{HeadError, RequestHead};
pub use response::Response;
