//! The network layer: listeners, connections, TLS, and the event loop. Only this module uses epoll.

mod address;
mod address_prefix;
mod deadlines;
mod failed;
mod handshake_queue;
mod listener;
mod meter;
mod own_names;
mod pending;
mod reactor;
mod socket;
mod tls;
mod transport;
mod watched;

pub(crate) use address::PackedPeer;
pub use address::{AddressError, ListenUrl, Peer, Reach};
pub use address_prefix::AddressPrefix;
pub use listener::{BindError, Listener};
pub(crate) use meter::Meter;
pub(crate) use own_names::OwnNames;
pub(crate) use pending::{Held, is_eviction};
pub use reactor::{Reactor, Sleep, Timer};
pub use tls::{Acceptor, Connector, TlsError, Trust};
pub(crate) use transport::BYTES_PER_TURN;
pub use transport::Transport;
pub use watched::Watched;
