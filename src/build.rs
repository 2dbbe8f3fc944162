//! The build script: copies the pages in `www/` without most of their comments and indentation, and notes the
//! date.

#![allow(clippy::print_stdout, reason = "cargo reads the output of a build script")]

use std::path::PathBuf;
use std::time::SystemTime;
use std::{env, fs, io};

/// Writes every file of `www/` to the directory that `OUT_DIR` names, for `include_str!`. Indentation, empty
/// lines and lines with only a `//` comment are left out, which saves a seventh of the bytes. No text in the
/// pages spans several lines, so the shown text does not change.
fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=www");
    let target = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    for entry in fs::read_dir("www")? {
        let entry = entry?;
        let text = fs::read_to_string(entry.path())?;
        let lines = text.lines().map(str::trim_start);
        let kept = lines.filter(|line| !line.is_empty() && !line.starts_with("//"));
        let kept: String = kept.flat_map(|line| [line, "\n"]).collect();
        fs::write(target.join(entry.file_name()), kept)?;
    }
    let built = date()?;
    println!("cargo::rustc-env=FALCONET_BUILT={built}");
    Ok(())
}

/// Returns the date of the build, in seconds since 1970: that in `SOURCE_DATE_EPOCH`, or the current time.
/// A reproducible build sets the variable (<https://reproducible-builds.org/specs/source-date-epoch/>).
fn date() -> io::Result<u64> {
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    match env::var("SOURCE_DATE_EPOCH") {
        Ok(date) => date.parse().map_err(|_| {
            io::Error::other(format!("SOURCE_DATE_EPOCH `{date}`: expected seconds since 1970"))
        }),
        Err(_) => {
            let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            Ok(since_1970.map_err(io::Error::other)?.as_secs())
        }
    }
}
