//! Counts the system calls of a server.

use std::io;
use std::process::Command;

use super::process::Process;
use super::server::Server;

/// An strace process that is attached to all threads of a server.
pub(crate) struct Strace {
    process: Process,
}

impl Strace {
    /// Attaches strace to `server`. If this fails, prints the reason and returns `None`.
    pub(crate) fn attach(server: &Server) -> Option<Self> {
        let mut command = Command::new("strace");
        command.args(["-f", "-c", "-U", "calls,name", "-p", &server.id().to_string()]);
        let attached = Process::start(&mut command)
            .and_then(|process| process.line_with("attached").map(|_| Self { process }));
        attached
            .inspect_err(|error| {
                println!("system calls not counted, and their limits not checked: {error}");
            })
            .ok()
    }

    /// Ends the server and returns the number of its system calls since [`Strace::attach`].
    ///
    /// # Errors
    ///
    /// If strace prints no summary.
    pub(crate) fn total(self, server: Server) -> io::Result<f64> {
        // strace prints its summary when the server ends. The last line is the total.
        drop(server);
        let total = self.process.line_with(" total")?;
        total.split_whitespace().next().unwrap_or_default().parse().map_err(io::Error::other)
    }
}
