//! A response as bytes.

use std::borrow::Cow;
use std::fmt::Write;

/// An HTTP/1.1 response with its whole body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    status: u16,
    headers: Vec<(&'static str, Cow<'static, str>)>,
    body: Cow<'static, [u8]>,
}

impl Response {
    /// A response with `body` of the media type `content_type`.
    pub fn new(
        status: u16,
        content_type: &'static str,
        body: impl Into<Cow<'static, [u8]>>,
    ) -> Self {
        let headers = vec![("Content-Type", content_type.into())];
        Self { status, headers, body: body.into() }
    }

    /// A response with a short plain text.
    pub fn text(status: u16, text: impl Into<String>) -> Self {
        Self::new(status, "text/plain; charset=utf-8", text.into().into_bytes())
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

    /// The bytes to send. The connection closes after it; without `body` it is the answer to HEAD,
    /// which has all headers of the answer to GET.
    pub(crate) fn encode(&self, body: bool) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        for (name, value) in &self.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        let length = self.body.len();
        let _ = write!(head, "Content-Length: {length}\r\n{FIXED_HEADERS}\r\n");
        let mut bytes = head.into_bytes();
        if body {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        414 => "URI Too Long",
        426 => "Upgrade Required",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        // The reason is for people and may be empty (RFC 9112 §4).
        _ => "",
    }
}

/// One request a connection; nothing is sniffed, nothing refers.
const FIXED_HEADERS: &str = "Connection: close\r\n\
    X-Content-Type-Options: nosniff\r\n\
    Referrer-Policy: no-referrer\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_head_has_the_length_but_not_the_body() {
        let response = Response::text(404, "not found\n");
        let full = String::from_utf8(response.encode(true)).unwrap();
        let head = String::from_utf8(response.encode(false)).unwrap();
        assert_eq!(full.strip_prefix(&head), Some("not found\n"));
        assert!(head.contains("\r\nContent-Length: 10\r\n"));
    }
}
