//! Programs that falconet must work with: proxies, and clients in other languages.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use super::command::{KillOnDrop, run, wait_for_exit};
use super::wait::TIMEOUT;

/// Returns a command that runs `program`. Returns `None`, and prints a note, if the program is not installed.
///
/// # Panics
///
/// If the program is not installed and the environment has `CI=true`.
pub fn peer(program: &str) -> Option<Command> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_installed = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    if !is_installed {
        skip(program);
    }
    is_installed.then(|| Command::new(program))
}

/// Returns a command that runs Python, if Python and its library `requests` are installed, as [`peer`] does.
pub fn python_with_requests() -> Option<Command> {
    let mut python = peer("python3")?;
    let (code, ..) = run(python.args(["-c", "import requests"]));
    if code != Some(0) {
        skip("requests for Python");
    }
    (code == Some(0)).then(|| Command::new("python3"))
}

fn skip(missing: &str) {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "no {missing} under CI");
    println!("skipped: no {missing}");
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
