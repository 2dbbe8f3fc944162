//! falconet without its protections, as far as they can be switched off: what they cost.

use std::io;

use super::server::Program;

/// falconet with `options`, no deadlines and no limits that a bench would ever meet.
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
