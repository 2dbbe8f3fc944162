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
    /// [`AccountError::Unknown`], if there is no such user, and [`AccountError::Refused`], if the lookup
    /// fails.
    pub fn find(name: &str) -> Result<Self, AccountError> {
        let unknown = || AccountError::Unknown(name.to_owned());
        let lookup = |error| AccountError::Refused(name.to_owned(), "getpwnam_r", error);
        let user = User::from_name(name).map_err(lookup)?.ok_or_else(unknown)?;
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
        let refused = |call| move |error| (call, error);
        initgroups(&self.name, self.group)
            .map_err(refused("initgroups"))
            .and_then(|()| {
                setresgid(self.group, self.group, self.group).map_err(refused("setresgid"))
            })
            .and_then(|()| setresuid(self.user, self.user, self.user).map_err(refused("setresuid")))
            .map_err(|(call, error)| AccountError::Refused(name(), call, error))
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
    /// The function with this name, which finds the user or changes the user or groups, failed.
    Refused(String, &'static str, Errno),
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
            Self::Refused(name, call, error) => {
                write!(f, "can't change to user `{}`: {call}: {}", Escaped(name), error.desc())
            }
        }
    }
}

impl std::error::Error for AccountError {}
