//! Errors that name the system call that failed.

use std::fmt;
use std::io;

use rustix::io::Errno;

/// The error of a system call, with the name of the call.
#[derive(Debug)]
struct FailedCall {
    call: &'static str,
    error: Errno,
}

/// Returns a function that adds the name of a system call to its error.
pub(super) fn failed(call: &'static str) -> impl Fn(Errno) -> io::Error {
    move |error| io::Error::new(error.kind(), FailedCall { call, error })
}

/// Returns the error number of an error of the operating system, with or without the name of the call.
pub(super) fn errno_of(error: &io::Error) -> Option<Errno> {
    let failed = error.get_ref().and_then(|error| error.downcast_ref::<FailedCall>());
    failed.map(|failed| failed.error).or_else(|| Errno::from_io_error(error))
}

impl fmt::Display for FailedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.call, io::Error::from(self.error))
    }
}

impl std::error::Error for FailedCall {}
