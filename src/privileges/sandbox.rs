//! What can still be opened, connected to and executed (landlock(7)).

use std::fs;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

/// What a process will do once it is in a sandbox. Nothing else can be opened for reading or writing,
/// made, removed, or executed; no TCP connection made, no port bound, no abstract Unix socket connected
/// to, and no signal sent. What is open already is still good for what it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sandbox {
    read: Vec<PathBuf>,
    unlink: Vec<PathBuf>,
    asks_kernel: bool,
}

impl Sandbox {
    /// Lets the files below a directory be read.
    pub fn read_below(&mut self, directory: &Path) {
        self.read.push(directory.to_owned());
    }

    /// Lets a file be read again, which may be another one by then: all that are where it is, and where
    /// it is if it is a link. If the directory is a link, so is all that is beside the one it leads to: the
    /// link may lead to another by then.
    pub fn read_again(&mut self, file: &Path) {
        let folder = folder_of(file);
        if fs::symlink_metadata(&folder).is_ok_and(|metadata| metadata.is_symlink())
            && let Ok(target) = fs::canonicalize(&folder)
        {
            self.read.push(folder_of(&target));
        }
        self.read.push(folder);
        if let Ok(target) = fs::canonicalize(file) {
            self.read.push(folder_of(&target));
        }
    }

    /// Lets a file be removed, and with it all that are in its directory.
    pub fn remove(&mut self, file: &Path) {
        self.unlink.push(folder_of(file));
    }

    /// Lets the process see what the kernel tells of it in /proc.
    pub fn ask_kernel(&mut self) {
        self.asks_kernel = true;
    }

    /// Goes into the sandbox, for good. A file that is not there now can't be opened later. To be called
    /// before other threads are started, which would stay outside.
    ///
    /// # Errors
    /// What the kernel objects to, if it has sandboxes. Nothing is kept out then.
    pub fn enter(&self) -> Result<SandboxStatus, RulesetError> {
        let mut ruleset = Ruleset::default()
            .handle_access(AccessFs::from_all(NEWEST))?
            .handle_access(AccessNet::from_all(NEWEST))?
            .scope(Scope::from_all(NEWEST))?
            .create()?;
        for path in &self.read {
            ruleset = allow(ruleset, path, AccessFs::ReadFile.into())?.0;
        }
        for path in &self.unlink {
            ruleset = allow(ruleset, path, AccessFs::RemoveFile.into())?.0;
        }
        // The one that is kept aside for when descriptors run out.
        ruleset = allow(ruleset, Path::new("/dev/null"), AccessFs::ReadFile.into())?.0;
        if self.asks_kernel {
            ruleset = allow(ruleset, Path::new("/proc/stat"), AccessFs::ReadFile.into())?.0;
            let all = AccessFs::ReadFile | AccessFs::ReadDir;
            let kept;
            (ruleset, kept) = allow(ruleset, Path::new("/proc/self"), all)?;
            // The kernel forgets directories of /proc that nobody has open, and makes others, which no rule
            // is for.
            std::mem::forget(kept);
        }
        Ok(match ruleset.restrict_self()?.ruleset {
            RulesetStatus::FullyEnforced => SandboxStatus::All,
            RulesetStatus::PartiallyEnforced => SandboxStatus::Some,
            RulesetStatus::NotEnforced => SandboxStatus::None,
        })
    }
}

/// What a sandbox keeps out, which depends on the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SandboxStatus {
    /// All that a [`Sandbox`] says (Linux 6.12).
    All,
    /// A part of it: Linux 5.13 knows of files, Linux 6.7 of TCP, too.
    Some,
    /// Nothing.
    None,
}

/// Allows something below a path, unless there is no such path.
fn allow(
    ruleset: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<(RulesetCreated, Option<PathFd>), RulesetError> {
    match PathFd::new(path) {
        Ok(place) => Ok((ruleset.add_rule(PathBeneath::new(&place, access))?, Some(place))),
        Err(_) => Ok((ruleset, None)),
    }
}

/// The directory a file is in.
fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => ".".into(),
    }
}

/// The newest rules that are known here, those of Linux 6.12.
const NEWEST: ABI = ABI::V6;
