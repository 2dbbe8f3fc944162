//! Requests and responses as bytes: no I/O, no clock; only `files` opens files.

pub(crate) mod date;
pub(crate) mod files;
pub(crate) mod head;
pub(crate) mod response;
pub(crate) mod route;

pub use head::{HeadError, RequestHead};
pub use response::Response;
pub use route::Asset;
