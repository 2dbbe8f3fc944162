//! Tokens never appear in a log, metric, list or page, in whatever form a client sends them.

#![cfg(feature = "tls")]

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::version::TLS13;

use crate::support::access::{assert_no_token_leak, basic, bearer};
use crate::support::folder::Folder;
use crate::support::tls::{TlsStream, connect_tls, tls_config};
use crate::support::*;

/// A token that occurs nowhere else.
const MARKER: &str = "MARKER-90d2";
/// The token of the administrator that searches for the marker.
const OVERSEER: &str = "OVERSEER-1c44";

/// An address of a server, and the TLS configuration if it speaks TLS.
struct Listener {
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
}

enum Wire {
    Plain(std::net::TcpStream),
    Secure(Box<TlsStream>),
}

impl Listener {
    /// Sends a request on a new connection, and reads until the response contains `end` or the stream ends.
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
                Ok(0) => break,
                Ok(length) => answer.extend_from_slice(&piece[..length]),
                Err(error) => {
                    assert_ne!(error.kind(), ErrorKind::WouldBlock, "the stream does not end");
                    break;
                }
            }
        }
        // A WebSocket frame may follow the response.
        (String::from_utf8_lossy(&answer).into_owned(), wire)
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

/// Returns the listeners of a server from its log: the public ones, then the administrator's.
fn listeners(falconet: &Falconet, state: &Path) -> Vec<Listener> {
    falconet.wait_for_line("administration on ");
    let is_of_listener =
        |line: &&String| line.contains("tening on ") || line.contains("tration on ");
    let listener = |line: &String| {
        let (scheme, rest) = line.split_once("://127.0.0.1:").unwrap();
        let port = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap();
        let certificate = state.join("ca.pem");
        let tls = scheme.ends_with("https").then(|| tls_config(&certificate, &TLS13));
        Listener { address: SocketAddr::from(([127, 0, 0, 1], port)), tls }
    };
    falconet.log_so_far().iter().filter(is_of_listener).map(listener).collect()
}

/// A function that returns the path and the header lines with which a client sends a token in one form.
type Form = fn(path: &str, token: &str) -> (String, String);

const FORMS: [Form; 4] = [
    |path, token| (path.to_owned(), bearer(token)),
    |path, token| (path.to_owned(), basic(&format!("me:{token}"))),
    |path, token| {
        (path.to_owned(), format!("Sec-WebSocket-Protocol: falconet, bearer.{token}\r\n"))
    },
    |path, token| (format!("{path}?token={token}"), String::new()),
];

/// Sends all kinds of requests with a token, and checks that no response contains the token. Returns the
/// connections that are still open.
fn send_all_kinds(listeners: &[Listener], form: Form, token: &str) -> Vec<Wire> {
    let [public @ .., admin] = listeners else { panic!("the server has no listeners") };
    let mut open = Vec::new();
    let mut ask = |listener: &Listener, method: &str, path: &str, end: &str| {
        let (path, lines) = form(path, token);
        let request = match method {
            "upgrade" => handshake_with(&path, &lines).into_bytes(),
            _ => request(method, &path, &format!("Connection: close\r\n{lines}"), ""),
        };
        let (answer, wire) = listener.ask(&request, end);
        assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
        assert!(!answer.contains(MARKER), "{answer}");
        open.push(wire);
    };
    for listener in public {
        for path in ["/", "/topics/news"] {
            ask(listener, "upgrade", path, "\r\n\r\n");
        }
        ask(listener, "POST", "/topics/news", "never");
    }
    ask(admin, "GET", "/events", "event: stats");
    ask(admin, "GET", "/clients", "never");
    ask(admin, "DELETE", "/clients/12345", "never");
    ask(admin, "POST", "/broadcast", "never");
    open
}

#[cfg(feature = "full")]
#[test]
fn a_token_leaks_nowhere_in_whatever_form_it_is_sent() {
    let folder = Folder::new("token-leaks");
    let tokens = folder.write("tokens", &format!("{MARKER}\n{OVERSEER} admin\n"));
    let wrong = format!("{MARKER}-wrong");
    for (format, admin) in [("text", "http"), ("logfmt", "https"), ("json", "https")] {
        for form in FORMS {
            for token in [MARKER, &wrong] {
                // Each case has its own server, because only ten lines of a kind are logged in a second.
                let falconet = Falconet::start_with(
                    Falconet::command()
                        .args(["--listen", "http://127.0.0.1:0", "--listen", "https://127.0.0.1:0"])
                        .args(["--admin", &format!("{admin}://127.0.0.1:0"), "--tls-self-signed"])
                        .args(["--state-dir".as_ref(), folder.path.as_os_str()])
                        .args(["--token-file", &tokens, "--allow-query-token"])
                        .args(["--log-level", "debug", "--log-format", format]),
                );
                let listeners = listeners(&falconet, &folder.path);
                assert_eq!(listeners.len(), 3);
                let open = send_all_kinds(&listeners, form, token);
                for (path, end, part) in [
                    ("/clients", "never", "200 OK"),
                    ("/metrics", "never", "falconet_connections"),
                    ("/events", "event: stats", "data: "),
                    ("/topics/", "never", "200 OK"),
                    ("/", "never", "<title>"),
                ] {
                    let lines = format!("Connection: close\r\n{}", bearer(OVERSEER));
                    let (answer, _) = listeners[2].ask(&request("GET", path, &lines, ""), end);
                    assert!(answer.contains(part) && !answer.contains(MARKER), "{path}: {answer}");
                    if path == "/clients" {
                        let clients = answer.matches("\"kind\":\"websocket\"").count();
                        assert_eq!(clients, if token == MARKER { 4 } else { 0 }, "{answer}");
                    }
                }
                drop(open);
                // The log is complete up to this request, and nothing was suppressed.
                fetch(listeners[0].address, request("GET", "/", "X-Request-Id: the-last\r\n", ""));
                falconet.wait_for_line("the-last");
                assert!(!falconet.log_so_far().iter().any(|line| line.contains("suppressed")));
                assert_no_token_leak(&falconet, MARKER);
            }
        }
    }
}
