//! Responses of servers (RFC 9112 §4) and refusals.

use std::fmt;
use std::time::Duration;

use crate::screen::escaped;
use crate::token::{Token, advice};

/// The head of a response.
#[derive(Debug)]
pub(crate) struct Response {
    /// The minor version, the x of HTTP/1.x.
    pub(crate) version: u8,
    /// The status code.
    pub(crate) code: u16,
    phrase: String,
    fields: Vec<(String, String)>,
}

impl Response {
    /// Parses the head of a response from the bytes received so far. Returns the response and the length of
    /// its head, or `None` if the head is incomplete.
    ///
    /// # Errors
    /// [`httparse::Error`], if the bytes are not HTTP.
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

    /// Returns the value of a field that occurs exactly once. `name` must be in lower case.
    pub(crate) fn single(&self, name: &str) -> Option<&str> {
        let mut values = self.values(name);
        values.next().filter(|_| values.next().is_none())
    }

    /// Returns true if a field is present. `name` must be in lower case.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.values(name).next().is_some()
    }

    /// Returns true if the list in a field contains `token`. `name` must be in lower case.
    pub(crate) fn has_token(&self, name: &str, token: &str) -> bool {
        let mut parts = self.values(name).flat_map(|value| value.split(','));
        parts.any(|part| part.trim().eq_ignore_ascii_case(token))
    }

    /// Returns true if another request may follow on the same connection after `body`.
    pub(crate) fn may_be_followed(&self, body: &[u8]) -> bool {
        let is_whole = self.body_bytes() == Some(body.len());
        is_whole && self.version == 1 && !self.has_token("connection", "close")
    }

    /// Returns the length of the body, if the head states it.
    pub(crate) fn body_bytes(&self) -> Option<usize> {
        self.single("content-length").filter(|_| !self.has("transfer-encoding"))?.parse().ok()
    }

    fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        let named = self.fields.iter().filter(move |(key, _)| key == name);
        named.map(|(_, value)| value.as_str())
    }
}

/// The error that a connection or a request failed.
#[derive(Debug)]
pub(crate) struct Refusal {
    reason: String,
    /// True if another attempt would fail in the same way.
    pub(crate) is_permanent: bool,
    /// The time to wait before the next attempt, from the server's Retry-After; at most [`MAX_RETRY_AFTER`].
    pub(crate) retry_after: Duration,
}

impl Refusal {
    /// Creates a refusal after which another attempt may succeed.
    pub(crate) fn temporary(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), is_permanent: false, retry_after: Duration::ZERO }
    }

    /// Creates a refusal after which another attempt would fail in the same way.
    pub(crate) fn permanent(reason: impl Into<String>) -> Self {
        Self { is_permanent: true, ..Self::temporary(reason) }
    }

    /// Creates a refusal from the status and the first line of the body of a response. For 401 and 403 the
    /// text also says which token is expected. `token` is the one that was sent; every occurrence of it is
    /// removed from the text.
    pub(crate) fn from_response(response: &Response, body: &[u8], token: Option<&Token>) -> Self {
        let mut reason = format!("{} {}", response.code, escaped(&response.phrase));
        let line = first_line(body);
        if !line.is_empty() {
            reason += &format!(": {line}");
        }
        if let Some(token) = token {
            reason = token.redact(&reason);
        }
        if let Some(advice) = advice(response.code, token) {
            reason += &format!("; {advice}");
        }
        let seconds = response.single("retry-after").and_then(|seconds| seconds.parse().ok());
        let retry_after = Duration::from_secs(seconds.unwrap_or(0)).min(MAX_RETRY_AFTER);
        Self { reason, is_permanent: is_permanent_status(response.code), retry_after }
    }

    /// Creates a refusal from the body of an event stream that has ended already: a comment with the reason.
    pub(crate) fn from_ended_stream(body: &[u8], token: Option<&Token>) -> Self {
        let line = first_line(body);
        let reason = line.trim_start_matches([':', ' ']);
        Self::temporary(token.map_or(reason.to_owned(), |token| token.redact(reason)))
    }
}

/// Returns the first line of a body, shortened and escaped.
fn first_line(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let line = text.lines().next().unwrap_or_default();
    escaped(&line.chars().take(MAX_SHOWN_CHARACTERS).collect::<String>())
}

/// Returns true if a repeated request would get the same status. This is the case for all statuses except those
/// that ask the client to try again, and those of a server or a proxy that has failed: mostly 500, 502, 503 and
/// 504, while something restarts. An unknown 5xx status means the same as 500 (RFC 9110 §15).
fn is_permanent_status(code: u16) -> bool {
    matches!(code, 501 | 505) || !matches!(code, 408 | 425 | 429 | 500..=599)
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refused: {}", self.reason)
    }
}

const MAX_HEADERS: usize = 64;
const MAX_SHOWN_CHARACTERS: usize = 200;
/// The longest time that a server can make the client wait, so that a wrong value does not stop it for ever.
pub(crate) const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Response {
        Response::parse(text.as_bytes()).unwrap().expect("it is whole").0
    }

    #[test]
    fn a_response_head_is_parsed_when_it_is_complete() {
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
    fn another_request_may_follow_only_a_body_of_known_length() {
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
    fn a_refusal_for_lack_of_rights_asks_for_a_token_and_contains_none() {
        let token = Token::in_environment(Some("secret".as_ref())).unwrap();
        for (code, token, expected) in [
            (401, None, "; expected a token, with --token-file FILE or FALCONET_TOKEN"),
            (
                401,
                token.as_ref(),
                "; expected a token that the server accepts, unlike the one in FALC",
            ),
            (
                403,
                token.as_ref(),
                "; expected a token with the right to do this, unlike the one in FALCONET_T",
            ),
        ] {
            let response = parsed(&format!("HTTP/1.1 {code} No secret\r\n\r\n"));
            let text = Refusal::from_response(&response, b"no secret\n", token).to_string();
            assert!(text.contains(expected), "{text}");
            assert_eq!(text.contains("secret"), token.is_none(), "{text}");
        }
        let response = parsed("HTTP/1.1 403 No\r\n\r\n");
        let text = Refusal::from_response(&response, b"no token was asked for\n", None).to_string();
        assert_eq!(text, "refused: 403 No: no token was asked for");
    }

    #[test]
    fn temporary_refusals_are_distinguished_from_permanent_ones() {
        for (code, is_permanent) in [
            (200, true),
            (301, true),
            (400, true),
            (404, true),
            (408, false),
            (425, false),
            (429, false),
            (500, false),
            (501, true),
            (502, false),
            (503, false),
            (504, false),
            (505, true),
            (522, false),
            (600, true),
        ] {
            let response = parsed(&format!("HTTP/1.1 {code} No\r\nContent-Length: 3\r\n\r\n"));
            let refusal = Refusal::from_response(&response, b"a \x1b[2J\nsecond line", None);
            assert_eq!(refusal.is_permanent, is_permanent, "{code}");
            assert_eq!(refusal.to_string(), format!("refused: {code} No: a \\u{{1b}}[2J"));
        }
    }

    #[test]
    fn a_refusal_has_the_servers_retry_after_within_a_bound() {
        for (fields, seconds) in [
            ("Retry-After: 7\r\n", 7),
            ("Retry-After: 0\r\n", 0),
            ("", 0),
            ("Retry-After: soon\r\n", 0),
            ("Retry-After: 7\r\nRetry-After: 8\r\n", 0),
            ("Retry-After: 18446744073709551615\r\n", 3600),
        ] {
            let response = parsed(&format!("HTTP/1.1 429 No\r\n{fields}\r\n"));
            let refusal = Refusal::from_response(&response, b"", None);
            assert_eq!(refusal.retry_after, Duration::from_secs(seconds), "{fields}");
        }
    }
}
