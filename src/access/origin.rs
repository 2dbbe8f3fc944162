//! Which pages may talk to the server, and by which names it may be called.
//!
//! A browser sends a page's requests wherever the page likes, with what the user may do there. It says
//! where the page came from (RFC 6454), and that must be here. A name that an attacker's name server
//! points at this host would make it *here* (DNS rebinding): on loopback only loopback's own names count.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::counters::Refusal;
use crate::escaped::Escaped;
use crate::http::{RequestHead, Response};
use crate::net::Reach;

/// The origins whose pages may talk to the server beside its own. Default none.
///
/// ```
/// use falconet::Origins;
///
/// let mut origins = Origins::default();
/// origins.add("https://example.org")?;
/// assert!(origins.add("null").is_err());
/// # Ok::<(), falconet::OriginError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    is_any: bool,
    /// As they were given, each one an origin.
    added: Vec<String>,
}

impl Origins {
    /// Adds an origin such as `https://example.org` or `http://pi:8080`; with `any`, every page may talk
    /// to the server, by whatever name it calls it.
    ///
    /// # Errors
    /// [`OriginError`], if it is none.
    pub fn add(&mut self, text: &str) -> Result<(), OriginError> {
        let origin = text.strip_suffix('/').unwrap_or(text);
        if text == "any" {
            self.is_any = true;
        } else if Origin::parse(origin).is_some() {
            self.added.push(origin.to_ascii_lowercase());
        } else {
            return Err(OriginError { text: text.to_owned() });
        }
        Ok(())
    }

    /// Lets a request pass whose page and whose name for the server are right. `outside` is how a trusted
    /// proxy was asked.
    ///
    /// # Errors
    /// [`Foreign`], for the first thing that is wrong.
    pub(crate) fn check(
        &self,
        head: &RequestHead<'_>,
        reach: Reach,
        outside: Outside<'_>,
    ) -> Result<(), Foreign> {
        if self.is_any {
            return Ok(());
        }
        let host = head.single("host").and_then(Authority::parse_bytes);
        if reach == Reach::Loopback && !host.is_some_and(|host| self.is_ours(host)) {
            return Err(Foreign::Host);
        }
        let mut values = head.values("origin");
        let Some(value) = values.next() else { return Ok(()) };
        let here = outside.host.and_then(Authority::parse).or(host);
        let scheme = outside.scheme.unwrap_or("http");
        let is_known = values.next().is_none()
            && str::from_utf8(value).ok().and_then(Origin::parse).is_some_and(|origin| {
                here.is_some_and(|here| origin.is_at(here, scheme))
                    || self.added().any(|o| o == origin)
            });
        if is_known { Ok(()) } else { Err(Foreign::Origin) }
    }

    /// Whether a host that only this host can reach goes by this name.
    fn is_ours(&self, host: Authority<'_>) -> bool {
        host.is_loopback() || self.added().any(|origin| origin.authority.has_name_of(host))
    }

    fn added(&self) -> impl Iterator<Item = Origin<'_>> {
        self.added.iter().filter_map(|text| Origin::parse(text))
    }
}

impl fmt::Display for Origins {
    /// The origins, with spaces between.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let any = self.is_any.then_some("any");
        let texts: Vec<&str> =
            any.into_iter().chain(self.added.iter().map(String::as_str)).collect();
        f.write_str(&texts.join(" "))
    }
}

/// Lets a request pass that no page from elsewhere has sent, as far as a browser says so (Fetch Metadata):
/// one that is only meant to look takes a place as well. A person who follows a link to the first page
/// may.
///
/// # Errors
/// [`Foreign::Site`].
pub(super) fn check_site(head: &RequestHead<'_>) -> Result<(), Foreign> {
    let mut sites = head.values("sec-fetch-site");
    let is_from_here = match (sites.next(), sites.next()) {
        (site, None) => matches!(site, None | Some(b"none" | b"same-origin")),
        _ => false,
    };
    let is_visit = head.method() == "GET"
        && head.path() == "/"
        && head.single("sec-fetch-mode") == Some(b"navigate")
        && head.single("sec-fetch-dest") == Some(b"document");
    if is_from_here || is_visit { Ok(()) } else { Err(Foreign::Site) }
}

/// A text that is no origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginError {
    text: String,
}

impl fmt::Display for OriginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = Escaped(&self.text);
        write!(f, "`{text}` is no origin: expected SCHEME://HOST[:PORT] without a path, or any")
    }
}

impl std::error::Error for OriginError {}

/// How a trusted proxy was asked, as far as it says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outside<'a> {
    pub(crate) scheme: Option<&'a str>,
    pub(crate) host: Option<&'a str>,
}

/// Why a request is not for this server, or not from its pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Foreign {
    /// The Host is no name of this host (DNS rebinding).
    Host,
    /// The Origin is another server's.
    Origin,
    /// It was sent for a page of another server, in whatever way.
    Site,
}

impl Foreign {
    /// What it is counted as.
    pub(crate) fn refusal(self) -> Refusal {
        match self {
            Self::Host => Refusal::Host,
            Self::Origin | Self::Site => Refusal::Origin,
        }
    }

    /// What the peer gets.
    pub(crate) fn response(self) -> Response {
        Response::text(403, format!("{self}\n"))
    }
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "this server does not go by that name (see --origin)",
            Self::Origin => "pages from elsewhere may not do this (see --origin)",
            Self::Site => "pages from elsewhere may not do this",
        })
    }
}

impl std::error::Error for Foreign {}

/// A scheme, a host and a port (RFC 6454 §4).
#[derive(Clone, Copy, Debug)]
struct Origin<'a> {
    scheme: &'a str,
    authority: Authority<'a>,
}

impl<'a> Origin<'a> {
    /// Reads one as browsers write it (RFC 6454 §6.2); `null` is none.
    fn parse(text: &'a str) -> Option<Self> {
        let (scheme, rest) = text.split_once(':')?;
        let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        let authority = Authority::parse(rest.strip_prefix("//")?)
            .filter(|_| is_scheme && !text.ends_with(':'))?;
        Some(Self { scheme, authority })
    }

    fn port(&self) -> Option<u16> {
        self.authority.port.or(default_port(self.scheme))
    }

    /// Whether its pages come from `here`, which is asked for by `scheme` where no port is said.
    fn is_at(&self, here: Authority<'_>, scheme: &str) -> bool {
        default_port(self.scheme).is_some()
            && self.authority.has_name_of(here)
            && self.port() == here.port.or(default_port(scheme))
    }
}

impl PartialEq for Origin<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.scheme.eq_ignore_ascii_case(other.scheme)
            && self.authority.has_name_of(other.authority)
            && self.port() == other.port()
    }
}

/// The port where the URL of a page says none.
fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        scheme if scheme.eq_ignore_ascii_case("http") => Some(80),
        scheme if scheme.eq_ignore_ascii_case("https") => Some(443),
        _ => None,
    }
}

/// A host and perhaps a port.
#[derive(Clone, Copy, Debug)]
struct Authority<'a> {
    /// A name, an IPv4 address, or an IPv6 address in its brackets.
    name: &'a str,
    port: Option<u16>,
}

impl<'a> Authority<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let name_end = match text.strip_prefix('[') {
            Some(_) => text.find(']')? + 1,
            None => text.find(':').unwrap_or(text.len()),
        };
        let (name, port) = text.split_at(name_end);
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        let authority = Self {
            name,
            port: match port.strip_prefix(':') {
                // An empty port is the default one (RFC 3986 §3.2.3).
                Some("") => None,
                Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                    Some(digits.parse().ok()?)
                }
                None if port.is_empty() => None,
                _ => return None,
            },
        };
        let is_host = !name.is_empty() && name.bytes().all(is_name);
        (is_host || authority.address().is_some()).then_some(authority)
    }

    fn parse_bytes(bytes: &'a [u8]) -> Option<Self> {
        str::from_utf8(bytes).ok().and_then(Self::parse)
    }

    fn address(&self) -> Option<IpAddr> {
        match self.name.strip_prefix('[') {
            Some(bare) => bare.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            None => self.name.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        }
    }

    fn has_name_of(&self, other: Authority<'_>) -> bool {
        self.name.eq_ignore_ascii_case(other.name)
            || self.address().is_some_and(|address| other.address() == Some(address))
    }

    /// Whether no name server but this host's own decides where it leads (RFC 6761 §6.3).
    fn is_loopback(&self) -> bool {
        let last = self.name.rsplit('.').next().unwrap_or_default();
        last.eq_ignore_ascii_case("localhost")
            || self.address().is_some_and(|address| address.is_loopback())
    }
}

#[cfg(test)]
mod tests;
