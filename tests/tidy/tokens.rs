//! Searches in the tokens of a file, including the input of macros.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// The macros of the crate `log` that write a line.
const LOG_MACROS: &[&str] = &["trace", "debug", "info", "warn", "error", "log"];

/// The ways in which a log line can capture a value by a trait, instead of as a text or a number.
const CAPTURES: &[&str] = &["?", "%", "debug", "display", "err", "serde", "sval"];

fn tokens(text: &str) -> TokenStream {
    text.parse().expect("the compiler accepts this file")
}

/// Calls `visit` for each group in `stream`, with the tokens before the group.
fn each_group(stream: TokenStream, visit: &mut impl FnMut(&[TokenTree], &Group)) {
    let trees: Vec<TokenTree> = stream.into_iter().collect();
    for (at, tree) in trees.iter().enumerate() {
        if let TokenTree::Group(group) = tree {
            visit(&trees[..at], group);
            each_group(group.stream(), visit);
        }
    }
}

fn is_punct(tree: &TokenTree, wanted: char) -> bool {
    matches!(tree, TokenTree::Punct(punct) if punct.as_char() == wanted)
}

/// Returns the names in all attributes, such as `cfg_attr`, `windows` and `ignore`.
pub(crate) fn names_in_attributes(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    each_group(tokens(text), &mut |before, group| {
        let is_outer = matches!(before, [.., hash] if is_punct(hash, '#'));
        let is_inner = matches!(before, [.., hash, _] if is_punct(hash, '#'));
        if group.delimiter() == Delimiter::Bracket && (is_outer || is_inner) {
            collect_names(group.stream(), &mut names);
        }
    });
    names
}

fn collect_names(stream: TokenStream, names: &mut Vec<String>) {
    for tree in stream {
        match tree {
            TokenTree::Ident(ident) => names.push(ident.to_string()),
            TokenTree::Group(group) => collect_names(group.stream(), names),
            _ => {}
        }
    }
}

/// Returns the input of each macro that logs.
pub(crate) fn inputs_of_log_macros(text: &str) -> Vec<TokenStream> {
    let mut inputs = Vec::new();
    each_group(tokens(text), &mut |before, group| {
        if let [.., TokenTree::Ident(name), bang] = before
            && is_punct(bang, '!')
            && LOG_MACROS.iter().any(|log_macro| name == log_macro)
        {
            inputs.push(group.stream());
        }
    });
    inputs
}

/// Returns true if the input of a log macro has a field such as `error:? = value`, `path:%` or `count:debug`.
pub(crate) fn captures_by_a_trait(input: TokenStream) -> bool {
    let trees: Vec<TokenTree> = input.into_iter().collect();
    trees.windows(3).any(|three| {
        matches!(three[0], TokenTree::Ident(_))
            && is_punct(&three[1], ':')
            && CAPTURES.contains(&three[2].to_string().as_str())
    })
}

#[test]
fn attributes_are_found_wherever_they_are() {
    let hidden = "macro_rules! m { () => { #[test] #[cfg_attr(unix, ignore)] fn f() {} } }";
    assert!(names_in_attributes(hidden).contains(&"ignore".to_owned()));
    assert!(names_in_attributes("#![should_panic]").contains(&"should_panic".to_owned()));
    assert!(names_in_attributes("fn ignore() { let a = [ignore]; }").is_empty());
}

#[test]
fn a_captured_trait_is_found_in_a_log_line() {
    let captures = |text| {
        let inputs = inputs_of_log_macros(text);
        assert_eq!(inputs.len(), 1);
        captures_by_a_trait(inputs[0].clone())
    };
    assert!(captures(r#"fn f() { log::info!(error:? = e; "x"); }"#));
    assert!(captures(r#"fn f() { log::info!(target: "t", path:%; "x"); }"#));
    assert!(captures(r#"fn f() { warn!(a = 1, path:debug = b; "x"); }"#));
    assert!(!captures(
        r#"fn f() { log::log!(target: "t", level, path = b.to_string(); "{a:?}"); }"#
    ));
}
