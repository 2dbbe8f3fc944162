//! The header of the PROXY protocol, with which a proxy begins a connection: versions 1 and 2
//! (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::net::Peer;

/// A parsed header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProxyHeader {
    /// The client for which the proxy has opened the connection.
    pub(crate) client: ProxiedClient,
    /// The length of the header, in bytes.
    pub(crate) length: usize,
}

/// The client for which a proxy has opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProxiedClient {
    /// The proxy itself: the connection is its own, such as a health check (LOCAL).
    Proxy,
    /// A client with this address.
    At(SocketAddr),
    /// A client that the proxy does not name, or that has no IP address (UNKNOWN, UNSPEC, UNIX). It
    /// may be on another host.
    Unknown,
}

impl ProxiedClient {
    /// Returns the address that counts as the client's: `proxy` if the header names no address.
    pub(crate) fn peer(self, proxy: Peer) -> Peer {
        match self {
            Self::At(address) => Peer::Ip(address),
            Self::Proxy | Self::Unknown => proxy,
        }
    }
}

/// Parses the header in the first bytes of a connection. Returns `None` while the header is
/// incomplete.
///
/// # Errors
/// [`ProxyHeaderError`], as soon as it is certain that the bytes are not a valid header.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    let may_begin_with = |prefix: &[u8]| {
        let length = bytes.len().min(prefix.len());
        bytes[..length] == prefix[..length]
    };
    match bytes {
        [] => Ok(None),
        _ if may_begin_with(SIGNATURE) => parse_binary(bytes),
        _ if may_begin_with(b"PROXY ") => parse_text(bytes),
        _ => Err(ProxyHeaderError::Missing),
    }
}

/// Returns a lower bound for the number of bytes that are missing from an incomplete header.
/// `bytes` is the part that has arrived.
///
/// A caller that never reads more bytes than this reads nothing of the data after the header.
pub(crate) fn missing(bytes: &[u8]) -> usize {
    let at_least = if bytes.starts_with(SIGNATURE) {
        let rest = bytes.get(SIGNATURE.len() + 2..FIXED_BYTES);
        FIXED_BYTES + rest.map_or(0, |rest| usize::from(u16::from_be_bytes([rest[0], rest[1]])))
    } else {
        SHORTEST_TEXT.len().max(bytes.len() + 1)
    };
    at_least.saturating_sub(bytes.len())
}

/// Parses version 1: a line such as `PROXY TCP4 192.0.2.1 10.0.0.1 56324 443`.
fn parse_text(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    let visible = &bytes[..bytes.len().min(MAX_TEXT_BYTES)];
    let Some(line_feed) = visible.iter().position(|byte| *byte == b'\n') else {
        return match bytes.len() < MAX_TEXT_BYTES {
            true => Ok(None),
            false => Err(ProxyHeaderError::Malformed),
        };
    };
    let line = visible[..line_feed].strip_suffix(b"\r").and_then(|line| str::from_utf8(line).ok());
    let words: Vec<&str> = line.ok_or(ProxyHeaderError::Malformed)?.split(' ').collect();
    let client = match words[..] {
        ["PROXY", "UNKNOWN", ..] => Some(ProxiedClient::Unknown),
        ["PROXY", "TCP4", from, _, port, _] => {
            client_at(from.parse::<Ipv4Addr>().ok().map(IpAddr::V4), port)
        }
        ["PROXY", "TCP6", from, _, port, _] => {
            client_at(from.parse::<Ipv6Addr>().ok().map(IpAddr::V6), port)
        }
        _ => None,
    };
    let client = client.ok_or(ProxyHeaderError::Malformed)?;
    Ok(Some(ProxyHeader { client, length: line_feed + 1 }))
}

/// Returns the client with an address and a port of version 1.
fn client_at(address: Option<IpAddr>, port: &str) -> Option<ProxiedClient> {
    let port = port.parse().ok().filter(|_| port.bytes().all(|byte| byte.is_ascii_digit()));
    address.zip(port).map(|place| ProxiedClient::At(place.into()))
}

/// Parses version 2: a signature, version and command, family, length, addresses, and further
/// fields, which are ignored.
fn parse_binary(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    let Some([command, family, high, low]) = bytes.get(SIGNATURE.len()..FIXED_BYTES) else {
        return Ok(None);
    };
    let length = FIXED_BYTES + usize::from(u16::from_be_bytes([*high, *low]));
    if length > MAX_BINARY_BYTES {
        return Err(ProxyHeaderError::TooLong { bytes: length });
    }
    let Some(addresses) = bytes.get(FIXED_BYTES..length) else { return Ok(None) };
    let client = match (command, family >> 4) {
        // LOCAL
        (0x20, _) => Some(ProxiedClient::Proxy),
        (0x21, 1) => read_address::<4>(addresses).map(ProxiedClient::At),
        (0x21, 2) => read_address::<16>(addresses).map(ProxiedClient::At),
        // UNSPEC and UNIX
        (0x21, 0 | 3) => Some(ProxiedClient::Unknown),
        _ => None,
    };
    let client = client.ok_or(ProxyHeaderError::Malformed)?;
    Ok(Some(ProxyHeader { client, length }))
}

/// Reads the source address and port. `BYTES` is the length of an address.
fn read_address<const BYTES: usize>(addresses: &[u8]) -> Option<SocketAddr>
where
    IpAddr: From<[u8; BYTES]>,
{
    let (from, rest) = addresses.split_first_chunk::<BYTES>()?;
    let (_to, ports) = rest.split_first_chunk::<BYTES>()?;
    let (port, rest) = ports.split_first_chunk::<2>()?;
    let address = SocketAddr::new(IpAddr::from(*from), u16::from_be_bytes(*port));
    (rest.len() >= 2).then_some(address)
}

/// The reason why a connection does not begin with a valid header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProxyHeaderError {
    /// The first bytes are not the beginning of a header.
    Missing,
    /// The first bytes are the beginning of a header, but the rest is malformed.
    Malformed,
    /// The header is longer than any proxy needs.
    TooLong { bytes: usize },
}

impl fmt::Display for ProxyHeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("no header of the PROXY protocol"),
            Self::Malformed => f.write_str("malformed header of the PROXY protocol"),
            Self::TooLong { bytes } => {
                write!(f, "header of the PROXY protocol is {bytes} bytes, limit {MAX_BINARY_BYTES}")
            }
        }
    }
}

impl std::error::Error for ProxyHeaderError {}

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The length of the part of version 2 that is always present: signature, version and command,
/// family, and the length of the rest.
const FIXED_BYTES: usize = SIGNATURE.len() + 4;
/// The shortest header of version 1. Every header of version 2 is longer.
const SHORTEST_TEXT: &str = "PROXY UNKNOWN\r\n";
/// The longest header of version 1, in bytes, with its line end.
const MAX_TEXT_BYTES: usize = 107;
/// The longest header of version 2 that is accepted, in bytes. The addresses and the information
/// about the client's TLS connection fit.
const MAX_BINARY_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = (rest.len() as u16).to_be_bytes();
        [SIGNATURE, &[command, family], &length, rest].concat()
    }

    fn v4() -> Vec<u8> {
        [&[192, 0, 2, 1, 10, 0, 0, 1][..], &[0xdc, 0x04, 0x01, 0xbb]].concat()
    }

    fn v6() -> Vec<u8> {
        let [from, to] = ["2001:db8::1", "fd00::1"].map(|text| text.parse::<Ipv6Addr>().unwrap());
        [&from.octets()[..], &to.octets(), &[0xdc, 0x04, 0x01, 0xbb]].concat()
    }

    #[test]
    fn reading_the_missing_bytes_reads_nothing_after_the_header() {
        let line = b"PROXY TCP4 192.0.2.1 10.0.0.1 56324 443\r\n".to_vec();
        for header in [
            SHORTEST_TEXT.into(),
            line,
            binary(0x21, 0x11, &v4()),
            binary(0x21, 0x21, &v6()),
            binary(0x20, 0, &[]),
            binary(0x21, 0x11, &[&v4()[..], &[7; 500]].concat()),
        ] {
            let stream = [&header[..], b"\x16\x03\x01 and more"].concat();
            let mut length = 0;
            while parse(&stream[..length]) == Ok(None) {
                let missing = missing(&stream[..length]);
                assert!(missing > 0 && length + missing <= header.len(), "{length}: {missing}");
                length += missing;
            }
            assert_eq!(parse(&stream[..length]).unwrap().unwrap().length, header.len());
        }
    }

    #[test]
    fn a_header_names_the_client() {
        use ProxiedClient::{At, Proxy, Unknown};
        let one = At("192.0.2.1:56324".parse().unwrap());
        let other = At("[2001:db8::1]:56324".parse().unwrap());
        for (bytes, client) in [
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 56324 443\r\n".to_vec(), one),
            (b"PROXY TCP6 2001:db8::1 fd00::1 56324 443\r\n".to_vec(), other),
            (b"PROXY UNKNOWN\r\n".to_vec(), Unknown),
            (b"PROXY UNKNOWN what ever 1 2\r\n".to_vec(), Unknown),
            (binary(0x21, 0x11, &v4()), one),
            (binary(0x21, 0x11, &[v4(), vec![3, 0, 1, 0]].concat()), one),
            (binary(0x21, 0x21, &v6()), other),
            (binary(0x20, 0x11, &v4()), Proxy),
            (binary(0x20, 0x00, &[]), Proxy),
            (binary(0x21, 0x00, &[]), Unknown),
            (binary(0x21, 0x01, &v4()), Unknown),
            (binary(0x21, 0x31, &[0; 216]), Unknown),
        ] {
            let header = ProxyHeader { client, length: bytes.len() };
            for cut in 0..bytes.len() {
                assert_eq!(parse(&bytes[..cut]), Ok(None), "{cut} of {bytes:?}");
            }
            let rest = [&bytes[..], b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(parse(&rest), Ok(Some(header)), "{bytes:?}");
        }
    }

    #[test]
    fn an_invalid_header_is_refused() {
        use ProxyHeaderError::{Malformed, Missing, TooLong};
        for (bytes, error) in [
            (b"GET / HTTP/1.1\r\n".to_vec(), Missing),
            (b"P\n".to_vec(), Missing),
            (b"PROXY\r\n".to_vec(), Missing),
            (b"\r\n\r\nGET".to_vec(), Missing),
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 56324 443\n".to_vec(), Malformed),
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 56324\r\n".to_vec(), Malformed),
            (b"PROXY TCP4 192.0.2 10.0.0.1 56324 443\r\n".to_vec(), Malformed),
            (b"PROXY TCP4 2001:db8::1 fd00::1 56324 443\r\n".to_vec(), Malformed),
            (b"PROXY TCP6 192.0.2.1 10.0.0.1 56324 443\r\n".to_vec(), Malformed),
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 65536 443\r\n".to_vec(), Malformed),
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 +5 443\r\n".to_vec(), Malformed),
            (b"PROXY TCP4  192.0.2.1 10.0.0.1 5 443\r\n".to_vec(), Malformed),
            (b"PROXY UDP4 192.0.2.1 10.0.0.1 5 443\r\n".to_vec(), Malformed),
            (b"PROXY UNKNOWN \xff\r\n".to_vec(), Malformed),
            ([b"PROXY ".to_vec(), vec![b'x'; 101]].concat(), Malformed),
            (binary(0x11, 0x11, &v4()), Malformed),
            (binary(0x22, 0x11, &v4()), Malformed),
            (binary(0x21, 0x41, &v4()), Malformed),
            (binary(0x21, 0x11, &v4()[..11]), Malformed),
            (binary(0x21, 0x21, &v4()), Malformed),
            (binary(0x21, 0x11, &[0; 4081]), TooLong { bytes: 4097 }),
        ] {
            assert_eq!(parse(&bytes), Err(error), "{:?}", bytes.escape_ascii().to_string());
        }
    }
}
