//! The entry points for fuzzing of the code that reads what a server sends. Each one takes arbitrary bytes, and
//! panics if that code breaks one of its rules.
//!
//! `tests/fuzz` runs them with libFuzzer. The test below runs them on the inputs in `tests/fuzz/corpus`.

use crate::chunks::Chunks;
use crate::response::{Refusal, Response};
use crate::sse::{Event, Parser};
use crate::token::Token;

/// An entry point, with the name of the folder that has its inputs.
type Target = (&'static str, fn(&[u8]));

/// The entry points of the client.
pub(crate) const TARGETS: &[Target] = &[("response", response), ("events", events)];

/// Reads a response and its body. The first byte is the size of the pieces in which a chunked body arrives.
fn response(input: &[u8]) {
    let Some((size, bytes)) = input.split_first() else { return };
    let Ok(Some((response, head_bytes))) = Response::parse(bytes) else { return };
    let (head, body) = bytes.split_at(head_bytes);
    assert!(matches!(Response::parse(&head[..head_bytes - 1]), Ok(None)));
    let parsed = Response::parse(head);
    assert!(matches!(parsed, Ok(Some((_, length))) if length == head_bytes), "{parsed:?}");

    let token = Token::in_environment(Some("secret".as_ref())).expect("the token is valid");
    for token in [None, token.as_ref()] {
        for refusal in [
            Refusal::from_response(&response, body, token),
            Refusal::from_ended_stream(body, token),
        ] {
            let text = refusal.to_string();
            assert!(!text.contains(char::is_control), "{text:?}");
            assert!(token.is_none() || !text.contains("secret"), "{text:?}");
        }
    }
    assert!(!response.may_be_followed(body) || response.body_bytes() == Some(body.len()));
    if response.has_token("transfer-encoding", "chunked") {
        assert_eq!(decode(body, (*size).into()), decode(body, body.len()));
    }
}

/// Decodes a chunked body in pieces of `size`. Returns its data, and true if it is complete.
fn decode(body: &[u8], size: usize) -> Result<(Vec<u8>, bool), &'static str> {
    let mut chunks = Chunks::default();
    let mut data = Vec::new();
    for piece in body.chunks(size.max(1)) {
        let mut piece = piece.to_vec();
        chunks.decode(&mut piece)?;
        data.extend(piece);
    }
    Ok((data, chunks.has_ended()))
}

/// Reads a stream of events. The first byte is the size of the pieces in which it arrives.
fn events(input: &[u8]) {
    let Some((size, bytes)) = input.split_first() else { return };
    let parsed = parse(bytes, bytes.len());
    assert_eq!(parse(bytes, (*size).into()), parsed);
    assert_eq!(parse_plainly(bytes), parsed);
}

/// The results of a stream of events.
#[derive(Debug, Default, PartialEq)]
struct Parsed {
    events: Vec<Event>,
    last_id: String,
}

/// Parses a stream that arrives in pieces of `size`.
fn parse(bytes: &[u8], size: usize) -> Parsed {
    let mut parser = Parser::after(FIRST_ID);
    let mut parsed = Parsed::default();
    for mut piece in bytes.chunks(size.max(1)) {
        let short = "the input is shorter than the largest event";
        while let Some(event) = parser.next(&mut piece).expect(short) {
            parsed.events.push(event);
        }
        assert!(piece.is_empty());
    }
    Parsed { last_id: parser.last_id(), ..parsed }
}

/// Parses a whole stream line by line, as the standard describes it.
fn parse_plainly(bytes: &[u8]) -> Parsed {
    let mut parsed = Parsed { last_id: FIRST_ID.to_owned(), ..Parsed::default() };
    let mut rest = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut lines: Vec<&[u8]> = Vec::new();
    while let Some(end) = rest.iter().position(|byte| b"\r\n".contains(byte)) {
        lines.push(&rest[..end]);
        let length = if rest[end..].starts_with(b"\r\n") { 2 } else { 1 };
        rest = &rest[end + length..];
    }
    let (mut name, mut data, mut id) = (Vec::new(), None::<Vec<u8>>, FIRST_ID.as_bytes().to_vec());
    let text_of = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    for line in lines {
        if line.is_empty() {
            parsed.last_id = text_of(&id);
            let name = std::mem::take(&mut name);
            if let Some(data) = data.take() {
                parsed.events.push(Event { name: text_of(&name), data: text_of(&data) });
            }
            continue;
        }
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let field = parts.next().unwrap_or_default();
        let value = parts.next().unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"event" => name = value.to_vec(),
            b"data" => match &mut data {
                Some(data) => data.extend([b"\n", value].concat()),
                None => data = Some(value.to_vec()),
            },
            b"id" if !value.contains(&0) => id = value.to_vec(),
            _ => {}
        }
    }
    parsed
}

/// The id after which a stream continues.
const FIRST_ID: &str = "first:1";

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn no_input_of_the_corpora_breaks_a_rule() {
        let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
        for (name, target) in TARGETS {
            let mut inputs = 0;
            for entry in fs::read_dir(corpora.join(name)).unwrap() {
                let path = entry.unwrap().path();
                let input = fs::read(&path).unwrap();
                // The last path that a failed test prints is the input that breaks a rule.
                println!("{}", path.display());
                target(&input);
                inputs += 1;
            }
            assert!(inputs > 5, "{name}: the inputs were not found");
        }
    }
}
