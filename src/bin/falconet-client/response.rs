//! What a server answers a request with (RFC 9112 §4).

use std::fmt;

use crate::screen::escaped;
use crate::token::{Token, advice};

/// The head of a response.
#[derive(Debug)]
pub(crate) struct Response {
    /// The minor version: HTTP/1.x.
    pub(crate) version: u8,
    /// The status.
    pub(crate) code: u16,
    phrase: String,
    fields: Vec<(String, String)>,
}

impl Response {
    /// Parses what has been received of a response, with the length of its head.
    ///
    /// # Errors
    /// When that is not HTTP.
    pub(crate) fn parse(received: &[u8]) -> Result<Option<(Self, usize)>, httparse::Error> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(head_bytes) = response.parse(received)? else {
            return Ok(None);
        };
        let field = |header: &httparse::Header<'_>| {
            let value = std::str::from_utf8(header.value).unwrap_or_default().trim();
            (header.name.to_ascii_lowercase(), value.to_owned())
        };
        let parsed = Self {
            version: response.version.unwrap_or_default(),
            code: response.code.unwrap_or_default(),
            phrase: response.reason.unwrap_or_default().to_owned(),
            fields: response.headers.iter().map(field).collect(),
        };
        Ok(Some((parsed, head_bytes)))
    }

    /// The value of a field that is there exactly once; its `name` in lower case.
    pub(crate) fn single(&self, name: &str) -> Option<&str> {
        let mut values = self.values(name);
        values.next().filter(|_| values.next().is_none())
    }

    /// Whether a field is there; its `name` in lower case.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.values(name).next().is_some()
    }

    /// Whether a field's list has `token` in it; its `name` in lower case.
    pub(crate) fn has_token(&self, name: &str, token: &str) -> bool {
        let mut parts = self.values(name).flat_map(|value| value.split(','));
        parts.any(|part| part.trim().eq_ignore_ascii_case(token))
    }

    /// Whether another request may follow on the same connection, after `body`.
    pub(crate) fn may_be_followed(&self, body: &[u8]) -> bool {
        let is_whole = self.body_bytes() == Some(body.len());
        is_whole && self.version == 1 && !self.has_token("connection", "close")
    }

    /// How long the body is, if the head says so.
    pub(crate) fn body_bytes(&self) -> Option<usize> {
        self.single("content-length").filter(|_| !self.has("transfer-encoding"))?.parse().ok()
    }

    fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        let named = self.fields.iter().filter(move |(key, _)| key == name);
        named.map(|(_, value)| value.as_str())
    }
}

/// Why the server does not do what it was asked for.
#[derive(Debug)]
pub(crate) struct Refusal {
    reason: String,
    /// Whether another attempt would end the same.
    pub(crate) is_lasting: bool,
}

impl Refusal {
    pub(crate) fn passing(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), is_lasting: false }
    }

    pub(crate) fn lasting(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), is_lasting: true }
    }

    /// What the server declined with: its status, and the first line of what it has to say; and what would
    /// be right, if that is another token than the one shown.
    pub(crate) fn declined(response: &Response, body: &[u8], token: Option<&Token>) -> Self {
        let mut reason = format!("{} {}", response.code, escaped(&response.phrase));
        let text = String::from_utf8_lossy(body);
        let line = text.lines().next().unwrap_or_default();
        if !line.is_empty() {
            let line: String = line.chars().take(MAX_SHOWN_CHARACTERS).collect();
            reason += &format!(": {}", escaped(&line));
        }
        if let Some(token) = token {
            reason = token.cut_from(&reason);
        }
        if let Some(advice) = advice(response.code, token) {
            reason += &format!("; {advice}");
        }
        Self { reason, is_lasting: is_lasting(response.code) }
    }
}

/// Whether the same request will be answered with the same status: all but server errors, and what
/// asks to try again.
fn is_lasting(code: u16) -> bool {
    !matches!(code, 408 | 425 | 429 | 500..)
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refused: {}", self.reason)
    }
}

const MAX_HEADERS: usize = 64;
const MAX_SHOWN_CHARACTERS: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Response {
        Response::parse(text.as_bytes()).unwrap().expect("it is whole").0
    }

    #[test]
    fn a_response_head_is_read_when_it_is_whole() {
        let head = "HTTP/1.1 202 Accepted\r\nContent-Length:  3 \r\nConnection: a, Close\r\n\r\n";
        for cut in 0..head.len() {
            assert!(matches!(Response::parse(&head.as_bytes()[..cut]), Ok(None)), "{cut}");
        }
        let (response, head_bytes) =
            Response::parse(format!("{head}and a body").as_bytes()).unwrap().unwrap();
        assert_eq!((head_bytes, response.code, response.version), (head.len(), 202, 1));
        assert_eq!(response.single("content-length"), Some("3"));
        assert!(response.has_token("connection", "close") && !response.has("upgrade"));
        assert!(Response::parse(b"SSH-2.0-x\r\n").is_err());
    }

    #[test]
    fn only_a_body_whose_end_is_known_may_be_followed() {
        for (head, is_followed) in [
            ("HTTP/1.1 202 A\r\nContent-Length: 2\r\n", true),
            ("HTTP/1.1 202 A\r\nContent-Length: 2\r\nConnection: keep-alive\r\n", true),
            ("HTTP/1.1 202 A\r\nContent-Length: 3\r\n", false),
            ("HTTP/1.1 202 A\r\nContent-Length: 2\r\nContent-Length: 2\r\n", false),
            ("HTTP/1.1 202 A\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n", false),
            ("HTTP/1.1 202 A\r\nContent-Length: 2\r\nConnection: close\r\n", false),
            ("HTTP/1.0 202 A\r\nContent-Length: 2\r\n", false),
            ("HTTP/1.1 202 A\r\n", false),
        ] {
            let response = parsed(&format!("{head}\r\n"));
            assert_eq!(response.may_be_followed(b"{}"), is_followed, "{head}");
        }
    }

    #[test]
    fn who_is_not_let_in_is_told_of_tokens_and_shown_none() {
        let token = Token::in_environment(Some("secret".as_ref())).unwrap();
        for (code, token, expected) in [
            (401, None, "; expected a token, by --token-file FILE or FALCONET_TOKEN"),
            (401, token.as_ref(), "; expected a token that the server knows, unlike that of FALC"),
            (403, token.as_ref(), "; expected a token that may do this, unlike that of FALCONET_T"),
        ] {
            let response = parsed(&format!("HTTP/1.1 {code} No secret\r\n\r\n"));
            let said = Refusal::declined(&response, b"no secret\n", token).to_string();
            assert!(said.contains(expected), "{said}");
            assert_eq!(said.contains("secret"), token.is_none(), "{said}");
        }
        let response = parsed("HTTP/1.1 403 No\r\n\r\n");
        let said = Refusal::declined(&response, b"no token was asked for\n", None).to_string();
        assert_eq!(said, "refused: 403 No: no token was asked for");
    }

    #[test]
    fn what_may_pass_is_told_from_what_lasts() {
        for (code, lasts) in [
            (200, true),
            (301, true),
            (400, true),
            (404, true),
            (408, false),
            (425, false),
            (429, false),
            (500, false),
            (503, false),
        ] {
            let response = parsed(&format!("HTTP/1.1 {code} No\r\nContent-Length: 3\r\n\r\n"));
            let refusal = Refusal::declined(&response, b"a \x1b[2J\nsecond line", None);
            assert_eq!(refusal.is_lasting, lasts, "{code}");
            assert_eq!(refusal.to_string(), format!("refused: {code} No: a \\u{{1b}}[2J"));
        }
    }
}
