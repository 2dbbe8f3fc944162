//! What the source promises about itself.

#![allow(clippy::unwrap_used, reason = "all of this crate is tests")]

use std::fs;
use std::path::{Path, PathBuf};

use falconet::cli::OPTIONS;

/// The rooms of the library, in their order: a room imports only from those above it.
const ROOMS: &[&str] = &[
    "features",
    "escaped",
    "config",
    "rate",
    "sha1",
    "counters",
    "systemd",
    "net",
    "signals",
    "privileges",
    "http",
    "ws/frame",
    "hub",
    "access",
    "ws",
    "endpoints",
    "services",
    "admin",
    "connection",
    "server",
    "log",
    "cli",
];

/// What the layout names of the standard library, and of what that is made of.
const OF_STD: &[&str] = &[
    "std",
    "core",
    "alloc",
    "raw_vec",
    "drop_in_place",
    "Debug",
    "error",
    "float",
    "slice",
    "hashbrown",
    "gimli",
    "addr2line",
    "miniz_oxide",
    "backtrace_rs",
    "rustc_demangle",
];

/// Who may print.
const PRINTERS: &[&str] = &["src/main.rs", "src/cli/", "src/bin/"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file under `folder`, by its path from the root, with its text.
fn sources(folder: &str) -> Vec<(String, String)> {
    let mut folders: Vec<PathBuf> = vec![root().join(folder)];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                files.push((name, fs::read_to_string(path).unwrap()));
            }
        }
    }
    assert!(files.len() > 1, "no sources in {folder}");
    files
}

/// The place in the order of what `path` names, such as `ws/frame` or `net/reactor`.
fn room(path: &str) -> Option<usize> {
    let within = |room: &str| path == room || path.starts_with(&format!("{room}/"));
    // The most specific name counts: `ws/frame` is not `ws`.
    let best = ROOMS.iter().filter(|room| within(room)).max_by_key(|room| room.len())?;
    ROOMS.iter().position(|room| room == best)
}

/// The paths behind `crate::` in `text`, with slashes, without what is in braces.
fn imports(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split("crate::").skip(1).map(|rest| {
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
        rest[..end.unwrap_or(rest.len())].trim_end_matches(':').replace("::", "/")
    })
}

#[test]
fn no_room_imports_a_later_room() {
    let mut checked = 0;
    for (file, text) in sources("src") {
        let path = file.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
        let Some(importer) = room(path) else { continue };
        for import in imports(&text) {
            let Some(imported) = room(&import) else { continue };
            checked += 1;
            assert!(imported <= importer, "{file} imports {import}, which is a later room");
        }
    }
    assert!(checked > 30, "the imports were not found");
}

#[test]
fn every_room_exists() {
    for room in ROOMS {
        let path = root().join("src").join(room);
        assert!(path.is_dir() || path.with_extension("rs").is_file(), "{room}");
    }
}

#[test]
fn only_the_server_spawns() {
    for (file, text) in sources("src") {
        let code = text.split("#[cfg(test)]").next().unwrap();
        let may =
            file == "src/server.rs" || file.starts_with("src/bin/") || file.ends_with("tests.rs");
        assert!(may || !code.contains(".spawn("), "{file} spawns");
    }
}

#[test]
fn only_the_programs_print() {
    for (file, text) in sources("src") {
        let may = PRINTERS.iter().any(|printer| file.starts_with(printer));
        let prints = ["println!", "print!(", "std::io::stdout", "std::io::stderr"];
        assert!(may || !prints.iter().any(|print| text.contains(print)), "{file} prints");
    }
}

#[test]
fn the_values_of_log_lines_are_texts_and_whole_numbers() {
    for (file, text) in sources("src") {
        // The logger writes `?` for others.
        assert!(![":%", ":?,", ":? ="].iter().any(|form| text.contains(form)), "{file}");
    }
}

#[test]
fn every_file_says_what_it_is() {
    for (file, text) in sources("src") {
        assert!(text.starts_with("//! ") || file.ends_with("tests.rs"), "{file} has no first line");
    }
}

#[test]
fn the_table_of_options_in_the_readme_is_that_of_the_program() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    for option in OPTIONS.iter().filter(|option| option.is_built_in()) {
        let row = format!("| `{}` | `{}` | {} |", option.flag(), option.default(), option.help);
        assert!(readme.contains(&row), "README.md lacks\n{row}");
    }
}

#[test]
fn c34_the_bench_and_the_readme_show_the_articles_figures_beside_ours() {
    let figures = ["190 KB", "59 MB", "about 5 MB", "295 KB", "75 MB", "about 11 MB"];
    for file in ["benches/footprint.rs", "README.md"] {
        let text = fs::read_to_string(root().join(file)).unwrap();
        for figure in figures {
            assert!(text.contains(figure), "{file} lacks {figure}");
        }
    }
}

#[test]
fn the_layout_of_the_static_binaries_is_of_code_that_is_there() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let (script, lock, main) = (read(".ci/sections.ld"), read("Cargo.lock"), read("src/main.rs"));
    let has_crate = |name: &str| {
        let crates = lock.lines().filter_map(|line| line.strip_prefix("name = \""));
        let mut crates = crates.map(|name| name.trim_end_matches('"').replace('-', "_"));
        // The library of `tz-rs` is `tz`, and that of `rustls-webpki` is `webpki`.
        crates.any(|one| one.starts_with(name) || one.ends_with(name))
    };
    let mut checked = 0;
    for pattern in script.split([' ', '\n', '(', ')']) {
        let Some(symbol) = pattern.strip_prefix(".text.*").filter(|rest| !rest.is_empty()) else {
            continue;
        };
        let mut names = names_in(symbol);
        checked += names.len();
        names.retain(|name| *name != "falconet");
        let Some(first) = names.first() else { continue };
        let is_module = |path: &str| {
            let path = root().join("src").join(path);
            path.is_dir() || path.with_extension("rs").is_file()
        };
        let is_there = match is_module(first) {
            true => is_module(&names.join("/")),
            false => {
                let (function, type_) = (format!("fn {first}("), format!("impl {first} "));
                has_crate(first)
                    || OF_STD.contains(first)
                    || main.contains(&function)
                    || sources("src").iter().any(|(_, text)| text.contains(&type_))
            }
        };
        assert!(is_there, "{pattern} names nothing");
    }
    assert!(checked > 60, "the patterns were not found");
}

/// The names in a part of a mangled symbol, each behind its length.
fn names_in(symbol: &str) -> Vec<&str> {
    let (mut names, mut rest) = (Vec::new(), symbol);
    while let Some(end) = rest.find(|c: char| !c.is_ascii_digit()).filter(|end| *end > 0) {
        let length = rest[..end].parse().unwrap();
        let (name, after) = rest[end..].split_at_checked(length).expect("a name has its length");
        assert!(after.starts_with(|c: char| c.is_ascii_digit() || "*[".contains(c)), "{symbol}");
        names.push(name);
        rest = after;
    }
    names
}

#[test]
fn tests_are_never_ignored() {
    let attributes = [concat!("#[", "ignore"), concat!("should", "_panic")];
    for (file, text) in sources("src").into_iter().chain(sources("tests")) {
        assert!(!attributes.iter().any(|attribute| text.contains(attribute)), "{file}");
    }
}
