//! A table of request heads, each with its expected outcome.

use std::io::ErrorKind::{ConnectionReset, UnexpectedEof};
use std::io::{Read, Write};

use crate::support::*;

use Verdict::{Dropped, Status, Upgraded};

/// The outcome of a request head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// The response 101.
    Upgraded,
    /// Another response.
    Status(u16),
    /// The end of the stream without a response.
    Dropped,
}

#[test]
fn every_head_has_its_expected_outcome() {
    let falconet = Falconet::start(NO_BROADCAST);
    assert_verdicts(|head| judge(&falconet, [head], || {}), |verdict| verdict);
}

#[test]
fn a_head_in_two_pieces_has_the_same_outcome() {
    let falconet = Falconet::start(NO_BROADCAST);
    let mut barrier = Client::connect(falconet.address());
    for (numerator, denominator) in [(0, 1), (1, 3), (1, 2), (2, 3), (1, 1)] {
        let mut in_two = |head: &[u8]| {
            // Both pieces have at least one byte.
            let (one, other) = head.split_at(1 + (head.len() - 2) * numerator / denominator);
            judge(&falconet, [one, other], || wait_until_read(&mut barrier))
        };
        assert_verdicts(&mut in_two, |verdict| verdict);
    }
}

#[test]
fn a_head_byte_by_byte_has_the_same_outcome() {
    let falconet = Falconet::start(NO_BROADCAST);
    let mut barrier = Client::connect(falconet.address());
    let byte_by_byte = |head: &[u8]| {
        // At most 300 pieces, also for long heads.
        let pieces = head.chunks(head.len().div_ceil(300));
        judge(&falconet, pieces, || wait_until_read(&mut barrier))
    };
    assert_verdicts(byte_by_byte, |verdict| verdict);
}

#[test]
fn with_reject_drop_only_refusals_get_no_response() {
    let falconet = Falconet::start(&[NO_BROADCAST, &["--reject", "drop"]].concat());
    let with_drop = |verdict| match verdict {
        Status(400..) => Dropped,
        other => other,
    };
    assert_verdicts(|head| judge(&falconet, [head], || {}), with_drop);
}

#[test]
fn the_table_has_at_least_sixty_heads() {
    assert!(table().len() >= 60, "{}", table().len());
}

/// Checks every head of the table, and reports those with a wrong verdict.
fn assert_verdicts(mut judge: impl FnMut(&[u8]) -> Verdict, expected: impl Fn(Verdict) -> Verdict) {
    let verdicts =
        table().into_iter().map(|(name, head, right)| (name, judge(&head), expected(right)));
    let wrong: Vec<_> = verdicts.filter(|(_, got, right)| got != right).collect();
    assert!(wrong.is_empty(), "name, got, right: {wrong:#?}");
}

/// Sends a head in pieces, calls `pause` between them, and returns the verdict.
fn judge<'p>(
    falconet: &Falconet,
    pieces: impl IntoIterator<Item = &'p [u8]>,
    mut pause: impl FnMut(),
) -> Verdict {
    let mut stream = connect(falconet.address());
    for (index, piece) in pieces.into_iter().enumerate() {
        if index > 0 {
            pause();
        }
        // The server may have refused the head already.
        if stream.write_all(piece).and_then(|()| stream.flush()).is_err() {
            break;
        }
    }
    let mut byte = [0];
    match stream.read_exact(&mut byte) {
        Ok(()) => {}
        Err(error) if matches!(error.kind(), UnexpectedEof | ConnectionReset) => return Dropped,
        Err(error) => panic!("neither a response nor the end of the stream: {error}"),
    }
    let answer = format!("{}{}", char::from(byte[0]), read_response_head(&mut stream));
    match status_of(&answer) {
        101 => {
            Client { stream }.echo("upgraded");
            Upgraded
        }
        status => {
            let is_kept = !answer.contains("\r\nConnection: close\r\n");
            // After these statuses the next request can't be found, so the connection closes.
            assert!(!is_kept || !matches!(status, 414 | 431), "{answer}");
            // Upgrade must be listed in Connection (RFC 9110 §7.8).
            let upgrades = header_of(&answer, "Upgrade").is_some();
            assert_eq!(upgrades, answer.contains("\r\nConnection: Upgrade\r\n"), "{answer}");
            if is_kept {
                stream.write_all(LAST_REQUEST).expect("the connection is kept");
            }
            let mut rest = String::new();
            stream.read_to_string(&mut rest).expect("the stream ends after the body");
            let length = match status {
                204 => "0",
                _ => header_of(&answer, "Content-Length").expect("a length"),
            };
            let (body, last) = match is_kept {
                true => rest.split_once("HTTP/1.1 200 ").expect("the last request has its answer"),
                false => (&*rest, ""),
            };
            // A response to HEAD has no body.
            assert!(body.is_empty() || length == body.len().to_string(), "{answer}");
            assert_eq!(is_kept, last.contains("Connection: close"), "{last}");
            Status(status)
        }
    }
}

/// Returns every head, with a name and its verdict.
fn table() -> Vec<(&'static str, Vec<u8>, Verdict)> {
    let get = |lines: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n").into_bytes();
    let line = |request_line: &str| format!("{request_line}\r\nHost: a\r\n\r\n").into_bytes();
    let host = |host_lines: &str| format!("GET / HTTP/1.1\r\n{host_lines}\r\n").into_bytes();
    let target = |bytes: &[u8]| [b"GET ", bytes, b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
    let raw = |bytes: &[u8]| bytes.to_vec();
    let upgrade = |request_line: &str, lines: &[&str]| {
        format!("{request_line}\r\n{}\r\n\r\n", lines.join("\r\n")).into_bytes()
    };
    let upgrade_with = |lines: &[&str]| upgrade("GET / HTTP/1.1", lines);
    let filled_to = |bytes: usize| {
        let head = get("X-Filler: \r\n");
        get(&format!("X-Filler: {}\r\n", "x".repeat(bytes - head.len())))
    };
    let headers = |count: usize| get(&"X-One-Of: many\r\n".repeat(count - 1));
    let target_of = |bytes: usize| target(format!("/{}", "x".repeat(bytes - 1)).as_bytes());
    const CONNECTION: &str = "Connection: Upgrade";
    const UPGRADE: &str = "Upgrade: websocket";
    const VERSION: &str = "Sec-WebSocket-Version: 13";
    const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    const HOST: &str = "Host: a";
    vec![
        // Valid requests.
        ("a page", get(""), Status(200)),
        ("an unknown path", line("GET /nothing HTTP/1.1"), Status(404)),
        ("a query", line("GET /?a=b&c HTTP/1.1"), Status(200)),
        ("absolute form", line("GET http://a/ HTTP/1.1"), Status(200)),
        ("absolute form in capitals", line("GET HTTP://A/ HTTP/1.1"), Status(200)),
        ("absolute form without a path", line("GET http://a HTTP/1.1"), Status(200)),
        ("absolute form with a query only", line("GET http://a?b HTTP/1.1"), Status(200)),
        (
            "absolute form of a host that is not that of Host",
            upgrade("GET http://localhost:80/ HTTP/1.1", &["Host: b"]),
            Status(200),
        ),
        ("an escape in the path", line("GET /%61pp.js HTTP/1.1"), Status(200)),
        ("an encoded dot segment", line("GET /%2e HTTP/1.1"), Status(404)),
        ("an encoded control character", line("GET /%00 HTTP/1.1"), Status(404)),
        ("an escape that is not UTF-8", line("GET /%ff HTTP/1.1"), Status(404)),
        ("HTTP/1.0", line("GET / HTTP/1.0"), Status(200)),
        ("HTTP/1.0 without a host", raw(b"GET / HTTP/1.0\r\n\r\n"), Status(200)),
        ("OPTIONS", line("OPTIONS / HTTP/1.1"), Status(204)),
        ("OPTIONS of the server", line("OPTIONS * HTTP/1.1"), Status(204)),
        ("one empty line before", [raw(b"\r\n"), get("")].concat(), Status(200)),
        ("no space after a colon", get("X-Tight:x\r\n"), Status(200)),
        ("an empty value", get("X-Empty:\r\n"), Status(200)),
        (
            "bytes beyond ASCII in a header that is not used",
            host("Host: a\r\nX-N: \u{e9}\r\n"),
            Status(200),
        ),
        ("a tab in a value", get("X-Tab: a\tb\r\n"), Status(200)),
        ("a GET with an empty body", get("Content-Length: 0\r\n"), Status(200)),
        ("16 KiB", filled_to(16_384), Status(200)),
        ("a target of 2 KiB", target_of(2048), Status(404)),
        ("64 headers", headers(64), Status(200)),
        // Valid upgrades.
        ("an upgrade", upgrade_with(&[HOST, CONNECTION, UPGRADE, VERSION, KEY]), Upgraded),
        ("in another order", upgrade_with(&[KEY, VERSION, UPGRADE, CONNECTION, HOST]), Upgraded),
        (
            "in another case",
            upgrade_with(&["hOST: a", "CONNECTION: uPGRADE", "upgrade: WebSocket", VERSION, KEY]),
            Upgraded,
        ),
        (
            "in a list",
            upgrade_with(&[HOST, "Connection: keep-alive, Upgrade", UPGRADE, VERSION, KEY]),
            Upgraded,
        ),
        (
            "in a list of two lines",
            upgrade_with(&[HOST, "Connection: keep-alive", CONNECTION, UPGRADE, VERSION, KEY]),
            Upgraded,
        ),
        (
            "one of two protocols",
            upgrade_with(&[HOST, CONNECTION, "Upgrade: h2c, websocket", VERSION, KEY]),
            Upgraded,
        ),
        (
            "with white space around values",
            upgrade_with(&[
                HOST,
                "Connection:\t Upgrade \t",
                UPGRADE,
                "Sec-WebSocket-Version:13",
                KEY,
            ]),
            Upgraded,
        ),
        (
            "with a query and an origin",
            upgrade(
                "GET /?a HTTP/1.1",
                &[HOST, "Origin: http://a", CONNECTION, UPGRADE, VERSION, KEY],
            ),
            Upgraded,
        ),
        (
            "in absolute form",
            upgrade("GET http://a/ HTTP/1.1", &[HOST, CONNECTION, UPGRADE, VERSION, KEY]),
            Upgraded,
        ),
        // Invalid upgrades.
        ("no Connection", upgrade_with(&[HOST, UPGRADE, VERSION, KEY]), Status(400)),
        (
            "a Connection without the token upgrade",
            upgrade_with(&[HOST, "Connection: upgraded", UPGRADE, VERSION, KEY]),
            Status(400),
        ),
        // Requests without an upgrade to WebSocket get the page.
        ("no Upgrade", upgrade_with(&[HOST, CONNECTION, VERSION, KEY]), Status(200)),
        (
            "another protocol",
            upgrade_with(&[HOST, CONNECTION, "Upgrade: h2c", VERSION, KEY]),
            Status(200),
        ),
        (
            "a protocol that only begins with websocket",
            upgrade_with(&[HOST, CONNECTION, "Upgrade: websockets", VERSION, KEY]),
            Status(200),
        ),
        (
            "an upgrade at an unknown path",
            upgrade("GET /nothing HTTP/1.1", &[HOST, CONNECTION, UPGRADE, VERSION, KEY]),
            Status(404),
        ),
        (
            "HTTP/1.0 upgrade",
            upgrade("GET / HTTP/1.0", &[HOST, CONNECTION, UPGRADE, VERSION, KEY]),
            Status(400),
        ),
        (
            "POST upgrade",
            upgrade("POST / HTTP/1.1", &[HOST, CONNECTION, UPGRADE, VERSION, KEY]),
            Status(405),
        ),
        (
            "HEAD upgrade",
            upgrade("HEAD / HTTP/1.1", &[HOST, CONNECTION, UPGRADE, VERSION, KEY]),
            Status(405),
        ),
        ("no version", upgrade_with(&[HOST, CONNECTION, UPGRADE, KEY]), Status(426)),
        (
            "version 12",
            upgrade_with(&[HOST, CONNECTION, UPGRADE, "Sec-WebSocket-Version: 12", KEY]),
            Status(426),
        ),
        (
            "version 013",
            upgrade_with(&[HOST, CONNECTION, UPGRADE, "Sec-WebSocket-Version: 013", KEY]),
            Status(426),
        ),
        (
            "a list of versions",
            upgrade_with(&[HOST, CONNECTION, UPGRADE, "Sec-WebSocket-Version: 8, 13", KEY]),
            Status(426),
        ),
        (
            "two versions",
            upgrade_with(&[HOST, CONNECTION, UPGRADE, VERSION, VERSION, KEY]),
            Status(426),
        ),
        ("no key", upgrade_with(&[HOST, CONNECTION, UPGRADE, VERSION]), Status(400)),
        ("two keys", upgrade_with(&[HOST, CONNECTION, UPGRADE, VERSION, KEY, KEY]), Status(400)),
        (
            "an empty key",
            upgrade_with(&[HOST, CONNECTION, UPGRADE, VERSION, "Sec-WebSocket-Key:"]),
            Status(400),
        ),
        (
            "a key of 15 bytes",
            upgrade_with(&[
                HOST,
                CONNECTION,
                UPGRADE,
                VERSION,
                "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAA",
            ]),
            Status(400),
        ),
        (
            "a key of 17 bytes",
            upgrade_with(&[
                HOST,
                CONNECTION,
                UPGRADE,
                VERSION,
                "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAAA=",
            ]),
            Status(400),
        ),
        (
            "a key without padding",
            upgrade_with(&[
                HOST,
                CONNECTION,
                UPGRADE,
                VERSION,
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ",
            ]),
            Status(400),
        ),
        (
            "a key that is no base64",
            upgrade_with(&[
                HOST,
                CONNECTION,
                UPGRADE,
                VERSION,
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j!!==",
            ]),
            Status(400),
        ),
        (
            "an upgrade with a body",
            upgrade_with(&[HOST, CONNECTION, UPGRADE, VERSION, KEY, "Content-Length: 1"]),
            Status(400),
        ),
        (
            "an upgrade without a host",
            upgrade_with(&[CONNECTION, UPGRADE, VERSION, KEY]),
            Status(400),
        ),
        // Malformed HTTP, and other protocols.
        ("bare line feeds", raw(b"GET / HTTP/1.1\nHost: a\n\n"), Status(400)),
        ("one bare line feed", raw(b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n"), Status(400)),
        ("a bare line feed at the end", raw(b"GET / HTTP/1.1\r\nHost: a\r\n\n"), Status(400)),
        ("a bare line feed before", [raw(b"\n"), get("")].concat(), Dropped),
        ("two empty lines before", [raw(b"\r\n\r\n"), get("")].concat(), Dropped),
        ("a bare carriage return", get("X: a\rb\r\n"), Status(400)),
        ("a bare carriage return before", [raw(b"\r"), get("")].concat(), Status(400)),
        ("a null in a value", get("X: a\0b\r\n"), Status(400)),
        ("an escape in the target", target(b"/\x1b[31m"), Status(400)),
        ("a folded line", get("X: a\r\n b\r\n"), Status(400)),
        (
            "a space before the first header",
            raw(b"GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
            Status(400),
        ),
        ("a space before a colon", get("X : a\r\n"), Status(400)),
        ("no colon", get("X\r\n"), Status(400)),
        ("no header name", get(": a\r\n"), Status(400)),
        ("a header name beyond ASCII", get("X\u{e9}: a\r\n"), Status(400)),
        ("no version of HTTP", line("GET /"), Dropped),
        ("HTTP/2", line("GET / HTTP/2.0"), Dropped),
        ("HTTP/1.2", line("GET / HTTP/1.2"), Dropped),
        ("HTTP in lower case", line("GET / http/1.1"), Dropped),
        ("the preface of HTTP/2", raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Dropped),
        ("two spaces", line("GET  / HTTP/1.1"), Status(400)),
        ("a space in the target", line("GET /a b HTTP/1.1"), Status(400)),
        ("a space after the version", line("GET / HTTP/1.1 "), Dropped),
        ("no method", line(" / HTTP/1.1"), Status(400)),
        ("a method that is no token", line("G(T / HTTP/1.1"), Status(400)),
        ("a greeting of another protocol", raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), Dropped),
        ("a target of broken UTF-8", target(b"/\xff"), Status(400)),
        // Well-formed HTTP that is refused.
        ("a target beyond ASCII", target("/\u{e9}".as_bytes()), Status(400)),
        ("a fragment in the target", target(b"/#top"), Status(400)),
        ("a target without a slash", target(b"index.html"), Status(400)),
        ("the asterisk form of another method", line("GET * HTTP/1.1"), Status(400)),
        ("the authority form", line("CONNECT a:80 HTTP/1.1"), Status(400)),
        ("absolute form of another host", line("GET http://b/ HTTP/1.1"), Status(403)),
        ("absolute form of another scheme", line("GET https://a/ HTTP/1.1"), Status(400)),
        ("absolute form with a user", line("GET http://u@a/ HTTP/1.1"), Status(400)),
        ("absolute form without Host", raw(b"GET http://a/ HTTP/1.1\r\n\r\n"), Status(400)),
        ("absolute form without a host", upgrade("GET http:/// HTTP/1.1", &["Host:"]), Status(400)),
        ("a target beyond 2 KiB", target_of(2049), Status(414)),
        ("beyond 16 KiB", filled_to(16_385), Status(431)),
        ("far beyond 16 KiB", filled_to(60_000), Status(431)),
        ("65 headers", headers(65), Status(431)),
        ("no host", host(""), Status(400)),
        ("two hosts", host("Host: a\r\nHost: a\r\n"), Status(400)),
        ("an empty host", host("Host:\r\n"), Status(400)),
        ("a host with a user", host("Host: u@a\r\n"), Status(400)),
        ("a host with a path", host("Host: a/b\r\n"), Status(400)),
        ("a list of hosts", host("Host: a,b\r\n"), Status(400)),
        ("a host with a space", host("Host: a b\r\n"), Status(400)),
        ("a host beyond ASCII", host("Host: \u{e9}\r\n"), Status(400)),
        ("a host with a tag", host("Host: <a>\r\n"), Status(400)),
        ("a port that is no number", host("Host: a:b\r\n"), Status(400)),
        ("two ports", host("Host: a:1:2\r\n"), Status(400)),
        ("a port alone", host("Host: :80\r\n"), Status(400)),
        ("an open bracket", host("Host: [::1\r\n"), Status(400)),
        ("a bracket in a name", host("Host: a]\r\n"), Status(400)),
        ("a host with a port", host("Host: a:8080\r\n"), Status(200)),
        ("another host name", host("Host: a.example:8080\r\n"), Status(403)),
        (
            "a page of another origin, which may load files",
            get("Origin: http://b\r\n"),
            Status(200),
        ),
        (
            "an upgrade by a page of another origin",
            upgrade_with(&[HOST, "Origin: http://b", CONNECTION, UPGRADE, VERSION, KEY]),
            Status(403),
        ),
        ("an IPv6 host with a port", host("Host: [::1]:8080\r\n"), Status(200)),
        // The body is not read, and the connection is closed after the response.
        ("chunks", get("Transfer-Encoding: chunked\r\n"), Status(200)),
        (
            "an upgrade with chunks",
            upgrade_with(&[HOST, CONNECTION, UPGRADE, VERSION, KEY, "Transfer-Encoding: chunked"]),
            Status(400),
        ),
        ("another coding", get("Transfer-Encoding: gzip\r\n"), Status(400)),
        (
            "chunks and a length",
            get("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"),
            Status(400),
        ),
        ("a GET with a body", get("Content-Length: 3\r\n"), Status(400)),
        ("two lengths", get("Content-Length: 0\r\nContent-Length: 0\r\n"), Status(400)),
        ("a list of lengths", get("Content-Length: 0, 0\r\n"), Status(400)),
        ("a signed length", get("Content-Length: +0\r\n"), Status(400)),
        ("a negative length", get("Content-Length: -1\r\n"), Status(400)),
        ("a length in hex", get("Content-Length: 0x0\r\n"), Status(400)),
        ("an empty length", get("Content-Length:\r\n"), Status(400)),
        ("a length of 20 digits", get("Content-Length: 00000000000000000000\r\n"), Status(400)),
        ("Accept beyond ASCII", get("Accept: \u{e9}\r\n"), Status(400)),
        ("Connection beyond ASCII", get("Connection: \u{e9}\r\n"), Status(400)),
        // Methods.
        ("a POST", line("POST / HTTP/1.1"), Status(405)),
        ("a POST to an unknown path", line("POST /nothing HTTP/1.1"), Status(404)),
        ("an unknown method", line("BREW / HTTP/1.1"), Status(405)),
        ("a method in lower case", line("get / HTTP/1.1"), Status(405)),
    ]
}

/// The request that shows that a kept connection continues right after the response.
const LAST_REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

#[test]
fn a_head_is_refused_by_its_16385th_byte_and_not_before() {
    let falconet = Falconet::start(&[]);
    let canaries = Canaries::start(falconet.address());
    let filled = |length: usize| {
        let head = handshake("/");
        let rest = length - head.len() - "Filler: \r\n".len();
        head.replacen("\r\n\r\n", &format!("\r\nFiller: {}\r\n\r\n", "x".repeat(rest)), 1)
    };
    let mut whole = connect(falconet.address());
    whole.write_all(filled(16_384).as_bytes()).unwrap();
    assert!(read_response_head(&mut whole).starts_with("HTTP/1.1 101 "));

    // One byte too many, without the end of the head: the server refuses without waiting for more.
    let answer = exchange(falconet.address(), &filled(17_000)[..16_385]);
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let advice =
        "delete the browser's cookies for this host (ports share them), or raise --max-head\n";
    assert!(answer.ends_with(advice), "{answer}");

    let falconet = Falconet::start(&["--reject", "drop"]);
    assert_eq!(exchange(falconet.address(), &filled(17_000)[..16_385]), "");
    canaries.finish();
}
