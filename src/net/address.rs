//! Listen URLs and peer addresses.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::PathBuf;
use std::str::FromStr;

use crate::escaped::Escaped;

use super::address_prefix::AddressPrefix;

/// A URL to listen on: `http://HOST:PORT`, `https://HOST:PORT`, `unix:PATH` or `systemd`.
///
/// The host `localhost` means both loopback addresses. Any other name is looked up in /etc/hosts when
/// the server starts. DNS is not used, because the network may not be up at that time. With port 0,
/// the kernel chooses a free port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenUrl {
    /// A TCP port that serves plain HTTP.
    Http {
        /// A name, an IPv4 address, or an IPv6 address without brackets.
        host: String,
        /// The port. Default: 80.
        port: u16,
    },
    /// A TCP port that serves HTTP over TLS.
    Https {
        /// A name, an IPv4 address, or an IPv6 address without brackets.
        host: String,
        /// The port. Default: 443.
        port: u16,
    },
    /// A Unix socket in the file system.
    Unix(PathBuf),
    /// All sockets that systemd passes (sd_listen_fds(3)), TCP or Unix. They never use TLS, independent of
    /// their names.
    Systemd,
}

impl ListenUrl {
    /// Returns the TCP addresses of the host. The result is empty for `unix:` and `systemd` URLs.
    ///
    /// # Errors
    /// If the host is neither an address nor a name in /etc/hosts.
    pub fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        match self {
            Self::Unix(_) | Self::Systemd => Ok(Vec::new()),
            Self::Http { host, port } | Self::Https { host, port }
                if host.eq_ignore_ascii_case("localhost") =>
            {
                let loopbacks = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
                Ok(loopbacks.map(|address| SocketAddr::new(address, *port)).to_vec())
            }
            Self::Http { host, port } | Self::Https { host, port } => {
                let with_port = |address| SocketAddr::new(address, *port);
                if let Ok(address) = host.parse() {
                    return Ok(vec![with_port(address)]);
                }
                let hosts = std::fs::read(HOSTS).unwrap_or_default();
                let hosts = String::from_utf8_lossy(&hosts);
                let mut found = Vec::new();
                for address in addresses_in(&hosts, host).map(with_port) {
                    // Two lines may give the name the same address, which can be bound only once.
                    if !found.contains(&address) {
                        found.push(address);
                    }
                }
                match found.is_empty() {
                    true => Err(io::Error::other(UNKNOWN_HOST)),
                    false => Ok(found),
                }
            }
        }
    }

    /// Returns true if this is a URL for all IPv4 addresses of this host, with this port.
    pub(super) fn is_ipv4_wildcard(&self, with: u16) -> bool {
        matches!(self, Self::Http { host, port } | Self::Https { host, port } if host == "0.0.0.0" && *port == with)
    }

    /// Returns the host of an `http://` or `https://` URL.
    pub(super) fn host(&self) -> Option<&str> {
        match self {
            Self::Http { host, .. } | Self::Https { host, .. } => Some(host),
            Self::Unix(_) | Self::Systemd => None,
        }
    }

    /// Returns the host that the TLS certificate must be valid for, or `None` without TLS.
    pub fn tls_host(&self) -> Option<&str> {
        self.host().filter(|_| matches!(self, Self::Https { .. }))
    }

    /// Returns the same URL with the port `bound`.
    pub(super) fn with_port(&self, bound: u16) -> Self {
        match self {
            Self::Http { host, .. } => Self::Http { host: host.clone(), port: bound },
            Self::Https { host, .. } => Self::Https { host: host.clone(), port: bound },
            Self::Unix(_) | Self::Systemd => self.clone(),
        }
    }
}

impl FromStr for ListenUrl {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let bad = |expected| AddressError { url: text.to_owned(), expected };
        if text == SYSTEMD {
            return Ok(Self::Systemd);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            if path.is_empty() {
                return Err(bad("a path after `unix:`"));
            }
            return Ok(Self::Unix(path.into()));
        }
        let (authority, is_tls) =
            match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
                (Some(authority), _) => (authority, false),
                (_, Some(authority)) => (authority, true),
                _ => return Err(bad("http://HOST:PORT, https://HOST:PORT, unix:PATH or systemd")),
            };
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => {
                (host, port.parse().map_err(|_| bad("a port from 0 to 65535"))?)
            }
            _ => (authority, if is_tls { 443 } else { 80 }),
        };
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(bare) if bare.parse::<Ipv6Addr>().is_ok() => bare,
            Some(_) => return Err(bad("an IPv6 address in the brackets")),
            None if host.is_empty() => return Err(bad("a host name or address after the slashes")),
            None if host.contains([':', '/', '@', '?', '#']) => {
                return Err(bad("http://HOST:PORT without path or user, IPv6 in brackets"));
            }
            None => host,
        };
        let host = host.to_owned();
        Ok(if is_tls { Self::Https { host, port } } else { Self::Http { host, port } })
    }
}

impl fmt::Display for ListenUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, host, port) = match self {
            Self::Http { host, port } => ("http", host, port),
            Self::Https { host, port } => ("https", host, port),
            Self::Unix(path) => return write!(f, "unix:{}", path.display()),
            Self::Systemd => return f.write_str(SYSTEMD),
        };
        match host.contains(':') {
            true => write!(f, "{scheme}://[{host}]:{port}"),
            false => write!(f, "{scheme}://{host}:{port}"),
        }
    }
}

/// Returns the addresses of `name` in the text of a hosts file (hosts(5)).
fn addresses_in(hosts: &str, name: &str) -> impl Iterator<Item = IpAddr> {
    hosts.lines().filter_map(move |line| {
        let mut words = line.split('#').next()?.split_ascii_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|word| word.eq_ignore_ascii_case(name)).then_some(address)
    })
}

/// The error for a text that is not a listen URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressError {
    url: String,
    expected: &'static str,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid listen URL `{}`: expected {}", Escaped(&self.url), self.expected)
    }
}

impl std::error::Error for AddressError {}

/// The hosts that can reach a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Only this host, over a Unix socket.
    Unix,
    /// Only this host, over its loopback interface.
    Loopback,
    /// This host and other hosts.
    Network,
}

impl Reach {
    /// Returns the reach of a TCP listener that is bound to `address`.
    pub(super) fn of(address: SocketAddr) -> Self {
        match address.ip().to_canonical().is_loopback() {
            true => Self::Loopback,
            false => Self::Network,
        }
    }
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A TCP peer. The port is 0 if only a proxy knows it.
    Ip(SocketAddr),
    /// A process on this host that is connected over a Unix socket.
    Unix,
}

impl Peer {
    /// Returns the longest of the prefixes that the limits per address apply to, or `None` for a peer on this
    /// host, which is exempt.
    pub fn limited_prefix(&self) -> Option<AddressPrefix> {
        let Self::Ip(address) = self else { return None };
        let is_local = address.ip().to_canonical().is_loopback();
        (!is_local).then(|| AddressPrefix::of(address.ip()))
    }
}

/// A [`Peer`] in at most 24 bytes, to save memory for each client. The IPv6 flow label is not kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PackedPeer {
    ip: Ipv6Addr,
    scope_id: u32,
    port: u16,
    kind: PeerKind,
}

#[derive(Clone, Copy, Debug)]
enum PeerKind {
    V4,
    V6,
    Unix,
}

impl From<Peer> for PackedPeer {
    fn from(peer: Peer) -> Self {
        let (ip, scope_id, port, kind) = match peer {
            Peer::Ip(SocketAddr::V4(v4)) => (v4.ip().to_ipv6_mapped(), 0, v4.port(), PeerKind::V4),
            Peer::Ip(SocketAddr::V6(v6)) => (*v6.ip(), v6.scope_id(), v6.port(), PeerKind::V6),
            Peer::Unix => (Ipv6Addr::UNSPECIFIED, 0, 0, PeerKind::Unix),
        };
        Self { ip, scope_id, port, kind }
    }
}

impl From<PackedPeer> for Peer {
    fn from(packed: PackedPeer) -> Self {
        let PackedPeer { ip, scope_id, port, kind } = packed;
        match kind {
            PeerKind::V4 => Self::Ip(SocketAddr::new(ip.to_canonical(), port)),
            PeerKind::V6 => Self::Ip(SocketAddrV6::new(ip, port, 0, scope_id).into()),
            PeerKind::Unix => Self::Unix,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) if address.port() == 0 => address.ip().fmt(f),
            Self::Ip(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

const SYSTEMD: &str = "systemd";
/// The file with the names and addresses of hosts (hosts(5)).
pub(super) const HOSTS: &str = "/etc/hosts";
const UNKNOWN_HOST: &str =
    "unknown host name; expected localhost, an address, or a name in /etc/hosts";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_the_addresses_that_the_hosts_file_gives_it() {
        let hosts = "127.0.0.1 localhost\n# 10.0.0.1 pi\n10.0.0.2\tpi.local PI # or 10.0.0.3 tau\n\
            fe80::1 pi\nnonsense pi\n\n10.0.0.4";
        let found = |name| addresses_in(hosts, name).map(|a| a.to_string()).collect::<Vec<_>>();
        assert_eq!(found("pi"), ["10.0.0.2", "fe80::1"]);
        assert_eq!(found("Pi.Local"), ["10.0.0.2"]);
        for name in ["tau", "p", "10.0.0.2", ""] {
            assert!(found(name).is_empty(), "{name}");
        }
    }

    #[test]
    fn listen_urls_are_parsed_and_displayed() {
        for (text, displayed) in [
            ("http://localhost:8080", "http://localhost:8080"),
            ("http://localhost:8080/", "http://localhost:8080"),
            ("http://0.0.0.0:0", "http://0.0.0.0:0"),
            ("http://pi", "http://pi:80"),
            ("http://[::1]:9", "http://[::1]:9"),
            ("http://[::1]", "http://[::1]:80"),
            ("https://localhost:8443/", "https://localhost:8443"),
            ("https://pi", "https://pi:443"),
            ("https://[::1]", "https://[::1]:443"),
            ("unix:/run/falconet.sock", "unix:/run/falconet.sock"),
            ("systemd", "systemd"),
        ] {
            assert_eq!(text.parse::<ListenUrl>().unwrap().to_string(), displayed);
        }
    }

    #[test]
    fn an_invalid_listen_url_is_refused_with_the_expected_form() {
        for text in [
            "",
            "8080",
            "localhost:8080",
            "https:/localhost:1",
            "http://",
            "https://",
            "https://u@a:1",
            "http://:80",
            "http://a:b",
            "http://a:65536",
            "http://a:1/x",
            "http://u@a:1",
            "http://::1:80",
            "http://[x]:80",
            "unix:",
            "ws://localhost:1",
            "systemd:",
        ] {
            let error = text.parse::<ListenUrl>().unwrap_err().to_string();
            assert!(error.contains(text) && error.contains("expected"), "{text}: {error}");
        }
    }

    #[test]
    fn localhost_resolves_to_both_loopback_addresses() {
        let url: ListenUrl = "http://localhost:7".parse().unwrap();
        let addresses = url.resolve().unwrap();
        assert_eq!(addresses, ["127.0.0.1:7".parse().unwrap(), "[::1]:7".parse().unwrap()]);
    }

    #[test]
    fn only_other_hosts_count_against_the_limit_per_address() {
        let limited = |text: &str| Peer::Ip(text.parse().unwrap()).limited_prefix();
        assert_eq!(limited("127.0.0.1:5"), None);
        assert_eq!(limited("[::1]:5"), None);
        assert_eq!(limited("[::ffff:127.0.0.1]:5"), None);
        let prefix = |text: &str| Some(AddressPrefix::of(text.parse().unwrap()));
        assert_eq!(limited("192.0.2.1:5"), prefix("192.0.2.1"));
        assert_eq!(limited("[::ffff:192.0.2.1]:5"), prefix("192.0.2.1"));
        assert_eq!(limited("[2001:db8::1]:5"), prefix("2001:db8::1"));
        assert_eq!(Peer::Unix.limited_prefix(), None);
    }

    #[test]
    fn packing_a_peer_keeps_its_address() {
        for text in ["192.0.2.1:1", "[2001:db8::1]:65535", "[fe80::1%3]:80", "[::ffff:192.0.2.1]:1"]
        {
            let peer = Peer::Ip(text.parse().unwrap());
            assert_eq!(Peer::from(PackedPeer::from(peer)), peer);
        }
        assert_eq!(Peer::from(PackedPeer::from(Peer::Unix)), Peer::Unix);
        assert!(size_of::<PackedPeer>() <= 24);
    }
}
