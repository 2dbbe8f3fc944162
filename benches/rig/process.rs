//! Child processes that end with the bench, however it ends.

use std::io::{self, BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

/// A child process. It is killed when this value is dropped, so also by an error or a panic.
pub(crate) struct Process {
    program: String,
    child: Child,
    /// The lines of its standard error. A thread reads them until the process ends, so that no
    /// server is ever slowed by a full pipe.
    said: Receiver<String>,
}

impl Process {
    /// Starts `command` with nothing to read and nowhere to print but standard error.
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
        let (line_end, said) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                line_end.send(line).ok();
            }
        });
        Ok(Self { program, child, said })
    }

    /// Waits for a line on standard error that contains `sign`, and returns it.
    ///
    /// # Errors
    ///
    /// If no such line comes within 10 s or the process closes standard error first; the error
    /// quotes what it said instead.
    pub(crate) fn line_with(&self, sign: &str) -> io::Result<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut heard = Vec::new();
        let time_left = || deadline.saturating_duration_since(Instant::now());
        while let Ok(line) = self.said.recv_timeout(time_left()) {
            if line.contains(sign) {
                return Ok(line);
            }
            heard.push(line);
        }
        let (program, heard) = (&self.program, heard.join(" / "));
        Err(io::Error::other(format!("{program} never said {sign:?}; it said {heard:?}")))
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if the process has ended already, which is what is wanted.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// How long a process may take to say what it is waited for to say.
const PATIENCE: Duration = Duration::from_secs(10);
