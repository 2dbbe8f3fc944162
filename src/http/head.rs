//! The request head: found first, parsed once, then held to a strict list.
//!
//! httparse reads more than RFC 9112 allows; what it lets pass and we refuse is in [`parse`].

use std::fmt;
use std::net::Ipv6Addr;

use crate::config::Limits;

use super::response::Response;

/// Finds the end of a head in bytes that arrive piece by piece, looking at each byte once.
#[derive(Debug, Default)]
pub(crate) struct HeadScan {
    scanned: usize,
    line_start: usize,
    begin: usize,
    lines: usize,
}

impl HeadScan {
    /// Looks through what is new in `bytes`, which must begin with all the bytes of earlier calls.
    /// Returns where the head begins, behind one empty line at most (RFC 9112 §2.2), and where it
    /// ends; or `None` while it is incomplete.
    ///
    /// # Errors
    /// [`HeadError::BareLineFeed`], [`HeadError::EmptyLines`] and [`HeadError::TooLong`], as soon as
    /// they are certain.
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

/// A parsed request head; it borrows the bytes it was read from.
#[derive(Debug)]
pub struct RequestHead<'a> {
    method: &'a str,
    target: &'a str,
    version_minor: u8,
    headers: [httparse::Header<'a>; MAX_HEADERS],
    header_count: usize,
}

/// Parses a whole head, from its request line to its empty line.
///
/// # Errors
/// [`HeadError`], whose [`response`](HeadError::response) is what the peer gets.
pub(crate) fn parse<'a>(bytes: &'a [u8], limits: &Limits) -> Result<RequestHead<'a>, HeadError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
        Ok(_) => return Err(HeadError::Unparsable("it ends before its empty line")),
        Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooManyHeaders),
        Err(httparse::Error::HeaderName) => return Err(HeadError::Unparsable("bad header name")),
        Err(httparse::Error::HeaderValue) => return Err(HeadError::Unparsable("bad header value")),
        Err(httparse::Error::Version) => return Err(HeadError::Unparsable("bad HTTP version")),
        Err(_) => return Err(HeadError::Unparsable("bad request line")),
    }
    let proof = "httparse fills these in before it returns Complete";
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
    /// The method, as sent: methods are case-sensitive.
    pub fn method(&self) -> &'a str {
        self.method
    }

    /// The path: the target without scheme, authority and query. Not decoded.
    pub fn path(&self) -> &'a str {
        let origin = self.origin_form();
        origin.split_once('?').map_or(origin, |(path, _)| path)
    }

    /// The query without its question mark, or nothing. Not decoded.
    pub fn query(&self) -> Option<&'a str> {
        self.origin_form().split_once('?').map(|(_, query)| query)
    }

    /// Whether the request speaks HTTP/1.1 rather than HTTP/1.0.
    pub fn is_http_1_1(&self) -> bool {
        self.version_minor == 1
    }

    /// The values of every header line called `name`, without the white space around them.
    pub fn values<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'a [u8]> + 'h {
        self.headers()
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value.trim_ascii())
    }

    /// The one value of the header `name`; `None` if there is none or more than one.
    pub fn single(&self, name: &str) -> Option<&'a [u8]> {
        let mut values = self.values(name);
        values.next().filter(|_| values.next().is_none())
    }

    /// Whether the comma-separated list in all header lines called `name` has `token` in any case
    /// (RFC 9110 §5.6.1).
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.values(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    }

    /// Whether the client wants to change to the WebSocket protocol.
    pub fn wants_websocket(&self) -> bool {
        self.has_token("upgrade", "websocket")
    }

    /// The value of `name` in the query, `?a=1&name=value`. Not decoded: what we ask for needs no
    /// escapes.
    pub fn query_value(&self, name: &str) -> Option<&'a str> {
        let pairs = self.query()?.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// How long the body is; `None` where no length is given.
    pub fn content_length(&self) -> Option<u64> {
        // At most 19 digits, which fit; the parser saw to that.
        str::from_utf8(self.single("content-length")?).ok()?.parse().ok()
    }

    /// Whether the connection may bring another request after this one (RFC 9112 §9.3).
    pub(crate) fn keeps_alive(&self) -> bool {
        self.is_http_1_1() && !self.has_token("connection", "close")
    }

    fn headers(&self) -> &[httparse::Header<'a>] {
        &self.headers[..self.header_count]
    }

    fn host(&self) -> Option<&'a [u8]> {
        self.single("host")
    }

    /// The target from its path on: what follows the authority, where it names one.
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

    /// Bytes beyond ASCII are nobody's business in a header nobody acts on (RFC 9110 §5.5).
    fn check_ascii(&self) -> Result<(), HeadError> {
        let acted_on = |name: &str| HEADERS_ACTED_ON.iter().any(|n| name.eq_ignore_ascii_case(n));
        match self.headers().iter().find(|h| !h.value.is_ascii() && acted_on(h.name)) {
            Some(_) => Err(HeadError::NotAscii),
            None => Ok(()),
        }
    }
}

/// Whether `host` is a name or an address, and perhaps a port (RFC 9110 §7.2, RFC 3986 §3.2.2). No
/// comma, though a name may have one: it is a list of hosts, joined on the way.
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

/// Splits `http://authority/path` into authority and the rest; `None` for any other form.
fn split_absolute(target: &str) -> Option<(&str, &str)> {
    let scheme = target.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("http://"))?;
    let rest = &target[scheme.len()..];
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    Some(rest.split_at(end))
}

/// Why a request head is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// A line ends without a carriage return.
    BareLineFeed,
    /// More than one empty line before the request line.
    EmptyLines,
    /// The bytes are no HTTP/1 request.
    Unparsable(&'static str),
    /// No end within the limit, in bytes.
    TooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// More than 64 header lines.
    TooManyHeaders,
    /// The request target is too long.
    TargetTooLong {
        /// Its length, in bytes.
        bytes: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The target is not a path, or names another authority than Host, or has a byte no URL has.
    BadTarget,
    /// Not exactly one Host header, or one that is no host.
    BadHost,
    /// A Transfer-Encoding.
    TransferEncoding,
    /// Content-Length repeated, not a number, or with a method that has no body.
    BadContentLength,
    /// A header that matters has a byte that is not ASCII.
    NotAscii,
    /// A plain request where TLS is spoken.
    PlainHttp,
}

impl HeadError {
    /// What the peer gets: nothing for bytes that are no request (article: drop and log).
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
            Self::Unparsable(what) => write!(f, "no HTTP/1 request: {what}"),
            Self::TooLong { limit } => write!(f, "request head has no end within {limit} bytes"),
            Self::TooManyHeaders => write!(f, "request head has more than {MAX_HEADERS} headers"),
            Self::TargetTooLong { bytes, limit } => {
                write!(f, "request target is {bytes} bytes, limit {limit}")
            }
            Self::BadTarget => f.write_str("request target must be a path of visible ASCII"),
            Self::BadHost => f.write_str("exactly one Host header with a host is needed"),
            Self::TransferEncoding => f.write_str("Transfer-Encoding is not supported"),
            Self::BadContentLength => f.write_str("bad Content-Length"),
            Self::NotAscii => f.write_str("a header that matters has a byte that is not ASCII"),
            Self::PlainHttp => f.write_str("this port speaks TLS: the URL begins with https://"),
        }
    }
}

impl std::error::Error for HeadError {}

/// How many header lines a head may have; browsers send about fifteen.
const MAX_HEADERS: usize = 64;
/// The headers whose value decides something.
const HEADERS_ACTED_ON: &[&str] = &[
    "accept",
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "if-none-match",
    "last-event-id",
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
    fn an_incomplete_head_is_no_error() {
        assert_eq!(read(b"GET / HTTP/1.1\r\nHost: a\r\n"), Ok(None));
        assert_eq!(read(b""), Ok(None));
    }

    #[test]
    fn a_line_ends_with_carriage_return_and_line_feed() {
        for bytes in ["GET / HTTP/1.1\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\n\r\n", "\nGET"]
        {
            assert_eq!(read(bytes.as_bytes()), Err(HeadError::BareLineFeed), "{bytes:?}");
        }
    }

    #[test]
    fn an_absolute_target_counts_only_for_its_host() {
        assert_eq!(read(b"GET http://a/x?y HTTP/1.1\r\nHost: a\r\n\r\n"), Ok(Some("/x".into())));
        assert_eq!(read(b"GET http://a?y HTTP/1.1\r\nHost: a\r\n\r\n"), Err(HeadError::BadTarget));
        assert_eq!(read(b"GET http://a HTTP/1.1\r\nHost: a\r\n\r\n"), Ok(Some("/".into())));
        assert_eq!(read(b"GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n"), Err(HeadError::BadTarget));
    }

    #[test]
    fn token_lists_are_read_over_several_lines() {
        let bytes =
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: a , b\r\nconnection: UPGRADE\r\n\r\n";
        let head = parse(bytes, &Limits::default()).unwrap();
        assert!(head.has_token("Connection", "upgrade") && head.has_token("connection", "B"));
        assert!(!head.has_token("connection", "grade"));
    }

    #[test]
    fn the_scan_looks_at_each_byte_once() {
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
    fn a_head_in_two_pieces_gets_the_verdict_of_the_whole() {
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
                let verdict = match found {
                    Ok(Some(range)) => parse(&bytes[range], &limits).map(|h| Some(h.path().into())),
                    Ok(None) => Ok(None),
                    Err(error) => Err(error),
                };
                assert_eq!(verdict, whole, "cut at {cut}");
            }
        }
    }
}
