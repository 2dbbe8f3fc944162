//! Checks of the source code. A room is a top-level module, or a program; `table.rs` has the order of the
//! rooms and of their files.

#![allow(clippy::unwrap_used, clippy::panic, reason = "all of this crate is tests")]

mod checks;
mod code;
mod imports;
mod order;
mod table;
mod tokens;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use falconet::cli::OPTIONS;

use crate::code::{Code, Names, Sources, Word};
use crate::imports::Import;
use crate::table::{ORDER, ROOTS};

/// The names in `.ci/sections.ld` that belong to the standard library and its dependencies.
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
    "builders",
    "rustc_demangle",
];

/// The files and folders that may start tasks, threads and processes.
const SPAWNERS: &[&str] = &["src/server/", "src/bin/"];

/// The files and folders that may print.
const PRINTERS: &[&str] = &["src/main.rs", "src/build.rs", "src/cli/", "src/bin/"];

/// The names that printing needs.
const PRINTING: &[&str] =
    &["print", "println", "eprint", "eprintln", "dbg", "stdout", "stderr", "Stdout", "Stderr"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// Returns every Rust file under `folder`, by its path from the root of the project.
fn sources(folder: &str) -> Sources {
    let mut folders: Vec<PathBuf> = vec![root().join(folder)];
    let mut files = Sources::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                files.insert(name, fs::read_to_string(path).unwrap());
            }
        }
    }
    assert!(files.len() > 1, "no sources in {folder}");
    files
}

static CODE: LazyLock<Code> = LazyLock::new(|| Code::read(&sources("src"), ROOTS));

static IMPORTS: LazyLock<Vec<Import>> = LazyLock::new(|| {
    let imports = CODE.imports();
    assert!(imports.len() > 300, "the imports were not found");
    imports
});

/// Fails with all `errors`, one per line, if there are any.
#[track_caller]
fn assert_none(errors: &[String]) {
    assert!(errors.is_empty(), "\n{}\n", errors.join("\n"));
}

fn is_in(file: &str, places: &[&str]) -> bool {
    places.iter().any(|place| file.starts_with(place))
}

/// Returns the places of the words for which `is_wrong` returns true.
fn places_of(is_wrong: impl Fn(&Word) -> bool) -> Vec<String> {
    assert!(CODE.words.len() > 10_000, "the words were not found");
    let wrong = CODE.words.iter().filter(|word| is_wrong(word));
    wrong.map(|word| format!("{}:{}: `{}`", word.file, word.line, word.text)).collect()
}

#[test]
fn no_room_imports_a_later_room() {
    assert_none(&ORDER.imports_of_later_rooms(&IMPORTS));
}

#[test]
fn no_file_imports_a_later_file_of_its_room() {
    assert_none(&ORDER.imports_of_later_files(&IMPORTS));
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    assert_none(&order::circles(&IMPORTS));
}

#[test]
fn every_file_is_in_the_table() {
    assert_none(&ORDER.unlisted(&CODE, &sources("src")));
}

#[test]
fn every_entry_of_the_table_is_a_file() {
    assert_none(&ORDER.absent(&sources("src")));
}

#[test]
fn no_file_includes_code() {
    // The checks would not see the paths in that code.
    assert_none(&places_of(|word| word.text == "include"));
}

#[test]
fn only_the_server_spawns() {
    let spawns = |word: &Word| word.text == "spawn" || word.text.starts_with("spawn_");
    assert_none(&places_of(|word| spawns(word) && !word.test && !is_in(&word.file, SPAWNERS)));
}

#[test]
fn only_the_programs_print() {
    // The logger writes to stderr without the macros that print.
    let is_logger = |word: &Word| word.file == "src/log.rs" && word.text == "stderr";
    let prints = |word: &Word| PRINTING.contains(&word.text.as_str()) && !is_logger(word);
    assert_none(&places_of(|word| prints(word) && !is_in(&word.file, PRINTERS)));
}

#[test]
fn the_values_of_log_lines_are_texts_and_whole_numbers() {
    let mut lines = 0;
    for (file, text) in sources("src") {
        for input in tokens::inputs_of_log_macros(&text) {
            lines += 1;
            // The logger writes `?` for other values.
            assert!(!tokens::captures_by_a_trait(input.clone()), "{file}: {input}");
        }
    }
    assert!(lines > 30, "the log lines were not found");
}

#[test]
fn every_file_begins_with_a_doc_comment() {
    for (file, text) in sources("src") {
        assert!(
            text.starts_with("//! ") || file.ends_with("tests.rs"),
            "{file} does not begin with a doc comment"
        );
    }
}

#[test]
fn the_readme_has_every_option_with_its_default_and_help() {
    let readme = read("README.md");
    for option in OPTIONS.iter().filter(|option| option.is_built_in()) {
        let row = format!("| `{}` | `{}` | {} |", option.flag(), option.default(), option.help);
        assert!(readme.contains(&row), "README.md lacks\n{row}");
    }
}

#[test]
fn c34_the_bench_and_the_readme_show_the_figures_of_the_article() {
    let figures = ["190 KB", "59 MB", "about 5 MB", "295 KB", "75 MB", "about 11 MB"];
    for file in ["benches/footprint.rs", "README.md"] {
        let text = read(file);
        for figure in figures {
            assert!(text.contains(figure), "{file} lacks {figure}");
        }
    }
}

#[test]
fn every_pattern_in_the_layout_of_the_static_binaries_names_existing_code() {
    let symbols = CODE.symbols();
    let script = read(".ci/sections.ld");
    let mut checked = 0;
    for pattern in script.split([' ', '\n', '(', ')']) {
        let Some(symbol) = pattern.strip_prefix(".text.*").filter(|rest| !rest.is_empty()) else {
            continue;
        };
        let names = names_in(symbol);
        checked += names.len();
        assert!(exists(&names, &symbols), "{pattern} names nothing");
    }
    assert!(checked > 60, "the patterns were not found");
}

/// Returns true if `names`, which come from a mangled symbol, name a module, an item or a method of
/// `src/`, or begin with the name of a dependency.
fn exists(names: &[&str], symbols: &[Names]) -> bool {
    match names {
        [] => true,
        ["falconet", names @ ..] => symbols.iter().any(|symbol| symbol.starts_with(&owned(names))),
        [first, ..] => {
            let has = |symbol: &Names| symbol.windows(names.len()).any(|part| part == names);
            let is_here = symbols.iter().any(has);
            // A room may have the name of a dependency.
            let is_room = symbols.iter().any(|symbol| symbol == &[*first]);
            is_here || !is_room && (OF_STD.contains(first) || is_dependency(first))
        }
    }
}

fn owned(names: &[&str]) -> Names {
    names.iter().map(|name| name.to_string()).collect()
}

/// Returns true if `Cargo.lock` has a crate with this name.
fn is_dependency(name: &str) -> bool {
    let lock = read("Cargo.lock");
    let crates = lock.lines().filter_map(|line| line.strip_prefix("name = \""));
    let mut crates = crates.map(|name| name.trim_end_matches('"').replace('-', "_"));
    // The library of `tz-rs` is `tz`, and that of `rustls-webpki` is `webpki`.
    crates.any(|one| one.starts_with(name) || one.ends_with(name))
}

/// Returns the names in a part of a mangled symbol, where each name follows its length.
fn names_in(symbol: &str) -> Vec<&str> {
    let (mut names, mut rest) = (Vec::new(), symbol);
    while let Some(end) = rest.find(|c: char| !c.is_ascii_digit()).filter(|end| *end > 0) {
        let length = rest[..end].parse().unwrap();
        let (name, after) =
            rest[end..].split_at_checked(length).expect("a name is as long as its prefix says");
        assert!(after.starts_with(|c: char| c.is_ascii_digit() || "*[".contains(c)), "{symbol}");
        names.push(name);
        rest = after;
    }
    names
}

#[test]
fn tests_are_never_ignored() {
    for (file, text) in ["src", "tests", "benches"].into_iter().flat_map(sources) {
        let names = tokens::names_in_attributes(&text);
        let found = names.iter().find(|name| ["ignore", "should_panic"].contains(&name.as_str()));
        assert!(found.is_none(), "{file}: {found:?}");
        assert!(!has_ignored_example(&text), "{file}: an example in a comment is ignored");
    }
    assert!(!has_ignored_example(&read("README.md")), "README.md: an example is ignored");
}

/// Returns true if a text has an example that is not run, or that may panic.
fn has_ignored_example(text: &str) -> bool {
    let mut fences = text.lines().filter(|line| line.contains("``\x60"));
    fences.any(|fence| fence.contains("ignore") || fence.contains("should_panic"))
}
