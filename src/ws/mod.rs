//! WebSocket (RFC 6455): the handshake, frames, the gate under the protocol library, the session.

pub(crate) mod frame;
mod gate;
pub(crate) mod handshake;
mod outlet;
mod session;
mod socket;

pub use frame::{CloseCode, CloseReason, Message};
pub use handshake::accept_value;
pub(crate) use outlet::Outlet;
pub use session::{Session, SessionEnd};
pub(crate) use socket::SessionShared;
