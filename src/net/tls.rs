//! TLS, in a build that has it: the only file that knows of the feature.
//!
//! rustls is driven without buffers of its own: ciphertext comes from the buffer that all sockets are
//! read into and leaves by one that all sessions share, so between two records a session holds keys
//! and no buffer.

use std::fmt;

#[cfg(feature = "tls")]
mod acceptor;
#[cfg(feature = "tls")]
mod connector;
#[cfg(feature = "tls")]
mod self_signed;
#[cfg(feature = "tls")]
mod session;

#[cfg(not(feature = "tls"))]
mod absent;

#[cfg(feature = "tls")]
pub(super) use self::session::Session;
#[cfg(feature = "tls")]
pub use self::{acceptor::Acceptor, connector::Connector};

#[cfg(not(feature = "tls"))]
pub(super) use self::absent::Session;
#[cfg(not(feature = "tls"))]
pub use self::absent::{Acceptor, Connector};

/// Whom a [`Connector`] trusts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// Whoever a certificate authority of this host vouches for: those in the file that the variable
    /// `SSL_CERT_FILE` names, or where distributions keep them.
    #[default]
    System,
    /// Whoever a certificate in this PEM file vouches for.
    File(std::path::PathBuf),
    /// Anybody.
    Anybody,
}

/// Why TLS can't be spoken; `Display` is a line for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsError {
    text: String,
}

impl TlsError {
    fn new(text: impl Into<String>) -> Self {
        Self { text: text.into() }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for TlsError {}
