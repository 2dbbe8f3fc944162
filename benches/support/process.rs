//! Child processes that are killed when the bench ends, by an error or a panic too.

use std::io::{self, BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

/// A child process. Dropping this value kills it.
pub(crate) struct Process {
    program: String,
    child: Child,
    /// The lines of its standard error. A thread reads them until the process ends, so that a full
    /// pipe never blocks the server.
    stderr_lines: Receiver<String>,
}

impl Process {
    /// Starts `command` with standard input and output connected to `/dev/null`.
    ///
    /// # Errors
    ///
    /// If the program cannot be started; the error names it.
    pub(crate) fn start(command: &mut Command) -> io::Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))?;
        let stderr = child.stderr.take().expect("standard error was just piped");
        let (sender, stderr_lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                sender.send(line).ok();
            }
        });
        Ok(Self { program, child, stderr_lines })
    }

    /// Waits for a line on standard error that contains `text`, and returns the line.
    ///
    /// # Errors
    ///
    /// If no line contains `text` within 10 s, or if the process closes standard error first. The
    /// error quotes the lines that were printed.
    pub(crate) fn line_with(&self, text: &str) -> io::Result<String> {
        let deadline = Instant::now() + TIMEOUT;
        let mut other_lines = Vec::new();
        let time_left = || deadline.saturating_duration_since(Instant::now());
        while let Ok(line) = self.stderr_lines.recv_timeout(time_left()) {
            if line.contains(text) {
                return Ok(line);
            }
            other_lines.push(line);
        }
        let (program, printed) = (&self.program, other_lines.join(" / "));
        Err(io::Error::other(format!("{program} did not print {text:?}; it printed {printed:?}")))
    }

    /// Returns the process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if the process has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Longest time to wait for a line.
const TIMEOUT: Duration = Duration::from_secs(10);
