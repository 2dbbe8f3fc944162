//! The entry points for fuzzing of the access rules. An input is a text, a byte 0, and the head of a request.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::config::Limits;
use crate::http::RequestHead;
use crate::http::head;
use crate::net::Peer;

use super::origin::{AcceptedHosts, ExternalOrigin, Origins, check_site};
use super::proxies::{TrustedProxies, TrustedProxy, external_origin, is_forwarded};
use super::{cors, tokens};

/// Reads a file of tokens, and looks for the token of a request.
pub(crate) fn tokens(input: &[u8]) {
    let (file, head) = split(input);
    if let Ok(file) = str::from_utf8(file) {
        tokens::fuzz::tokens(file, head::parse(head, &Limits::default()).ok().as_ref());
    }
}

/// Reads origins and proxies, one on each line, and checks a request against them.
pub(crate) fn origins(input: &[u8]) {
    let (lines, head) = split(input);
    let (mut origins, mut proxies) = (Origins::default(), TrustedProxies::default());
    for line in str::from_utf8(lines).unwrap_or_default().lines() {
        if let Ok(proxy) = line.parse::<TrustedProxy>() {
            assert_eq!(proxy.to_string().parse(), Ok(proxy));
            proxies.add(proxy);
        } else {
            let _ = origins.add(line);
        }
    }
    let mut again = Origins::default();
    for origin in origins.to_string().split_whitespace() {
        assert_eq!(again.add(origin), Ok(()));
    }
    assert_eq!(again, origins);
    if let Ok(head) = head::parse(head, &Limits::default()) {
        check(&origins, &proxies, &head);
    }
}

fn check(origins: &Origins, proxies: &TrustedProxies, head: &RequestHead<'_>) {
    let peer = Peer::Ip(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1));
    let _ = (proxies.client_of(peer, head), is_forwarded(head), check_site(head));
    let is_own = |name: &str| name == "own.example";
    for hosts in
        [AcceptedHosts::All, AcceptedHosts::Loopback, AcceptedHosts::Local { is_own: &is_own }]
    {
        let _ = origins.check(head, hosts, external_origin(head));
    }
    let origin = head.values("origin").next();
    // A page may have any origin if the Host is no name, but an address that can be written in several ways.
    if let Some(origin) = origin
        && let Some(name) = head.host().and_then(|host| host.split(|byte| *byte == b':').next())
        && !name.starts_with(b"[")
        && Origins::default().check(head, AcceptedHosts::All, ExternalOrigin::default()).is_ok()
    {
        let (origin, name) = (origin.to_ascii_lowercase(), name.to_ascii_lowercase());
        assert!(origin.windows(name.len()).any(|part| part == name), "{head:?}");
    }
    for has_authorizer in [false, true] {
        let lines = cors::header_lines(origins, origin, has_authorizer);
        for line in lines.split_terminator("\r\n") {
            assert!(line.contains(": ") && !line.contains(char::is_control), "{lines:?}");
        }
        assert!(lines.is_empty() || lines.ends_with("\r\n"), "{lines:?}");
    }
}

/// Splits an input at its first byte 0.
fn split(input: &[u8]) -> (&[u8], &[u8]) {
    let end = input.iter().position(|byte| *byte == 0).unwrap_or(input.len());
    (&input[..end], input.get(end + 1..).unwrap_or_default())
}
