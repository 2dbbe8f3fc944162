//! The README's examples for proxies, each with the real proxy. Without the proxy a test prints that it is
//! skipped, and passes; with `CI=true` it fails.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

use crate::support::admin::{self, field};
use crate::support::proxy::Proxy;
use crate::support::*;

#[test]
fn the_example_for_nginx_works() {
    // Without this directive nginx keeps events until it has 4 KiB of them.
    let proxied = |example: &str| Proxy::nginx(&format!("proxy_buffering off;\n{example}"));
    check_example("nginx", proxied);
}

#[test]
fn the_example_for_caddy_works() {
    check_example("caddy", Proxy::caddy);
}

#[test]
fn the_example_for_apache_works() {
    check_example("apache", Proxy::apache);
}

#[test]
fn the_example_for_haproxy_works() {
    check_example("haproxy", Proxy::haproxy);
}

/// Checks that WebSockets and event streams of an allowed origin pass the proxy, that each event is passed on
/// at once, and that falconet knows the address of the client.
fn check_example(language: &str, start: impl Fn(&str) -> Option<Proxy>) {
    let (falconet, admin) = admin::start(
        &[&["--trust-proxy", "127.0.0.1", "--origin", "https://example.org"], NO_BROADCAST]
            .concat(),
    );
    let Some(proxy) = start(&example(language, falconet.address())) else { return };
    let page = "Host: example.org\r\nOrigin: https://example.org\r\n";

    let mut stream = connect_from([127, 0, 0, 2], proxy.address());
    let head = handshake_with("/live/", page).replacen("Host: localhost\r\n", "", 1);
    stream.write_all(head.as_bytes()).unwrap();
    let head = read_response_head(&mut stream);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}\n{}", proxy.errors());
    Client { stream }.echo("by a proxy");
    let clients = admin::clients(admin);
    assert_eq!(field(&clients[0], "address"), "\"127.0.0.2\"", "{clients:?}");

    let mut stream = connect_from([127, 0, 0, 3], proxy.address());
    let head = format!("GET /live/topics/t HTTP/1.1\r\nAccept: text/event-stream\r\n{page}\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let head = read_response_head(&mut stream);
    assert_eq!(status_of(&head), 200, "{head}");
    let mut lines = BufReader::new(stream).lines();
    for text in ["first", "second"] {
        assert_eq!(fetch(falconet.address(), post("/topics/t", text)).status(), 202);
        let data = format!("data: {text}");
        assert!(lines.any(|line| line.unwrap() == data), "no {data}");
    }
}

/// Returns the README's example whose code block has this language, for a server at `address`.
fn example(language: &str, address: SocketAddr) -> String {
    let readme = include_str!("../../README.md");
    let (_, block) = readme.split_once(&format!("\n```{language}\n")).unwrap();
    let (example, _) = block.split_once("```").unwrap();
    example.replace("127.0.0.1:8080", &address.to_string())
}

/// Opens a TCP connection from an address of this host. Its reads fail after [`TIMEOUT`].
fn connect_from(source: [u8; 4], address: SocketAddr) -> TcpStream {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddr::from((source, 0))).unwrap();
    connect(&socket, &address).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream
}
