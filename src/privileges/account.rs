//! The user that a server runs as.

use std::ffi::CString;
use std::fmt;

use nix::errno::Errno;
use nix::unistd::{Gid, Uid, User, geteuid, initgroups, setresgid, setresuid};

use crate::escaped::Escaped;

/// A user of this host, whom root can become.
pub struct Account {
    name: CString,
    user: Uid,
    group: Gid,
}

impl Account {
    /// Looks for the user of this name.
    ///
    /// # Errors
    /// [`AccountError::Unknown`], if there is none.
    pub fn find(name: &str) -> Result<Self, AccountError> {
        let unknown = || AccountError::Unknown(name.to_owned());
        // One that can't be looked for is as good as none.
        let user = User::from_name(name).ok().flatten().ok_or_else(unknown)?;
        let name = CString::new(name).map_err(|_| unknown())?;
        Ok(Self { name, user: user.uid, group: user.gid })
    }

    /// Becomes this user, for good: with its groups and no others, and without what root may do. To be
    /// called before other threads are started.
    ///
    /// # Errors
    /// [`AccountError::NotRoot`], and [`AccountError::Refused`] when the kernel does not let root do so.
    pub fn assume(&self) -> Result<(), AccountError> {
        let name = || self.name.to_string_lossy().into_owned();
        if !is_root() {
            return Err(AccountError::NotRoot(name()));
        }
        // The user last: nobody else may set groups.
        initgroups(&self.name, self.group)
            .and_then(|()| setresgid(self.group, self.group, self.group))
            .and_then(|()| setresuid(self.user, self.user, self.user))
            .map_err(|error| AccountError::Refused(name(), error))
    }
}

/// Whether this process is root.
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// Why this process does not become a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountError {
    /// This host has no such user.
    Unknown(String),
    /// Only root can become another user.
    NotRoot(String),
    /// The kernel says no.
    Refused(String, Errno),
}

impl fmt::Display for AccountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => {
                write!(f, "user `{}`: expected a user of this host", Escaped(name))
            }
            Self::NotRoot(name) => {
                write!(
                    f,
                    "user `{name}`: expected to be started by root, who alone can become another"
                )
            }
            Self::Refused(name, error) => {
                write!(f, "user `{name}`: root is not let become it: {}", error.desc())
            }
        }
    }
}

impl std::error::Error for AccountError {}
