//! WebSocket (RFC 6455): the handshake, the checks and decoding of frames, and sessions.

mod decode;
mod end;
mod gate;
pub(crate) mod handshake;
mod outlet;
mod session;
mod sha1;
mod shared;
mod socket;

pub use end::SessionEnd;
pub use handshake::accept_value;
pub(crate) use outlet::{Outlet, TurnShare};
pub use session::Session;
pub(crate) use shared::SessionShared;
#[cfg(any(test, fuzzing))]
pub(crate) use socket::fuzz;
