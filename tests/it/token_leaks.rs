//! Tokens are told nobody: by no log, metric, list or page, whichever way they come.

#![cfg(feature = "tls")]

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::version::TLS13;

use crate::support::access::{assert_no_token_leak, basic, bearer};
use crate::support::folder::Folder;
use crate::support::tls::{TlsStream, connect_tls, tls_config};
use crate::support::*;

/// A token that nothing else looks like.
const MARKER: &str = "MARKER-90d2";
/// The token of who looks whether it is told.
const OVERSEER: &str = "OVERSEER-1c44";

/// A way into a server.
struct Door {
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
}

enum Wire {
    Plain(std::net::TcpStream),
    Secure(Box<TlsStream>),
}

impl Door {
    /// Asks on a connection of its own, and reads until what has come has `end` in it, or all is said.
    fn ask(&self, request: &[u8], end: &str) -> (String, Wire) {
        let mut wire = match &self.tls {
            None => Wire::Plain(connect(self.address)),
            Some(config) => Wire::Secure(Box::new(connect_tls(self.address, config).unwrap())),
        };
        let stream = wire.stream();
        stream.write_all(request).unwrap();
        let mut answer = Vec::new();
        let mut piece = [0; 4096];
        while !String::from_utf8_lossy(&answer).contains(end) {
            match stream.read(&mut piece) {
                Ok(0) | Err(_) => break,
                Ok(length) => answer.extend_from_slice(&piece[..length]),
            }
        }
        (String::from_utf8(answer).unwrap(), wire)
    }
}

trait Duplex: Read + Write {}
impl<S: Read + Write> Duplex for S {}

impl Wire {
    fn stream(&mut self) -> &mut dyn Duplex {
        match self {
            Self::Plain(stream) => stream,
            Self::Secure(stream) => stream,
        }
    }
}

/// The doors of a server, as its log names them: the public ones, and the administrator's.
fn doors(falconet: &Falconet, state: &Path) -> Vec<Door> {
    falconet.wait_for_line("administration on ");
    let is_of_door = |line: &&String| line.contains("tening on ") || line.contains("tration on ");
    let door = |line: &String| {
        let (scheme, rest) = line.split_once("://127.0.0.1:").unwrap();
        let port = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap();
        let certificate = state.join("tls-cert.pem");
        let tls = scheme.ends_with("https").then(|| tls_config(&certificate, &TLS13));
        Door { address: SocketAddr::from(([127, 0, 0, 1], port)), tls }
    };
    falconet.log_so_far().iter().filter(is_of_door).map(door).collect()
}

/// A path and lines that show a token.
type Way = fn(path: &str, token: &str) -> (String, String);

const WAYS: [Way; 4] = [
    |path, token| (path.to_owned(), bearer(token)),
    |path, token| (path.to_owned(), basic(&format!("me:{token}"))),
    |path, token| {
        (path.to_owned(), format!("Sec-WebSocket-Protocol: falconet, bearer.{token}\r\n"))
    },
    |path, token| (format!("{path}?token={token}"), String::new()),
];

/// Asks for all kinds of things with a token, and sees that it is in no answer. What is still open is
/// returned.
fn ask_for_everything(doors: &[Door], way: Way, token: &str) -> Vec<Wire> {
    let [public @ .., admin] = doors else { panic!("there are doors") };
    let mut open = Vec::new();
    let mut ask = |door: &Door, method: &str, path: &str, end: &str| {
        let (path, lines) = way(path, token);
        let request = match method {
            "upgrade" => handshake_with(&path, &lines).into_bytes(),
            _ => request(method, &path, &format!("Connection: close\r\n{lines}"), ""),
        };
        let (answer, wire) = door.ask(&request, end);
        assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
        assert!(!answer.contains(MARKER), "{answer}");
        open.push(wire);
    };
    for door in public {
        for path in ["/", "/topics/news"] {
            ask(door, "upgrade", path, "\r\n\r\n");
        }
        ask(door, "POST", "/topics/news", "never");
    }
    ask(admin, "GET", "/events", "event: stats");
    ask(admin, "GET", "/clients", "never");
    ask(admin, "DELETE", "/clients/12345", "never");
    ask(admin, "POST", "/broadcast", "never");
    open
}

#[cfg(feature = "full")]
#[test]
fn a_token_is_told_nobody_whichever_way_it_comes() {
    let folder = Folder::new("token-leaks");
    let tokens = folder.write("tokens", &format!("{MARKER}\n{OVERSEER} admin\n"));
    let wrong = format!("{MARKER}-wrong");
    for (format, admin) in [("text", "http"), ("logfmt", "https"), ("json", "https")] {
        for way in WAYS {
            for token in [MARKER, &wrong] {
                // Each a server of its own, for no more than ten lines of a kind are written in a second.
                let falconet = Falconet::start_with(
                    Falconet::command()
                        .args(["--listen", "http://127.0.0.1:0", "--listen", "https://127.0.0.1:0"])
                        .args(["--admin", &format!("{admin}://127.0.0.1:0"), "--tls-self-signed"])
                        .args(["--state-dir".as_ref(), folder.path.as_os_str()])
                        .args(["--token-file", &tokens, "--allow-query-token"])
                        .args(["--log-level", "debug", "--log-format", format]),
                );
                let doors = doors(&falconet, &folder.path);
                assert_eq!(doors.len(), 3);
                let open = ask_for_everything(&doors, way, token);
                for (path, end, part) in [
                    ("/clients", "never", "200 OK"),
                    ("/metrics", "never", "falconet_connections"),
                    ("/events", "event: stats", "data: "),
                    ("/topics/", "never", "200 OK"),
                    ("/", "never", "<title>"),
                ] {
                    let lines = format!("Connection: close\r\n{}", bearer(OVERSEER));
                    let (told, _) = doors[2].ask(&request("GET", path, &lines, ""), end);
                    assert!(told.contains(part) && !told.contains(MARKER), "{path}: {told}");
                    if path == "/clients" {
                        let clients = told.matches("\"kind\":\"websocket\"").count();
                        assert_eq!(clients, if token == MARKER { 4 } else { 0 }, "{told}");
                    }
                }
                drop(open);
                // Every line is there, and was written.
                fetch(doors[0].address, request("GET", "/", "X-Request-Id: the-last\r\n", ""));
                falconet.wait_for_line("the-last");
                assert!(!falconet.log_so_far().iter().any(|line| line.contains("suppressed")));
                assert_no_token_leak(&falconet, MARKER);
            }
        }
    }
}
