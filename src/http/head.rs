//! The request head: [`HeadScan`] finds its end, then [`parse`] parses it and checks it.
//!
//! httparse accepts more than RFC 9112 allows. The checks after it in [`parse`] refuse the rest.

use std::borrow::Cow;
use std::fmt;
use std::net::Ipv6Addr;

use crate::config::Limits;

use super::body::Framing;
use super::percent::decode_path;
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
    /// [`HeadError::NotHttp`], [`HeadError::Malformed`] or [`HeadError::TooLong`], as soon as the
    /// error is certain.
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
                return Err(broken(&bytes[self.begin..], "a line feed without a carriage return"));
            }
            let empty = line_feed - self.line_start == 1;
            self.line_start = self.scanned;
            match (empty, self.lines) {
                (false, _) => self.lines += 1,
                (true, 0) if self.begin == 0 => self.begin = self.scanned,
                (true, 0) => return Err(HeadError::NotHttp("more than one empty line before it")),
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
    /// The scheme and the authority of a target in absolute form (RFC 9112 §3.2.2).
    origin: Option<(&'a str, &'a str)>,
    encoded_path: &'a str,
    path: Cow<'a, str>,
    query: Option<&'a str>,
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
    let problem = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => None,
        Ok(_) => Some("no empty line at its end"),
        Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooManyHeaders),
        Err(httparse::Error::HeaderName) => Some("bad header name"),
        Err(httparse::Error::HeaderValue) => Some("bad header value"),
        Err(httparse::Error::Version) => Some("bad HTTP version"),
        Err(_) => Some("bad request line"),
    };
    if let Some(problem) = problem {
        return Err(broken(bytes, problem));
    }
    let proof = "httparse sets these fields before it returns Complete";
    let method = request.method.expect(proof);
    let Target { origin, path, query } = Target::parse(request.path.expect(proof), method, limits)?;
    let head = RequestHead {
        method,
        origin,
        encoded_path: path,
        path: decode_path(path),
        query,
        version_minor: request.version.expect(proof),
        header_count: request.headers.len(),
        headers,
    };
    head.check_host()?;
    head.check_body()?;
    head.check_ascii()?;
    Ok(head)
}

/// Returns the error of a head that breaks the grammar. A first line that does not end in a version of HTTP/1
/// is not HTTP.
fn broken(head: &[u8], problem: &'static str) -> HeadError {
    let first_line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let first_line = first_line.strip_suffix(b"\r").unwrap_or(first_line);
    match first_line.ends_with(b"HTTP/1.1") || first_line.ends_with(b"HTTP/1.0") {
        true => HeadError::Malformed(problem),
        false => HeadError::NotHttp(problem),
    }
}

impl<'a> RequestHead<'a> {
    /// Returns the method as sent. Methods are case-sensitive.
    pub fn method(&self) -> &'a str {
        self.method
    }

    /// Returns the path: the target without scheme, authority and query, percent-decoded once. `%2F` becomes
    /// a slash.
    ///
    /// A path that can't be decoded is returned as it was sent, with its percent signs, and names nothing: if an escape is invalid, or if the result is not UTF-8, has a control character or has a
    /// segment `.` or `..`. The path is `*` in a request that is about the whole server: `OPTIONS *`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns true if [`path`](Self::path) is decoded, and false if the path can't be decoded.
    pub(crate) fn is_decoded(&self) -> bool {
        matches!(self.path, Cow::Owned(_)) || !self.encoded_path.contains('%')
    }

    /// Returns the path as it was sent, not percent-decoded.
    pub fn encoded_path(&self) -> &'a str {
        self.encoded_path
    }

    /// Returns the query without its question mark, or `None` if the target has no query. It is not
    /// percent-decoded.
    pub fn query(&self) -> Option<&'a str> {
        self.query
    }

    /// Returns the host that the request is for, with its port if one was sent: the authority of a target in
    /// absolute form, otherwise the value of the Host header (RFC 9110 §7.2).
    pub fn host(&self) -> Option<&'a [u8]> {
        match self.origin {
            Some((_, authority)) => Some(authority.as_bytes()),
            None => self.single("host"),
        }
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

    /// Returns the framing of the body.
    pub(crate) fn body(&self) -> Framing {
        match self.content_length() {
            Some(bytes) => Framing::Length(bytes),
            None if self.values("transfer-encoding").next().is_some() => Framing::Chunked,
            None => Framing::None,
        }
    }

    /// Checks that the scheme of a target in absolute form is the one of the connection, which is `https`
    /// with TLS (RFC 9110 §7.4).
    ///
    /// # Errors
    /// [`HeadError::BadScheme`].
    pub(crate) fn check_scheme(&self, is_tls: bool) -> Result<(), HeadError> {
        let expected = if is_tls { "https" } else { "http" };
        match self.origin {
            Some((scheme, _)) if !scheme.eq_ignore_ascii_case(expected) => {
                Err(HeadError::BadScheme { expected })
            }
            _ => Ok(()),
        }
    }

    /// Returns true if another request may follow on the same connection (RFC 9112 §9.3).
    pub(crate) fn keeps_alive(&self) -> bool {
        self.is_http_1_1() && !self.has_token("connection", "close")
    }

    fn headers(&self) -> &[httparse::Header<'a>] {
        &self.headers[..self.header_count]
    }

    /// Checks the Host header. Only HTTP/1.0 allows a request without one (RFC 9112 §3.2).
    fn check_host(&self) -> Result<(), HeadError> {
        match self.single("host") {
            Some(host) if is_host(host) => Ok(()),
            None if !self.is_http_1_1() && self.values("host").next().is_none() => Ok(()),
            _ => Err(HeadError::BadHost),
        }
    }

    fn check_body(&self) -> Result<(), HeadError> {
        let mut lengths = self.values("content-length");
        let mut codings = self.values("transfer-encoding");
        if let Some(coding) = codings.next() {
            let is_only = codings.next().is_none() && lengths.next().is_none();
            let is_chunked = coding.eq_ignore_ascii_case(b"chunked") && self.is_http_1_1();
            return if is_only && is_chunked {
                Ok(())
            } else {
                Err(HeadError::BadTransferEncoding)
            };
        }
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

/// Returns the value of the first Origin header in the bytes of a head that may be incomplete or invalid. The
/// page that sent the head may have to read the response.
pub(crate) fn origin_in(bytes: &[u8]) -> Option<&[u8]> {
    bytes.split(|byte| *byte == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked("origin:".len())?;
        name.eq_ignore_ascii_case(b"origin:").then(|| value.trim_ascii())
    })
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

/// Splits a URL into its scheme and the part after `://`.
pub(crate) fn split_scheme(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once(':')?;
    Some((scheme, rest.strip_prefix("//")?))
}

/// The parts of a request target in origin form or absolute form (RFC 9112 §3.2).
struct Target<'a> {
    /// The scheme and the authority.
    origin: Option<(&'a str, &'a str)>,
    path: &'a str,
    query: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// Splits a target into its parts. An empty path of the absolute form is `/` (RFC 9110 §4.2.3). An
    /// authority with userinfo is refused (RFC 9110 §4.2.4).
    fn parse(target: &'a str, method: &str, limits: &Limits) -> Result<Self, HeadError> {
        if target.len() > limits.target_bytes {
            let (bytes, limit) = (target.len(), limits.target_bytes);
            return Err(HeadError::TargetTooLong { bytes, limit });
        }
        let is_clean = target.bytes().all(|byte| (0x21..=0x7e).contains(&byte) && byte != b'#');
        let (origin, rest) = match split_scheme(target) {
            Some((scheme, rest)) if !target.starts_with('/') => {
                let end = rest.find(['/', '?']).unwrap_or(rest.len());
                let (authority, rest) = rest.split_at(end);
                (Some((scheme, authority)), rest)
            }
            _ => (None, target),
        };
        let (path, query) = rest.split_once('?').map_or((rest, None), |(p, q)| (p, Some(q)));
        let (path, has_host) = match origin {
            Some((_, authority)) if path.is_empty() => ("/", is_host(authority.as_bytes())),
            Some((_, authority)) => (path, is_host(authority.as_bytes())),
            None => (path, true),
        };
        let is_path = path.starts_with('/') || (target, method) == ("*", "OPTIONS");
        match is_clean && has_host && is_path {
            true => Ok(Self { origin, path, query }),
            false => Err(HeadError::BadTarget),
        }
    }
}

/// The reason why a request head is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// The bytes are not an HTTP/1 request: the first line does not end in `HTTP/1.0` or `HTTP/1.1`. The text
    /// says what is wrong.
    NotHttp(&'static str),
    /// The head breaks the grammar of HTTP/1; the text says where.
    Malformed(&'static str),
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
    /// The target is neither a path (or `*` with OPTIONS) nor a URL with a valid host and without userinfo,
    /// or has a byte that a URL can't have.
    BadTarget,
    /// The target is a URL with another scheme than that of the connection.
    BadScheme {
        /// The scheme of the connection.
        expected: &'static str,
    },
    /// The Host header is missing in HTTP/1.1, repeated, or not a host with an optional port.
    BadHost,
    /// Transfer-Encoding is not exactly `chunked`, stands beside Content-Length, or is sent in HTTP/1.0
    /// (RFC 9112 §6.1, §6.3).
    BadTransferEncoding,
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
            Self::NotHttp(_) => return None,
            Self::TooLong { .. } | Self::TooManyHeaders => 431,
            Self::TargetTooLong { .. } => 414,
            Self::Malformed(_) | Self::BadTarget | Self::BadScheme { .. } | Self::BadHost => 400,
            Self::BadTransferEncoding | Self::BadContentLength => 400,
            Self::NotAscii | Self::PlainHttp => 400,
        };
        Some(Response::text(status, format!("{self}\n")))
    }
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotHttp(what) => write!(f, "not an HTTP/1 request: {what}"),
            Self::Malformed(what) => write!(f, "malformed request head: {what}"),
            Self::TooLong { limit } => write!(
                f,
                "request head is longer than {limit} bytes: delete the browser's cookies for this host \
                 (ports share them), or raise --max-head"
            ),
            Self::TooManyHeaders => {
                write!(f, "request head has more than {MAX_HEADERS} headers: send fewer")
            }
            Self::TargetTooLong { bytes, limit } => {
                write!(f, "request target is {bytes} bytes, limit {limit}")
            }
            Self::BadTarget => f.write_str(
                "request target must be a path or a URL with a host, in visible ASCII and without a user",
            ),
            Self::BadScheme { expected } => {
                write!(f, "this port speaks {expected}: the URL must begin with {expected}://")
            }
            Self::BadHost => f.write_str("a request needs exactly one valid Host header"),
            Self::BadTransferEncoding => f.write_str(
                "Transfer-Encoding must be exactly `chunked`, in HTTP/1.1 and without Content-Length",
            ),
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
    fn a_bare_line_feed_is_malformed_in_http_and_in_no_other_protocol() {
        let malformed = HeadError::Malformed("a line feed without a carriage return");
        for bytes in [
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.0\n",
            "\r\nGET / HTTP/1.1\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
        ] {
            assert_eq!(read(bytes.as_bytes()), Err(malformed.clone()), "{bytes:?}");
        }
        assert_eq!(malformed.response().map(|response| response.status()), Some(400));
        let other = HeadError::NotHttp("a line feed without a carriage return");
        for bytes in ["\nGET / HTTP/1.1\r\n", "GET /\n", "GET / HTTP/1.2\n", "EHLO a\nHTTP/1.1\n"] {
            assert_eq!(read(bytes.as_bytes()), Err(other.clone()), "{bytes:?}");
        }
        assert!(other.response().is_none());
    }

    #[test]
    fn an_absolute_target_names_the_host_and_the_scheme_of_the_connection() {
        let limits = Limits::default();
        for (target, host, path, query) in [
            ("http://a/x?y", "a", "/x", Some("y")),
            ("http://b:8080/x", "b:8080", "/x", None),
            ("HTTP://B:/", "B:", "/", None),
            ("http://b?y=http://c/", "b", "/", Some("y=http://c/")),
            ("http://[::1]", "[::1]", "/", None),
            ("/http://b/", "a", "/http://b/", None),
        ] {
            let bytes = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            let head = parse(bytes.as_bytes(), &limits).expect(target);
            assert_eq!(head.host(), Some(host.as_bytes()), "{target}");
            assert_eq!((head.path(), head.query()), (path, query), "{target}");
            let is_origin_form = target.starts_with('/');
            assert_eq!(head.check_scheme(true).is_ok(), is_origin_form, "{target}");
            assert!(head.check_scheme(false).is_ok(), "{target}");
        }
        for target in ["http://", "http:///", "http://u@a/", "http://u:p@a/", "http://:80/", "a://"]
        {
            let bytes = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(read(bytes.as_bytes()), Err(HeadError::BadTarget), "{target}");
        }
        let bytes = b"GET HttpS://a/ HTTP/1.1\r\nHost: a\r\n\r\n";
        assert!(parse(bytes, &limits).unwrap().check_scheme(true).is_ok());
        let refused = parse(bytes, &limits).unwrap().check_scheme(false).unwrap_err();
        assert_eq!(refused, HeadError::BadScheme { expected: "http" });
    }

    #[test]
    fn a_body_is_framed_by_a_length_or_by_chunks_and_never_by_both() {
        let body = |version: &str, lines: &str| {
            let bytes = format!("POST / HTTP/1.{version}\r\nHost: a\r\n{lines}\r\n");
            parse(bytes.as_bytes(), &Limits::default()).map(|head| head.body())
        };
        assert_eq!(body("1", ""), Ok(Framing::None));
        assert_eq!(body("1", "Content-Length: 0\r\n"), Ok(Framing::Length(0)));
        assert_eq!(body("1", "transfer-encoding: Chunked\r\n"), Ok(Framing::Chunked));
        for (version, lines) in [
            ("0", "Transfer-Encoding: chunked\r\n"),
            ("1", "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"),
            ("1", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
            ("1", "Transfer-Encoding: gzip, chunked\r\n"),
            ("1", "Transfer-Encoding: chunked;a\r\n"),
            ("1", "Transfer-Encoding:\r\n"),
        ] {
            assert_eq!(body(version, lines), Err(HeadError::BadTransferEncoding), "{lines}");
        }
    }

    #[test]
    fn only_http_1_0_allows_a_head_without_a_host() {
        assert_eq!(read(b"GET /x HTTP/1.0\r\n\r\n"), Ok(Some("/x".into())));
        for lines in
            ["1.1\r\n", "1.0\r\nHost: a\r\nHost: a\r\n", "1.0\r\nHost: a b\r\n", "1.0\r\nHost:\r\n"]
        {
            let bytes = format!("GET /x HTTP/{lines}\r\n");
            assert_eq!(read(bytes.as_bytes()), Err(HeadError::BadHost), "{lines:?}");
        }
    }

    #[test]
    fn only_options_may_have_an_asterisk_as_its_target() {
        assert_eq!(read(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"), Ok(Some("*".into())));
        for line in ["GET *", "options *", "OPTIONS *?x", "OPTIONS **", "OPTIONS x"] {
            let bytes = format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(read(bytes.as_bytes()), Err(HeadError::BadTarget), "{line}");
        }
    }

    #[test]
    fn the_origin_of_an_incomplete_or_invalid_head_is_found() {
        for (bytes, origin) in [
            ("GET / HTTP/1.1\r\nX: y\r\nORIGIN:  http://a \r\nZ: \x01", Some("http://a")),
            ("GET / HTTP/1.1\nOrigin:http://a\n", Some("http://a")),
            ("GET / HTTP/1.1\r\nX-Origin: http://a\r\nOrigin", None),
            ("", None),
        ] {
            assert_eq!(origin_in(bytes.as_bytes()), origin.map(str::as_bytes), "{bytes:?}");
        }
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
        let filler = "x".repeat(17_000);
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
