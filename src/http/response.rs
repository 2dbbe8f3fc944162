//! An HTTP response and its encoding as bytes.

use std::borrow::Cow;
use std::fmt::Write;
use std::time::SystemTime;

use crate::features::Feature;

use super::date::http_date;

/// An HTTP/1.1 response: status code, headers and body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    status: u16,
    headers: Vec<(&'static str, Cow<'static, str>)>,
    body: Body,
}

/// The body of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Body {
    /// The bytes, which are sent together with the head.
    Whole(Cow<'static, [u8]>),
    /// A number of bytes, which the connection sends after the head.
    Streamed(u64),
    /// A body of unknown length, which is followed by the end of the connection.
    Endless,
    /// No body, as the status code requires (RFC 9110 §6.4.1).
    Nothing,
}

/// The parts of a response that depend on the request and the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Envelope {
    /// True if the body is sent. The response to HEAD has all headers of the response to GET, but
    /// no body.
    pub(crate) body: bool,
    /// True if the connection is closed after the response.
    pub(crate) close: bool,
    /// The id of the request, which is also in its log lines.
    pub(crate) request_id: Option<String>,
    /// The header lines for pages of other origins, each with its CR LF. Empty if there are none.
    pub(crate) cors_lines: String,
    /// The time at which the response is sent.
    pub(crate) date: SystemTime,
}

impl Envelope {
    /// Returns the envelope of a response that answers no valid request. The connection is closed
    /// after the response.
    pub(crate) fn last(cors_lines: String, date: SystemTime) -> Self {
        Self { body: true, close: true, request_id: None, cors_lines, date }
    }
}

impl Response {
    /// Creates a response with a body of the media type `content_type`.
    pub fn new(
        status: u16,
        content_type: &'static str,
        body: impl Into<Cow<'static, [u8]>>,
    ) -> Self {
        Self::with_body(status, Body::Whole(body.into())).with_header("Content-Type", content_type)
    }

    /// Creates a response with a short plain text as its body.
    pub fn text(status: u16, text: impl Into<Cow<'static, str>>) -> Self {
        let body = match text.into() {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
        Self::new(status, PLAIN_TEXT, body)
    }

    /// Returns the response for a path without a resource, or without one in a media type that the client
    /// accepts (404).
    pub(crate) fn not_found() -> Self {
        Self::text(404, "nothing here that you accept\n").depending_on_accept()
    }

    /// Returns the response for a method that is none of a resource's `methods`, which are separated by
    /// commas: 204 for OPTIONS (RFC 9110 §9.3.7), and 405 for all others.
    pub(crate) fn other_method(method: &str, methods: &str) -> Self {
        let response = match method {
            "OPTIONS" => Self::without_body(204),
            _ => Self::text(405, "method not allowed here\n"),
        };
        response.with_header("Allow", [methods, ", OPTIONS"].concat())
    }

    /// Creates a response with a status code that has no body: 204 or 304.
    pub(crate) fn without_body(status: u16) -> Self {
        Self::with_body(status, Body::Nothing)
    }

    /// Creates a response whose body of `length` bytes is not part of its encoding. The caller sends the
    /// body after the head.
    pub(crate) fn streamed(status: u16, content_type: &'static str, length: u64) -> Self {
        Self::with_body(status, Body::Streamed(length)).with_header("Content-Type", content_type)
    }

    /// Creates a response with status 200 and a stream of events, after which the connection is closed. The
    /// caller sends the events after the head, each in a [chunk](super::chunk) if `is_chunked`. A client of
    /// HTTP/1.0 understands no chunks: for it, the end of the connection is the end of the stream.
    pub(crate) fn events(is_chunked: bool) -> Self {
        let response = Self::with_body(200, Body::Endless).of_events();
        match is_chunked {
            true => response.with_header("Transfer-Encoding", "chunked"),
            false => response,
        }
    }

    /// Converts a refusal, whose body is one line of text, into a stream that ends at once and asks the client
    /// to reconnect in `retry_ms` milliseconds. The stream contains the line as a comment.
    pub(crate) fn into_retry(self, retry_ms: u32) -> Self {
        let reason = match &self.body {
            Body::Whole(text) => String::from_utf8_lossy(text),
            _ => Cow::Borrowed("\n"),
        };
        let events = format!(": {reason}retry: {retry_ms}\n\n");
        Self::with_body(200, Body::Whole(events.into_bytes().into())).of_events()
    }

    /// Adds the headers of an event stream. Without them, nginx would send it only when its buffer is full,
    /// and other proxies could compress it and buffer it for that.
    fn of_events(self) -> Self {
        self.with_header("Content-Type", EVENT_STREAM)
            .with_header("Cache-Control", "no-cache, no-transform")
            .with_header("X-Accel-Buffering", "no")
            .depending_on_accept()
    }

    /// Adds the header that keeps a cache from giving this response to a request with another Accept header
    /// (RFC 9110 §12.5.5).
    pub(crate) fn depending_on_accept(self) -> Self {
        self.with_header("Vary", "Accept")
    }

    fn with_body(status: u16, body: Body) -> Self {
        Self { status, headers: Vec::new(), body }
    }

    /// Adds a header. `value` must consist of visible ASCII characters and spaces.
    pub fn with_header(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Returns the status code.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Returns the length of a body that the caller sends after the head, in bytes. `None` if there
    /// is no such body or its length is unknown.
    pub(crate) fn streamed_bytes(&self) -> Option<u64> {
        match self.body {
            Body::Streamed(length) => Some(length),
            _ => None,
        }
    }

    /// Encodes the head, followed by the body if the body is part of the response. No cache may store an
    /// error: some errors may be stored by default (RFC 9110 §15.1), and would outlive their reason.
    pub(crate) fn encode(&self, envelope: &Envelope) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason_phrase(self.status));
        let _ = write!(head, "Date: {}\r\n", http_date(envelope.date));
        for (name, value) in &self.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        match &self.body {
            Body::Whole(body) => _ = write!(head, "Content-Length: {}\r\n", body.len()),
            Body::Streamed(length) => _ = write!(head, "Content-Length: {length}\r\n"),
            Body::Endless | Body::Nothing => {}
        }
        if self.status >= 400 {
            head += "Cache-Control: no-store\r\n";
        }
        if let Some(id) = &envelope.request_id {
            let _ = write!(head, "X-Request-Id: {id}\r\n");
        }
        if envelope.close || self.body == Body::Endless {
            head += "Connection: close\r\n";
        }
        head += &envelope.cors_lines;
        head += FIXED_HEADERS;
        let mut bytes = head.into_bytes();
        if let Body::Whole(body) = &self.body
            && envelope.body
        {
            bytes.extend_from_slice(body);
        }
        bytes
    }
}

fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        304 => "Not Modified",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        411 => "Length Required",
        413 => "Content Too Large",
        414 => "URI Too Long",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        // Programs ignore the reason phrase, and it may be empty (RFC 9112 §4).
        _ => "",
    }
}

/// The media type of server-sent events.
pub(crate) const EVENT_STREAM: &str = "text/event-stream";
/// The methods that a resource may have, besides OPTIONS, which all have.
pub(crate) const METHODS: &str = match Feature::Full.is_built_in() {
    true => "GET, HEAD, POST, PUT, DELETE",
    false => "GET, HEAD",
};
/// The media type of JSON.
pub(crate) const JSON: &str = "application/json";
/// The media type of plain text.
pub(crate) const PLAIN_TEXT: &str = "text/plain; charset=utf-8";
/// The headers at the end of every response head.
///
/// Browsers must not guess the media type, and must send the referrer to this server only. With
/// `no-referrer` instead, a form posted to this server would have the origin `null` (Fetch, "append
/// a request `Origin` header").
const FIXED_HEADERS: &str = "X-Content-Type-Options: nosniff\r\n\
    Referrer-Policy: same-origin\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_response_to_head_has_the_length_but_not_the_body() {
        let response = Response::text(404, "not found\n");
        let encode = |body| {
            let (request_id, date) = (Some("id-1".to_owned()), SystemTime::UNIX_EPOCH);
            let cors_lines = String::new();
            let envelope = Envelope { body, close: false, request_id, cors_lines, date };
            String::from_utf8(response.encode(&envelope)).unwrap()
        };
        let (full, head) = (encode(true), encode(false));
        assert_eq!(full.strip_prefix(&head), Some("not found\n"));
        assert!(head.contains("\r\nContent-Length: 10\r\n"));
        assert!(head.contains("\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"));
        assert!(head.contains("\r\nX-Request-Id: id-1\r\n") && !head.contains("Connection:"));
    }

    #[test]
    fn a_refusal_becomes_a_stream_with_its_reason_that_ends_at_once() {
        let response = Response::text(503, "too many connections\n").into_retry(4711);
        let encoded = response.encode(&Envelope::last(String::new(), SystemTime::UNIX_EPOCH));
        let encoded = String::from_utf8(encoded).unwrap();
        let (head, events) = encoded.split_once("\r\n\r\n").unwrap();
        assert_eq!(events, ": too many connections\nretry: 4711\n\n");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        for line in ["Content-Type: text/event-stream", "Content-Length: 36", "Connection: close"] {
            assert!(head.contains(&format!("\r\n{line}")), "{head}");
        }
    }
}
