//! Requests and responses as bytes: no I/O, no clock; only `files` opens files.

mod asset;
pub(crate) mod date;
pub(crate) mod files;
pub(crate) mod head;
pub(crate) mod response;
pub(crate) mod route;

pub use asset::Asset;
pub use head::{HeadError, RequestHead};
pub use response::Response;
