//! HTTP requests and responses as bytes.
//!
//! This module does no I/O and reads no clock.

pub(crate) mod accept;
mod asset;
pub(crate) mod body;
pub(crate) mod chunk;
pub(crate) mod date;
pub(crate) mod entity_tag;
pub(crate) mod head;
pub(crate) mod json;
pub(crate) mod percent;
pub(crate) mod range;
pub(crate) mod response;

pub use asset::Asset;
pub use head::{HeadError, RequestHead};
pub use response::Response;
