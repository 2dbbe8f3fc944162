//! The entry points for fuzzing. Each one passes arbitrary bytes to code that reads what a peer sends, and panics
//! if that code breaks one of its rules.
//!
//! `tests/fuzz` runs them with libFuzzer. The test below runs them on the inputs in `tests/fuzz/corpus`.

use crate::access::{self, proxy_protocol};
use crate::config::Limits;
use crate::http::RequestHead;
use crate::http::body::{BodyError, ChunkedBody, Framing};
use crate::http::head::{self, HeadScan};
use crate::http::range::Selection;
use crate::http::{accept, percent};
use crate::hub::{CorrelationId, Filter, TopicName};
use crate::ws;

/// An entry point, with the name of the folder that has its inputs.
pub type Target = (&'static str, fn(&[u8]));

/// The entry points of the library.
pub const TARGETS: &[Target] = &[
    ("request", request),
    ("proxy", proxy),
    ("frames", ws::fuzz::frames),
    ("tokens", access::fuzz::tokens),
    ("origins", access::fuzz::origins),
];

/// Reads a request: its head, and a chunked body. The first byte is the size of the pieces in which it arrives.
fn request(input: &[u8]) {
    let Some((size, bytes)) = input.split_first() else { return };
    let size = usize::from(*size).max(1);
    let limits = Limits { head_bytes: 1024, target_bytes: 128, ..Limits::default() };
    let found = HeadScan::default().find(bytes, &limits);
    let mut scan = HeadScan::default();
    let ends = (size..bytes.len()).step_by(size).chain([bytes.len()]);
    let mut in_pieces = ends.map(|end| scan.find(&bytes[..end], &limits));
    assert_eq!(in_pieces.find(|found| *found != Ok(None)).unwrap_or(Ok(None)), found);

    let _ = head::origin_in(bytes);
    let Ok(Some(range)) = found else { return };
    let body = &bytes[range.end..];
    match head::parse(&bytes[range], &limits) {
        Ok(head) => {
            check_head(&head);
            if head.body() == Framing::Chunked {
                check_chunked_body(body, size);
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn check_head(head: &RequestHead<'_>) {
    let (path, encoded) = (head.path(), head.encoded_path());
    assert!(encoded.bytes().all(|byte| byte.is_ascii_graphic()), "{encoded:?}");
    assert!(encoded.starts_with('/') || encoded == "*", "{encoded:?}");
    if path != encoded {
        assert!(!path.contains(char::is_control), "{path:?}");
        assert!(!path.split('/').any(|segment| matches!(segment, "." | "..")), "{path:?}");
    }
    assert!(head.host().is_some() || !head.is_http_1_1());
    let _ =
        (head.keeps_alive(), head.check_scheme(true), head.query().map(percent::percent_decode));
    let _ = (accept::accepts(head, "text/html; charset=utf-8"), accept::asks_for_events(head));
    if ws::handshake::accept(head).is_ok() {
        assert!(head.method() == "GET" && !head.body().exceeds(0));
    }
    for length in [0, 10, u64::MAX] {
        let selected = head.single("range").map(|range| Selection::parse(range, length));
        if let Some(Selection::Part { first, last }) = selected {
            assert!(first <= last && last < length, "{first} to {last} of {length}");
        }
    }
    if let Some(name) = encoded.strip_prefix("/topics/")
        && let Some(topic) = TopicName::decode(name)
    {
        assert!(head.is_decoded());
        assert_eq!(path.strip_prefix("/topics/"), Some(topic.as_str()));
        assert_eq!(TopicName::decode(&topic.encoded()), Some(topic));
    }
    if let Some(list) = encoded.strip_prefix("/topics/")
        && let Ok(filters) = Filter::parse_list(list)
    {
        let encoded: Vec<String> = filters.iter().map(Filter::encoded).collect();
        assert_eq!(Filter::parse_list(&encoded.join(",")), Ok(filters));
    }
    if let Some(id) = head.query_value("client").and_then(CorrelationId::new) {
        assert_eq!(Some(&*id.to_string()), head.query_value("client"));
    }
}

/// Checks that a chunked body has the same payload in pieces, as a whole, and for httparse, and that the same bytes
/// as the payload of chunks are decoded unchanged.
fn check_chunked_body(body: &[u8], size: usize) {
    let decoded = decode(body, body.len());
    assert_eq!(decode(body, size), decoded);
    if let Ok((payload, Some(_))) = decoded
        && let Some(expected) = decode_with_httparse(body)
    {
        assert_eq!(payload, expected);
    }
    let payload = &body[..body.len().min(MAX_PAYLOAD_BYTES as usize)];
    let mut encoded = Vec::new();
    // Most chunks then have two digits.
    for data in payload.chunks(40) {
        encoded.extend([format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat());
    }
    encoded.extend(b"0\r\n\r\n");
    assert_eq!(decode(&encoded, size), Ok((payload.to_vec(), Some(encoded.len()))));
}

/// Decodes a chunked body in pieces of `size`. Returns its payload, and its end if it is complete.
fn decode(body: &[u8], size: usize) -> Result<(Vec<u8>, Option<usize>), BodyError> {
    let mut decoder = ChunkedBody::new(MAX_PAYLOAD_BYTES);
    let (mut payload, mut position) = (Vec::new(), 0);
    for piece in body.chunks(size.max(1)) {
        let mut piece = piece.to_vec();
        let (count, end) = decoder.decode(&mut piece)?;
        payload.extend_from_slice(&piece[..count]);
        assert!(payload.len() as u64 <= MAX_PAYLOAD_BYTES);
        if let Some(end) = end {
            return Ok((payload, Some(position + end)));
        }
        position += piece.len();
    }
    Ok((payload, None))
}

/// Returns the payload of a chunked body; `None` if httparse does not accept it.
fn decode_with_httparse(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut payload = Vec::new();
    loop {
        let httparse::Status::Complete((begin, size)) = httparse::parse_chunk_size(body).ok()?
        else {
            return None;
        };
        if size == 0 {
            return Some(payload);
        }
        let (data, rest) = body.get(begin..)?.split_at_checked(usize::try_from(size).ok()?)?;
        payload.extend_from_slice(data);
        body = rest.strip_prefix(b"\r\n")?;
    }
}

/// Reads a header of the PROXY protocol, as a connection does: never more bytes than are missing.
fn proxy(input: &[u8]) {
    let mut length = 0;
    while proxy_protocol::parse(&input[..length]) == Ok(None) {
        let missing = proxy_protocol::missing(&input[..length]);
        assert!(missing > 0, "{length}");
        length += missing;
        if length > input.len() {
            assert!(!matches!(proxy_protocol::parse(input), Ok(Some(_))), "{length}");
            return;
        }
    }
    let parsed = proxy_protocol::parse(&input[..length]);
    assert_eq!(proxy_protocol::parse(input), parsed);
    if let Ok(Some(header)) = parsed {
        assert_eq!(header.length, length);
    }
}

/// The largest accepted payload of a chunked body.
const MAX_PAYLOAD_BYTES: u64 = 64;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::panic::catch_unwind;
    use std::path::Path;

    use super::*;

    #[test]
    fn no_input_of_the_corpora_breaks_a_rule() {
        let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
        let mut breaking = Vec::new();
        for (name, target) in TARGETS {
            let mut inputs = 0;
            for entry in fs::read_dir(corpora.join(name)).unwrap() {
                let path = entry.unwrap().path();
                let input = fs::read(&path).unwrap();
                if catch_unwind(|| target(&input)).is_err() {
                    breaking.push(path);
                }
                inputs += 1;
            }
            assert!(inputs > 5, "{name}: the inputs were not found");
        }
        assert!(breaking.is_empty(), "see the panics above: {breaking:#?}");
    }
}
