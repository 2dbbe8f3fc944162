//! WebSocket (RFC 6455): the handshake, frames, the gate under the protocol library, the session.

mod frame;
mod gate;
pub(crate) mod handshake;
mod session;

pub(crate) use frame::Frame;
pub use frame::{CloseCode, CloseReason, Message};
pub use session::{Session, SessionEnd};
