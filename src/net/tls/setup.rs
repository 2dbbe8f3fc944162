//! The trust setting and the setup error of TLS, which builds with and without TLS share.

use std::fmt;
use std::path::PathBuf;

/// The servers that a `Connector` trusts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// Servers with a certificate that a certificate authority of this host has signed. The authorities
    /// are read from the file named by the environment variable `SSL_CERT_FILE`; if it is not set, from
    /// the usual file of the distribution. This is the default.
    #[default]
    System,
    /// Servers with a certificate that is in this PEM file, or is signed by one in the file.
    File(PathBuf),
    /// All servers, without a check of their certificate.
    Any,
}

/// The error when TLS can't be set up. `Display` writes one line for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsError {
    text: String,
}

impl TlsError {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into() }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for TlsError {}
