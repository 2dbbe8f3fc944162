//! falconet without the protections that can be switched off, to measure their cost.

use std::io;

use super::server::Program;

/// Returns falconet with `options`, without deadlines, and with limits that no bench reaches.
///
/// # Errors
///
/// If the release build fails.
pub(crate) fn program(options: &[&str]) -> io::Result<Program> {
    let program = Program::falconet(&[options, &SWITCHED_OFF].concat())?;
    Ok(Program { name: "unprotected", ..program })
}

const SWITCHED_OFF: [&str; 16] = [
    "--head-timeout",
    "0",
    "--keep-alive",
    "0",
    "--write-timeout",
    "0",
    "--ping-every",
    "0",
    "--idle-timeout",
    "0",
    "--max-message",
    "16m",
    "--max-head",
    "64k",
    "--origin",
    "any",
];
