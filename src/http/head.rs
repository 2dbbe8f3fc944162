//! The request head: [`HeadScan`] finds its end, then [`parse`] parses it and checks it.
//!
//! httparse accepts more than RFC 9112 allows. The checks after it in [`parse`] refuse the rest.

use std::fmt;
use std::net::Ipv6Addr;

use crate::config::Limits;

use super::response::Response;

/// A scanner that finds the end of a request head in bytes that arrive in pieces. It examines each
/// byte once.
#[derive(Debug, Default)]
pub(crate) struct HeadScan {
    scanned: usize,
    line_start: usize,
    begin: usize,
    lines: usize,
}

impl HeadScan {
    /// Examines the bytes that are new since the last call. `bytes` must begin with all the bytes
    /// of earlier calls.
    ///
    /// Returns the range of the head, or `None` while the head is incomplete. The range excludes
    /// the empty line that may precede the request line (RFC 9112 §2.2).
    ///
    /// # Errors
    /// [`HeadError::BareLineFeed`], [`HeadError::EmptyLines`] or [`HeadError::TooLong`], as soon as
    /// the error is certain.
    pub(crate) fn find(
        &mut self,
        bytes: &[u8],
        limits: &Limits,
    ) -> Result<Option<std::ops::Range<usize>>, HeadError> {
        let visible = &bytes[..bytes.len().min(limits.head_bytes)];
        while let Some(offset) = visible[self.scanned..].iter().position(|byte| *byte == b'\n') {
            let line_feed = self.scanned + offset;
            self.scanned = line_feed + 1;
            if line_feed == self.line_start || bytes[line_feed - 1] != b'\r' {
                return Err(HeadError::BareLineFeed);
            }
            let empty = line_feed - self.line_start == 1;
            self.line_start = self.scanned;
            match (empty, self.lines) {
                (false, _) => self.lines += 1,
                (true, 0) if self.begin == 0 => self.begin = self.scanned,
                (true, 0) => return Err(HeadError::EmptyLines),
                (true, _) => return Ok(Some(self.begin..self.scanned)),
            }
        }
        self.scanned = visible.len();
        if bytes.len() >= limits.head_bytes {
            return Err(HeadError::TooLong { limit: limits.head_bytes });
        }
        Ok(None)
    }
}

/// A parsed request head. It borrows the bytes that it was parsed from.
#[derive(Debug)]
pub struct RequestHead<'a> {
    method: &'a str,
    target: &'a str,
    version_minor: u8,
    headers: [httparse::Header<'a>; MAX_HEADERS],
    header_count: usize,
}

/// Parses and checks a complete head, from its request line to its empty line.
///
/// # Errors
/// [`HeadError`], if the bytes are not a request that this server accepts.
pub(crate) fn parse<'a>(bytes: &'a [u8], limits: &Limits) -> Result<RequestHead<'a>, HeadError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
        Ok(_) => return Err(HeadError::Unparsable("no empty line at its end")),
        Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooManyHeaders),
        Err(httparse::Error::HeaderName) => return Err(HeadError::Unparsable("bad header name")),
        Err(httparse::Error::HeaderValue) => return Err(HeadError::Unparsable("bad header value")),
        Err(httparse::Error::Version) => return Err(HeadError::Unparsable("bad HTTP version")),
        Err(_) => return Err(HeadError::Unparsable("bad request line")),
    }
    let proof = "httparse sets these fields before it returns Complete";
    let head = RequestHead {
        method: request.method.expect(proof),
        target: request.path.expect(proof),
        version_minor: request.version.expect(proof),
        header_count: request.headers.len(),
        headers,
    };
    head.check_target(limits)?;
    head.check_host()?;
    head.check_body()?;
    head.check_ascii()?;
    Ok(head)
}

impl<'a> RequestHead<'a> {
    /// Returns the method as sent. Methods are case-sensitive.
    pub fn method(&self) -> &'a str {
        self.method
    }

    /// Returns the path: the target without scheme, authority and query. It is not percent-decoded.
    pub fn path(&self) -> &'a str {
        let origin = self.origin_form();
        origin.split_once('?').map_or(origin, |(path, _)| path)
    }

    /// Returns the query without its question mark, or `None` if the target has no query. It is not
    /// percent-decoded.
    pub fn query(&self) -> Option<&'a str> {
        self.origin_form().split_once('?').map(|(_, query)| query)
    }

    /// Returns true if the version is HTTP/1.1, and false if it is HTTP/1.0.
    pub fn is_http_1_1(&self) -> bool {
        self.version_minor == 1
    }

    /// Returns the values of all header lines named `name`, without the white space around them.
    /// The case of `name` is ignored.
    pub fn values<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'a [u8]> + 'h {
        self.headers()
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value.trim_ascii())
    }

    /// Returns the value of the header `name`, or `None` if the head does not have exactly one such
    /// line.
    pub fn single(&self, name: &str) -> Option<&'a [u8]> {
        let mut values = self.values(name);
        values.next().filter(|_| values.next().is_none())
    }

    /// Returns the items of the comma-separated list in all header lines named `name`
    /// (RFC 9110 §5.6.1). A comma in a quoted string separates items, too.
    pub(crate) fn items<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'a [u8]> + 'h {
        self.values(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
    }

    /// Returns true if the comma-separated list in all header lines named `name` has the item
    /// `token` (RFC 9110 §5.6.1). Case is ignored.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.items(name).any(|item| item.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// Returns true if the client asks to upgrade to the WebSocket protocol.
    pub fn wants_websocket(&self) -> bool {
        self.has_token("upgrade", "websocket")
    }

    /// Returns the value of `name` in a query such as `?a=1&name=value`. It is not percent-decoded:
    /// the values that the server understands need no escapes.
    pub fn query_value(&self, name: &str) -> Option<&'a str> {
        let pairs = self.query()?.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// Returns the length of the body in bytes, or `None` if the head has no Content-Length.
    pub fn content_length(&self) -> Option<u64> {
        // `check_body` accepts at most 19 digits, which fit into a u64.
        str::from_utf8(self.single("content-length")?).ok()?.parse().ok()
    }

    /// Returns true if another request may follow on the same connection (RFC 9112 §9.3).
    pub(crate) fn keeps_alive(&self) -> bool {
        self.is_http_1_1() && !self.has_token("connection", "close")
    }

    fn headers(&self) -> &[httparse::Header<'a>] {
        &self.headers[..self.header_count]
    }

    fn host(&self) -> Option<&'a [u8]> {
        self.single("host")
    }

    /// Returns the target without scheme and authority: the path and the query.
    fn origin_form(&self) -> &'a str {
        match split_absolute(self.target) {
            Some((_, "")) => "/",
            Some((_, origin)) => origin,
            None => self.target,
        }
    }

    fn check_target(&self, limits: &Limits) -> Result<(), HeadError> {
        if self.target.len() > limits.target_bytes {
            let (bytes, limit) = (self.target.len(), limits.target_bytes);
            return Err(HeadError::TargetTooLong { bytes, limit });
        }
        let clean = self.target.bytes().all(|byte| (0x21..=0x7e).contains(&byte) && byte != b'#');
        let form = match split_absolute(self.target) {
            Some((authority, origin)) => {
                (origin.is_empty() || origin.starts_with('/'))
                    && self
                        .host()
                        .is_some_and(|host| host.eq_ignore_ascii_case(authority.as_bytes()))
            }
            None => self.target.starts_with('/'),
        };
        if clean && form { Ok(()) } else { Err(HeadError::BadTarget) }
    }

    fn check_host(&self) -> Result<(), HeadError> {
        match self.host() {
            Some(host) if is_host(host) => Ok(()),
            _ => Err(HeadError::BadHost),
        }
    }

    fn check_body(&self) -> Result<(), HeadError> {
        if self.values("transfer-encoding").next().is_some() {
            return Err(HeadError::TransferEncoding);
        }
        let mut lengths = self.values("content-length");
        let Some(length) = lengths.next() else { return Ok(()) };
        let digits = (1..=19).contains(&length.len()) && length.iter().all(u8::is_ascii_digit);
        let bodiless = matches!(self.method, "GET" | "HEAD");
        if lengths.next().is_some() || !digits || (bodiless && length.iter().any(|d| *d != b'0')) {
            return Err(HeadError::BadContentLength);
        }
        Ok(())
    }

    /// Refuses bytes beyond ASCII in the headers that must not have them. In all other headers they
    /// are opaque data (RFC 9110 §5.5).
    fn check_ascii(&self) -> Result<(), HeadError> {
        let is_strict = |name: &str| ASCII_HEADERS.iter().any(|n| name.eq_ignore_ascii_case(n));
        match self.headers().iter().find(|h| !h.value.is_ascii() && is_strict(h.name)) {
            Some(_) => Err(HeadError::NotAscii),
            None => Ok(()),
        }
    }
}

/// Returns true if `host` is a name or an address with an optional port (RFC 9110 §7.2, RFC 3986
/// §3.2.2). A comma is refused although a name may contain one, because it is more likely that a
/// proxy has joined two Host headers.
fn is_host(host: &[u8]) -> bool {
    let name_end = match host {
        [b'[', ..] => host.iter().position(|byte| *byte == b']').map_or(0, |end| end + 1),
        _ => host.iter().position(|byte| *byte == b':').unwrap_or(host.len()),
    };
    let (name, port) = host.split_at(name_end);
    let named = match name {
        [b'[', address @ .., b']'] => {
            str::from_utf8(address).is_ok_and(|address| address.parse::<Ipv6Addr>().is_ok())
        }
        name => name.iter().all(|b| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=".contains(b)),
    };
    let ported = match port {
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        port => port.is_empty(),
    };
    !name.is_empty() && named && ported
}

/// Splits `http://authority/path?query` into the authority and the rest. Returns `None` for any
/// other form of target.
fn split_absolute(target: &str) -> Option<(&str, &str)> {
    let scheme = target.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("http://"))?;
    let rest = &target[scheme.len()..];
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    Some(rest.split_at(end))
}

/// The reason why a request head is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// A line ends without a carriage return.
    BareLineFeed,
    /// More than one empty line precedes the request line.
    EmptyLines,
    /// The bytes are not an HTTP/1 request; the text says what is wrong.
    Unparsable(&'static str),
    /// The head is longer than the limit.
    TooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The head has more than 64 header lines.
    TooManyHeaders,
    /// The request target is too long.
    TargetTooLong {
        /// The length of the target, in bytes.
        bytes: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The target is not a path, names another authority than the Host header, or has a byte that
    /// a URL can't have.
    BadTarget,
    /// The Host header is missing, repeated, or not a host with an optional port.
    BadHost,
    /// The request has a Transfer-Encoding header, which is not supported.
    TransferEncoding,
    /// Content-Length is repeated, not a number, or not 0 with a method that has no body.
    BadContentLength,
    /// A header that the server acts on has a byte that is not ASCII.
    NotAscii,
    /// A request without TLS arrived at a listener for TLS.
    PlainHttp,
}

impl HeadError {
    /// Returns the response for the peer, or `None` for bytes that are not a request. In that case
    /// the connection is dropped and the error is logged.
    pub fn response(&self) -> Option<Response> {
        let status = match self {
            Self::BareLineFeed | Self::EmptyLines | Self::Unparsable(_) => return None,
            Self::TooLong { .. } | Self::TooManyHeaders => 431,
            Self::TargetTooLong { .. } => 414,
            Self::TransferEncoding => 501,
            Self::BadTarget | Self::BadHost | Self::BadContentLength => 400,
            Self::NotAscii | Self::PlainHttp => 400,
        };
        Some(Response::text(status, format!("{self}\n")))
    }
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BareLineFeed => f.write_str("a line ends without a carriage return"),
            Self::EmptyLines => f.write_str("more than one empty line before the request"),
            Self::Unparsable(what) => write!(f, "not an HTTP/1 request: {what}"),
            Self::TooLong { limit } => write!(f, "request head is longer than {limit} bytes"),
            Self::TooManyHeaders => write!(f, "request head has more than {MAX_HEADERS} headers"),
            Self::TargetTooLong { bytes, limit } => {
                write!(f, "request target is {bytes} bytes, limit {limit}")
            }
            Self::BadTarget => f.write_str("request target must be a path of visible ASCII"),
            Self::BadHost => f.write_str("a request needs exactly one valid Host header"),
            Self::TransferEncoding => f.write_str("Transfer-Encoding is not supported"),
            Self::BadContentLength => f.write_str("bad Content-Length"),
            Self::NotAscii => f.write_str("a header that must be ASCII contains other bytes"),
            Self::PlainHttp => f.write_str("this port speaks TLS: the URL begins with https://"),
        }
    }
}

impl std::error::Error for HeadError {}

/// The maximum number of header lines in a head. Browsers send about fifteen.
const MAX_HEADERS: usize = 64;
/// The headers in which a byte beyond ASCII makes the request invalid. The server also reads other headers,
/// such as Last-Event-ID, X-Client-Id and X-Forwarded-For. In those, a value with such a byte counts as an
/// unknown or invalid value, which has its own consequence.
const ASCII_HEADERS: &[&str] = &[
    "accept",
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "if-none-match",
    "origin",
    "sec-websocket-key",
    "sec-websocket-protocol",
    "sec-websocket-version",
    "upgrade",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Option<String>, HeadError> {
        let limits = Limits::default();
        match HeadScan::default().find(bytes, &limits)? {
            None => Ok(None),
            Some(range) => parse(&bytes[range], &limits).map(|head| Some(head.path().to_owned())),
        }
    }

    #[test]
    fn an_incomplete_head_is_not_an_error() {
        assert_eq!(read(b"GET / HTTP/1.1\r\nHost: a\r\n"), Ok(None));
        assert_eq!(read(b""), Ok(None));
    }

    #[test]
    fn a_line_without_a_carriage_return_at_its_end_is_refused() {
        for bytes in ["GET / HTTP/1.1\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\n\r\n", "\nGET"]
        {
            assert_eq!(read(bytes.as_bytes()), Err(HeadError::BareLineFeed), "{bytes:?}");
        }
    }

    #[test]
    fn an_absolute_target_must_name_the_same_host_as_the_host_header() {
        assert_eq!(read(b"GET http://a/x?y HTTP/1.1\r\nHost: a\r\n\r\n"), Ok(Some("/x".into())));
        assert_eq!(read(b"GET http://a?y HTTP/1.1\r\nHost: a\r\n\r\n"), Err(HeadError::BadTarget));
        assert_eq!(read(b"GET http://a HTTP/1.1\r\nHost: a\r\n\r\n"), Ok(Some("/".into())));
        assert_eq!(read(b"GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n"), Err(HeadError::BadTarget));
    }

    #[test]
    fn a_token_list_may_span_several_header_lines() {
        let bytes =
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: a , b\r\nconnection: UPGRADE\r\n\r\n";
        let head = parse(bytes, &Limits::default()).unwrap();
        assert!(head.has_token("Connection", "upgrade") && head.has_token("connection", "B"));
        assert!(!head.has_token("connection", "grade"));
    }

    #[test]
    fn the_scan_examines_each_byte_once() {
        let limits = Limits::default();
        let mut scan = HeadScan::default();
        let bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest";
        for end in 0..27 {
            assert_eq!(scan.find(&bytes[..end], &limits), Ok(None), "{end}");
            assert_eq!(scan.scanned, end);
        }
        assert_eq!(scan.find(bytes, &limits), Ok(Some(0..27)));
    }

    #[test]
    fn a_head_in_two_pieces_is_judged_like_the_whole_head() {
        let filler = "x".repeat(9000);
        for bytes in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\nGET /pipelined",
            "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
            "\0\x01\x02\r\n\r\n",
            &format!("GET / HTTP/1.1\r\nX: {filler}\r\n\r\n"),
            &format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", &filler[..3000]),
        ] {
            let (bytes, limits) = (bytes.as_bytes(), Limits::default());
            let whole = read(bytes);
            for cut in 0..bytes.len() {
                let mut scan = HeadScan::default();
                let first = scan.find(&bytes[..cut], &limits);
                let found = match first {
                    Ok(None) => scan.find(bytes, &limits),
                    decided => decided,
                };
                let result = match found {
                    Ok(Some(range)) => parse(&bytes[range], &limits).map(|h| Some(h.path().into())),
                    Ok(None) => Ok(None),
                    Err(error) => Err(error),
                };
                assert_eq!(result, whole, "cut at {cut}");
            }
        }
    }
}
