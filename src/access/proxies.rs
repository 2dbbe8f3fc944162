//! Trusted proxies: proxies that may name the client for which they make a request.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use crate::escaped::Escaped;
use crate::http::{RequestHead, Response};
use crate::net::Peer;

use super::origin::ExternalOrigin;

/// The proxies that may name their clients. Default: none, so that the peer of a connection is
/// always the client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    trusted: Vec<TrustedProxy>,
    /// If true, the proxies begin each connection with a header of the PROXY protocol, version 1 or
    /// 2, and a connection without such a header is dropped. Default: false.
    pub proxy_protocol: bool,
}

/// A trusted proxy or a network of trusted proxies: `10.0.0.1`, `10.0.0.0/8`, `fd00::/8`, or `unix`
/// for all peers of a Unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustedProxy {
    /// All peers of a Unix socket.
    Unix,
    /// The addresses of a network.
    Network {
        /// An address in the network.
        address: IpAddr,
        /// The number of leading bits that all addresses of the network share.
        bits: u8,
    },
}

impl TrustedProxies {
    /// Adds a proxy.
    pub fn add(&mut self, proxy: TrustedProxy) {
        self.trusted.push(proxy);
    }

    /// Removes all proxies.
    pub(crate) fn clear(&mut self) {
        self.trusted.clear();
    }

    /// Returns true if no proxy is trusted.
    pub fn is_empty(&self) -> bool {
        self.trusted.is_empty()
    }

    /// Returns true if `peer` is a trusted proxy.
    pub fn trust(&self, peer: Peer) -> bool {
        self.trusted.iter().any(|proxy| proxy.includes(peer))
    }

    /// Returns true if `peer` must begin its connection with a header of the PROXY protocol.
    pub(crate) fn uses_proxy_protocol(&self, peer: Peer) -> bool {
        self.proxy_protocol && self.trust(peer)
    }

    /// Returns the client for which `peer`, a trusted proxy, makes a request.
    ///
    /// The addresses in X-Forwarded-For or Forwarded are read from the last to the first, up to and
    /// including the first one that is not a trusted proxy. The last address that was read is the
    /// client; if there is none, it is `peer`. An element without an address ends the search, too:
    /// then the client is one that the address before it does not reveal.
    ///
    /// # Errors
    /// [`UnclearClient::Differing`], if the two headers name different clients: then the client,
    /// not the proxy, has set one of them. [`UnclearClient::Malformed`], if Forwarded can be read
    /// in two ways.
    pub(crate) fn client_of(
        &self,
        peer: Peer,
        head: &RequestHead<'_>,
    ) -> Result<ForwardedClient, UnclearClient> {
        let old: Vec<_> = head.items("x-forwarded-for").map(parse_address).collect();
        let new = forwarded_elements(head).map(parse_forwarded).collect::<Result<Vec<_>, _>>()?;
        match (self.last_untrusted(peer, &old), self.last_untrusted(peer, &new)) {
            (client, _) if new.is_empty() => Ok(client),
            (_, client) if old.is_empty() => Ok(client),
            (client, same) if client == same => Ok(client),
            _ => Err(UnclearClient::Differing),
        }
    }

    fn last_untrusted(&self, peer: Peer, addresses: &[Option<IpAddr>]) -> ForwardedClient {
        let mut nearest = peer;
        for address in addresses.iter().rev() {
            if !self.trust(nearest) {
                break;
            }
            let Some(address) = address else {
                return ForwardedClient { nearest, is_unknown: true };
            };
            // Port 0, because proxies usually do not report the port of the client.
            nearest = Peer::Ip(SocketAddr::new(address.to_canonical(), 0));
        }
        ForwardedClient { nearest, is_unknown: false }
    }
}

/// The client for which a trusted proxy makes a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ForwardedClient {
    /// The client, or the proxy nearest to the client whose address is known.
    pub(crate) nearest: Peer,
    /// True if `nearest` is a proxy that names a client without a readable address. The client may be
    /// on another host.
    pub(crate) is_unknown: bool,
}

/// Returns true if a proxy, trusted or not, names the client of a request.
pub(crate) fn is_forwarded(head: &RequestHead<'_>) -> bool {
    ["x-forwarded-for", "forwarded"].iter().any(|name| head.values(name).next().is_some())
}

/// Returns true if a proxy, trusted or not, names a client or another proxy that may be on another host: its
/// address is not one of loopback, or not readable. An untrusted proxy may say so, because its client only
/// loses rights.
pub(crate) fn names_another_host(head: &RequestHead<'_>) -> bool {
    let old = head.items("x-forwarded-for").map(parse_address);
    let new = forwarded_elements(head).map(|element| parse_forwarded(element).unwrap_or(None));
    old.chain(new).any(|address| !address.is_some_and(|ip| ip.to_canonical().is_loopback()))
}

/// Returns the elements of Forwarded (RFC 7239 §4).
fn forwarded_elements<'h>(head: &'h RequestHead<'_>) -> impl Iterator<Item = &'h [u8]> {
    head.values("forwarded").flat_map(|value| split_unquoted(value, b','))
}

/// Returns the scheme and host under which the client reached a trusted proxy, from the headers
/// X-Forwarded-Proto and X-Forwarded-Host.
pub(crate) fn external_origin<'h>(head: &RequestHead<'h>) -> ExternalOrigin<'h> {
    let last = |name| head.items(name).last().and_then(|item| str::from_utf8(item).ok());
    ExternalOrigin { scheme: last("x-forwarded-proto"), host: last("x-forwarded-host") }
}

/// Splits a value at the separators that are not in quotes. An unclosed quote extends to the end of
/// the value, so the caller must check the last part for one.
fn split_unquoted(value: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let parts = value.split(move |byte| {
        let is_content = std::mem::take(&mut is_escaped);
        match *byte {
            b'"' if !is_content => is_quoted = !is_quoted,
            b'\\' if !is_content => is_escaped = is_quoted,
            _ => {}
        }
        !is_quoted && *byte == separator
    });
    parts.map(<[u8]>::trim_ascii)
}

/// Parses an element of Forwarded and returns the address in its parameter `for` (RFC 7239 §4).
///
/// # Errors
/// [`UnclearClient::Malformed`], if a quote is unclosed or does not enclose a whole value, or if a
/// parameter is repeated.
fn parse_forwarded(element: &[u8]) -> Result<Option<IpAddr>, UnclearClient> {
    let mut values = PARAMETERS.map(|_| None);
    for pair in split_unquoted(element, b';') {
        let equals = pair.iter().position(|byte| *byte == b'=');
        let (name, value) = equals.map_or((pair, None), |at| (&pair[..at], Some(&pair[at + 1..])));
        let value = value.map(|value| unquote(value.trim_ascii())).unwrap_or(Some(b""));
        let (Some(value), false) = (value, name.contains(&b'"')) else {
            return Err(UnclearClient::Malformed);
        };
        let known =
            PARAMETERS.iter().position(|known| name.trim_ascii().eq_ignore_ascii_case(known));
        if known.is_some_and(|index| values[index].replace(value).is_some()) {
            return Err(UnclearClient::Malformed);
        }
    }
    let [client, ..] = values;
    Ok(client.and_then(parse_address))
}

/// Removes the quotes around a value. Returns `None` if there are other quotes in the value. A
/// backslash is kept, because the only values that are used are addresses, which have none.
fn unquote(value: &[u8]) -> Option<&[u8]> {
    let Some(inner) = value.strip_prefix(b"\"") else {
        return Some(value).filter(|value| !value.contains(&b'"'));
    };
    let mut is_escaped = false;
    let end = inner.iter().position(|byte| {
        let is_content = std::mem::take(&mut is_escaped);
        is_escaped = !is_content && *byte == b'\\';
        !is_content && *byte == b'"'
    })?;
    Some(&inner[..end]).filter(|_| end + 1 == inner.len())
}

/// Parses an IP address with optional brackets and an optional port. Returns `None` for anything
/// else, such as `unknown`.
fn parse_address(bytes: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(bytes).ok()?;
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(with_port)
}

impl TrustedProxy {
    fn includes(self, peer: Peer) -> bool {
        match (self, peer) {
            (Self::Unix, Peer::Unix) => true,
            (Self::Network { address, bits }, Peer::Ip(peer)) => {
                match (address, peer.ip().to_canonical()) {
                    (IpAddr::V4(network), IpAddr::V4(peer)) => {
                        let differing = network.to_bits() ^ peer.to_bits();
                        differing.leading_zeros() >= bits.into()
                    }
                    (IpAddr::V6(network), IpAddr::V6(peer)) => {
                        let differing = network.to_bits() ^ peer.to_bits();
                        differing.leading_zeros() >= bits.into()
                    }
                    _ => false,
                }
            }
            _ => false,
        }
    }
}

impl FromStr for TrustedProxy {
    type Err = TrustedProxyError;

    fn from_str(text: &str) -> Result<Self, TrustedProxyError> {
        let error = || TrustedProxyError { text: text.to_owned() };
        if text == "unix" {
            return Ok(Self::Unix);
        }
        let (address, bits) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
        let address: IpAddr = address.parse().map_err(|_| error())?;
        let max_bits = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(max_bits), str::parse).map_err(|_| error())?;
        if bits > max_bits { Err(error()) } else { Ok(Self::Network { address, bits }) }
    }
}

impl fmt::Display for TrustedProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix => f.write_str("unix"),
            Self::Network { address: address @ IpAddr::V4(_), bits: 32 } => address.fmt(f),
            Self::Network { address: address @ IpAddr::V6(_), bits: 128 } => address.fmt(f),
            Self::Network { address, bits } => write!(f, "{address}/{bits}"),
        }
    }
}

impl fmt::Display for TrustedProxies {
    /// Writes the proxies, separated by spaces.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.trusted.iter().map(TrustedProxy::to_string).collect();
        f.write_str(&texts.join(" "))
    }
}

/// The error that a text is not a [`TrustedProxy`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedProxyError {
    text: String,
}

impl fmt::Display for TrustedProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = Escaped(&self.text);
        write!(f, "`{text}` is not a proxy: expected 10.0.0.1, 10.0.0.0/8, fd00::/8 or unix")
    }
}

impl std::error::Error for TrustedProxyError {}

/// The reason why the client of a request is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnclearClient {
    /// The two headers name different clients.
    Differing,
    /// An element of Forwarded can be read in two ways.
    Malformed,
}

impl UnclearClient {
    /// Returns the response for the peer.
    pub(crate) fn response(self) -> Response {
        Response::text(400, format!("{self}\n"))
    }
}

impl fmt::Display for UnclearClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Differing => "Forwarded and X-Forwarded-For name two different clients",
            Self::Malformed => {
                "Forwarded has an unclosed quote or a repeated parameter in one element"
            }
        })
    }
}

impl std::error::Error for UnclearClient {}

/// The parameters of Forwarded. An element has each of them at most once (RFC 7239 §4).
const PARAMETERS: [&[u8]; 4] = [b"for", b"by", b"host", b"proto"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;
    use crate::http::head;

    fn proxies(texts: &[&str]) -> TrustedProxies {
        let mut proxies = TrustedProxies::default();
        for text in texts {
            proxies.add(text.parse().unwrap());
        }
        proxies
    }

    fn peer(address: &str) -> Peer {
        Peer::Ip(SocketAddr::new(address.parse().unwrap(), 7))
    }

    /// Returns the client of a request with the header lines `lines` from 10.0.0.1; `-` stands for
    /// 10.0.0.1 itself. The address ends with `?` if the client is one that it does not reveal.
    fn client(proxies: &TrustedProxies, lines: &str) -> Result<String, UnclearClient> {
        let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let head = head::parse(bytes.as_bytes(), &Limits::default()).expect(lines);
        let client = proxies.client_of(peer("10.0.0.1"), &head)?;
        let is_peer = client.nearest == peer("10.0.0.1");
        let address = if is_peer { "-".to_owned() } else { client.nearest.to_string() };
        Ok(address + if client.is_unknown { "?" } else { "" })
    }

    #[test]
    fn the_last_untrusted_address_is_the_client() {
        let proxies = proxies(&["10.0.0.0/8", "fd00::/8"]);
        for (lines, expected) in [
            ("", "-"),
            ("X-Forwarded-For: 192.0.2.1\r\n", "192.0.2.1"),
            ("X-Forwarded-For: 198.51.100.9, 192.0.2.1\r\n", "192.0.2.1"),
            ("X-Forwarded-For: 127.0.0.1 ,192.0.2.1,10.1.1.1, 10.2.2.2\r\n", "192.0.2.1"),
            ("X-Forwarded-For: 198.51.100.9\r\nX-Forwarded-For: 192.0.2.1\r\n", "192.0.2.1"),
            ("X-Forwarded-For: 10.5.5.5\r\n", "10.5.5.5"),
            ("X-Forwarded-For: 192.0.2.1:5\r\n", "192.0.2.1"),
            ("X-Forwarded-For: 2001:db8::1\r\n", "2001:db8::1"),
            ("X-Forwarded-For: [2001:db8::1]\r\n", "2001:db8::1"),
            ("X-Forwarded-For: [2001:db8::1]:5\r\n", "2001:db8::1"),
            ("X-Forwarded-For: ::ffff:192.0.2.1\r\n", "192.0.2.1"),
            ("X-Forwarded-For: 192.0.2.1, fd00::1\r\n", "192.0.2.1"),
            ("X-Forwarded-For: unknown\r\n", "-?"),
            ("X-Forwarded-For: 192.0.2.1, unknown\r\n", "-?"),
            ("X-Forwarded-For: unknown, 192.0.2.1\r\n", "192.0.2.1"),
            ("X-Forwarded-For: unknown, 10.1.1.1\r\n", "10.1.1.1?"),
            ("X-Forwarded-For: 192.0.2.1,\r\n", "-?"),
            ("X-Forwarded-For:\r\n", "-?"),
            ("X-Forwarded-For: \u{e9}\r\n", "-?"),
            ("Forwarded: for=192.0.2.1\r\n", "192.0.2.1"),
            ("Forwarded: proto=https ; FOR=\"192.0.2.1:4\";by=x\r\n", "192.0.2.1"),
            ("Forwarded: for=\"[2001:db8::1]:5\"\r\n", "2001:db8::1"),
            ("Forwarded: for=198.51.100.9, for=192.0.2.1, for=10.3.3.3\r\n", "192.0.2.1"),
            ("Forwarded: For=[2001:db8::1]:5\r\n", "2001:db8::1"),
            ("Forwarded: for=192.0.2.1,\r\n", "-?"),
            ("Forwarded: 192.0.2.1\r\n", "-?"),
            ("Forwarded: for=_hidden\r\n", "-?"),
            ("Forwarded: for=unknown, for=10.1.1.1\r\n", "10.1.1.1?"),
            ("Forwarded: host=a\r\n", "-?"),
            ("Forwarded: for=unknown\r\nX-Forwarded-For: unknown\r\n", "-?"),
            ("Forwarded: for=192.0.2.1\r\nX-Forwarded-For: 192.0.2.1\r\n", "192.0.2.1"),
        ] {
            assert_eq!(client(&proxies, lines).as_deref(), Ok(expected), "{lines:?}");
        }
        for lines in [
            "Forwarded: for=192.0.2.1\r\nX-Forwarded-For: 192.0.2.2\r\n",
            "Forwarded: for=unknown\r\nX-Forwarded-For: 192.0.2.2\r\n",
        ] {
            assert_eq!(client(&proxies, lines), Err(UnclearClient::Differing), "{lines:?}");
        }
    }

    #[test]
    fn a_parameter_inside_quotes_is_ignored() {
        let proxies = proxies(&["10.0.0.0/8"]);
        for value in [
            "proto=http;host=\"a;for=6.6.6.6;x=b\";for=192.0.2.1",
            "host=\"a, for=6.6.6.6\";for=192.0.2.1",
            "for=192.0.2.1;host=\"a, for=6.6.6.6;x=b\"",
            "for=192.0.2.1;host=\"a\\\", for=6.6.6.6;x=\\\\\"",
            "for=6.6.6.6;host=\", for=\", for=\"192.0.2.1\" ; by=\"\"",
        ] {
            let lines = format!("Forwarded: {value}\r\n");
            assert_eq!(client(&proxies, &lines).as_deref(), Ok("192.0.2.1"), "{value}");
        }
    }

    #[test]
    fn an_ambiguous_element_is_refused() {
        let proxies = proxies(&["10.0.0.0/8"]);
        for value in [
            "for=6.6.6.6;for=192.0.2.1",
            "for=192.0.2.1;host=a;FOR=192.0.2.1",
            "for=192.0.2.1;host=a;host=b",
            "for=192.0.2.1;proto=http;Proto=https",
            "for=\"198.51.100.9, for=192.0.2.1",
            "host=\"a, for=\"192.0.2.1\"",
            "host=\"a, for=\"192.0.2.1\";by=\"x",
            "host=a\";for=6.6.6.6;x=\";for=192.0.2.1",
            "host=\"a\\\";for=192.0.2.1",
            "\"for=192.0.2.1",
            "\"x\";for=192.0.2.1",
            "for=\"",
        ] {
            let lines = format!("Forwarded: {value}\r\n");
            assert_eq!(client(&proxies, &lines), Err(UnclearClient::Malformed), "{value}");
        }
    }

    #[test]
    fn a_proxy_is_an_address_a_network_or_unix() {
        for (text, inside, outside) in [
            ("10.0.0.1", "10.0.0.1", "10.0.0.2"),
            ("10.0.0.1", "::ffff:10.0.0.1", "::1"),
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("10.9.9.9/8", "10.0.0.1", "11.9.9.9"),
            ("0.0.0.0/0", "192.0.2.1", "::1"),
            ("192.0.2.0/25", "192.0.2.127", "192.0.2.128"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("::/0", "2001:db8::1", "10.0.0.1"),
            ("::1", "::1", "::2"),
        ] {
            let proxies = proxies(&[text]);
            assert!(proxies.trust(peer(inside)), "{text} {inside}");
            assert!(!proxies.trust(peer(outside)), "{text} {outside}");
            assert!(!proxies.trust(Peer::Unix), "{text}");
            assert_eq!(proxies.to_string().parse::<TrustedProxy>(), text.parse());
        }
        assert!(proxies(&["unix"]).trust(Peer::Unix));
        assert!(!proxies(&["unix"]).trust(peer("127.0.0.1")));
    }

    #[test]
    fn the_error_for_a_bad_proxy_names_the_text_and_the_valid_forms() {
        for text in ["", "a", "10.0.0", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.1:80", "/8"] {
            let error = text.parse::<TrustedProxy>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")) && error.contains("unix"), "{error}");
        }
    }
}
