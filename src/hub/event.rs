//! Encodes messages as server-sent events (HTML Standard, section 9.2).

use std::fmt::Write;

use base64ct::{Base64, Encoding as _};

use crate::frame::Frame;

use super::ids::EventId;

/// Encodes a message as an event. A text becomes one `data` field per line. Binary data is encoded in base64,
/// in an event of the type `binary`; `event_type` must be `None` then.
pub(crate) fn encode(id: Option<EventId>, event_type: Option<&str>, frame: &Frame) -> String {
    let mut event = begin(id, event_type, frame.len());
    match frame.is_text().then(|| str::from_utf8(frame.payload())) {
        Some(Ok(text)) => encode_text(&mut event, text),
        _ => {
            event.push_str("event: binary\ndata: ");
            encode_base64(&mut event, frame.payload());
            event.push('\n');
        }
    }
    event.push('\n');
    event
}

/// Encodes a text that is one line as an event.
pub(super) fn encode_line(id: Option<EventId>, event_type: Option<&str>, line: &str) -> String {
    let mut event = begin(id, event_type, line.len());
    let _ = write!(event, "data: {line}\n\n");
    event
}

/// Writes the fields before the data, which takes about `data_bytes`.
fn begin(id: Option<EventId>, event_type: Option<&str>, data_bytes: usize) -> String {
    // Writing to a string never fails.
    let mut event = String::with_capacity(FIELDS_BYTES + data_bytes);
    if let Some(id) = id {
        let _ = writeln!(event, "id: {id}");
    }
    if let Some(event_type) = event_type {
        let _ = writeln!(event, "event: {event_type}");
    }
    event
}

/// Writes one `data` field per line. A line ends with CRLF, CR or LF, as in event streams. A client joins the
/// lines with LF.
fn encode_text(event: &mut String, text: &str) {
    let mut rest = text;
    while let Some(end) = rest.bytes().position(|byte| matches!(byte, b'\r' | b'\n')) {
        let _ = writeln!(event, "data: {}", &rest[..end]);
        let ending_bytes = if rest[end..].starts_with("\r\n") { 2 } else { 1 };
        rest = &rest[end + ending_bytes..];
    }
    let _ = writeln!(event, "data: {rest}");
}

/// Encodes in pieces, so that no second buffer is allocated.
pub(super) fn encode_base64(event: &mut String, bytes: &[u8]) {
    let mut encoded = [0; 64];
    for piece in bytes.chunks(48) {
        let piece = Base64::encode(piece, &mut encoded);
        event.push_str(piece.expect("48 bytes are 64 in base64"));
    }
}

/// The space for the fields and line endings of an event and for the head and the end of its chunk, in bytes,
/// beside its payload.
const FIELDS_BYTES: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(is_text: bool, payload: &[u8]) -> String {
        let id = EventId::parse("k3f9x2ab:7");
        encode(id, None, &Frame::data(is_text, payload))
    }

    #[test]
    fn events_are_encoded_as_event_source_reads_them() {
        let id = "id: k3f9x2ab:7\n";
        for (is_text, payload, expected) in [
            (true, &b"21.5"[..], "data: 21.5\n\n"),
            (true, b"", "data: \n\n"),
            (true, b"a\nb\r\nc\rd", "data: a\ndata: b\ndata: c\ndata: d\n\n"),
            (true, b"a\n", "data: a\ndata: \n\n"),
            (true, b"\r\n\r", "data: \ndata: \ndata: \n\n"),
            (false, &[0, 255], "event: binary\ndata: AP8=\n\n"),
        ] {
            assert_eq!(encoded(is_text, payload), format!("{id}{expected}"), "{payload:?}");
        }
    }

    #[test]
    fn an_internal_event_has_a_type_and_no_id() {
        let event = encode(None, Some("stats"), &Frame::data(true, b"{}"));
        assert_eq!(event, "event: stats\ndata: {}\n\n");
    }

    #[test]
    fn base64_in_pieces_is_base64() {
        let bytes: Vec<u8> = (0..=255).cycle().take(1000).collect();
        for length in [0, 1, 47, 48, 49, 96, 1000] {
            let mut buffer = String::new();
            encode_base64(&mut buffer, &bytes[..length]);
            assert_eq!(buffer, Base64::encode_string(&bytes[..length]));
        }
    }
}
