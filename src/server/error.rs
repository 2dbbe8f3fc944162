//! The errors of building a server.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::access::TokenFileError;
use crate::features::NotBuiltIn;
use crate::net::{BindError, ListenUrl, TlsError};

/// The reason why a server cannot start.
#[derive(Debug)]
pub enum StartError {
    /// A listen URL cannot be bound.
    Bind(BindError),
    /// A directory of static files cannot be opened.
    Files {
        /// The directory.
        directory: PathBuf,
        /// The error of the operating system.
        error: io::Error,
    },
    /// The token file cannot be read.
    Tokens(TokenFileError),
    /// TLS cannot be set up.
    Tls(TlsError),
    /// Other hosts could reach the administrator's listener.
    ExposedAdmin(ListenUrl),
    /// This build lacks a requested feature.
    NotBuiltIn(NotBuiltIn),
    /// The kernel provides no epoll or eventfd.
    Reactor(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(error) => error.fmt(f),
            Self::Files { directory, error } => {
                write!(f, "can't serve the files of `{}`: {error}", directory.display())
            }
            Self::Tokens(error) => error.fmt(f),
            Self::Tls(error) => error.fmt(f),
            Self::ExposedAdmin(url) => write!(
                f,
                "can't open the admin listener at {url}: other hosts can reach it; expected unix:PATH, a \
                 loopback address, or an authorizer such as an --admin-token-file"
            ),
            Self::NotBuiltIn(lacking) => lacking.fmt(f),
            Self::Reactor(error) => write!(f, "can't wait for events of sockets: {error}"),
        }
    }
}

impl std::error::Error for StartError {}
