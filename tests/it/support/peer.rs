//! Clients of other projects that falconet must work with.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use super::command::{KillOnDrop, run, wait_for_exit};
use super::installed::{find_program, skip};
use super::wait::TIMEOUT;

/// Returns a command that runs `program`, as [`find_program`] does.
pub fn peer(program: &str) -> Option<Command> {
    find_program(&[program]).map(Command::new)
}

/// Returns a command that runs Python, if Python and its library `requests` are installed, as [`peer`] does.
pub fn python_with_requests() -> Option<Command> {
    let python = find_program(&["python3"])?;
    let (code, ..) = run(Command::new(&python).args(["-c", "import requests"]));
    if code != Some(0) {
        skip("requests for Python");
    }
    (code == Some(0)).then(|| Command::new(python))
}

/// A running program whose standard output is read line by line. It is killed on drop.
pub struct Peer {
    process: KillOnDrop,
    lines: Receiver<String>,
}

impl Peer {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { process: KillOnDrop(child), lines }
    }

    /// Waits for the next line.
    pub fn line(&self) -> String {
        self.lines.recv_timeout(TIMEOUT).expect("a line of output")
    }

    /// Waits for the next line that is not empty.
    pub fn text(&self) -> String {
        std::iter::repeat_with(|| self.line()).find(|line| !line.is_empty()).unwrap()
    }

    /// Waits until the program has ended, and returns its exit code.
    pub fn exit_code(mut self) -> Option<i32> {
        wait_for_exit(&mut self.process.0)
    }
}
