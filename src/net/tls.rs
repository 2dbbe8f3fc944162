//! TLS with rustls, and replacement types for a build without the cargo feature `tls`.
//!
//! The unbuffered interface of rustls is used: ciphertext is read into the reactor's shared receive
//! buffer and encrypted into a buffer that all sessions share. Between two records, a session holds
//! its keys but no buffer.

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

/// The servers that a [`Connector`] trusts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// Servers with a certificate that a certificate authority of this host has signed. The authorities
    /// are read from the file named by the environment variable `SSL_CERT_FILE`; if it is not set, from
    /// the usual file of the distribution. This is the default.
    #[default]
    System,
    /// Servers with a certificate that is in this PEM file, or is signed by one in the file.
    File(std::path::PathBuf),
    /// All servers, without a check of their certificate.
    Anybody,
}

/// The error when TLS can't be set up. `Display` writes one line for the user.
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
