//! Other programs that the tests talk to.

/// Returns true if `programs` are installed. Otherwise a note is printed.
///
/// # Panics
///
/// If one is not installed and the environment has `CI=true`.
pub fn are_installed(programs: &[&str]) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let is_installed = |program: &&&str| {
        std::env::split_paths(&folders).any(|folder| folder.join(program).is_file())
    };
    let missing = programs.iter().find(|program| !is_installed(program));
    if let Some(program) = missing {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "no {program} under CI");
        println!("skipped: no {program}");
    }
    missing.is_none()
}
