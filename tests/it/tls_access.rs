//! Access control over TLS: tokens, proxies, and peers that do not speak TLS.

#![cfg(feature = "tls")]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use base64ct::{Base64, Encoding};
use rustls::pki_types::ServerName;
use rustls::{ALL_VERSIONS, ClientConfig, ClientConnection};

use crate::support::folder::Folder;
use crate::support::tls::{TlsServer, TlsStream, connect_tls_over, tls_config_of};
use crate::support::*;

/// A server that speaks TLS, the address of its administrator, and the configuration of its clients.
struct TlsServerWithAdmin {
    falconet: Falconet,
    admin: SocketAddr,
    config: Arc<ClientConfig>,
    _folder: Folder,
}

impl TlsServerWithAdmin {
    fn start(name: &str, flags: &[&str]) -> Self {
        let folder = Folder::new(name);
        let tls = ["--listen", "https://127.0.0.1:0", "--tls-self-signed", "--state-dir"];
        let admin = ["--admin", "http://127.0.0.1:0", "--broadcast-every", "0"];
        let mut command = Falconet::command();
        let falconet =
            Falconet::start_with(command.args(tls).arg(&folder.path).args(admin).args(flags));
        let line = falconet.wait_for_line("administration on ");
        let admin = line.split("administration on http://").nth(1).unwrap().parse().unwrap();
        let config = tls_config_of(&folder.file("ca.pem"), ALL_VERSIONS);
        Self { falconet, admin, config, _folder: folder }
    }

    /// Sends `header` in pieces, and then completes a TLS handshake.
    fn connect_after(&self, header: &[u8], piece_bytes: usize) -> std::io::Result<TlsStream> {
        let mut stream = connect(self.falconet.address());
        for piece in header.chunks(piece_bytes) {
            stream.write_all(piece)?;
        }
        connect_tls_over(stream, &self.config)
    }

    fn connect(&self) -> TlsStream {
        self.connect_after(b"", 1).unwrap()
    }

    /// Sends a handshake for `target` with more header `lines`. Returns the head of the response and the client.
    fn upgrade(&self, target: &str, lines: &str) -> (String, Client<TlsStream>) {
        let mut stream = self.connect();
        let head = handshake_with(target, lines);
        stream.write_all(head.as_bytes()).unwrap();
        (read_response_head(&mut stream), Client { stream })
    }

    /// Returns how many connections were rejected for `reason`.
    fn rejected(&self, reason: &str) -> u32 {
        let page = fetch(self.admin, get("/metrics"));
        let sample = format!("\nfalconet_connections_rejected_total{{reason=\"{reason}\"}} ");
        let value = page.text().split(&sample).nth(1).unwrap();
        value.lines().next().unwrap().parse().unwrap()
    }
}

#[cfg(feature = "full")]
#[test]
fn a_token_is_accepted_over_tls_in_each_form() {
    let tokens = Folder::new("tls-tokens");
    let file = tokens.write("tokens", "secret\nreader subscribe\n");
    let flags = ["--token-file", &file, "--allow-query-token"];
    let server = TlsServerWithAdmin::start("tls-ways", &flags);
    let basic = |password: &str| {
        format!("Authorization: Basic {}\r\n", Base64::encode_string(password.as_bytes()))
    };
    let protocol = |token: &str| format!("Sec-WebSocket-Protocol: falconet, bearer.{token}\r\n");
    for (target, lines) in [
        ("/topics/a", "Authorization: Bearer secret\r\n".to_owned()),
        ("/topics/a", basic("anna:secret")),
        ("/topics/a", protocol("secret")),
        ("/topics/a?token=secret", String::new()),
    ] {
        let (head, mut client) = server.upgrade(target, &lines);
        assert_eq!(status_of(&head), 101, "{lines}");
        let protocol_of_response = header_of(&head, "Sec-WebSocket-Protocol");
        assert_eq!(
            protocol_of_response,
            lines.contains("bearer.").then_some("falconet"),
            "{lines}"
        );
        client.send(true, TEXT, "21.5");
        assert_eq!(client.read().text(), "21.5");
    }
    for (target, lines, status) in [
        ("/topics/a", String::new(), 401),
        ("/topics/a", basic("anna:wrong"), 401),
        ("/topics/a?token=wrong", String::new(), 401),
        ("/topics/a?mode=in", protocol("reader"), 403),
    ] {
        assert_eq!(status_of(&server.upgrade(target, &lines).0), status, "{target} {lines}");
    }
    let leaks = |line: &String| line.contains("secret");
    assert!(!server.falconet.log_so_far().iter().any(leaks));
}

#[cfg(feature = "full")]
#[test]
fn a_trusted_proxy_names_its_client_before_the_tls_handshake() {
    let flags = ["--trust-proxy", "127.0.0.1", "--proxy-protocol"];
    let server = TlsServerWithAdmin::start("tls-proxy", &flags);
    let text = b"PROXY TCP4 192.0.2.1 127.0.0.1 4711 443\r\n".to_vec();
    let binary = [
        &b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..],
        &[192, 0, 2, 2, 127, 0, 0, 1, 0x12, 0x67, 1, 0xbb],
    ]
    .concat();
    for (header, address) in [(&text, "192.0.2.1:4711"), (&binary, "192.0.2.2:4711")] {
        for piece_bytes in [header.len(), 1] {
            let mut stream = server.connect_after(header, piece_bytes).unwrap();
            stream.write_all(handshake("/").as_bytes()).unwrap();
            assert_eq!(status_of(&read_response_head(&mut stream)), 101);
            let mut client = Client { stream };
            client.echo("hello");
            let list = fetch(server.admin, get("/clients"));
            let named = format!("\"address\":\"{address}\"");
            assert!(list.text().contains(&named), "{}", list.text());
            client.send(true, CLOSE, 1000_u16.to_be_bytes());
            assert_eq!(client.read_to_close(), Some(1000));
            let line = server.falconet.wait_for_line("connection ended");
            assert!(line.contains(&format!(" address={address} ")), "{line}");
        }
    }
    // Header and ClientHello in one packet.
    let name = ServerName::try_from("localhost").unwrap();
    let mut connection = ClientConnection::new(server.config.clone(), name).unwrap();
    let mut together = text.clone();
    connection.write_tls(&mut together).unwrap();
    let mut raw = connect(server.falconet.address());
    raw.write_all(&together).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut raw).unwrap();
    }
    // A connection without the header is dropped and counted.
    assert!(server.connect_after(b"", 1).is_err());
    assert_eq!((server.rejected("proxy"), server.rejected("tls")), (1, 0));
}

#[cfg(feature = "full")]
#[test]
fn a_proxy_header_of_an_untrusted_peer_fails_the_tls_handshake() {
    let server =
        TlsServerWithAdmin::start("tls-wary", &["--trust-proxy", "unix", "--proxy-protocol"]);
    server.connect();
    let text = &b"PROXY TCP4 192.0.2.1 127.0.0.1 4711 443\r\n"[..];
    let binary = &b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"[..];
    assert!(server.connect_after(text, text.len()).is_err());
    assert!(server.connect_after(binary, binary.len()).is_err());
    wait_until("both failures are counted", || server.rejected("tls") == 2);
    assert_eq!(server.rejected("proxy"), 0);
}

/// The header with which a proxy names a client.
fn proxied(client: &str) -> Vec<u8> {
    format!("PROXY TCP4 {client} 127.0.0.1 4711 443\r\n").into_bytes()
}

/// The header with which a proxy begins a connection of its own.
const OWN_CONNECTION: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

#[cfg(feature = "full")]
#[test]
fn clients_behind_one_address_that_connect_together_get_in_at_the_rate_of_handshakes() {
    let proxy = ["--trust-proxy", "127.0.0.1", "--proxy-protocol"];
    let flags = [&proxy[..], &["--max-handshake-rate", "4"]].concat();
    let server = TlsServerWithAdmin::start("tls-crowd", &flags);
    let begin = Instant::now();
    std::thread::scope(|scope| {
        let (address, config) = (server.falconet.address(), &server.config);
        let join = move || {
            let mut stream = connect(address);
            stream.write_all(&proxied("192.0.2.1")).unwrap();
            connect_tls_over(stream, config).is_ok()
        };
        let crowd: Vec<_> = (0..8).map(|_| scope.spawn(join)).collect();
        assert!(crowd.into_iter().all(|client| client.join().unwrap()));
    });
    // Four at once, and four within the next second.
    assert!(begin.elapsed().as_millis() >= 990, "{:?}", begin.elapsed());
    assert_eq!(server.rejected("address"), 0);
}

#[cfg(feature = "full")]
#[test]
fn a_handshake_that_would_be_late_is_dropped_and_those_of_other_addresses_are_not() {
    let proxy = ["--trust-proxy", "127.0.0.1", "--proxy-protocol", "--tls-timeout", "1s"];
    let flags = [&proxy[..], &["--max-handshake-rate", "1"]].concat();
    let server = TlsServerWithAdmin::start("tls-late", &flags);
    assert!(server.connect_after(&proxied("192.0.2.1"), usize::MAX).is_ok());
    assert!(server.connect_after(&proxied("192.0.2.1"), usize::MAX).is_err());
    server.falconet.wait_for_line("too many TLS handshakes from one address");
    assert_eq!((server.rejected("address"), server.rejected("tls")), (1, 0));
    assert!(server.connect_after(&proxied("192.0.2.2"), usize::MAX).is_ok());
    for _ in 0..3 {
        let own = server.connect_after(OWN_CONNECTION, usize::MAX);
        assert!(own.is_ok(), "a trusted proxy is exempt");
    }
    let direct = TlsServerWithAdmin::start("tls-local", &["--max-handshake-rate", "1"]);
    for _ in 0..3 {
        assert!(direct.connect_after(b"", 1).is_ok(), "this host is exempt");
    }
}

#[cfg(feature = "full")]
#[test]
fn a_full_server_does_no_handshake_above_the_rate_to_say_that_it_is_full() {
    let proxy = ["--trust-proxy", "127.0.0.1", "--proxy-protocol", "--max-per-address", "1"];
    let flags = [&proxy[..], &["--max-handshake-rate", "1", "--tls-timeout", "60s"]].concat();
    let server = TlsServerWithAdmin::start("tls-no-room", &flags);
    let connect = || server.connect_after(&proxied("192.0.2.1"), usize::MAX);
    let _inside = connect().unwrap();
    assert!(connect().is_err(), "without a handshake there is no answer");
    assert_eq!(server.rejected("address"), 1);
}

#[cfg(feature = "full")]
#[test]
fn an_absolute_target_on_a_tls_port_begins_with_https() {
    let server = TlsServer::start("tls-absolute", &[]);
    for (target, wanted) in [
        ("https://localhost/", 200),
        ("HTTPS://LOCALHOST:443", 200),
        ("http://localhost/", 400),
        ("https://user@localhost/", 400),
    ] {
        for origin in ["", "Origin: https://localhost\r\n"] {
            let mut stream = server.connect();
            let head = format!("GET {target} HTTP/1.1\r\nHost: rebound.example\r\n{origin}\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            let status = status_of(&read_response_head(&mut stream));
            assert_eq!(status, wanted, "{target} {origin}");
        }
    }
}

#[cfg(feature = "full")]
#[test]
fn failed_tls_handshakes_are_counted() {
    let server = TlsServerWithAdmin::start("tls-counted", &["--tls-timeout", "300ms"]);
    let address = server.falconet.address();
    assert_eq!(status_of(&exchange(address, get("/"))), 400);
    assert_eq!(server.rejected("tls"), 1);
    let mut garbage = connect(address);
    garbage.write_all(&[0xff; 100]).unwrap();
    rest_of(garbage);
    assert_eq!(server.rejected("tls"), 2);
    let mut stalled = connect(address);
    stalled.write_all(&[0x16, 3, 1, 0, 200, 1, 0]).unwrap();
    rest_of(stalled);
    assert_eq!(server.rejected("tls"), 3);
    // The handshake is complete, but no request follows.
    let mut silent = server.connect();
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    assert_eq!((server.rejected("tls"), server.rejected("timeout")), (3, 1));
    let mut wrong = server.connect();
    wrong.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(status_of(&read_response_head(&mut wrong)), 400);
    assert_eq!((server.rejected("tls"), server.rejected("head")), (3, 1));
}

#[cfg(feature = "full")]
#[test]
fn a_peer_that_breaks_the_protocol_gets_the_alert_although_it_keeps_sending() {
    let server = TlsServerWithAdmin::start("tls-alert", &[]);
    let mut stream = connect(server.falconet.address());
    stream.write_all(&[0x16, 3, 1, 0, 4, 1, 0, 0, 0]).unwrap();
    stream.write_all(&vec![0x16; 5_000_000]).unwrap();
    // An alert is a record of type 21 (RFC 8446 §5.1).
    assert_eq!(rest_of(stream).first(), Some(&21));
}

#[cfg(feature = "full")]
#[test]
fn a_connection_above_the_limit_gets_no_plain_text_on_a_tls_port() {
    let server = TlsServerWithAdmin::start("tls-full", &["--max-connections", "1"]);
    let (head, mut inside) = server.upgrade("/", "");
    assert_eq!(status_of(&head), 101);
    let _others: Vec<_> = (0..LOCAL_PLACES).map(|_| server.upgrade("/", "")).collect();
    for hello in [&b""[..], &[0x16, 3, 1, 0, 200, 1, 0]] {
        let mut stream = connect(server.falconet.address());
        // The server may have closed the connection already.
        let _ = stream.write_all(hello);
        let _ = stream.shutdown(Shutdown::Write);
        assert_eq!(
            rest_of(stream),
            b"",
            "the stream ends without a response, because there is no TLS session"
        );
    }
    assert_eq!(server.rejected("connections"), 2);
    inside.echo("still here");
}
