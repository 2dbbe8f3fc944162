//! Counts a server's system calls.

use std::io;
use std::process::Command;

use super::process::Process;
use super::server::Server;

/// strace, attached to all threads of a server.
pub(crate) struct Strace {
    process: Process,
}

impl Strace {
    /// Attaches to `server`. `None`, and a line that says why, if that can't be done.
    pub(crate) fn attach(server: &Server) -> Option<Self> {
        let mut command = Command::new("strace");
        command.args(["-f", "-c", "-U", "calls,name", "-p", &server.id().to_string()]);
        let attached = Process::start(&mut command)
            .and_then(|process| process.line_with("attached").map(|_| Self { process }));
        attached
            .inspect_err(|error| println!("not counted, and their limits not checked: {error}"))
            .ok()
    }

    /// Ends the server and returns how many system calls it has made since.
    ///
    /// # Errors
    ///
    /// If strace prints no summary.
    pub(crate) fn total(self, server: Server) -> io::Result<f64> {
        // The end of the server makes strace print its summary, which closes with the total.
        drop(server);
        let total = self.process.line_with(" total")?;
        total.split_whitespace().next().unwrap_or_default().parse().map_err(io::Error::other)
    }
}
