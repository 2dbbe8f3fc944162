//! Who is let in where TLS is spoken: tokens, proxies, and those who don't speak it.

#![cfg(feature = "tls")]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;

use base64ct::{Base64, Encoding};
use rustls::pki_types::ServerName;
use rustls::{ALL_VERSIONS, ClientConfig, ClientConnection};

use crate::support::folder::Folder;
use crate::support::tls::{TlsStream, connect_tls_over, tls_config_of};
use crate::support::*;

/// A falconet that speaks TLS, its administrator, and who trusts the certificate it signed for itself.
struct Guarded {
    falconet: Falconet,
    admin: SocketAddr,
    config: Arc<ClientConfig>,
    _folder: Folder,
}

impl Guarded {
    fn start(name: &str, flags: &[&str]) -> Self {
        let folder = Folder::new(name);
        let tls = ["--listen", "https://127.0.0.1:0", "--tls-self-signed", "--state-dir"];
        let admin = ["--admin", "http://127.0.0.1:0", "--broadcast-every", "0"];
        let mut command = Falconet::command();
        let falconet =
            Falconet::start_with(command.args(tls).arg(&folder.path).args(admin).args(flags));
        let line = falconet.wait_for_line("administration on ");
        let admin = line.split("administration on http://").nth(1).unwrap().parse().unwrap();
        let config = tls_config_of(&folder.file("tls-cert.pem"), ALL_VERSIONS);
        Self { falconet, admin, config, _folder: folder }
    }

    /// A TLS connection over one that has begun with `header`, byte by byte if they are to come so.
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

    /// What the handshake at `target` with more `lines` is answered, and what the stream is then.
    fn upgrade(&self, target: &str, lines: &str) -> (String, Client<TlsStream>) {
        let mut stream = self.connect();
        let head = handshake_with(target, lines);
        stream.write_all(head.as_bytes()).unwrap();
        (read_response_head(&mut stream), Client { stream })
    }

    /// How many connections were rejected for `reason`.
    fn rejected(&self, reason: &str) -> u32 {
        let page = fetch(self.admin, get("/metrics"));
        let sample = format!("\nfalconet_connections_rejected_total{{reason=\"{reason}\"}} ");
        let value = page.text().split(&sample).nth(1).unwrap();
        value.lines().next().unwrap().parse().unwrap()
    }
}

/// All that comes to the end of a raw connection.
fn rest_of(mut stream: TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    rest
}

#[cfg(feature = "full")]
#[test]
fn a_token_lets_in_over_tls_in_each_of_its_ways() {
    let tokens = Folder::new("tls-tokens");
    let file = tokens.write("tokens", "secret\nhears subscribe\n");
    let flags = ["--token-file", &file, "--allow-query-token"];
    let guarded = Guarded::start("tls-ways", &flags);
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
        let (head, mut client) = guarded.upgrade(target, &lines);
        assert_eq!(status_of(&head), 101, "{lines}");
        let said = header_of(&head, "Sec-WebSocket-Protocol");
        assert_eq!(said, lines.contains("bearer.").then_some("falconet"), "{lines}");
        client.send(true, TEXT, "21.5");
        assert_eq!(client.read().text(), "21.5");
    }
    for (target, lines, status) in [
        ("/topics/a", String::new(), 401),
        ("/topics/a", basic("anna:wrong"), 401),
        ("/topics/a?token=wrong", String::new(), 401),
        ("/topics/a?mode=in", protocol("hears"), 403),
    ] {
        assert_eq!(status_of(&guarded.upgrade(target, &lines).0), status, "{target} {lines}");
    }
    let telling = |line: &String| line.contains("secret");
    assert!(!guarded.falconet.log_so_far().iter().any(telling));
}

#[cfg(feature = "full")]
#[test]
fn a_trusted_proxy_names_its_client_before_the_tls_handshake() {
    let flags = ["--trust-proxy", "127.0.0.1", "--proxy-protocol"];
    let guarded = Guarded::start("tls-proxy", &flags);
    let text = b"PROXY TCP4 192.0.2.1 127.0.0.1 4711 443\r\n".to_vec();
    let binary = [
        &b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..],
        &[192, 0, 2, 2, 127, 0, 0, 1, 0x12, 0x67, 1, 0xbb],
    ]
    .concat();
    for (header, address) in [(&text, "192.0.2.1:4711"), (&binary, "192.0.2.2:4711")] {
        for piece_bytes in [header.len(), 1] {
            let mut stream = guarded.connect_after(header, piece_bytes).unwrap();
            stream.write_all(handshake("/").as_bytes()).unwrap();
            assert_eq!(status_of(&read_response_head(&mut stream)), 101);
            let mut client = Client { stream };
            client.echo("hello");
            let list = fetch(guarded.admin, get("/clients"));
            let named = format!("\"address\":\"{address}\"");
            assert!(list.text().contains(&named), "{}", list.text());
            client.send(true, CLOSE, 1000_u16.to_be_bytes());
            assert_eq!(client.read_to_close(), Some(1000));
            let line = guarded.falconet.wait_for_line("connection ended");
            assert!(line.contains(&format!(" address={address} ")), "{line}");
        }
    }
    // All in one packet, as it may come.
    let name = ServerName::try_from("localhost").unwrap();
    let mut connection = ClientConnection::new(guarded.config.clone(), name).unwrap();
    let mut together = text.clone();
    connection.write_tls(&mut together).unwrap();
    let mut raw = connect(guarded.falconet.address());
    raw.write_all(&together).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut raw).unwrap();
    }
    // One without it is dropped, and counted.
    assert!(guarded.connect_after(b"", 1).is_err());
    assert_eq!((guarded.rejected("proxy"), guarded.rejected("tls")), (1, 0));
}

#[cfg(feature = "full")]
#[test]
fn who_is_no_trusted_proxy_fails_the_tls_handshake_with_a_header() {
    let guarded = Guarded::start("tls-wary", &["--trust-proxy", "unix", "--proxy-protocol"]);
    guarded.connect();
    let text = &b"PROXY TCP4 192.0.2.1 127.0.0.1 4711 443\r\n"[..];
    let binary = &b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"[..];
    assert!(guarded.connect_after(text, text.len()).is_err());
    assert!(guarded.connect_after(binary, binary.len()).is_err());
    wait_until("both are counted", || guarded.rejected("tls") == 2);
    assert_eq!(guarded.rejected("proxy"), 0);
}

#[cfg(feature = "full")]
#[test]
fn what_is_no_tls_handshake_is_counted_as_that() {
    let guarded = Guarded::start("tls-counted", &["--tls-timeout", "300ms"]);
    let address = guarded.falconet.address();
    assert_eq!(status_of(&exchange(address, get("/"))), 400);
    assert_eq!(guarded.rejected("tls"), 1);
    let mut garbage = connect(address);
    garbage.write_all(&[0xff; 100]).unwrap();
    rest_of(garbage);
    assert_eq!(guarded.rejected("tls"), 2);
    let mut stalled = connect(address);
    stalled.write_all(&[0x16, 3, 1, 0, 200, 1, 0]).unwrap();
    rest_of(stalled);
    assert_eq!(guarded.rejected("tls"), 3);
    // The handshake is done; what is missing is the request.
    let mut silent = guarded.connect();
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    assert_eq!((guarded.rejected("tls"), guarded.rejected("timeout")), (3, 1));
    let mut wrong = guarded.connect();
    wrong.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(status_of(&read_response_head(&mut wrong)), 400);
    assert_eq!((guarded.rejected("tls"), guarded.rejected("head")), (3, 1));
}

#[cfg(feature = "full")]
#[test]
fn who_is_turned_away_where_tls_is_spoken_gets_no_plain_text() {
    let guarded = Guarded::start("tls-full", &["--max-connections", "1"]);
    let (head, mut inside) = guarded.upgrade("/", "");
    assert_eq!(status_of(&head), 101);
    for hello in [&b""[..], &[0x16, 3, 1, 0, 200, 1, 0]] {
        let mut stream = connect(guarded.falconet.address());
        // It may be gone already.
        let _ = stream.write_all(hello);
        let _ = stream.shutdown(Shutdown::Write);
        assert_eq!(rest_of(stream), b"", "an end, as without a handshake nothing can be said");
    }
    assert_eq!(guarded.rejected("connections"), 2);
    inside.echo("still here");
}
