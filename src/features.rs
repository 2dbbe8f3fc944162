//! What this build has. Beside `net/tls.rs`, which needs crates for it, the one file that knows cargo's
//! features: all code is compiled in every build, and what a build does not use is left out of it.

use std::fmt;

/// A part that a build may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Who may come and do what: tokens, proxies that say who comes, limits of one address.
    Access,
    /// The administrator's listener: metrics, clients, dashboard.
    Admin,
    /// What a service of the host needs: systemd, another user, a sandbox, manual pages.
    System,
    /// `https://` and `wss://`.
    Tls,
    /// Topics, by WebSocket and HTTP; what is published from the standard input; files.
    Topics,
}

impl Feature {
    /// Whether this build has it.
    // Always, or the smallest build has code for what it lacks.
    #[inline(always)]
    pub const fn is_built_in(self) -> bool {
        match self {
            Self::Access => cfg!(feature = "access"),
            Self::Admin => cfg!(feature = "admin"),
            Self::System => cfg!(feature = "system"),
            Self::Tls => cfg!(feature = "tls"),
            Self::Topics => cfg!(feature = "topics"),
        }
    }

    /// Goes on if this build has it.
    ///
    /// # Errors
    /// [`NotBuiltIn`], if it does not.
    #[inline(always)]
    pub const fn require(self) -> Result<(), NotBuiltIn> {
        if self.is_built_in() { Ok(()) } else { Err(NotBuiltIn(self)) }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Admin => "admin",
            Self::System => "system",
            Self::Tls => "tls",
            Self::Topics => "topics",
        }
    }
}

/// What is asked for is not in this build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotBuiltIn(pub Feature);

impl fmt::Display for NotBuiltIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, what) = (
            self.0.name(),
            match self.0 {
                Feature::Access => "access control",
                Feature::Admin => "administration",
                Feature::System => "tie to the host's system",
                Feature::Tls => "TLS",
                Feature::Topics => "topics",
            },
        );
        write!(f, "this build has no {what} (feature \"{name}\")")
    }
}

impl std::error::Error for NotBuiltIn {}
