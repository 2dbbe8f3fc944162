//! Commands that end by themselves.

use std::io::Read;
use std::process::{Child, Command, Stdio};

use super::wait::wait_until;

/// A child process, killed on drop.
pub struct KillOnDrop(pub Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a command to its end. Returns its exit code, stdout and stderr.
pub fn run(command: &mut Command) -> (Option<i32>, String, String) {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut program = KillOnDrop(command.spawn().unwrap());
    let code = wait_for_exit(&mut program.0);
    // Reading after the end is safe only because neither output is longer than a pipe holds.
    let (mut stdout, mut stderr) = (String::new(), String::new());
    program.0.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    program.0.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    (code, stdout, stderr)
}

/// Waits until a child has ended, and returns its exit code.
pub fn wait_for_exit(child: &mut Child) -> Option<i32> {
    let mut status = None;
    wait_until("the program ends", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.and_then(|status| status.code())
}

/// Runs a command that must succeed and print nothing on stderr, and returns its stdout.
pub fn stdout_of(command: &mut Command) -> String {
    let (code, stdout, stderr) = run(command);
    assert_eq!((code, &*stderr), (Some(0), ""), "{command:?}");
    stdout
}

/// Checks that a command fails with `code` and one line on stderr that contains all `parts`.
pub fn assert_refused(command: &mut Command, code: i32, parts: &[&str]) {
    let (got, stdout, stderr) = run(command);
    assert_eq!((got, &*stdout), (Some(code), ""), "{command:?}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{command:?}: {stderr}");
    assert!(stderr.starts_with("falconet: "), "{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "{part} is not in {stderr}");
    }
}
