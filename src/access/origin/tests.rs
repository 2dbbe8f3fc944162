use super::*;
use crate::config::Limits;
use crate::http::head;

/// The hosts that a listener accepts which other hosts can reach.
const LOCAL: AcceptedHosts<'_> = AcceptedHosts::Local { is_own: &|name| name == "own.example" };

fn check(
    origins: &[&str],
    hosts: AcceptedHosts<'_>,
    host: &str,
    lines: &str,
    external: ExternalOrigin<'_>,
) -> Result<(), OriginCheckError> {
    let mut allowed = Origins::default();
    for origin in origins {
        allowed.add(origin).unwrap();
    }
    let bytes = format!("GET / HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n");
    let head = head::parse(bytes.as_bytes(), &Limits::default()).expect(lines);
    allowed.check(&head, hosts, external)
}

/// Returns true if a request to `pi:8080` with the header `Origin: origin` passes.
fn passes_at_pi(origins: &[&str], origin: &str) -> bool {
    let line = format!("Origin: {origin}\r\n");
    check(origins, LOCAL, "pi:8080", &line, ExternalOrigin::default()).is_ok()
}

#[test]
fn an_origin_of_another_server_is_refused() {
    for (origin, passes) in [
        ("http://pi:8080", true),
        ("HTTP://PI:8080", true),
        ("https://pi:8080", true),
        ("http://pi:08080", true),
        ("http://pi", false),
        ("http://pi:80", false),
        ("http://pi:8081", false),
        ("http://pi:", false),
        ("http://pi:18080", false),
        ("http://pi:80800", false),
        ("http://pi:8080/", true),
        ("http://pi:8080/page?x#y", true),
        ("http://pi:8080?x", true),
        ("http://pi:8080#x", true),
        ("http://pi:8081/http://pi:8080", false),
        ("http://pi:8080\\@evil.example", false),
        ("http://evil.example?http://pi:8080", false),
        ("http://evil.example#@pi:8080", false),
        ("http://pi:8080@evil.example", false),
        ("http://user@pi:8080", false),
        ("http://pi.evil.example:8080", false),
        ("http://evil.example/pi:8080", false),
        ("http://evil-pi:8080", false),
        ("http://pi.:8080", false),
        ("http://p:8080", false),
        ("http://:8080", false),
        ("http://", false),
        ("http:", false),
        ("//pi:8080", false),
        ("://pi:8080", false),
        ("pi:8080", false),
        ("pi", false),
        ("null", false),
        ("NULL", false),
        ("", false),
        ("*", false),
        ("file://", false),
        ("file:///page", false),
        ("://", false),
        ("ftp://pi:8080", false),
        ("ws://pi:8080", false),
        ("chrome-extension://abcdefgh", false),
        ("1http://pi:8080", false),
        ("http ://pi:8080", false),
        ("http://pi:8080 http://pi:8080", false),
        ("http://pi:8080, http://pi:8080", false),
        ("http://[pi]:8080", false),
        ("http://[::1]:8080", false),
        ("http://[::1:8080", false),
        ("http://127.0.0.1:8080", false),
        ("http://localhost:8080", false),
    ] {
        assert_eq!(passes_at_pi(&[], origin), passes, "{origin:?}");
    }
}

#[test]
fn an_added_origin_passes_if_scheme_host_and_port_are_the_same() {
    let added = ["https://example.org", "http://[2001:db8::1]:81/", "app://shell", "http://A.b"];
    for (origin, passes) in [
        ("https://example.org", true),
        ("https://EXAMPLE.org:443", true),
        ("http://example.org", false),
        ("https://example.org:444", false),
        ("https://www.example.org", false),
        ("https://example.org.evil.example", false),
        ("http://[2001:db8::1]:81", true),
        ("http://[2001:db8:0:0:0:0:0:1]:81", true),
        ("http://[2001:db8::1]", false),
        ("app://shell", true),
        ("app://shell:1", false),
        ("http://a.B:80", true),
        ("http://pi:8080", true),
        ("null", false),
    ] {
        assert_eq!(passes_at_pi(&added, origin), passes, "{origin:?}");
    }
}

#[test]
fn an_origin_without_a_host_passes_only_by_its_name() {
    for (added, origin, passes) in [
        ("null", "null", true),
        ("null", "NULL", false),
        ("null", "null/", false),
        ("null", "null://", false),
        ("null", "file://", false),
        ("null", "://", false),
        ("null", "", false),
        ("file://", "file://", true),
        ("file://", "FILE:///home/user/page.html", true),
        ("file:///", "file://", true),
        ("file://", "file://host", false),
        ("file://", "null", false),
        ("file://", "file:", false),
        ("file://", "content://", false),
        ("null://", "null", false),
        ("https://example.org/sketch/", "https://example.org", true),
        ("https://Example.org:443/sketch", "https://example.org/other", true),
        ("https://example.org/sketch", "https://example.org:444/sketch", false),
    ] {
        assert_eq!(passes_at_pi(&[added], origin), passes, "{added:?} {origin:?}");
    }
}

#[test]
fn any_allows_every_origin_and_host() {
    for origin in ["http://evil.example", "null", "", "nonsense"] {
        assert!(passes_at_pi(&["any"], origin), "{origin:?}");
    }
    let none = ExternalOrigin::default();
    for hosts in [AcceptedHosts::Loopback, LOCAL, AcceptedHosts::All] {
        assert_eq!(check(&["any"], hosts, "evil.example", "", none), Ok(()));
    }
}

#[test]
fn a_request_passes_without_an_origin_and_is_refused_with_two() {
    let line = "Origin: http://pi:8080\r\n";
    for (lines, expected) in [
        (String::new(), Ok(())),
        (line.to_owned(), Ok(())),
        (line.repeat(2), Err(OriginCheckError::Origin)),
    ] {
        let checked = check(&[], LOCAL, "pi:8080", &lines, ExternalOrigin::default());
        assert_eq!(checked, expected, "{lines}");
    }
}

#[test]
fn a_missing_port_is_the_default_port_of_the_scheme() {
    for (host, origin, passes) in [
        ("pi", "http://pi", true),
        ("pi:80", "http://pi", true),
        ("pi:", "http://pi:80", true),
        ("pi", "https://pi", false),
        ("pi:443", "https://pi", true),
        ("[::1]", "http://[0:0::1]", true),
        ("10.0.0.1", "http://10.0.0.1", true),
    ] {
        let line = format!("Origin: {origin}\r\n");
        let checked = check(&[], LOCAL, host, &line, ExternalOrigin::default());
        assert_eq!(checked.is_ok(), passes, "{host} {origin}");
    }
}

#[test]
fn an_origin_is_compared_with_the_url_of_the_proxy() {
    let (https, all) = (Some("https"), AcceptedHosts::All);
    for (scheme, host, origin, passes) in [
        (https, Some("example.org"), "https://example.org", true),
        (https, Some("example.org"), "http://example.org", false),
        (https, Some("example.org:8443"), "https://example.org:8443", true),
        (None, Some("example.org"), "http://example.org", true),
        (None, Some("example.org"), "https://example.org", false),
        (https, None, "https://pi:8080", true),
        (https, Some("example.org"), "http://pi:8080", false),
        (https, Some("no host"), "http://pi:8080", false),
    ] {
        let line = format!("Origin: {origin}\r\n");
        let external = ExternalOrigin { scheme, host };
        let checked = check(&[], all, "pi:8080", &line, external);
        assert_eq!(checked.is_ok(), passes, "{external:?} {origin}");
    }
}

#[test]
fn on_loopback_the_host_must_be_loopback_or_an_added_origin() {
    for (host, passes) in [
        ("localhost", true),
        ("localhost:8080", true),
        ("LocalHost:1", true),
        ("app.localhost", true),
        ("a.b.localhost:80", true),
        ("127.0.0.1", true),
        ("127.1.2.3:8080", true),
        ("[::1]", true),
        ("[::1]:8080", true),
        ("[0:0:0:0:0:0:0:1]", true),
        ("example.org", true),
        ("example.org:8080", true),
        ("notlocalhost", false),
        ("localhost.evil.example", false),
        ("localhost.", false),
        ("evil.example", false),
        ("127.0.0.1.evil.example", false),
        ("127.0.0.1.nip.io", false),
        ("128.0.0.1", false),
        ("0.0.0.0", false),
        ("127.1", false),
        ("2130706433", false),
        ("192.168.0.2", false),
        ("[::]", false),
        ("[fe80::1]", false),
        ("sub.example.org", false),
    ] {
        let expected = if passes { Ok(()) } else { Err(OriginCheckError::Host) };
        let external = ExternalOrigin { scheme: None, host: Some("localhost") };
        let added = ["https://example.org"];
        let checked = check(&added, AcceptedHosts::Loopback, host, "", external);
        assert_eq!(checked, expected, "{host}");
        assert_eq!(check(&added, AcceptedHosts::All, host, "", external), Ok(()), "{host}");
    }
}

#[test]
fn a_host_that_an_attacker_may_own_is_accepted_only_if_it_is_known() {
    for (host, passes) in [
        ("192.168.0.2", true),
        ("192.0.2.1:8080", true),
        ("[2001:db8::1]:8080", true),
        ("127.0.0.1", true),
        ("localhost:8080", true),
        ("app.localhost", true),
        ("pi", true),
        ("PI:8080", true),
        ("my_pi", true),
        ("pi.local", true),
        ("Pi.LOCAL:8080", true),
        ("a.b.local", true),
        ("pi.lan", true),
        ("pi.internal", true),
        ("pi.home.arpa", true),
        ("own.example", true),
        ("own.example:8080", true),
        ("example.org", true),
        ("EXAMPLE.org:8080", true),
        ("rebind.evil.example", false),
        ("pi.local.evil.example", false),
        ("evil-local.example", false),
        ("pi.mylocal", false),
        (".local", false),
        ("home.arpa", false),
        ("evil.arpa", false),
        ("pi.local.", false),
        ("pi.", false),
        ("own.example.evil.example", false),
        ("www.own.example", false),
        ("www.example.org", false),
        ("192.168.0.2.nip.io", false),
        ("192.168.0.2.", false),
        ("127.1", false),
        ("a%20b", false),
    ] {
        let expected = if passes { Ok(()) } else { Err(OriginCheckError::Host) };
        let checked = check(&["https://example.org"], LOCAL, host, "", ExternalOrigin::default());
        assert_eq!(checked, expected, "{host}");
        // The attacker's page has the origin of the server.
        let line = format!("Origin: http://{host}\r\n");
        let checked =
            check(&["https://example.org"], LOCAL, host, &line, ExternalOrigin::default());
        assert_eq!(checked.is_ok(), passes, "{host}");
    }
}

#[test]
fn the_forwarded_host_counts_instead_of_the_host() {
    for (host, forwarded, passes) in [
        ("evil.example", Some("pi.lan"), true),
        ("evil.example", Some("example.org"), true),
        ("10.0.0.1:8080", Some("evil.example"), false),
        ("pi", Some("own.example:1"), true),
        ("pi", Some("no host"), false),
        ("evil.example", Some("no host"), false),
        ("evil.example", None, false),
        ("pi", None, true),
    ] {
        let external = ExternalOrigin { scheme: None, host: forwarded };
        let checked = check(&["https://example.org"], LOCAL, host, "", external);
        assert_eq!(checked.is_ok(), passes, "{host} {forwarded:?}");
    }
    let head = head::parse(b"GET / HTTP/1.0\r\n\r\n", &Limits::default()).unwrap();
    for (host, passes) in [("pi", true), ("evil.example", false), ("no host", false)] {
        let external = ExternalOrigin { scheme: None, host: Some(host) };
        assert_eq!(Origins::default().check(&head, LOCAL, external).is_ok(), passes, "{host}");
    }
}

#[cfg(feature = "full")]
#[test]
fn a_page_of_another_site_gets_no_stream_and_changes_nothing_without_an_origin() {
    let (events, websocket) = ("Accept: text/event-stream\r\n", "Upgrade: websocket\r\n");
    for (method, lines, is_refused) in [
        ("GET", "", false),
        ("HEAD", "", false),
        ("OPTIONS", "", false),
        ("GET", "Accept: text/html, */*\r\n", false),
        ("GET", events, true),
        ("GET", websocket, true),
        ("POST", "", true),
        ("PUT", "", true),
        ("DELETE", "", true),
    ] {
        for (site, is_cross_site) in [
            ("cross-site", true),
            ("none\r\nSec-Fetch-Site: cross-site", true),
            ("same-site", false),
            ("same-origin", false),
            ("none", false),
        ] {
            for (origin, is_allowed) in
                [("", false), ("Origin: http://a\r\n", true), ("Origin: https://b.c\r\n", true)]
            {
                let lines = format!("Sec-Fetch-Site: {site}\r\n{lines}{origin}");
                let bytes = format!("{method} /t HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
                let head = head::parse(bytes.as_bytes(), &Limits::default()).unwrap();
                let mut origins = Origins::default();
                origins.add("https://b.c").unwrap();
                let none = ExternalOrigin::default();
                let expected = match is_refused && is_cross_site && !is_allowed {
                    true => Err(OriginCheckError::Origin),
                    false => Ok(()),
                };
                assert_eq!(origins.check(&head, LOCAL, none), expected, "{method} {lines}");
                origins.add("any").unwrap();
                assert_eq!(origins.check(&head, LOCAL, none), Ok(()), "{method} {lines}");
            }
        }
    }
}

#[test]
fn a_request_without_a_host_passes_but_not_with_a_foreign_origin() {
    for (lines, expected) in [
        ("", Ok(())),
        ("Origin: http://friend.example\r\n", Ok(())),
        ("Origin: http://localhost\r\n", Err(OriginCheckError::Origin)),
        ("Origin: null\r\n", Err(OriginCheckError::Origin)),
    ] {
        let bytes = format!("GET / HTTP/1.0\r\n{lines}\r\n");
        let head = head::parse(bytes.as_bytes(), &Limits::default()).expect(lines);
        let mut origins = Origins::default();
        origins.add("http://friend.example").unwrap();
        for hosts in [AcceptedHosts::Loopback, LOCAL, AcceptedHosts::All] {
            let checked = origins.check(&head, hosts, ExternalOrigin::default());
            assert_eq!(checked, expected, "{lines:?}");
        }
    }
}

#[test]
fn a_text_that_is_not_an_origin_is_not_added() {
    for text in ["NULL", "", "pi", "http://", "file:", "://", "http://a:b", "http://a:65536", "Any"]
    {
        let error = Origins::default().add(text).unwrap_err().to_string();
        assert!(error.contains(&format!("`{text}`")) && error.contains("SCHEME://"), "{error}");
    }
}
