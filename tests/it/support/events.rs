//! Server-sent events.

use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};

use super::http::{Http, request};
use super::wire::{header_of, read_response_head, status_of};

/// The line of a request for a stream of server-sent events.
pub const SSE: &str = "Accept: text/event-stream\r\n";

/// A server-sent event, or a comment.
#[derive(Debug, PartialEq, Eq)]
pub struct Event {
    /// The number in the message id.
    pub id: Option<u64>,
    /// The type: `message` if the event names none, `comment` for a comment, `id` for a block with nothing else.
    pub kind: String,
    pub data: String,
}

impl Event {
    /// Parses the lines of an event or a comment, without the empty line that ends it.
    pub fn parse(lines: &str) -> Self {
        let mut event = Self { id: None, kind: "message".to_owned(), data: String::new() };
        for line in lines.split('\n') {
            match line.split_once(": ").unwrap_or((line, "")) {
                (":", _) => event.kind = "comment".to_owned(),
                ("id", id) => event.id = Some(number_of(id)),
                ("event", kind) => event.kind = kind.to_owned(),
                ("data", data) => event.data = event.data + data + "\n",
                _ => panic!("not a field: {line:?}"),
            }
        }
        if event.data.pop().is_none() && event.kind == "message" {
            event.kind = "id".to_owned();
        }
        event
    }
}

/// Returns the number of a message id `EPOCH:NUMBER`.
pub fn number_of(id: &str) -> u64 {
    let (epoch, number) = id.split_once(':').unwrap_or_else(|| panic!("not a message id: {id}"));
    let is_digit = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    assert!((6..=10).contains(&epoch.len()) && epoch.bytes().all(is_digit), "{id}");
    number.parse().unwrap()
}

/// Replaces each message id in a text by its number: `"id":"EPOCH:7"` becomes
/// `"id":7`.
pub fn with_numbers(text: &str) -> String {
    let mut parts = text.split("\"id\":\"");
    let mut replaced = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (id, rest) = part.split_once('"').unwrap();
        replaced += &format!("\"id\":{}{rest}", number_of(id));
    }
    replaced
}

/// Returns the message id that has this number in the epoch of the server at `address`.
pub fn id_of(address: SocketAddr, number: u64) -> String {
    let events = Events::connect(address, "/topics/broadcast", "");
    let id = header_of(&events.head, "Last-Event-ID").unwrap();
    format!("{}:{number}", id.split(':').next().unwrap())
}

/// A client that reads a stream of server-sent events in chunks.
pub struct Events {
    pub head: String,
    reader: BufReader<TcpStream>,
    /// True once the last chunk has been read.
    pub has_ended: bool,
}

impl Events {
    /// Subscribes at `path`, with more header `lines`.
    pub fn connect(address: SocketAddr, path: &str, lines: &str) -> Self {
        let lines = format!("{SSE}{lines}");
        Self::over(Http::connect(address), &request("GET", path, &lines, ""))
    }

    /// Subscribes on an open connection.
    pub fn over(mut http: Http, request: &[u8]) -> Self {
        http.send(request);
        let mut stream = http.into_client().stream;
        let head = read_response_head(&mut stream);
        assert_eq!(status_of(&head), 200, "{head}");
        assert_eq!(header_of(&head, "Content-Type"), Some("text/event-stream"), "{head}");
        assert_eq!(header_of(&head, "Transfer-Encoding"), Some("chunked"), "{head}");
        assert_eq!(header_of(&head, "Connection"), Some("close"), "{head}");
        Self { head, reader: BufReader::new(stream), has_ended: false }
    }

    pub fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    /// Reads one event.
    pub fn read(&mut self) -> Event {
        self.try_read().expect("an event")
    }

    /// Reads one event, and skips comments and blocks without data. Returns `None` if the stream ends before it.
    pub fn try_read(&mut self) -> Option<Event> {
        loop {
            let event = self.try_read_block()?;
            if !["comment", "id"].contains(&&*event.kind) {
                return Some(event);
            }
        }
    }

    /// Reads the block that ends the replay. Returns the number of its id.
    pub fn read_end_of_replay(&mut self) -> u64 {
        let end = self.try_read_block().expect("the end of the replay");
        assert_eq!(end.kind, "id", "{end:?}");
        end.id.unwrap()
    }

    /// Reads a heartbeat. Returns the number of its id, if it has one.
    pub fn read_heartbeat(&mut self) -> Option<u64> {
        let heartbeat = self.try_read_block().expect("a heartbeat");
        assert_eq!(heartbeat.kind, "comment", "{heartbeat:?}");
        heartbeat.id
    }

    /// Reads one event or comment. Returns `None` if the stream ends before it.
    fn try_read_block(&mut self) -> Option<Event> {
        let chunk = read_chunk(&mut self.reader)?;
        if chunk.is_empty() {
            self.has_ended = true;
            assert_eq!(read_chunk(&mut self.reader), None, "nothing follows the last chunk");
            return None;
        }
        let lines = chunk.strip_suffix("\n\n").expect("a chunk is a whole event");
        Some(Event::parse(lines))
    }

    /// Returns the connection, provided that no part of another event has been read.
    pub fn into_stream(self) -> TcpStream {
        assert_eq!(self.reader.buffer(), b"", "whole events were read");
        self.reader.into_inner()
    }
}

/// Reads one chunk (RFC 9112 §7.1) and returns its data. Returns `None` if the stream ends before it.
pub fn read_chunk(reader: &mut impl BufRead) -> Option<String> {
    let mut size = String::new();
    match reader.read_line(&mut size) {
        Ok(0) => return None,
        Err(error) if size.is_empty() && error.kind() == io::ErrorKind::ConnectionReset => {
            return None;
        }
        other => assert!(size.ends_with("\r\n"), "{other:?} after {size:?}"),
    }
    let length = usize::from_str_radix(size.trim_ascii_end(), 16).expect(&size);
    let mut data = vec![0; length + 2];
    reader.read_exact(&mut data).unwrap();
    assert!(data.ends_with(b"\r\n"), "after the data of a chunk");
    data.truncate(length);
    Some(String::from_utf8(data).expect("events are UTF-8"))
}
