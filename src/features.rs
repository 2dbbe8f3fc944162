//! The cargo features of this build. Beside `net/tls.rs`, which needs crates for TLS, this is the only
//! file that reads them outside tests: all code is compiled in every build, and the linker leaves out
//! what a build does not use.

use std::fmt;

/// A part of falconet that is not in every build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// All optional features except TLS: topics, files, access control, administration, and the integration
    /// with the host's system.
    Full,
    /// `https://` and `wss://`.
    Tls,
}

impl Feature {
    /// Returns true if this build has the feature.
    // Always inlined: otherwise the smallest build contains code that it never runs.
    #[inline(always)]
    pub const fn is_built_in(self) -> bool {
        match self {
            Self::Full => cfg!(feature = "full"),
            Self::Tls => cfg!(feature = "tls"),
        }
    }

    /// Succeeds if this build has the feature.
    ///
    /// # Errors
    /// [`NotBuiltIn`], if it does not.
    #[inline(always)]
    pub const fn require(self) -> Result<(), NotBuiltIn> {
        if self.is_built_in() { Ok(()) } else { Err(NotBuiltIn(self)) }
    }
}

/// The error that this build lacks a requested [`Feature`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotBuiltIn(pub Feature);

impl fmt::Display for NotBuiltIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            Feature::Full => "full",
            Feature::Tls => "tls",
        };
        write!(f, "not in this build: it needs the cargo feature `{name}`")
    }
}

impl std::error::Error for NotBuiltIn {}
