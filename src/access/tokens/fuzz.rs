//! The part of an entry point for fuzzing that needs the private items of the token file.

use super::*;
use crate::http::percent::percent_decode;

/// Parses a file of tokens, and looks for the token of a request.
pub(in crate::access) fn tokens(file: &str, head: Option<&RequestHead<'_>>) {
    let grants = match parse(Path::new("tokens"), file.as_bytes()) {
        Ok(grants) => grants,
        Err(error) => {
            assert!(error.to_string().starts_with("tokens:"), "{error}");
            return;
        }
    };
    let Some(head) = head else { return };
    let sent = head.single("authorization").and_then(read_authorization);
    let Some(sent) = sent.or_else(|| read_subprotocol(head)) else { return };
    let Some(token) = Token::new(&sent) else { return };
    let topic = head.path().trim_start_matches('/');
    let matching = || grants.iter().filter(|grant| grant.token.is_same(&token));
    assert_eq!(matching().any(|grant| grant.allows(Action::Publish(topic))), {
        let sent = str::from_utf8(&sent).expect("a token is ASCII");
        file.lines().any(|line| lets_publish(line, sent, topic))
    });
    for grant in matching() {
        let _ = (grant.allows(Action::Subscribe(topic)), grant.allows(Action::Read(head.path())));
        assert!(!grant.allows(Action::Admin("/")) || grant.topic.is_none());
    }
}

/// Returns true if a line, which is valid, lets `token` publish to `topic`.
fn lets_publish(line: &str, token: &str, topic: &str) -> bool {
    let words: Vec<_> = line.split_whitespace().take_while(|word| !word.starts_with('#')).collect();
    let (right, root) = match words[..] {
        [first] if first == token => ("all", ""),
        [first, right] if first == token => (right, ""),
        [first, right, root] if first == token => (right, root.trim_end_matches('/')),
        _ => return false,
    };
    let root = percent_decode(root).and_then(|root| String::from_utf8(root).ok());
    let root = root.expect("the line is valid");
    let is_below = root.is_empty() || *topic == root || topic.starts_with(&format!("{root}/"));
    matches!(right, "publish" | "all") && is_below
}
