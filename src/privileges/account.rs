//! Changing the user that the server runs as.

use std::ffi::CString;
use std::fmt;

use nix::errno::Errno;
use nix::unistd::{Gid, Uid, User, geteuid, initgroups, setresgid, setresuid};

use crate::escaped::Escaped;

/// A user of this host that the process can change to.
pub struct Account {
    name: CString,
    user: Uid,
    group: Gid,
}

impl Account {
    /// Looks up a user by name.
    ///
    /// # Errors
    /// [`AccountError::Unknown`], if there is no such user or the lookup fails.
    pub fn find(name: &str) -> Result<Self, AccountError> {
        let unknown = || AccountError::Unknown(name.to_owned());
        let user = User::from_name(name).ok().flatten().ok_or_else(unknown)?;
        let name = CString::new(name).map_err(|_| unknown())?;
        Ok(Self { name, user: user.uid, group: user.gid })
    }

    /// Changes the user of this process permanently. The process gets exactly the groups of the user, and
    /// loses the privileges of root. Must be called before other threads are started.
    ///
    /// # Errors
    /// [`AccountError::NotRoot`], if the process does not run as root, and [`AccountError::Refused`], if a
    /// system call fails.
    pub fn assume(&self) -> Result<(), AccountError> {
        let name = || self.name.to_string_lossy().into_owned();
        if !is_root() {
            return Err(AccountError::NotRoot(name()));
        }
        // The user is set last, because only root may set groups.
        initgroups(&self.name, self.group)
            .and_then(|()| setresgid(self.group, self.group, self.group))
            .and_then(|()| setresuid(self.user, self.user, self.user))
            .map_err(|error| AccountError::Refused(name(), error))
    }
}

/// Returns true if this process runs as root.
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// The error when the process can't change to a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountError {
    /// This host has no such user.
    Unknown(String),
    /// Only root can become another user.
    NotRoot(String),
    /// A system call to change the user or groups failed.
    Refused(String, Errno),
}

impl fmt::Display for AccountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => {
                write!(f, "can't find user `{}`: expected a user of this host", Escaped(name))
            }
            Self::NotRoot(name) => {
                write!(
                    f,
                    "can't change to user `{name}`: expected to be started by root; only root can \
                     change the user"
                )
            }
            Self::Refused(name, error) => {
                write!(f, "can't change to user `{name}`: {}", error.desc())
            }
        }
    }
}

impl std::error::Error for AccountError {}
