//! A parser of server-sent events (WHATWG HTML §9.2.6, text/event-stream).

use std::fmt;
use std::time::Duration;

use crate::message::MAX_MESSAGE_BYTES;

/// The parser of the stream of one connection.
#[derive(Default)]
pub(crate) struct Parser {
    line: Vec<u8>,
    is_after_cr: bool,
    has_begun: bool,
    name: Vec<u8>,
    data: Vec<u8>,
    id: Vec<u8>,
    last_id: Vec<u8>,
    retry: Option<Duration>,
}

/// A complete event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// The type of the event; empty if the stream gives none.
    pub(crate) name: String,
    /// The lines of the data, separated by newlines.
    pub(crate) data: String,
}

impl Parser {
    /// Creates a parser for a stream that continues after the event with `last_id`.
    pub(crate) fn after(last_id: &str) -> Self {
        let id = last_id.as_bytes().to_vec();
        Self { last_id: id.clone(), id, ..Self::default() }
    }

    /// Consumes bytes from the front of `bytes` up to the end of the next event. Returns `None` after consuming
    /// all of them if the event is incomplete.
    ///
    /// # Errors
    /// [`TooLong`], after which the stream can't be parsed further.
    pub(crate) fn next(&mut self, bytes: &mut &[u8]) -> Result<Option<Event>, TooLong> {
        loop {
            if let [first, rest @ ..] = *bytes
                && std::mem::take(&mut self.is_after_cr)
                && *first == b'\n'
            {
                *bytes = rest;
            }
            let end = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let (part, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
            if self.held_bytes() + part.len() > MAX_EVENT_BYTES {
                return Err(TooLong);
            }
            self.line.extend_from_slice(part);
            let Some((line_end, rest)) = rest.split_first() else {
                *bytes = rest;
                return Ok(None);
            };
            *bytes = rest;
            self.is_after_cr = *line_end == b'\r';
            let line = std::mem::take(&mut self.line);
            if let Some(event) = self.take_line(&line) {
                return Ok(Some(event));
            }
        }
    }

    /// Returns the id of the last complete event that had one; empty if there was none.
    pub(crate) fn last_id(&self) -> String {
        String::from_utf8_lossy(&self.last_id).into_owned()
    }

    /// Returns the reconnection time: the time that the server asks to wait before the client connects again.
    /// `None` if the stream has set none.
    pub(crate) fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// Adds a line to the current event. An empty line completes the event.
    fn take_line(&mut self, line: &[u8]) -> Option<Event> {
        let is_first = !std::mem::replace(&mut self.has_begun, true);
        let line = line.strip_prefix(BYTE_ORDER_MARK).filter(|_| is_first).unwrap_or(line);
        if line.is_empty() {
            return self.finish_event();
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (field, value) = line.split_at(colon);
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"event" => self.name = value.to_vec(),
            b"data" => {
                self.data.extend_from_slice(value);
                self.data.push(b'\n');
            }
            b"id" if !value.contains(&0) => self.id = value.to_vec(),
            b"retry" => self.retry = parse_milliseconds(value).or(self.retry),
            _ => {}
        }
        None
    }

    fn finish_event(&mut self) -> Option<Event> {
        self.last_id.clone_from(&self.id);
        let name = std::mem::take(&mut self.name);
        let mut data = std::mem::take(&mut self.data);
        // Removes the newline after the last line of data. Without data there is no event.
        data.pop()?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Some(Event { name: text(name), data: text(data) })
    }

    fn held_bytes(&self) -> usize {
        self.line.len() + self.name.len() + self.data.len() + self.id.len()
    }
}

/// Parses a number of milliseconds, which must consist of digits.
fn parse_milliseconds(digits: &[u8]) -> Option<Duration> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    // A number of too many digits is longer than every limit.
    let number = || str::from_utf8(digits).ok()?.parse().ok();
    is_number.then(|| Duration::from_millis(number().unwrap_or(u64::MAX)))
}

/// The error that an event is longer than the largest message in base64 with its fields.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an event is longer than {MAX_EVENT_BYTES} bytes")
    }
}

impl std::error::Error for TooLong {}

const MAX_EVENT_BYTES: usize = MAX_MESSAGE_BYTES / 3 * 4 + (1 << 20);
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the events of `stream`, parsed in pieces of `size` bytes, and the last id.
    fn parsed(stream: &[u8], size: usize) -> (Vec<Event>, String) {
        let mut parser = Parser::default();
        let mut events = Vec::new();
        for mut piece in stream.chunks(size) {
            while let Some(event) = parser.next(&mut piece).unwrap() {
                events.push(event);
            }
            assert!(piece.is_empty());
        }
        (events, parser.last_id())
    }

    /// Checks that `stream` has these events and this last id, in pieces of every size.
    fn check(stream: impl AsRef<[u8]>, expected: &[(&str, &str)], last_id: &str) {
        let stream = stream.as_ref();
        let event =
            |(name, data): &(&str, &str)| Event { name: (*name).into(), data: (*data).into() };
        let expected: Vec<Event> = expected.iter().map(event).collect();
        for size in 1..=stream.len() {
            let (events, id) = parsed(stream, size);
            let shown = String::from_utf8_lossy(stream);
            assert_eq!((&events, id.as_str()), (&expected, last_id), "{shown:?} by {size}");
        }
    }

    #[test]
    fn events_do_not_depend_on_the_size_of_pieces_or_the_kind_of_line_ends() {
        let stream = "id: 7\ndata: one\ndata: two\n\n:beat\n\nevent: binary\nid: 8\ndata: AP8=\n\n";
        let expected = [("", "one\ntwo"), ("binary", "AP8=")];
        check(stream, &expected, "8");
        check(stream.replace('\n', "\r\n"), &expected, "8");
        check(stream.replace('\n', "\r"), &expected, "8");
        check(format!("\u{feff}{stream}"), &expected, "8");
    }

    #[test]
    fn fields_are_parsed_according_to_the_standard() {
        for (stream, expected, last_id) in [
            ("data:x\n\n", &[("", "x")][..], ""),
            ("data:  x\n\n", &[("", " x")], ""),
            ("data: a: b\n\n", &[("", "a: b")], ""),
            ("data\n\n", &[("", "")], ""),
            ("data: \n\n", &[("", "")], ""),
            ("data\ndata\n\n", &[("", "\n")], ""),
            ("data: ä\n\n", &[("", "ä")], ""),
            ("unknown: x\nretry: 1\nDATA: x\n data: x\ndata: y\n\n", &[("", "y")], ""),
            ("event: a\nevent: b\ndata: x\n\ndata: y\n\n", &[("b", "x"), ("", "y")], ""),
            ("data: x\n\u{feff}data: y\n\n", &[("", "x")], ""),
        ] {
            check(stream, expected, last_id);
        }
        check(b"data: \xff\n\n", &[("", "\u{fffd}")], "");
    }

    #[test]
    fn the_last_valid_reconnection_time_applies_even_outside_an_event() {
        for (stream, expected) in [
            ("data: x\n\n", None),
            ("retry: 4711\n", Some(4711)),
            ("retry:0\n\n", Some(0)),
            ("retry: 1\ndata: x\n\nretry: 2\n\n", Some(2)),
            ("retry: 1\nretry: -2\nretry: 3s\nretry\nretry: 4.5\nretry: +6\n", Some(1)),
            ("retry: 99999999999999999999\n", Some(u64::MAX)),
        ] {
            let mut parser = Parser::default();
            let mut rest = stream.as_bytes();
            while parser.next(&mut rest).unwrap().is_some() {}
            assert_eq!(parser.retry(), expected.map(Duration::from_millis), "{stream}");
        }
    }

    #[test]
    fn an_event_without_an_empty_line_after_it_is_ignored() {
        check("id: 1\ndata: x\n\nid: 2\ndata: y\n", &[("", "x")], "1");
        check("id: 1\ndata: x\n\ndata: y\n\n", &[("", "x"), ("", "y")], "1");
        check("id: 1\ndata: x\n\nid\ndata: y\n\n", &[("", "x"), ("", "y")], "");
        check("id: 1\n\n", &[], "1");
        check("id: 1\nid: 2\0\ndata: x\n\n", &[("", "x")], "1");
        check("event: x\n\ndata: y\n\n", &[("", "y")], "");
        check("\n\n\n", &[], "");
    }

    #[test]
    fn the_last_id_is_kept_until_an_event_has_another() {
        let mut parser = Parser::after("41");
        assert_eq!(parser.last_id(), "41");
        for (mut stream, last_id) in
            [(&b":beat\n\ndata: x\n\n"[..], "41"), (b"id: 42\ndata: y\n", "41"), (b"\n", "42")]
        {
            while parser.next(&mut stream).unwrap().is_some() {}
            assert_eq!(parser.last_id(), last_id);
        }
    }

    #[test]
    fn an_event_above_the_limit_is_an_error_and_heartbeats_are_unlimited() {
        let is_limited = |line: &[u8]| {
            let mut parser = Parser::default();
            let mut lines = 0;
            while parser.next(&mut &line[..]).is_ok() && lines < MAX_EVENT_BYTES / 1024 + 1 {
                lines += 1;
            }
            lines * 1024 < MAX_EVENT_BYTES
        };
        let line = |begin: &[u8]| [begin, &vec![b'x'; 1088], b"\n"].concat();
        assert!(is_limited(&line(b"data:")));
        assert!(is_limited(&[b'x'; 1088]));
        assert!(!is_limited(&line(b":")));
        assert!(!is_limited(&line(b"unknown:")));
    }
}
