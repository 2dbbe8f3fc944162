//! The network layer: listeners, connections, TLS, and the event loop. Only this module uses epoll.

mod address;
mod deadlines;
mod failed;
mod listener;
mod meter;
mod own_names;
mod reactor;
mod socket;
mod tls;
mod transport;
mod watched;

pub(crate) use address::PackedPeer;
pub use address::{AddressError, ListenUrl, Peer, Reach};
pub use listener::{BindError, Listener};
pub(crate) use meter::Meter;
pub(crate) use own_names::OwnNames;
pub use reactor::{Reactor, Sleep, Timer};
pub use tls::{Acceptor, Connector, TlsError, Trust};
pub use transport::Transport;
pub use watched::Watched;
