//! Sockets, readiness and deadlines: the only room that knows of epoll.

mod address;
mod listener;
mod meter;
mod reactor;
mod transport;
mod watched;

pub use address::{AddressError, ListenUrl, Peer};
pub use listener::{BindError, Listener};
pub(crate) use meter::Meter;
pub use reactor::{Reactor, Sleep, Timer};
pub use transport::Transport;
pub use watched::Watched;
