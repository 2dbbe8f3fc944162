//! Restricting the process to the files it needs, with landlock(7).

use std::fs;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

/// The accesses that a process needs after it has entered the sandbox.
///
/// In the sandbox, no other file can be opened, created, removed or executed. The process can't call connect(2)
/// or bind(2) on a TCP socket, connect to abstract Unix sockets of processes outside the sandbox, or send
/// signals to these processes. An older kernel restricts less ([`SandboxStatus::Some`]).
///
/// Landlock does not restrict anything else. Descriptors that are open already keep working. The process can
/// read and change the metadata of files, as with stat(2) and chmod(2). It can use UDP, MPTCP and TCP Fast
/// Open, listen on a port that the kernel chooses, and connect to Unix sockets by their path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sandbox {
    read: Vec<PathBuf>,
    unlink: Vec<PathBuf>,
    reads_proc: bool,
    reads_addresses: bool,
}

impl Sandbox {
    /// Allows reading all files below `directory`.
    pub fn allow_directory(&mut self, directory: &Path) {
        self.read.push(directory.to_owned());
    }

    /// Allows reading `file` again, even if another file has replaced it.
    ///
    /// Landlock rules are for existing files, so this allows reading everything below the directory of
    /// the file. If the file is a symbolic link, its target's directory is included. If the directory is
    /// a symbolic link, the parent of its target is included, because the link may be changed to another
    /// directory there.
    pub fn allow_file(&mut self, file: &Path) {
        let directory = directory_of(file);
        if fs::symlink_metadata(&directory).is_ok_and(|metadata| metadata.is_symlink())
            && let Ok(target) = fs::canonicalize(&directory)
        {
            self.read.push(directory_of(&target));
        }
        self.read.push(directory);
        if let Ok(target) = fs::canonicalize(file) {
            self.read.push(directory_of(&target));
        }
    }

    /// Allows removing `file`, and with it all files below its directory.
    pub fn remove(&mut self, file: &Path) {
        self.unlink.push(directory_of(file));
    }

    /// Allows reading /proc/stat and the process's own directory /proc/self.
    pub fn allow_kernel_files(&mut self) {
        self.reads_proc = true;
    }

    /// Allows reading the files in /proc/self/net, which list the host's addresses.
    pub fn allow_addresses(&mut self) {
        self.reads_addresses = true;
    }

    /// Enters the sandbox permanently. A rule for a path that does not exist now has no effect. Must be
    /// called before other threads are started, because existing threads stay outside.
    ///
    /// # Errors
    /// The error of the kernel, if it supports sandboxes. The process is not restricted then. A kernel
    /// without sandboxes is not an error: the result is [`SandboxStatus::None`].
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
        if self.reads_proc {
            ruleset = allow(ruleset, Path::new("/proc/stat"), AccessFs::ReadFile.into())?.0;
            ruleset = allow_process(ruleset, "/proc/self", AccessFs::ReadFile | AccessFs::ReadDir)?;
        }
        if self.reads_addresses {
            ruleset = allow_process(ruleset, "/proc/self/net", AccessFs::ReadFile.into())?;
        }
        Ok(match ruleset.restrict_self()?.ruleset {
            RulesetStatus::FullyEnforced => SandboxStatus::All,
            RulesetStatus::PartiallyEnforced => SandboxStatus::Some,
            RulesetStatus::NotEnforced => SandboxStatus::None,
        })
    }
}

/// The extent to which the kernel enforces a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SandboxStatus {
    /// All restrictions of a [`Sandbox`] (since Linux 6.12).
    All,
    /// Some of the restrictions: those for files since Linux 5.13, those for TCP since Linux 6.7.
    Some,
    /// No restrictions.
    None,
}

/// Adds a rule that allows `access` below `path`, and returns the opened path. Does nothing if the path
/// can't be opened.
fn allow(
    ruleset: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<(RulesetCreated, Option<PathFd>), RulesetError> {
    match PathFd::new(path) {
        Ok(opened) => Ok((ruleset.add_rule(PathBeneath::new(&opened, access))?, Some(opened))),
        Err(_) => Ok((ruleset, None)),
    }
}

/// Adds a rule that allows `access` below a directory of this process in /proc.
fn allow_process(
    ruleset: RulesetCreated,
    directory: &str,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    let (ruleset, opened) = allow(ruleset, Path::new(directory), access)?;
    // The directory stays open. Otherwise the kernel may free its inode and create a new one later, for
    // which there is no rule.
    std::mem::forget(opened);
    Ok(ruleset)
}

/// Returns the directory of a file.
fn directory_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory.to_owned(),
        _ => ".".into(),
    }
}

/// The newest landlock version in use, that of Linux 6.12. On an older kernel, the crate leaves out
/// what the kernel does not support.
const NEWEST: ABI = ABI::V6;
