//! Tests of the checks, with small sources.

use std::collections::BTreeSet;

use crate::code::{Code, Sources};
use crate::imports::Import;
use crate::order::{Order, circles};

const ORDER: Order =
    Order(&[("rate", &[]), ("hub", &["log", "mod", "handle"]), ("server", &[]), ("lib", &[])]);

/// A library of three rooms. `hub` re-exports a type of `hub/handle.rs`.
const LIBRARY: &[(&str, &str)] = &[
    ("src/lib.rs", "mod rate; mod hub; mod server; pub use hub::HubHandle as Exported;"),
    ("src/rate.rs", ""),
    ("src/hub/mod.rs", "mod log; mod handle; pub(crate) use handle::*; pub(crate) struct Hub;"),
    ("src/hub/log.rs", ""),
    ("src/hub/handle.rs", "pub(crate) struct HubHandle; pub(crate) trait Send {}"),
    ("src/server.rs", "pub(crate) struct Server; pub(crate) fn run() {} made_by_a_macro! {}"),
];

/// Returns the library with other texts for some of its files.
fn library(changed: &[(&str, &str)]) -> (Sources, Code) {
    let files = LIBRARY.iter().chain(changed);
    let sources: Sources = files.map(|(file, text)| (file.to_string(), text.to_string())).collect();
    let code = Code::read(&sources, &["src/lib.rs"]);
    (sources, code)
}

fn imports(changed: &[(&str, &str)]) -> Vec<Import> {
    library(changed).1.imports()
}

/// Returns the files that `file` imports something from if its text is `text`.
fn files_imported(file: &str, text: &str) -> BTreeSet<String> {
    let imports = imports(&[(file, text)]).into_iter().filter(|import| import.file == file);
    imports.flat_map(|import| import.defined_in).collect()
}

#[track_caller]
fn assert_imports(file: &str, text: &str, expected: &[&str]) {
    let expected: BTreeSet<String> = expected.iter().map(|file| file.to_string()).collect();
    assert_eq!(files_imported(file, text), expected, "{text}");
}

const HUB: &str = "src/hub/mod.rs";
const LOG: &str = "src/hub/log.rs";
const HANDLE: &str = "src/hub/handle.rs";
const SERVER: &str = "src/server.rs";

#[test]
fn each_form_of_use_is_found() {
    for (text, expected) in [
        ("use crate::server::Server;", &[SERVER][..]),
        ("use crate::{server as _server, hub::HubHandle as _H};", &[SERVER, HANDLE]),
        ("use crate::{hub::{self, Hub, HubHandle}, server::{run as _}};", &[HUB, HANDLE, SERVER]),
        ("use crate::server::*;", &[SERVER]),
        ("use crate::hub::*;", &[HUB, HANDLE]),
        ("use super::server::{self as s};", &[SERVER]),
        ("use self::super::server::Server;", &[SERVER]),
        ("mod inner { use super::super::server::Server; }", &[SERVER]),
        ("mod inner { mod more { use super::super::super::hub::Hub; } }", &[HUB]),
        ("fn f() { use crate::server::run; run() }", &[SERVER]),
        ("const _: () = { use crate::server::run; };", &[SERVER]),
        ("pub use crate::server::Server;", &[SERVER]),
        ("use crate::r#server::r#run;", &[SERVER]),
        ("#[cfg(unix)] use crate::server::Server;", &[SERVER]),
    ] {
        assert_imports("src/rate.rs", text, expected);
    }
}

#[test]
fn a_path_is_found_wherever_it_is() {
    for text in [
        "fn f() { crate::server::run() }",
        "fn f() { super::server::run() }",
        "fn f(server: &crate::server::Server) {}",
        "fn f() -> Vec<crate::server::Server> { todo!() }",
        "fn f<T>(_: T) where T: Into<crate::server::Server> {}",
        "fn f(_: impl Fn(crate::server::Server)) {}",
        "impl<T> Clone for crate::server::Server<T> {}",
        "impl From<crate::server::Server> for u8 {}",
        "struct S { server: Option<crate::server::Server> }",
        "type S = <crate::server::Server as Deref>::Target;",
        "fn f() { match x { crate::server::Server => {} _ => {} } }",
        "fn f() { let crate::server::Server { a } = x; }",
        "const N: usize = size_of::<crate::server::Server>();",
        "fn f() { let closure = async move |x| crate::server::run(x).await; }",
        "#[crate::server::attribute] fn f() {}",
        "#[derive(crate::server::Derive)] struct S;",
        "#[attribute(from = crate::server::Server)] struct S;",
        "fn f() { #[allow(x)] #[attribute(crate::server::run)] let a = 1; }",
        "fn f() { crate::server::call!() }",
    ] {
        assert_imports("src/rate.rs", text, &[SERVER]);
    }
}

#[test]
fn a_path_in_the_input_of_a_macro_is_found() {
    for text in [
        r#"fn f() { log::info!("{}", crate::server::run()); }"#,
        r#"fn f() { log::info!("{}", vec![Some(super::server::run())]); }"#,
        "pin_project! { struct S { #[pin] server: crate::server::Server } }",
        "macro_rules! m { () => { $crate::server::run() }; }",
        "macros! { use crate::{hub as _, server::{self as _s}}; }",
        "macros! { use crate::{server::*}; }",
        "macros! { use crate::server::{Server, *}; }",
        "use crate::server; macros! { x = server::run }",
        "fn f() { let a = [0..crate::server::run()]; x!(0..crate::server::run()) }",
    ] {
        assert!(files_imported("src/rate.rs", text).contains(SERVER), "{text}");
    }
}

#[test]
fn a_rename_hides_nothing() {
    for text in [
        "use crate as c; fn f() { c::server::run() }",
        "use super as up; fn f() { up::server::run() }",
        "use crate as c; use c::server as s; fn f() { s::run() }",
        "fn f() { use crate as c; c::server::run() }",
        "mod inner { pub use crate as c; } use inner::c::server::Server as _;",
        "mod inner { pub use crate::*; } use inner::server::Server as _;",
        "use super::*; fn f() { server::run() }",
    ] {
        assert!(files_imported("src/rate.rs", text).contains(SERVER), "{text}");
    }
    assert_imports("src/rate.rs", "use crate::Exported;", &[HANDLE]);
}

#[test]
fn a_path_that_names_nothing_in_another_file_is_not_an_import() {
    for text in [
        "use std::fmt; use log::log; use ::server::Server; fn f() { fmt::format() }",
        "pub(in crate::server) struct S; struct T { pub(in crate::server) t: u8 }",
        "macros! { pub(in crate::server) struct S; }",
        "mod inner { pub(super) struct S; } use self::inner::S; use inner::S as T;",
        "/// See [`crate::server::Server`].\nfn server(server: u8) { server.run(); }",
        r#"fn f() { x!("crate::server::run()", ::server::run(), a.server, T::<u8>::server) }"#,
        "mod server { pub fn run() {} } fn f() { server::run() }",
        "mod a { pub use super::b::X; } mod b { pub use super::a::X; } use a::X;",
    ] {
        assert_imports("src/rate.rs", text, &[]);
    }
}

#[test]
fn a_re_export_counts_for_the_file_that_defines_the_item() {
    assert_imports(LOG, "use super::HubHandle;", &[HANDLE]);
    assert_imports(LOG, "use super::Hub;", &[HUB]);
    assert_imports(LOG, "fn f(_: &crate::hub::HubHandle) {}", &[HANDLE]);
    assert_imports("src/rate.rs", "use crate::hub::Send as _;", &[HANDLE]);
    // If a feature selects the definition, both definitions count.
    let both =
        "mod a { pub struct X; } #[cfg(a)] pub use a::X; #[cfg(b)] pub use crate::server::X;";
    let imports = imports(&[(HUB, both), ("src/rate.rs", "use crate::hub::X;")]);
    let import = imports.iter().find(|import| import.file == "src/rate.rs").unwrap();
    assert_eq!(import.defined_in, [HUB, SERVER].map(str::to_owned).into());
}

#[test]
fn a_room_is_imported_even_where_it_only_re_exports() {
    let server = ("src/server.rs", "pub(crate) use crate::rate::Rate;");
    let importers = [(LOG, "use crate::server::Rate;"), ("src/rate.rs", "pub(crate) struct Rate;")];
    let errors = ORDER.imports_of_later_rooms(&imports(&[server, importers[0], importers[1]]));
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].starts_with("src/hub/log.rs:1 imports crate::server::Rate"), "{errors:?}");
}

#[test]
fn declarations_and_re_exports_of_own_modules_are_not_imports() {
    let declares = "mod log; mod handle; pub(crate) use handle::HubHandle; pub use log::*;";
    assert_imports(HUB, declares, &[]);
    assert_imports(HUB, "mod log; mod handle; use handle::HubHandle;", &[HANDLE]);
    assert_imports(HUB, "mod log; mod handle; pub(self) use handle::HubHandle;", &[HANDLE]);
    for uses in [
        "fn f(_: &HubHandle) {}",
        "fn f() { handle::HubHandle::new() }",
        "fn f() { x!(HubHandle) }",
        "x! { struct S { handle: HubHandle } }",
    ] {
        assert_imports(HUB, &format!("{declares} {uses}"), &[HANDLE]);
        let glob = declares.replace("handle::HubHandle", "handle::*");
        assert_imports(HUB, &format!("{glob} {uses}"), &[HANDLE]);
    }
}

#[test]
fn a_macro_counts_for_the_file_that_defines_it() {
    let hub = (HUB, "macro_rules! m { () => {} } mod log; mod handle; pub(crate) use m as n;");
    for text in ["m!();", "fn f() { m!() }", "x! { m!() }", "use super::n;"] {
        let imports = imports(&[hub, (LOG, text)]);
        let import = imports.iter().find(|import| import.file == LOG);
        assert!(import.is_some_and(|import| import.defined_in.contains(HUB)), "{text}");
    }
}

#[test]
fn an_import_of_a_later_room_is_an_error_in_tests_too() {
    for text in [
        "\nuse crate::{server as _server, hub::HubHandle as _H};",
        "\n#[cfg(test)] mod tests { use crate::server::Server; use crate::hub::Hub; }",
        "\n#[test] fn t() { crate::server::run(); crate::hub::run() }",
    ] {
        let errors = ORDER.imports_of_later_rooms(&imports(&[("src/rate.rs", text)]));
        assert_eq!(errors.len(), 2, "{errors:?}");
        assert!(errors[0].starts_with("src/rate.rs:2 imports crate::hub"), "{errors:?}");
        assert!(errors[1].ends_with("(src/server.rs): `server` is a later room"), "{errors:?}");
    }
    let right = ("src/server.rs", "use crate::{hub::Hub, rate::Rate};");
    assert_eq!(ORDER.imports_of_later_rooms(&imports(&[right])), [""; 0]);
    // An item of the root file is later than every room.
    let errors = ORDER.imports_of_later_rooms(&imports(&[(SERVER, "use crate::Root;")]));
    assert_eq!(errors, ["src/server.rs:1 imports crate::Root (src/lib.rs): `lib` is a later room"]);
}

#[test]
fn an_import_of_a_later_file_of_the_room_is_an_error_except_in_tests() {
    let errors = |text| ORDER.imports_of_later_files(&imports(&[(LOG, text)]));
    assert_eq!(
        errors("use super::{Hub, HubHandle}; fn f(_: HubHandle) {}"),
        [
            "src/hub/log.rs:1 imports super::HubHandle (src/hub/handle.rs): a later file of its room",
            "src/hub/log.rs:1 imports super::Hub (src/hub/mod.rs): a later file of its room",
        ]
    );
    for text in [
        "#[cfg(test)] mod tests { use super::super::HubHandle; }",
        "#[cfg(all(test, unix))] use super::HubHandle;",
        "#[cfg(any(test, fuzzing))] use super::HubHandle;",
        "#[test] fn f() { super::HubHandle::new() }",
        "impl X { #[cfg(test)] fn f() { super::HubHandle::new() } }",
        "fn f() { #[cfg(test)] let a = super::HubHandle; }",
        "#![cfg(test)] use super::HubHandle;",
    ] {
        assert_eq!(errors(text), [""; 0], "{text}");
    }
    for text in [
        "#[cfg(not(test))] use super::HubHandle;",
        "#[cfg(any(test, unix))] use super::HubHandle;",
        "#[cfg_attr(test, allow(unused))] use super::HubHandle;",
    ] {
        assert_eq!(errors(text).len(), 1, "{text}");
    }
}

#[test]
fn a_test_file_may_import_later_files_only_if_it_is_declared_for_tests() {
    let tests = ("src/hub/log/tests.rs", "mod deep; use crate::hub::HubHandle;");
    let deep = ("src/hub/log/tests/deep.rs", "use crate::server::Server;");
    let (sources, code) = library(&[(LOG, "#[cfg(test)] mod tests;"), tests, deep]);
    let imports = code.imports();
    assert_eq!(ORDER.imports_of_later_files(&imports), [""; 0]);
    assert_eq!(ORDER.imports_of_later_rooms(&imports).len(), 1);
    assert_eq!(ORDER.unlisted(&code, &sources), [""; 0]);

    let (sources, code) = library(&[(LOG, "mod tests;"), tests, deep]);
    assert_eq!(ORDER.unlisted(&code, &sources).len(), 2);
}

#[test]
fn a_circle_of_three_files_is_printed() {
    let found = circles(&imports(&[
        (HUB, "mod log; mod handle; pub(crate) use handle::HubHandle; struct Hub(log::Log);"),
        (LOG, "pub(crate) struct Log(super::HubHandle);"),
        (HANDLE, "use super::Hub;\npub(crate) struct HubHandle(Hub);"),
    ]));
    let expected = "src/hub/handle.rs -> src/hub/mod.rs -> src/hub/log.rs -> src/hub/handle.rs
    src/hub/handle.rs:1 imports super::Hub
    src/hub/mod.rs:1 imports log::Log
    src/hub/log.rs:1 imports super::HubHandle";
    assert_eq!(found, [expected]);
}

#[test]
fn a_circle_through_tests_is_allowed() {
    let tests = "pub(crate) struct Log; #[cfg(test)] mod tests { use super::super::Hub; }";
    let hub = "mod log; mod handle; struct Hub(log::Log);";
    assert_eq!(circles(&imports(&[(HUB, hub), (LOG, tests)])), [""; 0]);
}

#[test]
fn the_table_and_the_files_must_agree() {
    let (sources, code) = library(&[("src/hub/orphan.rs", "")]);
    assert_eq!(ORDER.unlisted(&code, &sources), ["src/hub/orphan.rs is a module of no crate"]);
    let (sources, code) = library(&[(LOG, "mod inner;"), ("src/hub/log/inner.rs", "")]);
    assert_eq!(ORDER.unlisted(&code, &sources), ["src/hub/log/inner.rs is not in the table"]);
    assert_eq!(ORDER.absent(&sources), [""; 0]);

    let more = Order(&[("rate", &[]), ("hub", &["log", "log", "missing"]), ("missing", &[])]);
    assert_eq!(more.absent(&sources).len(), 3);
}

#[test]
fn names_in_code_and_in_the_input_of_macros_are_words() {
    let text = r#"use smol::spawn as s; fn f() { x!(thread::spawn(a), "print") }
        #[cfg(test)] fn t() { executor.spawn() }"#;
    let (_, code) = library(&[("src/rate.rs", text)]);
    let spawns = code.words.iter().filter(|word| word.text == "spawn");
    let spawns: Vec<_> = spawns.map(|word| (word.file.as_str(), word.line, word.test)).collect();
    let file = "src/rate.rs";
    assert_eq!(spawns, [(file, 1, false), (file, 1, false), (file, 2, true)]);
    assert!(!code.words.iter().any(|word| word.text == "print"));
}
