//! Values that are made from a file, or from another source, and made again after the source has changed.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::fs::File;
use std::hash::{BuildHasher, Hash, RandomState};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};

/// Decides when the source of a value is read again, and when the value is made again.
///
/// The source is read when the value is used, if the last reading is at least `every` ago. A failed attempt is
/// repeated after a second. So there is no timer, and nothing wakes up while nobody uses the value, but no use
/// relies on a reading that is older, unless the source can't be read or is invalid. Then the last valid value
/// stays in use.
///
/// Only a source from which a value was made counts as known. It is known by a hash of its content, not by the
/// size and the times of a file: these may stay the same when the content changes, or when the file can be
/// read again. Unlike the content, the hash is no second copy of a secret in memory.
pub(crate) struct Reload {
    /// The name of the value, in the plural, for the log.
    what: &'static str,
    every: Duration,
    /// The time of the next reading; `None` for the next use.
    next: Cell<Option<Instant>>,
    /// The hash of the source of the value in use; `None` if the value must be replaced in any case.
    used: Cell<Option<u64>>,
    /// The error of the last attempt, if it failed.
    failure: RefCell<Option<String>>,
    hasher: RandomState,
}

impl Reload {
    /// Creates the state for a value that has just been made from `source`. The next use reads the source
    /// again.
    pub(crate) fn new(what: &'static str, every: Duration, source: &impl Hash) -> Self {
        let hasher = RandomState::new();
        let used = Cell::new(Some(hasher.hash_one(source)));
        let (next, failure) = (Cell::default(), RefCell::default());
        Self { what, every, next, used, failure, hasher }
    }

    /// Returns the new value, if a reading is due and the source has changed. With `is_expired`, the value
    /// must be made again even from an unchanged source: at once, or while attempts fail, by the next attempt.
    ///
    /// A failure is logged, unless the attempt before has failed for the same reason. The end of the failures
    /// is logged if there is no new value, whose use the caller logs.
    pub(crate) fn renew<S: Hash, T, E: Display>(
        &self,
        now: Instant,
        is_expired: bool,
        read: impl FnOnce() -> Result<S, E>,
        make: impl FnOnce(S) -> Result<T, E>,
    ) -> Option<T> {
        if is_expired {
            self.used.set(None);
        }
        let is_urgent = is_expired && self.failure.borrow().is_none();
        if !is_urgent && self.next.get().is_some_and(|next| now < next) {
            return None;
        }
        match self.attempt(read, make) {
            Ok(renewed) => {
                self.next.set(Some(now + self.every));
                let has_failed = self.failure.take().is_some();
                if has_failed && renewed.is_none() {
                    log::info!("{} can be read again, and have not changed", self.what);
                }
                renewed
            }
            Err(error) => {
                self.next.set(Some(now + self.every.min(RETRY_EVERY)));
                self.fail(error.to_string());
                None
            }
        }
    }

    fn attempt<S: Hash, T, E>(
        &self,
        read: impl FnOnce() -> Result<S, E>,
        make: impl FnOnce(S) -> Result<T, E>,
    ) -> Result<Option<T>, E> {
        let source = read()?;
        let hash = Some(self.hasher.hash_one(&source));
        if self.used.get() == hash {
            return Ok(None);
        }
        let value = make(source)?;
        self.used.set(hash);
        Ok(Some(value))
    }

    #[cold]
    fn fail(&self, error: String) {
        let mut failure = self.failure.borrow_mut();
        if failure.as_ref() != Some(&error) {
            log::error!(
                "can't reload {}: {error}; the last valid ones stay in use, next attempt in 1 s",
                self.what
            );
        }
        *failure = Some(error);
    }
}

/// A file that was read.
#[derive(Hash)]
pub(crate) struct FileContent {
    pub(crate) bytes: Vec<u8>,
    /// The permissions of the file, as chmod(1) takes them in octal digits.
    mode: u32,
}

impl FileContent {
    /// Reads a regular file. A pipe is an error, because reading it would wait for a writer, and so is a
    /// device.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let mut file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(Self { bytes, mode: metadata.mode() & 0o7777 })
    }

    /// Logs a warning if users other than the file's owner and group may read or change the file.
    pub(crate) fn warn_if_public(&self, path: &Path) {
        if self.mode & OTHERS_READ_OR_WRITE != 0 {
            log::warn!(
                "every user of this host can read or change {}: its mode is {:o}; expected 600, or 640 for \
                 a group",
                path.display(),
                self.mode
            );
        }
    }
}

/// The time between two attempts while attempts fail.
const RETRY_EVERY: Duration = Duration::from_secs(1);
const OTHERS_READ_OR_WRITE: u32 = 0o006;

#[cfg(test)]
mod tests;
