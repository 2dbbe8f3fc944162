//! TLS with rustls, and replacement types for a build without the cargo feature `tls`.
//!
//! The unbuffered interface of rustls is used: ciphertext is read into the reactor's shared receive
//! buffer and encrypted into a buffer that all sessions share. Between two records, a session holds
//! its keys but no buffer.

#[cfg(feature = "tls")]
mod acceptor;
#[cfg(feature = "tls")]
mod authority;
#[cfg(feature = "tls")]
mod certified_names;
#[cfg(feature = "tls")]
mod connector;
#[cfg(feature = "tls")]
mod der;
#[cfg(feature = "tls")]
mod host_names;
#[cfg(feature = "tls")]
mod pem;
#[cfg(feature = "tls")]
mod self_signed;
#[cfg(feature = "tls")]
mod session;
mod setup;

#[cfg(not(feature = "tls"))]
mod absent;

#[cfg(feature = "tls")]
pub(super) use self::certified_names::CertifiedNames;
#[cfg(feature = "tls")]
pub(super) use self::session::Session;
#[cfg(feature = "tls")]
pub use self::{acceptor::Acceptor, connector::Connector};

#[cfg(not(feature = "tls"))]
pub use self::absent::{Acceptor, Connector};
#[cfg(not(feature = "tls"))]
pub(super) use self::absent::{CertifiedNames, Session};

pub use self::setup::{TlsError, Trust};
