//! A response as bytes.

use std::borrow::Cow;
use std::fmt::Write;
use std::time::SystemTime;

use super::date::http_date;

/// An HTTP/1.1 response with its whole body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    status: u16,
    headers: Vec<(&'static str, Cow<'static, str>)>,
    body: Body,
}

/// What follows a response's head.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Body {
    /// These bytes.
    Whole(Cow<'static, [u8]>),
    /// So many bytes, which come from elsewhere.
    Streamed(u64),
    /// What comes until the connection ends.
    Endless,
    /// Nothing, by the status code (RFC 9110 §6.4.1).
    Nothing,
}

/// What the exchange adds to a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Envelope {
    /// Whether the body is sent: it is not in the answer to HEAD, which has all headers of the answer to
    /// GET.
    pub(crate) body: bool,
    /// Whether the connection ends after this.
    pub(crate) close: bool,
    /// The id that ties the log lines of the request together.
    pub(crate) request_id: Option<String>,
    /// When it is sent.
    pub(crate) date: SystemTime,
}

impl Envelope {
    /// Around the answer to what is no request: the last on its connection.
    pub(crate) fn last(date: SystemTime) -> Self {
        Self { body: true, close: true, request_id: None, date }
    }
}

impl Response {
    /// A response with `body` of the media type `content_type`.
    pub fn new(
        status: u16,
        content_type: &'static str,
        body: impl Into<Cow<'static, [u8]>>,
    ) -> Self {
        Self::with_body(status, Body::Whole(body.into())).with_header("Content-Type", content_type)
    }

    /// A response with a short plain text.
    pub fn text(status: u16, text: impl Into<Cow<'static, str>>) -> Self {
        let body = match text.into() {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
        Self::new(status, PLAIN_TEXT, body)
    }

    /// A response of a status that has no body: 204 or 304.
    pub(crate) fn without_body(status: u16) -> Self {
        Self::with_body(status, Body::Nothing)
    }

    /// The head of a response whose body, of `length` bytes, is sent after it.
    pub(crate) fn streamed(content_type: &'static str, length: u64) -> Self {
        Self::with_body(200, Body::Streamed(length)).with_header("Content-Type", content_type)
    }

    /// The head of a response whose body ends with the connection.
    pub(crate) fn endless(content_type: &'static str) -> Self {
        Self::with_body(200, Body::Endless).with_header("Content-Type", content_type)
    }

    fn with_body(status: u16, body: Body) -> Self {
        Self { status, headers: Vec::new(), body }
    }

    /// The same with one more header. `value` must be visible ASCII and spaces.
    pub fn with_header(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The status code.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// How long the body is that is sent after it.
    pub(crate) fn streamed_bytes(&self) -> Option<u64> {
        match self.body {
            Body::Streamed(length) => Some(length),
            _ => None,
        }
    }

    /// The bytes to send.
    pub(crate) fn encode(&self, envelope: &Envelope) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        let _ = write!(head, "Date: {}\r\n", http_date(envelope.date));
        for (name, value) in &self.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        match &self.body {
            Body::Whole(body) => _ = write!(head, "Content-Length: {}\r\n", body.len()),
            Body::Streamed(length) => _ = write!(head, "Content-Length: {length}\r\n"),
            Body::Endless | Body::Nothing => {}
        }
        if let Some(id) = &envelope.request_id {
            let _ = write!(head, "X-Request-Id: {id}\r\n");
        }
        if envelope.close || self.body == Body::Endless {
            head += "Connection: close\r\n";
        }
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

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        202 => "Accepted",
        204 => "No Content",
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
        417 => "Expectation Failed",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        // The reason is for people and may be empty (RFC 9112 §4).
        _ => "",
    }
}

/// The media type of a text for people.
pub(crate) const PLAIN_TEXT: &str = "text/plain; charset=utf-8";
/// Nothing is sniffed, and nothing refers to us from elsewhere. Here it may: without a referrer, a form
/// that is posted here has no origin either (Fetch, "append a request `Origin` header").
const FIXED_HEADERS: &str = "X-Content-Type-Options: nosniff\r\n\
    Referrer-Policy: same-origin\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_head_has_the_length_but_not_the_body() {
        let response = Response::text(404, "not found\n");
        let encode = |body| {
            let (request_id, date) = (Some("id-1".to_owned()), SystemTime::UNIX_EPOCH);
            let envelope = Envelope { body, close: false, request_id, date };
            String::from_utf8(response.encode(&envelope)).unwrap()
        };
        let (full, head) = (encode(true), encode(false));
        assert_eq!(full.strip_prefix(&head), Some("not found\n"));
        assert!(head.contains("\r\nContent-Length: 10\r\n"));
        assert!(head.contains("\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"));
        assert!(head.contains("\r\nX-Request-Id: id-1\r\n") && !head.contains("Connection:"));
    }
}
