//! Checks of the Origin header and of the requested host: which pages may use the server, and under which
//! names.
//!
//! A browser sends a page's requests to any server that the page names, with the rights that the
//! user has there. The browser adds the origin of the page (RFC 6454). This origin must be this
//! server. An attacker can make a DNS name lead to this host, so that the attacker's page has the
//! origin of this server (DNS rebinding). Therefore a loopback listener accepts only loopback names
//! and the names of added origins. A listener that other hosts can reach accepts only names that an
//! attacker on the Internet can't own, unless tokens protect it. A request without a Host passes: it
//! is HTTP/1.0, which no browser sends.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::counters::Refusal;
use crate::escaped::Escaped;
use crate::features::Feature;
use crate::http::accept::asks_for_events;
use crate::http::head::split_scheme;
use crate::http::{RequestHead, Response};

/// The origins whose pages may use the server, besides the server's own pages. Default: none.
///
/// ```
/// use falconet::Origins;
///
/// let mut origins = Origins::default();
/// origins.add("https://example.org")?;
/// origins.add("file://")?;
/// assert!(origins.add("example.org").is_err());
/// # Ok::<(), falconet::OriginError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    is_any: bool,
    /// Without paths. Each can be parsed as an [`Origin`].
    added: Vec<String>,
}

impl Origins {
    /// Adds an origin such as `https://example.org` or `http://pi:8080`. A path after it is ignored.
    ///
    /// An origin without a host, such as `file://`, is what some apps and microcontrollers send.
    /// `null` stands for every page without an origin: files that a browser opened, but also each
    /// page that uses a sandboxed frame. With `any`, every page may use the server, under any name.
    ///
    /// # Errors
    /// [`OriginError`], if `text` is none of these.
    pub fn add(&mut self, text: &str) -> Result<(), OriginError> {
        if text == "any" {
            self.is_any = true;
        } else if Origin::parse(text).is_some() {
            self.added.push(without_path(text).to_owned());
        } else {
            return Err(OriginError { text: text.to_owned() });
        }
        Ok(())
    }

    /// Returns true if `null` was added.
    pub fn includes_null(&self) -> bool {
        self.added.iter().any(|origin| origin == Origin::NULL_TEXT)
    }

    /// Returns true if every page may use the server.
    pub(super) fn is_any(&self) -> bool {
        self.is_any
    }

    /// Returns true if an origin was added by its name.
    pub(super) fn has_named(&self) -> bool {
        !self.added.is_empty()
    }

    /// Returns the value of an Origin header if its pages may use the server. The origin of the
    /// server's own pages is not known here, and counts as any other. A value with a control
    /// character, which could end a header line, is not returned.
    pub(super) fn allowed<'o>(&self, origin: &'o [u8]) -> Option<&'o str> {
        let text = str::from_utf8(origin).ok().filter(|text| !text.contains(char::is_control))?;
        let is_allowed =
            self.is_any || Origin::parse(text).is_some_and(|origin| self.includes(origin));
        is_allowed.then_some(text)
    }

    /// Checks that a request is for a host that the listener accepts, and that it was not sent by a page of
    /// another origin. `external` is the origin under which the client reached the server or a trusted proxy.
    ///
    /// # Errors
    /// [`OriginCheckError`], for the first check that fails.
    pub(crate) fn check(
        &self,
        head: &RequestHead<'_>,
        hosts: AcceptedHosts<'_>,
        external: ExternalOrigin<'_>,
    ) -> Result<(), OriginCheckError> {
        if self.is_any {
            return Ok(());
        }
        let host = head.host().and_then(Authority::parse_bytes);
        // A host that a proxy names, but that can't be parsed, must not be replaced by the proxy's own.
        let here = external.host.map_or(host, Authority::parse);
        let is_added =
            |host: Authority<'_>| self.added().any(|origin| origin.authority.has_same_host(host));
        let is_accepted = match hosts {
            AcceptedHosts::All => true,
            AcceptedHosts::Loopback => {
                head.host().is_none()
                    || host.is_some_and(|host| host.is_loopback() || is_added(host))
            }
            AcceptedHosts::Local { is_own } => {
                let is_accepted =
                    |host: Authority<'_>| host.is_local() || is_added(host) || is_own(host.name);
                head.host().is_none() && external.host.is_none() || here.is_some_and(is_accepted)
            }
        };
        if !is_accepted {
            return Err(OriginCheckError::Host);
        }
        let mut values = head.values("origin");
        let Some(value) = values.next() else {
            return match Feature::Full.is_built_in() && is_hidden_cross_site(head) {
                true => Err(OriginCheckError::Origin),
                false => Ok(()),
            };
        };
        let scheme = external.scheme.unwrap_or("http");
        let is_known = values.next().is_none()
            && str::from_utf8(value).ok().and_then(Origin::parse).is_some_and(|origin| {
                here.is_some_and(|here| origin.is_served_at(here, scheme)) || self.includes(origin)
            });
        if is_known { Ok(()) } else { Err(OriginCheckError::Origin) }
    }

    fn includes(&self, origin: Origin<'_>) -> bool {
        self.added().any(|added| added == origin)
    }

    /// Returns the added origins, parsed.
    fn added(&self) -> impl Iterator<Item = Origin<'_>> {
        self.added.iter().filter_map(|text| Origin::parse(text))
    }
}

impl fmt::Display for Origins {
    /// Writes the origins, separated by spaces.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let any = self.is_any.then_some("any");
        let texts: Vec<&str> =
            any.into_iter().chain(self.added.iter().map(String::as_str)).collect();
        f.write_str(&texts.join(" "))
    }
}

/// Returns true if a page of another site asks for a stream or for a change, according to the browser's Fetch
/// Metadata headers, but the request has no Origin. Browsers send an Origin with such requests; this is for
/// those that do not. A link to a file or to the newest message of a topic is no such request.
fn is_hidden_cross_site(head: &RequestHead<'_>) -> bool {
    let only_reads = matches!(head.method(), "GET" | "HEAD" | "OPTIONS")
        && !head.wants_websocket()
        && !asks_for_events(head);
    !only_reads && head.values("sec-fetch-site").any(|site| site == b"cross-site")
}

/// Refuses a request that a page of another origin caused, according to the browser's Fetch
/// Metadata headers. Requests that only read are refused, too, because each takes one of the
/// administrator's few connections. A link to the first page is an exception: a user may follow it.
///
/// # Errors
/// [`OriginCheckError::Site`].
pub(super) fn check_site(head: &RequestHead<'_>) -> Result<(), OriginCheckError> {
    let mut sites = head.values("sec-fetch-site");
    let is_same_origin = match (sites.next(), sites.next()) {
        (site, None) => matches!(site, None | Some(b"none" | b"same-origin")),
        _ => false,
    };
    let is_link_to_first_page = head.method() == "GET"
        && head.path() == "/"
        && head.single("sec-fetch-mode") == Some(b"navigate")
        && head.single("sec-fetch-dest") == Some(b"document");
    if is_same_origin || is_link_to_first_page { Ok(()) } else { Err(OriginCheckError::Site) }
}

/// The error that a text is not an origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginError {
    text: String,
}

impl fmt::Display for OriginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = Escaped(&self.text);
        write!(f, "`{text}` is not an origin: expected SCHEME://HOST[:PORT], file://, null or any")
    }
}

impl std::error::Error for OriginError {}

/// The scheme and host under which the client reached the server or a trusted proxy. `None` stands
/// for `http` and for the [requested host](RequestHead::host).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ExternalOrigin<'a> {
    pub(crate) scheme: Option<&'a str>,
    pub(crate) host: Option<&'a str>,
}

/// The hosts that a listener accepts in requests, besides those of added origins.
#[derive(Clone, Copy)]
pub(crate) enum AcceptedHosts<'a> {
    /// All hosts: a page can't reach the listener, or tokens protect it.
    All,
    /// Names and addresses of loopback.
    Loopback,
    /// Addresses, names that no name server on the Internet can make lead to this host, and names for which
    /// `is_own` returns true.
    Local { is_own: &'a dyn Fn(&str) -> bool },
}

/// The reason why a request is not for this server, or was not sent by one of its pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OriginCheckError {
    /// The requested host is not a name of this host (DNS rebinding).
    Host,
    /// The Origin header is that of another origin.
    Origin,
    /// A page of another origin caused the request, according to the Fetch Metadata headers.
    Site,
}

impl OriginCheckError {
    /// Returns the reason for the counters.
    pub(crate) fn refusal(self) -> Refusal {
        match self {
            Self::Host => Refusal::Host,
            Self::Origin | Self::Site => Refusal::Origin,
        }
    }

    /// Returns the response for the peer.
    pub(crate) fn response(self) -> Response {
        Response::text(403, format!("{self}\n"))
    }
}

impl fmt::Display for OriginCheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => {
                "the requested host is not a name of this server (to allow it: --origin SCHEME://HOST)"
            }
            Self::Origin => "pages of other origins may not do this (see --origin)",
            Self::Site => "pages of other origins may not do this",
        })
    }
}

impl std::error::Error for OriginCheckError {}

/// An origin: a scheme, a host and a port (RFC 6454 §4).
#[derive(Clone, Copy, Debug)]
struct Origin<'a> {
    /// Empty in [`Origin::NULL`].
    scheme: &'a str,
    /// [`Authority::NONE`] in origins such as `file://`.
    authority: Authority<'a>,
}

impl<'a> Origin<'a> {
    /// The origin of pages that share theirs with no other page.
    const NULL: Self = Self { scheme: "", authority: Authority::NONE };
    const NULL_TEXT: &'static str = "null";

    /// Parses an origin in the form that browsers send (RFC 6454 §6.2). Libraries for
    /// microcontrollers send a URL instead, whose path and query are ignored.
    fn parse(text: &'a str) -> Option<Self> {
        if text == Self::NULL_TEXT {
            return Some(Self::NULL);
        }
        let (scheme, host) = split_scheme(without_path(text))?;
        let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        let authority = match host {
            "" if default_port(scheme).is_none() => Authority::NONE,
            host => Authority::parse(host).filter(|_| !host.ends_with(':'))?,
        };
        is_scheme.then_some(Self { scheme, authority })
    }

    fn port(&self) -> Option<u16> {
        self.authority.port.or(default_port(self.scheme))
    }

    /// Returns true if `here` serves the pages of this origin. If `here` has no port, it is the
    /// default port of `scheme`.
    fn is_served_at(&self, here: Authority<'_>, scheme: &str) -> bool {
        default_port(self.scheme).is_some()
            && self.authority.has_same_host(here)
            && self.port() == here.port.or(default_port(scheme))
    }
}

impl PartialEq for Origin<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.scheme.eq_ignore_ascii_case(other.scheme)
            && self.authority.has_same_host(other.authority)
            && self.port() == other.port()
    }
}

/// Returns the part of a URL before its path.
fn without_path(url: &str) -> &str {
    let host = split_scheme(url).map_or(url.len(), |(scheme, _)| scheme.len() + "://".len());
    let length = url[host..].find(['/', '?', '#']);
    length.map_or(url, |length| &url[..host + length])
}

/// Returns the port of a URL that names no port.
fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        scheme if scheme.eq_ignore_ascii_case("http") => Some(80),
        scheme if scheme.eq_ignore_ascii_case("https") => Some(443),
        _ => None,
    }
}

/// A host with an optional port.
#[derive(Clone, Copy, Debug)]
struct Authority<'a> {
    /// A name, an IPv4 address, or an IPv6 address in brackets.
    name: &'a str,
    port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// No host. [`Authority::parse`] never returns it.
    const NONE: Self = Self { name: "", port: None };

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

    /// Returns true if both have the same name or the same address. Ports are not compared.
    fn has_same_host(&self, other: Authority<'_>) -> bool {
        self.name.eq_ignore_ascii_case(other.name)
            || self.address().is_some_and(|address| other.address() == Some(address))
    }

    /// Returns true if the host is an address or a name that DNS servers on the Internet can't make
    /// lead to this host, and so no attacker who owns a name there: one without a dot, or one in a
    /// domain for local networks.
    fn is_local(&self) -> bool {
        let in_domain = |domain: &&str| {
            let at = self.name.len().checked_sub(domain.len());
            at.is_some_and(|at| {
                at > 0 && self.name.as_bytes()[at..].eq_ignore_ascii_case(domain.as_bytes())
            })
        };
        self.address().is_some() || !self.name.contains('.') || LOCAL_DOMAINS.iter().any(in_domain)
    }

    /// Returns true if the host is a loopback address or a name in the domain `localhost`. Name
    /// servers on other hosts can't make such a name lead to another host (RFC 6761 §6.3).
    fn is_loopback(&self) -> bool {
        let last = self.name.rsplit('.').next().unwrap_or_default();
        last.eq_ignore_ascii_case("localhost")
            || self.address().is_some_and(|address| address.is_loopback())
    }
}

/// The domains for local networks, each with the dot before it (RFC 6761, RFC 6762, RFC 8375; ICANN has
/// reserved `internal`; `lan` is what many routers use).
const LOCAL_DOMAINS: [&str; 5] = [".local", ".lan", ".internal", ".home.arpa", ".localhost"];

#[cfg(test)]
mod tests;
