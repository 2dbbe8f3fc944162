//! Programs of other projects that tests run against falconet.

use std::path::PathBuf;

/// Returns the path of the first of `programs` that is installed. If none is, prints that the test is
/// skipped, and returns `None`.
///
/// # Panics
///
/// If none is installed and the environment has `CI=true`.
pub fn find_program(programs: &[&str]) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    // Debian installs servers in /usr/sbin, which not every user has in PATH.
    let found = std::env::split_paths(&folders)
        .chain([PathBuf::from("/usr/sbin")])
        .flat_map(|folder| programs.iter().map(move |program| folder.join(program)))
        .find(|path| path.is_file());
    if found.is_none() {
        skip(programs[0]);
    }
    found
}

/// Returns true if all of `programs` are installed, as [`find_program`] does.
pub fn are_installed(programs: &[&str]) -> bool {
    programs.iter().all(|program| find_program(&[program]).is_some())
}

/// Prints that a test is skipped because `missing` is not installed.
///
/// # Panics
///
/// If the environment has `CI=true`.
pub fn skip(missing: &str) {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "no {missing} under CI");
    println!("skipped: no {missing}");
}
